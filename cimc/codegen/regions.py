"""Segments of one node that is not computed by rows: regions assembled through a tile, and host calls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cimc.codegen.context import Context
from cimc.codegen.spread import split
from cimc.ir.graph import Node
from cimc.isa.operands import Affine, View
from cimc.mapping.layout import region
from cimc.mapping.placement import Segment
from cimc.mapping.segment import Range, product
from cimc.ops import OPS, Layout
from cimc.ops.op import Part


def assemble(context: Context, segment: Segment, budget: int) -> dict[int, frozenset[str]]:
    """Copy operands and constants into regions of the result, in pieces of at most ``budget`` bytes; returns what each tile
    stored. What is large is spread over the segment's tiles; what is there already stays. A node of any op stands here if
    its results have no elements: there is nothing to do then."""
    (node,) = segment.nodes
    tiles = context.placement.tiles[segment.index]
    outputs = frozenset(o for o in node.outputs if o)
    if not any(context.graph.type(o).size for o in outputs):
        return {tiles[0]: outputs}
    types = [context.graph.type(v) for v in node.inputs if v]
    used: dict[int, frozenset[str]] = {}
    turn = 0
    for part in _to_do(context, node, OPS[node.op].parts(node, types)):
        for share in split(part.shape, len(tiles), product(part.shape)):
            tile = tiles[turn % len(tiles)]
            turn += 1
            _region(context, tile, node, part, share, budget)
            used[tile] = outputs
    return used


def _to_do(context: Context, node: Node, parts: Sequence[Part]) -> Iterator[Part]:
    """The parts without those that are in place, in an order that does not matter: none overlap."""
    sources = [p for p in parts if p.source >= 0]
    for part in parts:
        if part.source < 0:
            yield from (p for p in _around(part, sources) if product(p.shape))
        elif product(part.shape) and not _in_place(context, node, part):
            yield part


def _in_place(context: Context, node: Node, part: Part) -> bool:
    """Whether an operand is stored where it belongs in the result."""
    source, whole = context.homes[node.inputs[part.source]], context.homes[node.outputs[0]]
    due = region(whole.layout, part)
    apart = any(n > 1 and a != b for n, a, b in zip(due.shape, due.strides, source.layout.strides, strict=True))
    return source.buffer == whole.buffer and source.layout.offset == due.offset and not apart


def _around(part: Part, inside: Sequence[Part]) -> Iterator[Part]:
    """A part that is filled, without the operand that stands in it: the slabs before and behind it, axis by axis."""
    (there,) = inside
    low, high = list(part.start), [a + n for a, n in zip(part.start, part.shape, strict=True)]
    for axis, (start, count) in enumerate(zip(there.start, there.shape, strict=True)):
        for a, b in ((low[axis], start), (start + count, high[axis])):
            first, last = [*low[:axis], a, *low[axis + 1 :]], [*high[:axis], b, *high[axis + 1 :]]
            yield Part(tuple(first), tuple(q - p for p, q in zip(first, last, strict=True)), -1, part.value)
        low[axis], high[axis] = start, start + count


def _region(context: Context, tile: int, node: Node, whole: Part, share: Sequence[Range], budget: int) -> None:
    """A share of a part of the result, on a tile."""
    low, extents = tuple(r.low for r in share), tuple(r.count for r in share)
    part = replace(whole, start=tuple(a + b for a, b in zip(whole.start, low, strict=True)), shape=extents)
    code = context.code(tile)
    out = node.outputs[0]
    target = region(context.homes[out].layout, part)
    source: Layout | None = None
    if part.source >= 0:
        source = region(context.homes[node.inputs[part.source]].layout, replace(part, start=low))
    shape = part.shape or (1,)
    # Inner axes that fit the budget move as one piece; the axes before them are loops.
    inner = len(shape)
    element = context.graph.type(out).element
    while inner > 0 and product(shape[inner - 1 :]) * element.bytes <= budget and len(shape) - inner < 4:
        inner -= 1
    loops, piece = shape[:inner], shape[inner:]
    if not piece:
        loops, piece = shape[:-1], shape[-1:]
    _nest(context, tile, node, part, (target, source), loops, piece, code.buffer(element, piece, "m"))


def _nest(
    context: Context,
    tile: int,
    node: Node,
    part: Part,
    layouts: tuple[Layout, Layout | None],
    loops: tuple[int, ...],
    piece: tuple[int, ...],
    buffer: View,
) -> None:
    code = context.code(tile)
    target, source = layouts
    origin = node.origin
    if source is None:
        code.emit("fill", buffer, origin=origin, value=float(part.value))
    index: list[Affine] = []

    def body() -> None:
        if source is not None:
            view = _view(context.global_name(node.inputs[part.source]), source, index, piece)
            code.emit("load", buffer, view, origin=origin)
        code.emit("store", _view(context.global_name(node.outputs[0]), target, index, piece), buffer, origin=origin)

    def nest(axis: int) -> None:
        if axis == len(loops):
            body()
            return
        name = f"i{axis}"
        with code.repeat(name, loops[axis]):
            index.append(Affine.of(0, {name: 1} if loops[axis] > 1 else {}))
            nest(axis + 1)
            index.pop()

    nest(0)


def _view(name: str, layout: Layout, index: list[Affine], piece: tuple[int, ...]) -> View:
    strides = layout.strides or (1,)
    offset = Affine(layout.offset)
    for at, stride in zip(index, strides, strict=False):
        offset = offset + at * stride
    return View(name, offset, piece, strides[len(strides) - len(piece) :])


def host(context: Context, segment: Segment) -> dict[int, frozenset[str]]:
    """Emit a host call; returns what it stored."""
    (node,) = segment.nodes
    tile = context.placement.tiles[segment.index][0]
    outputs = [o for o in node.outputs if o]
    operands = [context.table(v) for v in (*outputs, *(i for i in node.inputs if i))]
    call = str(node.attr("call"))
    context.code(tile).emit("host", *operands, origin=node.origin, call=call, outputs=len(outputs))
    return {tile: frozenset(outputs)}
