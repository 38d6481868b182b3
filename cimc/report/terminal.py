"""Report blocks on a terminal, with rich. Names come from files: nothing is parsed as markup."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from rich import box
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from cimc.report import units
from cimc.report.render import Bars, Block, Facts, Lines, Table, rows_of

ACCENT = "cyan"


MIN_TEXT_WIDTH = 24


def console(stream: IO[str]) -> Console:
    """A console on ``stream`` that prints text as it is."""
    return Console(file=stream, markup=False, highlight=False, emoji=False)


def write_terminal(blocks: Iterable[Block], stream: IO[str]) -> None:
    """Print the blocks, an empty line between them."""
    out = console(stream)
    for i, block in enumerate(blocks):
        if i:
            out.print()
        if block.title:
            out.print(Text(units.printable(block.title), style="bold"))
        out.print(_renderable(block), soft_wrap=isinstance(block, Lines))


def _renderable(block: Block) -> RenderableType:
    if isinstance(block, Lines):
        indent = "  " if block.title else ""
        return Text("\n").join(
            Text.assemble(indent, *((units.printable(s.text), s.style) for s in line)) for line in block.lines
        )
    header, cells = rows_of(block)
    table = RichTable(box=box.SIMPLE_HEAD if header else None, show_header=bool(header), pad_edge=True, padding=(0, 1))
    for i, style in enumerate(_styles(block)):
        name = header[i] if header else ""
        right = name.startswith(">") or (isinstance(block, Bars) and i == 1)
        # Names stay readable on a narrow terminal: the widest text gets at least this much before it is folded.
        least = min(MIN_TEXT_WIDTH, max((len(row[i]) for row in cells), default=0))
        table.add_column(
            name.lstrip(">"),
            justify="right" if right else "left",
            no_wrap=right,
            style=style,
            overflow="fold",
            min_width=None if right else least,
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _styles(block: Facts | Table | Bars) -> list[str]:
    if isinstance(block, Table):
        return [""] * len(block.header)
    return ["dim", "", "dim"] if isinstance(block, Facts) else ["dim", "", ACCENT, "dim"]
