"""The house keeps its rules: small files, one-way doors, what is generated is up to date, every diagnostic is used and told."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import networkx as nx
import pytest

from cimc import errors
from cimc.isa import manual
from docs import errors as errors_page
from docs import schemas

ROOT = Path(__file__).parents[1]
MOST_LINES = 500
MOST_FUNCTION_LINES = 50  # of body and docstring; 40 is the aim

# Paths of the machines the project was written on, and unfinished work.
BANNED = (
    r"(?<![\w.])/(?:work|home|root)/\w",
    r"\.\./shared",
    r"\bTODO\b|\bFIXME\b|\bXXX\b",
    r"\bNotImplementedError\(",
)
HIDING = (r"# type: ignore", r"# pyright: basic|# pyright: ignore(?!\[)", r"# ruff: noqa|# noqa(?!: [A-Z])")
BROAD = re.compile(r"^\s*except(?: Exception| BaseException)?(?: as \w+)?:", re.M)
TEXTS = ("*.py", "*.md", "*.toml", "*.yaml", "*.cim", "*.lark", "*.json", "Makefile")


def files(*patterns: str) -> list[Path]:
    """Files of the project (not of environments, caches and output) that match."""
    places = [ROOT / p for p in ("cimc", "docs", "isa", "models", "tests", "benchmarks")]
    found = [f for place in places for pattern in patterns for f in place.rglob(pattern)]
    found += [f for pattern in patterns for f in ROOT.glob(pattern)]
    return sorted(f for f in found if "__pycache__" not in f.parts and f != Path(__file__))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


SOURCES = files("*.py")
PACKAGE = [f for f in SOURCES if f.is_relative_to(ROOT / "cimc")]


def test_there_is_a_house_to_check() -> None:
    assert len(PACKAGE) > 100


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def test_files_are_short() -> None:
    assert {name(f): n for f in SOURCES if (n := len(read(f).splitlines())) > MOST_LINES} == {}


def test_functions_are_short() -> None:
    long: dict[str, int] = {}
    for path in PACKAGE:
        for f in ast.walk(ast.parse(read(path))):
            if isinstance(f, ast.FunctionDef) and (f.end_lineno or 0) - f.body[0].lineno >= MOST_FUNCTION_LINES:
                long[f"{name(path)}: {f.name}"] = (f.end_lineno or 0) - f.body[0].lineno + 1
    assert long == {}


def test_no_banned_words() -> None:
    found = {name(f): m for f in files(*TEXTS) if (m := re.findall("|".join(BANNED), read(f)))}
    assert found == {}


def test_nothing_hides_what_checkers_say() -> None:
    found = {name(f): m for f in PACKAGE if (m := re.findall("|".join(HIDING), read(f)))}
    assert found == {}


def test_no_broad_excepts() -> None:
    """The command line's last resort, which tells a bug as one, is the only one."""
    assert {name(f) for f in PACKAGE if BROAD.search(read(f))} == {"cimc/cli/main.py"}


@pytest.mark.parametrize("path", [f for f in PACKAGE if f.name == "__init__.py"], ids=name)
def test_packages_only_re_export(path: Path) -> None:
    tree = ast.parse(read(path))
    if path == ROOT / "cimc" / "__init__.py":  # lazily: importing cimc must cost nothing
        tree.body = [n for n in tree.body if not (isinstance(n, ast.FunctionDef) and n.name == "__getattr__")]
    for statement in tree.body:
        docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        guarded = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
        names = isinstance(statement, ast.Assign) and isinstance(statement.value, ast.List | ast.Dict | ast.Tuple)
        assert docstring or guarded or names or isinstance(statement, ast.Import | ast.ImportFrom), ast.unparse(
            statement
        )


def test_modules_say_what_they_are() -> None:
    trees = {name(f): ast.parse(read(f)) for f in PACKAGE}
    assert [f for f, tree in trees.items() if tree.body and not ast.get_docstring(tree)] == []


