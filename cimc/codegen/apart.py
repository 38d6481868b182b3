"""Rows quantised where their columns are: no tile needs whole rows to find a scale for each.

Every tile finds the largest size of each row in its own columns. Those of all tiles meet on one, as the few columns of a small
array: quantising that gives each row's scale, for the largest of the largest is the largest. The scale goes back to the
tiles, and each quantises its columns with it. A maximum does not depend on the order it is found in, and dividing by a given
scale is the same division: codes and scales are those of `quantize` on whole rows, bit for bit.
"""

from __future__ import annotations

from cimc.codegen.movement import Movement, Shard, State
from cimc.codegen.tilecode import columns
from cimc.ir.graph import Node
from cimc.isa.operands import Element, View, static_shape


def quantize_apart(flow: Movement, state: State, node: Node, source: str, home: int) -> None:
    """Emit a `quantize` of ``source``, a value in shards, whose scales are found on the tile ``home``."""
    codes, scale = node.outputs
    shards = state.shards[source]
    rows = state.index.rows
    code = flow.context.code(home)
    peaks = code.buffer(Element.F32, (rows, len(shards)), "peaks")
    for k, shard in enumerate(shards):
        flow.put(state, shard.tile, _peak(flow, shard, node), {home: columns(peaks, k, 1, 1)}, node.origin)
    unused = code.buffer(Element.Q8, (rows, len(shards)), "s")
    found = code.buffer(Element.F32, (rows, 1), "scale")
    code.emit("quantize", unused, found, peaks, origin=node.origin)
    state.full[(home, scale)] = found
    state.owner[scale] = home
    scales = flow.bring(state, scale, [s.tile for s in shards], node.origin)
    state.shards[codes] = [_codes(flow, shard, scales[shard.tile], node) for shard in shards]


def _peak(flow: Movement, shard: Shard, node: Node) -> View:
    """The largest size in each row of a shard."""
    code = flow.context.code(shard.tile)
    rows, _ = shape = static_shape(shard.view)
    sizes = code.buffer(Element.F32, shape, "s")
    peak = code.buffer(Element.F32, (rows, 1), "peak")
    code.emit("abs", sizes, shard.view, origin=node.origin)
    code.emit("reduce_max", peak, sizes, origin=node.origin)
    return peak


def _codes(flow: Movement, shard: Shard, scale: View, node: Node) -> Shard:
    code = flow.context.code(shard.tile)
    view = code.buffer(Element.Q8, static_shape(shard.view), node.op)
    code.emit("quantize_static", view, shard.view, scale, origin=node.origin)
    return Shard(shard.tile, shard.first, shard.last, view)
