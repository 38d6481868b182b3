"""Segments with products whose second operand is written into cells: its codes are loaded and programmed as soon as the loops
fix it, then blocks of rows stream through the cores.

A tile issues in order, and a row block alternates between cores and vector units. So a loop's body does several blocks, with
their instructions in turns: while the cores have rows of one block, the vector units work on another.
"""

from __future__ import annotations

from itertools import zip_longest

from cimc.codegen.space import Index, shared_row
from cimc.codegen.spread import Spread
from cimc.codegen.tilecode import TileCode
from cimc.ir.graph import Node
from cimc.isa.instruction import Step
from cimc.isa.operands import Affine, Element, View
from cimc.isa.program import MatrixDecl
from cimc.mapping.mapping import Placement, Segment
from cimc.mapping.segment import Range
from cimc.ops import OPS, Access

TOGETHER = 4
"""Blocks whose instructions stand in turns: of r blocks' time in the cores, the last one's vector work is not hidden."""

LEAST_ROWS = 8  # with fewer rows in a block, every product fills the cores' pipeline anew for little


def wanted_rows(placement: Placement, segment: Segment) -> int:
    """Rows of a block: a tile's share in twice as many blocks as are worked on together, if that leaves rows enough."""
    share = segment.rows // max(1, len(placement.tiles[segment.index]))
    return max(LEAST_ROWS, share // (2 * TOGETHER))


class Written(Spread):
    """Emits one SPREAD segment that writes operands into cells."""

    def _load_whole(self, code: TileCode, axis: int, at: tuple[Affine, ...]) -> dict[tuple[str, str], View]:
        found = super()._load_whole(code, axis, at)
        for node in self.segment.nodes:
            codes = found.get((node.outputs[0], node.inputs[1])) if self._cells(node) else None
            if codes is not None:
                code.emit("program", self._matrix(code, node), codes, origin=node.origin)
        return found

    def _cells(self, node: Node) -> bool:
        return node.outputs[0] in self.context.placement.written

    def _matrix(self, code: TileCode, node: Node) -> str:
        cells = self.context.placement.written.get(node.outputs[0])
        if cells is None:
            return ""
        decl = MatrixDecl(cells.name, Element.Q8, cells.rows, cells.cols, "", 0, 0, cells.blocks)
        code.matrices.setdefault(cells.name, decl)
        return cells.name

    def _blocks(
        self, code: TileCode, here: Range, at: tuple[Affine, ...], found: dict[tuple[str, str], View]
    ) -> None:
        kept = self._shared_rows(code, at)
        blocks, rest = divmod(here.count, self.rows)
        turns, over = divmod(blocks, TOGETHER)
        name, group = f"i{len(at)}", TOGETHER * self.rows
        if turns:
            with code.repeat(name, turns):
                step = {name: group} if turns > 1 else {}
                starts = [Affine.of(here.low + k * self.rows, step) for k in range(TOGETHER)]
                self._together(code, [Index((*at, s), self.rows) for s in starts], found, kept)
        starts = [Affine(here.low + turns * group + k * self.rows) for k in range(over)]
        last = [Index((*at, s), self.rows) for s in starts]
        if rest:
            last.append(Index((*at, Affine(here.low + blocks * self.rows)), rest))
        self._together(code, last, found, kept)

    def _shared_rows(self, code: TileCode, at: tuple[Affine, ...]) -> dict[View, View]:
        """Load the rows that all blocks share (scales of the written operand, masks of padding)."""
        kept: dict[View, View] = {}
        index = Index((*at, Affine()), 1)
        for node in self.segment.nodes:
            for i, value in enumerate(node.inputs):
                outside = bool(value) and value not in self.tails and not shared_row(self.context.graph, value)
                if not outside or OPS[node.op].access(node, i) is not Access.ROWS:
                    continue
                if not self.space.reach(node, value, Access.ROWS).strides[-1]:
                    self.context.external(code, self.space, node, value, index, kept)
        return kept

    def _together(
        self,
        code: TileCode,
        blocks: list[Index],
        found: dict[tuple[str, str], View],
        kept: dict[View, View],
    ) -> None:
        """Blocks of rows, an instruction of each in turn. They share no buffers that they write, so any order is right."""
        before, parts = code.steps, list[list[Step]]()
        for index in blocks:
            code.steps = []
            self._block(code, index, found, kept)
            parts.append(code.steps)
        code.steps = before
        code.steps.extend(s for turn in zip_longest(*parts) for s in turn if s is not None)
