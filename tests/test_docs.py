"""What the pages say is there: links lead somewhere, commands are commands, modules and files exist."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cimc.cli.main import COMMANDS, cli

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "models" / "README.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("isa/*.md")),
]
MEASURED = {"results.md", "results-corpus.md"}  # written by benchmarks/, which name their own commands
SYNOPSIS = re.compile(r"\[[A-Z-]")  # of a command, not an example of it


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands(page: Path) -> Iterator[str]:
    """Lines of code blocks that call cimc, without what the shell puts before and the comment behind."""
    for block in re.findall(r"^```\w*\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.splitlines():
            found = re.match(rf"(?:\$ |[A-Z_]+=\S+ )?(cimc (?:{'|'.join(COMMANDS)}) .*)", line)
            if found and not SYNOPSIS.search(found[1].split(" #")[0]):
                yield found[1]


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's titles."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        place = page.parent / file if file else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


EXAMPLES = [(name(page), line) for page in PAGES if page.name != "contract.md" for line in commands(page)]


def test_there_are_examples() -> None:
    assert {page for page, _ in EXAMPLES} > {"README.md", "docs/questions.md", "docs/debugging.md"}


@pytest.mark.parametrize(("page", "line"), EXAMPLES)
def test_commands_have_these_options(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read as click reads them: every option exists and takes such a value. Nothing is run."""
    (tmp_path / "out" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line, comments=True)[1:]
    with click.Context(cli, info_name="cimc") as context:
        command: click.Command = cli
        while isinstance(command, click.Group):
            found = command.get_command(context, words[0])
            assert found is not None, words[0]
            command, words = found, words[1:]
        command.make_context("cimc", words, parent=context)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in MEASURED], ids=name)
def test_modules_that_are_called_exist(page: Path) -> None:
    for module in set(re.findall(r"python -m ([\w.]+[\w])", page.read_text(encoding="utf-8"))):
        assert importlib.util.find_spec(module), module


def test_every_room_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = text[text.index("## Rooms") : text.index("## Each concept once")]
    there = {p.name + "/" * p.is_dir() for p in (ROOT / "cimc").iterdir() if not p.name.startswith("__")}
    assert {n for n in there if f"`{n}`" not in rooms} == set()


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in MEASURED], ids=name)
def test_files_that_are_named_exist(page: Path) -> None:
    """``room/file.py`` below the project, the package or the page's own folder; a bare ``file.py`` anywhere in it."""
    known = [p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if ".venv" not in p.parts]
    for file in set(re.findall(r"`([\w/]+\.py)`", page.read_text(encoding="utf-8"))):
        assert any(f"/{k}".endswith(f"/{file}") for k in known) or "NAME" in file, file


MODEL_COMMANDS = ("compile", "run", "check", "reduce", "asm", "inspect")


def told_options() -> Iterator[tuple[str, str]]:
    """Option and command, as the table of docs/contract.md pairs them."""
    page = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
    for line in page.split("### Options")[1].split("## Exit codes")[0].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if not line.startswith("| `") or cells[2].startswith("all"):
            continue
        *others, last = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", cells[1])
        first, _, also = cells[2].partition("; ")
        for option in (*others, last):
            yield from ((option, command) for command in first.split())
            if also.startswith(f"`{option}` also "):
                yield from ((option, word.strip(",")) for word in also.split()[2:])


def test_the_contract_names_the_commands_of_every_option() -> None:
    """`sweep` and `hw` aside, of which it says so in words."""
    told = {pair for pair in told_options() if pair[1] in MODEL_COMMANDS}
    real: set[tuple[str, str]] = set()
    for command in MODEL_COMMANDS:
        found = cli.get_command(click.Context(cli), command)
        assert found is not None
        names = [name for p in found.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")]
        real.update((name, command) for name in names if name not in ("-v", "--verbose", "-q", "--quiet", "--json"))
    assert told == real
