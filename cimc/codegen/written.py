"""Segments with products whose second operand is written into cells: its codes are loaded and programmed as soon as the loops
fix it, then blocks of rows stream through the cores.

A tile issues in order, and a row block alternates between cores and vector units. So a loop's body does several blocks, with
their instructions in turns: while the cores have rows of one block, the vector units work on another.
"""

from __future__ import annotations

from itertools import zip_longest

from cimc.codegen.spread import Spread
from cimc.codegen.tilecode import TileCode
from cimc.ir.graph import Node
from cimc.isa.instruction import Step
from cimc.isa.operands import Affine, Element, View, static_shape
from cimc.isa.program import MatrixDecl
from cimc.mapping.placement import Placement, Segment
from cimc.mapping.segment import Range
from cimc.mapping.space import Index, shared_row
from cimc.ops import OPS, Access

TOGETHER = 4
"""Blocks whose instructions stand in turns: of r blocks' time in the cores, the last one's vector work is not hidden
(MiniLM, 128 tokens, on `hybrid`: with 2, 12 % more cycles, with 8, 25 %)."""

PIECE_BYTES = 8192
"""Of an operand that is brought to codes on the tile, so much is on the tile as float32 at a time: an eighth of the smallest
buffer that the presets' tiles with cores have, so that the blocks of rows have room beside it."""

LEAST_ROWS = 8
"""Of a block: with fewer, every product fills the cores' pipeline anew for little (estimated)."""


def wanted_rows(placement: Placement, segment: Segment) -> int:
    """Rows of a block: a tile's share in as many blocks as are worked on together, if there are copies of the operands for
    each, else in twice as many; and if that leaves rows enough."""
    rows, least = segment.domain[-1], placement.least_rows[segment.index]
    tiles = len(placement.tiles[segment.index]) * rows // segment.rows
    share = rows // max(1, min(tiles, rows // least))
    copies = min(placement.written[n.outputs[0]].copies for n in segment.nodes if n.outputs[0] in placement.written)
    return max(LEAST_ROWS, share // (TOGETHER if copies >= TOGETHER else 2 * TOGETHER))


class Written(Spread):
    """Emits one SPREAD segment that writes operands into cells. ``turn``: of the block that is emitted, among those that are
    worked on together."""

    turn = 0

    def _load_whole(self, code: TileCode, axis: int, at: tuple[Affine, ...]) -> dict[tuple[str, str], View]:
        found = super()._load_whole(code, axis, at)
        for node in self.segment.nodes:
            if self._writes(node) and self.space.depth(node, node.inputs[1]) == axis:
                key = (node.outputs[0], node.inputs[1])
                codes = found.get(key)
                if codes is None:
                    codes, found[key] = self._quantized(code, node, at)
                for copy in range(self._copies(code, node)):
                    code.emit("program", self._matrix(code, node, copy), codes, origin=node.origin)
        return found

    def _copies(self, code: TileCode, node: Node) -> int:
        """How often an operand is written: once for each block of rows that is worked on together, if there are cores."""
        rows = self.shares[self.share][1][-1].count
        cells = self.context.placement.written[node.outputs[0]]
        return max(1, min(cells.copies, TOGETHER, -(-rows // self.rows)))

    def _loads_whole(self, node: Node, index: int) -> bool:
        return super()._loads_whole(node, index) and not (self._writes(node) and len(node.inputs) < 4)

    def _writes(self, node: Node) -> bool:
        return node.outputs[0] in self.context.placement.written

    def _quantized(self, code: TileCode, node: Node, at: tuple[Affine, ...]) -> tuple[View, View]:
        """Load an operand (k × n) a piece of its columns at a time and bring it to codes: (k × n) as a view, and the scales
        (1 × n)."""
        value = node.inputs[1]
        index = Index((*at, *(Affine() for _ in range(len(self.space.domain) - len(at)))), 1)
        whole = self.space.whole_view(node, value, index, self.context.global_name(value))
        kept = self.kept(value, whole)
        k, n = static_shape(whole)
        codes = code.buffer(Element.Q8, (n, k), "w")
        scales = code.buffer(Element.F32, (n, 1), "w")
        if self._first(code, at):
            self._pieces(code, node, (whole, kept), (codes, scales), at)
        self._hand_on(code, at, (codes, scales), node.origin)
        turned = View(codes.buffer, Affine(), (k, n), (1, k))
        return turned, View(scales.buffer, Affine(), (1, n), (n, 1))

    def _pieces(
        self,
        code: TileCode,
        node: Node,
        operand: tuple[View, View | None],
        into: tuple[View, View],
        at: tuple[Affine, ...],
    ) -> None:
        """All columns of an operand as rows of codes, piece by piece. ``operand``: as of :meth:`_piece`."""
        k, n = static_shape(operand[0])
        wide = max(1, min(n, PIECE_BYTES // (k * Element.F32.bytes)))
        pieces, rest = divmod(n, wide)
        name = f"c{len(at)}"
        with code.repeat(name, pieces):
            start = Affine.of(0, {name: wide} if pieces > 1 else {})
            self._piece(code, node, operand, into, start, wide)
        if rest:
            self._piece(code, node, operand, into, Affine(pieces * wide), rest)

    def _piece(
        self,
        code: TileCode,
        node: Node,
        operand: tuple[View, View | None],
        into: tuple[View, View],
        start: Affine,
        count: int,
    ) -> None:
        """Columns [start, start + count) of an operand as rows of codes. ``operand``: in global memory, and on the tile if
        it is kept there."""
        whole = operand[1] or operand[0]
        k, _ = static_shape(whole)
        down, across = whole.strides
        source = rows = View(whole.buffer, whole.offset + start * across, (count, k), (across, down))
        if operand[1] is None:
            rows = code.buffer(Element.F32, (count, k), "w")
            code.emit("load", rows, source, origin=node.origin)
        codes = View(into[0].buffer, start * k, (count, k), (k, 1))
        scales = View(into[1].buffer, start, (count, 1), (1, 1))
        code.emit("quantize", codes, scales, rows, origin=node.origin)

    def _matrix(self, code: TileCode, node: Node, copy: int | None = None) -> str:
        if not self._writes(node):
            return ""
        number = self.turn % self._copies(code, node) if copy is None else copy
        cells = self.context.placement.written[node.outputs[0]].copy(number)
        decl = MatrixDecl(cells.name, Element.Q8, cells.rows, cells.cols, "", 0, 0, cells.blocks)
        code.matrices.setdefault(cells.name, decl)
        return cells.name

    def _blocks(self, code: TileCode, here: Range, at: tuple[Affine, ...], found: dict[tuple[str, str], View]) -> None:
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
        for turn, index in enumerate(blocks):
            self.turn = turn
            code.steps = []
            self._block(code, index, found, kept)
            parts.append(code.steps)
        code.steps = before
        code.steps.extend(s for turn in zip_longest(*parts) for s in turn if s is not None)
