"""Rows quantised where their columns are: no tile needs whole rows to find a scale for each.

Every tile finds the largest size of each row in its own columns. Those of all tiles meet on one, as the few columns of a small
array: quantising that gives each row's scale, for the largest of the largest is the largest. The scale goes back to the
tiles, and each quantises its columns with it. A maximum does not depend on the order it is found in, and dividing by a given
scale is the same division: codes and scales are those of `quantize` on whole rows, bit for bit.
"""

from __future__ import annotations

from cimc.codegen.movement import Movement, Shard, State
from cimc.codegen.tilecode import TileCode, columns
from cimc.ir.graph import Node
from cimc.isa.operands import Element, View, static_shape
from cimc.mapping.segment import Tail
from cimc.ops.matmul import groups_of, in_groups
from cimc.origin import Origin


def quantize_apart(flow: Movement, state: State, node: Node, source: str, home: int) -> None:
    """Emit a `quantize` of ``source``, a value in shards, whose scales are found on the tile ``home``."""
    codes, scale = node.outputs
    shards = state.shards[source]
    rows = state.index.rows
    code = flow.context.code(home)
    peaks = code.buffer(Element.F32, (rows, len(shards)), "peaks")
    for k, shard in enumerate(shards):
        peak = peak_of(flow.context.code(shard.tile), shard.view, node.origin)
        flow.put(state, shard.tile, peak, {home: columns(peaks, k, 1, 1)}, node.origin)
    unused = code.buffer(Element.Q8, (rows, len(shards)), "s")
    found = code.buffer(Element.F32, (rows, 1), "scale")
    code.emit("quantize", unused, found, peaks, origin=node.origin)
    state.full[(home, scale)] = found
    state.owner[scale] = home
    scales = flow.bring(state, scale, [s.tile for s in shards], node.origin)
    state.shards[codes] = [_codes(flow, shard, scales[shard.tile], node) for shard in shards]


def quantize_heads(flow: Movement, state: State, node: Node, tail: Tail) -> None:
    """Emit a `quantize` with a scale for each group of columns, of columns of a value in shards of whole groups: each is
    brought to codes where it is."""
    codes, scale = node.outputs
    each = tail.width // groups_of(node)
    for shard in state.shards[tail.root]:
        first, last = max(shard.first, tail.start), min(shard.last, tail.start + tail.width)
        if first >= last:
            continue
        view = columns(shard.view, first - shard.first, 1, last - first)
        made = heads_codes(flow.context.code(shard.tile), view, (last - first) // each, node.origin)
        low, high = first - tail.start, last - tail.start
        state.shards.setdefault(codes, []).append(Shard(shard.tile, low, high, made[0]))
        state.shards.setdefault(scale, []).append(Shard(shard.tile, low // each, high // each, made[1]))


def heads_codes(code: TileCode, view: View, groups: int, origin: Origin) -> tuple[View, View]:
    """Bring rows on a tile to codes, a scale for each of ``groups`` parts of a row: codes, and scales (rows × groups)."""
    rows, _ = shape = static_shape(view)
    codes = code.buffer(Element.Q8, shape, "quantize")
    scales = code.buffer(Element.F32, (rows, groups), "scale")
    code.emit("quantize", *(in_groups(v, groups) for v in (codes, scales, view)), origin=origin)
    return codes, scales


def peak_of(code: TileCode, view: View, origin: Origin) -> View:
    """The largest size in each row of a view on a tile."""
    rows, _ = shape = static_shape(view)
    sizes = code.buffer(Element.F32, shape, "s")
    peak = code.buffer(Element.F32, (rows, 1), "peak")
    code.emit("abs", sizes, view, origin=origin)
    code.emit("reduce_max", peak, sizes, origin=origin)
    return peak


def _codes(flow: Movement, shard: Shard, scale: View, node: Node) -> Shard:
    code = flow.context.code(shard.tile)
    view = code.buffer(Element.Q8, static_shape(shard.view), node.op)
    code.emit("quantize_static", view, shard.view, scale, origin=node.origin)
    return Shard(shard.tile, shard.first, shard.last, view)
