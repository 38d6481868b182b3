"""Machine code: kept on disk where there is a disk to keep it on, until something that is compiled changes."""

from __future__ import annotations

import ast
import importlib
from functools import cache
from pathlib import Path

import pytest

from cimc import native
from cimc.codegen import anneal
from cimc.native import entry, fingerprint, inner
from cimc.sim import machine, relations

PACKAGE = Path(native.__file__).parent


def _double(x: int) -> int:
    return 2 * x


def test_without_a_place_for_the_cache_a_function_is_compiled_all_the_same():
    # numba finds no file beside which, and so no folder in which, it could keep the code of what stands in no file
    space: dict[str, object] = {"double": inner(_double)}
    exec(compile("def quadruple(x):\n    return double(double(x))\n", "<nowhere>", "exec"), space)
    quadruple = entry(space["quadruple"])
    assert quadruple(3) == 12
    assert quadruple.stats.cache_path is None


def test_the_fingerprint_changes_with_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    seen = {0}
    for name in ("native.py", "one.py", "two.py"):
        for text in ("a", "b"):
            (tmp_path / name).write_text(text)
            for other in ("native.py", "one.py", "two.py"):
                (tmp_path / other).touch()
            found = fingerprint("one.py", "two.py")
            assert found not in seen
            seen.add(found)


@cache
def _definitions(path: str) -> dict[str, ast.stmt]:
    """By name, the statement of a file that defines it."""
    found: dict[str, ast.stmt] = {}
    for statement in ast.parse((PACKAGE / path).read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            found[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom):
            found.update((a.asname or a.name, statement) for a in statement.names)
        else:
            stored = (n for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
            found.update((n.id, statement) for n in stored)
    return found


def _taken(path: str, name: str, seen: set[tuple[str, str]]) -> None:
    """Note where a name of a file is defined, and all names of the package that its definition takes."""
    statement = _definitions(path).get(name)
    if isinstance(statement, ast.ImportFrom):
        if (statement.module or "").startswith("cimc."):
            path = str(statement.module).removeprefix("cimc.").replace(".", "/") + ".py"
            imported = next(a.name for a in statement.names if name in (a.asname, a.name))
            _taken(path, imported, seen)
    elif statement is not None and (path, name) not in seen:
        seen.add((path, name))
        for node in ast.walk(statement):
            if isinstance(node, ast.Name):
                _taken(path, node.id, seen)


@pytest.mark.parametrize(
    ("path", "name", "sources"),
    [
        ("sim/machine.py", "loop", machine.SOURCES),
        ("sim/relations.py", "search", relations.SOURCES),
        ("codegen/anneal.py", "_search", ()),
    ],
)
def test_sources_are_all_that_is_compiled(path: str, name: str, sources: tuple[str, ...]):
    assert importlib.import_module(f"cimc.{path[:-3].replace('/', '.')}") in (machine, relations, anneal)
    seen: set[tuple[str, str]] = set()
    _taken(path, name, seen)
    assert len(seen) > 10
    assert {p for p, _ in seen} - {path, "native.py"} == set(sources)