def test_no_file_is_called_after_nothing() -> None:
    assert [name(f) for f in SOURCES if f.stem in ("utils", "common", "helpers", "base")] == []


def test_docs_of_diagnostics_are_up_to_date() -> None:
    assert errors_page.PAGE.read_text(encoding="utf-8") == errors_page.page()


def test_the_manual_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cimc.isa.manual", "--check", "isa/INSTRUCTIONS.md"], cwd=ROOT, check=False
    )
    assert done.returncode == 0
    assert manual.__doc__


def diagnostics() -> dict[str, errors.Diagnostic]:
    return {k: v for k, v in vars(errors).items() if isinstance(v, errors.Diagnostic)}


def test_every_diagnostic_is_used() -> None:
    users = "\n".join(read(f) for f in PACKAGE if f != ROOT / "cimc" / "errors.py")
    unused = [k for k in diagnostics() if not re.search(rf"\b{k}\b", users)]
    assert unused == []


def test_every_diagnostic_is_tested() -> None:
    """By its code or its constant: a test that matches words of a message alone would pass for another one as well."""
    tests = "\n".join(read(f) for f in files("*.py", "*.err") if f.is_relative_to(ROOT / "tests"))
    rows = diagnostics().items()
    # A code of one word is a word of other things too: there it has to stand in quotes or brackets.
    words = {k: row.code if "-" in row.code else rf"[\[\x22\x27]{row.code}\\?[\]\x22\x27]" for k, row in rows}
    untested = [k for k, word in words.items() if not re.search(rf"\b{k}\b|{word}", tests)]
    assert untested == []


def test_every_diagnostic_reads_like_one() -> None:
    for constant, row in diagnostics().items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", row.code), constant
        assert row.exit in (errors.Exit.USAGE, errors.Exit.DOES_NOT_FIT, errors.Exit.PROGRAM_FAILED), constant
        assert not row.message.endswith("."), constant


@pytest.mark.parametrize("path", files("*.schema.json"), ids=name)
def test_schemas_are_schemas(path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(read(path)))


def test_schemas_hold_what_they_refer_to() -> None:
    for path, text in schemas.bundled().items():
        assert read(path) == text, f"{path.name}: python -m docs.schemas"


def test_the_three_schemas_are_there() -> None:
    assert {p.name for p in files("*.schema.json")} >= {f"{n}.schema.json" for n in ("check", "run", "mapping")}


def imports() -> nx.DiGraph:
    """Which file of the package imports which, also within functions and for types."""
    names = {f: ".".join(f.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for f in PACKAGE}
    found = nx.DiGraph()
    for path, importer in names.items():
        for n in ast.walk(ast.parse(read(path))):
            if isinstance(n, ast.ImportFrom) and n.module:
                imported = {f"{n.module}.{a.name}" for a in n.names} & set(names.values())
                found.add_edges_from((importer, name) for name in imported or {n.module})
    return found


def test_files_do_not_import_each_other_in_a_circle() -> None:
    """The rooms' order is held by the import contracts; this is about the files within a room, imports for types included."""
    known = imports()
    assert known.has_edge("cimc.codegen.pushed", "cimc.codegen.context")  # for types
    assert known.has_edge("cimc.cli.put", "cimc.report.terminal")  # within a function
    assert [found for found in nx.strongly_connected_components(known) if len(found) > 1] == []


def test_only_the_door_sees_onnx() -> None:
    """ruff bans the import elsewhere; what may still see it is listed here."""
    seen = [f for f in PACKAGE if re.search(r"^\s*(?:import|from) onnx\b", read(f), re.M)]
    # A host call is a serialized ONNX node: the file that runs it reads that much of the format.
    others = [f for f in seen if f != ROOT / "cimc" / "isa" / "hostnode.py"]
    assert {f.relative_to(ROOT / "cimc").parts[0] for f in others} <= {"frontend", "onnx_backend.py"}
