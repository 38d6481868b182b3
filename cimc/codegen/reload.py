"""Weights written into cells during the run: loaded from global memory in pieces, a few rows of every block at a time.

The steps stand in a tile's stream as soon as the matrices that had these cores before are done with: behind the last
segment that uses cores of the tile. There they do not hold up what comes after, as nothing waits for them but the
products they are for, so they run beside the work of the segments in between, on this tile and all others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.codegen.context import Context
from cimc.codegen.tags import RELOAD
from cimc.codegen.tilecode import TileCode, instruction
from cimc.isa.instruction import Instruction, Step
from cimc.isa.operands import View
from cimc.isa.program import MatrixDecl
from cimc.mapping.placement import Segment
from cimc.mapping.segment import MATRIX_OPS
from cimc.origin import Origin

BUFFERS = 2
"""Pieces of a matrix that are on the tile at once: one is written while the next one comes (MiniLM, 128 tokens, 16 tiles of
`sram-digital`: with 1, 2.8 % fewer cycles, with 3, 2.2 % more)."""

SHARE = 4
"""A piece takes at most a part in so many of the local buffer, so that resident values find room beside (as above: 2: 1.3 % more
cycles, 8: 3.6 % fewer)."""

AT_ONCE = 2
"""Tiles that begin at the start of a run to load weights: the others would only make the queue of global memory long, and
what the first layers read would wait in it (as above: 1: 1.7 % more, 4: 0.5 % fewer)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [row, row + count) of the row blocks [first, last) of a matrix."""

    first: int
    last: int
    row: int
    count: int


def pieces(depths: tuple[int, ...], most: int) -> Iterator[Piece]:
    """A matrix cut into pieces of at most ``most`` rows. ``depths``: rows of its row blocks, of which only the last one may
    have fewer. Every piece has rows of all blocks while they fit, for these are written at the same time."""
    group = min(len(depths), most)
    for first in range(0, len(depths), group):
        last = min(first + group, len(depths))
        run = most // (last - first)
        for row in range(0, depths[first], run):
            end = last if row < depths[last - 1] else last - 1
            yield Piece(first, end, row, min(run, depths[first] - row))


def reloads(
    context: Context, segment: Segment, chip: ChipSpec, room: dict[int, int]
) -> Iterator[tuple[int, tuple[Step, ...]]]:
    """(tile, steps) for every tile on which matrices of a segment are written during the run. ``room``: bytes of local
    buffers beside the constants. Raises RELOAD_BUFFER if not even a row of one block fits."""
    placed = context.placement
    if placed.reload is None:
        return
    found: dict[int, list[_Write]] = {}
    for number, node in enumerate(segment.nodes):
        out = node.outputs[0]
        if node.op not in MATRIX_OPS or out not in placed.reload.values:
            continue
        weights = context.table(placed.matrices[out][0].weight)
        for copy in placed.matrices[out]:
            for k, part in enumerate(copy.parts):
                matrix = context.code(part.tile).matrices[f"W{segment.index}_{number}_{copy.replica}_{k}"]
                found.setdefault(part.tile, []).append(_Write(matrix, weights, node.origin))
    for tile, writes in found.items():
        whole = chip.tile(tile).local_bytes
        have = max(0, min(room.get(tile, whole), whole))
        row = max(w.matrix.cols * w.matrix.element.bytes for w in writes)
        size = min(have // BUFFERS, whole // SHARE) // len(writes)
        if size < row:
            size = have // BUFFERS // len(writes)
        if size < row:
            need = BUFFERS * row * len(writes)
            where, layer = chip.kind(tile), writes[0].origin
            raise errors.RELOAD_BUFFER(tile=tile, kind=where, chip=chip.name, layer=layer, need=need, have=have)
        yield tile, _together(context.code(tile), writes, size)


def _together(code: TileCode, writes: list[_Write], size: int) -> tuple[Step, ...]:
    """Write several matrices at the same time, in pieces of at most ``size`` bytes, a piece of each in turn."""
    begun = len(code.steps)
    streams = [w.steps(code, size // (w.matrix.cols * w.matrix.element.bytes)) for w in writes]
    for _ in zip_longest(*streams):
        pass
    steps = tuple(code.steps[begun:])
    del code.steps[begun:]
    return steps


@dataclass(frozen=True)
class _Write:
    """A matrix that is written from its weights in global memory."""

    matrix: MatrixDecl
    weights: View
    origin: Origin

    def steps(self, code: TileCode, most: int) -> Iterator[None]:
        """Load and write ``most`` rows at a time; yields behind every piece."""
        matrix = self.matrix
        cuts = sorted({(b.row, b.row_end) for b in matrix.blocks})
        depths = tuple(end - row for row, end in cuts)
        buffers: list[View] = []
        for turn, piece in enumerate(pieces(depths, most)):
            rows = sum(max(0, min(piece.count, d - piece.row)) for d in depths[piece.first : piece.last])
            if turn < BUFFERS:
                buffers.append(code.buffer(matrix.element, (rows, matrix.cols), "w"))
            whole = buffers[turn % BUFFERS]
            _load(code, matrix, self.weights, cuts, piece, whole, self.origin)
            codes = View(whole.buffer, whole.offset, (rows, matrix.cols), whole.strides)
            row = cuts[piece.first][0] + piece.row
            code.emit("program", matrix.name, codes, origin=self.origin, row=row, run=piece.count, step=depths[0])
            yield


def _load(
    code: TileCode,
    matrix: MatrixDecl,
    weights: View,
    cuts: list[tuple[int, int]],
    piece: Piece,
    target: View,
    origin: Origin,
) -> None:
    """Load the rows of a piece from global memory: those of full blocks at once, then what the last one has."""
    down, across = weights.strides
    at = weights.offset + (matrix.row_offset + piece.row) * down + matrix.col_offset * across
    depth, cols = cuts[0][1] - cuts[0][0], matrix.cols
    ends = [min(piece.count, end - row - piece.row) for row, end in cuts[piece.first : piece.last]]
    full = sum(n == piece.count for n in ends)
    done = 0
    for first, blocks, rows in ((piece.first, full, piece.count), (piece.first + full, len(ends) - full, ends[-1])):
        if blocks:
            source = View(weights.buffer, at + first * depth * down, (blocks, rows, cols), (depth * down, down, across))
            local = View(target.buffer, target.offset + done * cols, (blocks, rows, cols), (rows * cols, cols, 1))
            code.emit("load", local, source, origin=origin)
            done += blocks * rows


def one_by_one(firsts: Sequence[tuple[int, tuple[Step, ...]]]) -> dict[int, tuple[Step, ...]]:
    """What tiles begin with, if that is to write a matrix, with messages that put them in the order given: a tile begins
    when one before it has loaded its first pieces. A message comes from the piece, so it leaves when that is there; it is
    received where the next tile's first piece is loaded to, so that waits for it, and nothing else does."""
    found = dict(firsts)
    for (source, _), (to, _) in zip(firsts, firsts[AT_ONCE:], strict=False):
        loads = [i for i, s in enumerate(found[source]) if isinstance(s, Instruction) and s.mnemonic == "load"]
        at = loads[min(BUFFERS, len(loads)) - 1]
        found[source] = (*found[source][: at + 1], _token(found[source][at], "send", to), *found[source][at + 1 :])
        first = next(s for s in found[to] if isinstance(s, Instruction) and s.mnemonic == "load")
        found[to] = (_token(first, "recv", source), *found[to])
    return found


def _token(load: Step, mnemonic: str, other: int) -> Instruction:
    """The first code that a load brings, sent or received."""
    assert isinstance(load, Instruction)
    target = load.operands[0]
    assert isinstance(target, View)
    code = View(target.buffer, target.offset, (1,), (1,))
    words = {"to": (other,)} if mnemonic == "send" else {"source": other}
    return instruction(mnemonic, code, origin=load.origin, tag=RELOAD, **words)
