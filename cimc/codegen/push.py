"""Operands that are read whole and sent to the tiles that read them: what is sent, and where it lies there (pushed.py sends)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cimc.codegen.tilecode import TileCode
from cimc.isa.operands import Affine, Element, View
from cimc.mapping.segment import Range

Operand = tuple[str, str]
"""The first output of a node, and the value that it reads whole."""


@dataclass(frozen=True, slots=True)
class Push:
    """An operand of a head: all rows of the columns [col, col + cols) of ``root``; the node reads them as columns if ``turned``.
    ``tiles`` get it in a buffer ``name``; ``channels``: which of these columns go by each tag, or by it and the next ones where
    blocks that take turns do not come in order."""

    root: str
    name: str
    element: Element
    rows: int
    col: int
    cols: int
    turned: bool
    tiles: tuple[int, ...]
    channels: tuple[tuple[int, Range], ...]

    def operand(self, code: TileCode) -> View:
        """All of it as the node reads it (k × n), on one of its tiles."""
        whole = code.fixed(self.name, self.element, (self.rows, self.cols))
        return View(whole.buffer, Affine(), whole.shape[::-1], whole.strides[::-1]) if self.turned else whole

    def part(self, code: TileCode, row: Affine, rows: int, first: int, last: int) -> View:
        """Rows of the columns [first, last) of the root."""
        whole = code.fixed(self.name, self.element, (self.rows, self.cols))
        return View(whole.buffer, row * self.cols + (first - self.col), (rows, last - first), whole.strides)


Pushes = Mapping[tuple[Operand, tuple[int, ...]], Push]
"""What is sent to the tiles of a SPREAD segment, by operand and position of the outer axes. Heads may share one."""
