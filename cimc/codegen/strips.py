"""Vector stages of a region that are cut by columns: a GELU beside the products whose columns it takes, attention's result
brought to codes by the tiles of its heads. No tile is brought whole rows, and codes go only where their columns are wanted.

Rows have a scale each, for the largest of all their columns: every tile finds that of its own, one tile the scales of them
all, a step later, and the step after that each tile makes its codes (as in :mod:`cimc.codegen.apart`, with the same bits).
"""

from __future__ import annotations

from dataclasses import replace

from cimc.codegen.apart import peak_of
from cimc.codegen.block import BlockEmit
from cimc.codegen.course import Course
from cimc.codegen.stages import CODED, Job, Piece, Rect, Value
from cimc.ir.graph import Node
from cimc.isa.operands import Element, View
from cimc.mapping.region import Part
from cimc.mapping.space import width
from cimc.ops import OPS, Access
from cimc.origin import Origin


def emit_strips(flow: Course, part: Part, node: Node, job: Job) -> None:
    """Append what the tiles of a stage do with their columns for a node."""
    if node.op == "quantize":
        _quantize(flow, part, node, job)
        return
    for tile, rect in flow.plan.rectangles(job):
        _columns(flow, part, node, job, tile, rect)


def _columns(flow: Course, part: Part, node: Node, job: Job, tile: int, rect: Rect) -> None:
    """A node on columns of a block."""
    start = flow.plan.starts[job]
    code = flow.at(tile, start)
    mark, before = len(code.steps), set(code.rooms)

    def operand(n: Node, i: int) -> View:
        value = n.inputs[i]
        if OPS[n.op].access(n, i) is Access.TABLE:
            return flow.context.table(value)
        if flow.plan.source(part, n, i) is not None:
            return _operand(flow, part, n, i, tile, rect)
        one = width(flow.graph, value) == 1
        first, count = (0, 1) if one else (rect.col, rect.cols)
        return code.constant(value, flow.graph.type(value).element, first, count)

    block = BlockEmit(flow.graph, code, rect.rows, operand, node, width=rect.cols, dying=flow.dying)
    block.lower()
    flow.spend(job, code, mark, before)
    for out, view in block.outputs.items():
        flow.values.setdefault(out, Value(job, start, node.origin)).pieces.append(Piece(tile, rect, view))


def _operand(flow: Course, part: Part, node: Node, i: int, tile: int, rect: Rect) -> View:
    """Columns of an operand that the region makes, or its only one."""
    source = flow.plan.source(part, node, i)
    assert source is not None
    if source.shape[-1] > 1:
        source = replace(source, first=rect.col, shape=(rect.cols,))
    return flow.rows(node, i, source, tile, rect)


def _quantize(flow: Course, part: Part, node: Node, job: Job) -> None:
    """Scales of rows, and codes of columns."""
    start, rectangles = flow.plan.starts[job], flow.plan.rectangles(job)
    codes, scales = node.outputs
    home, rows = rectangles[0][0], Rect(0, flow.plan.rows, 0, 1)
    peaks = _peaks(flow, part, node, job, home)
    count, element = peaks.rect.cols, flow.graph.type(codes).element
    unused = flow.room(job, home, start + 1, element, (rows.rows, count), "s")
    scale = Piece(home, rows, flow.room(job, home, start + 1, Element.F32, (rows.rows, 1), "scale"))
    _do(flow, job, home, start + 1, "quantize", unused, scale.view, peaks.view, origin=node.origin)
    flow.values[scales] = Value(job, start + 1, node.origin, [scale])
    made = flow.values[codes] = Value(job, start + CODED, node.origin)
    brought = _scales(flow, node, job, scale)
    for tile, rect in rectangles:
        x = _operand(flow, part, node, 0, tile, rect)
        view = flow.room(job, tile, start + CODED, element, (rect.rows, rect.cols), "quantize")
        scaled = brought[tile].part(replace(rect, col=0, cols=1))
        _do(flow, job, tile, start + CODED, "quantize_static", view, x, scaled, origin=node.origin)
        made.pieces.append(Piece(tile, rect, view))


def _peaks(flow: Course, part: Part, node: Node, job: Job, home: int) -> Piece:
    """The largest size in each row of every tile's columns, side by side on the tile ``home``."""
    start, rectangles = flow.plan.starts[job], flow.plan.rectangles(job)
    places = {col: k for k, col in enumerate(sorted({rect.col for _, rect in rectangles}))}
    whole = Rect(0, flow.plan.rows, 0, len(places))
    view = flow.room(job, home, start + 1, Element.F32, (whole.rows, whole.cols), "peaks")
    value = Value(job, start, node.origin)
    for tile, rect in rectangles:
        code = flow.at(tile, start)
        mark, before = len(code.steps), set(code.rooms)
        peak = peak_of(code, _operand(flow, part, node, 0, tile, rect), node.origin)
        flow.spend(job, code, mark, before)
        at = Rect(rect.row, rect.rows, places[rect.col], 1)
        flow.move(value, Piece(tile, at, peak), at, Piece(home, whole, view))
    return Piece(home, whole, view)


def _scales(flow: Course, node: Node, job: Job, scale: Piece) -> dict[int, Piece]:
    """The scales on every tile, of the rows that it does at least."""
    start = flow.plan.starts[job] + 1
    tiles: dict[Rect, list[int]] = {}
    for tile, rect in flow.plan.rectangles(job):
        if tile != scale.tile:
            tiles.setdefault(replace(rect, col=0, cols=1), []).append(tile)
    found = {scale.tile: scale}
    for rows, of in tiles.items():
        to = {t: Piece(t, rows, flow.room(job, t, start + 1, Element.F32, (rows.rows, 1), "scale")) for t in of}
        flow.send(scale, rows, to, (start, start + 1), node.origin)
        found.update(to)
    return found


def _do(flow: Course, job: Job, tile: int, start: int, mnemonic: str, *operands: View, origin: Origin) -> None:
    """One more instruction of a stage on a tile, in the step that begins then."""
    code = flow.at(tile, start)
    mark = len(code.steps)
    code.emit(mnemonic, *operands, origin=origin)
    flow.spend(job, code, mark, set(code.rooms))
