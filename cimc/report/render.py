"""The blocks that reports are made of, and as plain text: full-width lines, never truncated or wrapped, so that they can be
grepped and compared. What a block says does not depend on where it is written (terminal.py draws it with rich).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from cimc.report import units

BAR_WIDTH = 32
_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Facts:
    """Labels and values, one a line; a third item is a remark."""

    title: str
    rows: Sequence[tuple[str, str] | tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Columns whose header begins with ``>`` are aligned right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Bar:
    """One bar: its label, the value as text, its length as a share of the longest."""

    label: str
    value: str
    share: float
    remark: str = ""


@dataclass(frozen=True)
class Bars:
    """Bars below each other."""

    title: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class Span:
    """A piece of a drawing; ``style`` is rich's and used on a terminal only."""

    text: str
    style: str = ""


@dataclass(frozen=True)
class Lines:
    """Lines of text, each a sequence of spans."""

    title: str
    lines: Sequence[Sequence[Span]]


Block: TypeAlias = Facts | Table | Bars | Lines


def text(title: str, *lines: str, style: str = "") -> Lines:
    """A block of plain lines."""
    return Lines(title, tuple((Span(line, style),) for line in lines))


def plain(blocks: Iterable[Block]) -> str:
    """The report as plain text."""
    parts: list[str] = []
    for block in blocks:
        title = [units.printable(block.title)] if block.title else []
        lines = [*title, *(f"  {line}" if title else line for line in _body(block))]
        parts.append("".join(line.rstrip() + "\n" for line in lines))
    return "\n".join(parts)


def bar(share: float) -> str:
    """A bar of up to BAR_WIDTH characters, to an eighth of a character; what is not zero shows."""
    eighths = math.ceil(min(1.0, max(0.0, share)) * BAR_WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def rows_of(block: Facts | Table | Bars) -> tuple[Sequence[str], list[list[str]]]:
    """Header (empty for none; ``>`` aligns right) and cells, printable."""
    header: Sequence[str] = ()
    if isinstance(block, Table):
        header, cells = block.header, [list(row) for row in block.rows]
    elif isinstance(block, Facts):
        cells = [[row[0], row[1], row[2] if len(row) > 2 else ""] for row in block.rows]
    else:
        cells = [[b.label, b.value, bar(b.share), b.remark] for b in block.bars]
    return header, [[units.printable(cell) for cell in row] for row in cells]


def _body(block: Block) -> list[str]:
    if isinstance(block, Lines):
        return ["".join(units.printable(span.text) for span in line) for line in block.lines]
    header, cells = rows_of(block)
    right = {i for i, name in enumerate(header) if name.startswith(">")}
    if isinstance(block, Bars):
        right = {1}
    table = [[name.lstrip(">") for name in header], *cells] if header else cells
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(c.rjust(w) if i in right else c.ljust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]
