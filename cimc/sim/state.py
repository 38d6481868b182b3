"""What the timing loop changes as it runs: arrays, so that numba sees only those."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc.sim.flat import Layout
from cimc.sim.reference import WINDOW

Ints = NDArray[np.int64]
W = WINDOW
assert W <= 64, "one bit per instruction in flight"
UNKNOWN = -1
COMPUTE, SEND, RECEIVE, MEMORY, HOST, WAIT, HALT = range(7)  # Action, as numba sees it
OPERAND, UNIT, MESSAGE, CHANNEL, QUEUE = range(5)
STALLS = ("operand", "unit", "message", "channel", "memory")
# scalars
HEAP, MEMORY_FREE, HOST_FREE, LAST, ISSUED, TRACED, BAD_ROW, BAD_BYTES, MEMORY_BUSY, CHAIN = range(10)


MASKS = ("f_mask", "f_hazard", "f_same", "f_raw")


class State(NamedTuple):
    """Everything that changes. First axis: tile (t), row (r), variant (v), channel (c), link (l) or as said."""

    scalar: Ints
    row: Ints  # t: next row to issue
    env: Ints  # t, slot
    limit: Ints  # t, slot
    head: Ints  # t: oldest instruction without a known end
    tail: Ints  # t: instructions issued
    next_issue: Ints  # t
    retired: Ints  # t
    barrier: Ints  # t: slot of a wait that issue waits for, or -1
    barrier_end: Ints  # t
    barrier_chain: Ints  # t
    f_row: Ints  # t, W: the instruction in flight ...
    f_variant: Ints
    f_issue: Ints
    f_start: Ints
    f_end: Ints
    f_operands: Ints  # when its operands are ready, as far as known
    f_unit: Ints  # when its unit is free, as far as known
    f_retired: Ints  # the tile's retired once it has ended
    f_blocked: Ints  # when a send found no room
    f_mask: NDArray[np.uint64]  # slots it waits for
    f_hazard: NDArray[np.uint64]  # those of them with a hazard
    f_same: NDArray[np.uint64]  # those of them on the same unit
    f_raw: NDArray[np.uint64]  # those of them whose results it reads
    f_chain: Ints  # longest chain of dependences up to its start
    f_chain_end: Ints  # and to its end
    f_low: Ints  # t, W, range
    f_high: Ints
    f_flags: Ints
    last_on: Ints  # t, unit: order of the last instruction on it
    heap_time: Ints
    heap_key: Ints
    link: Ints  # l: free from
    c_head: Ints  # c: oldest message not released
    c_taken: Ints  # oldest not taken
    c_tail: Ints
    c_bytes: Ints
    c_receiver: Ints  # slot of the recv that waits, or -1
    c_receiver_tile: Ints
    c_sender: Ints  # slot of the send that waits
    c_sender_tile: Ints
    m_bytes: Ints  # message rings
    m_arrival: Ints
    m_release: Ints
    m_chain: Ints  # longest chain up to the arrival
    header: Ints  # links of the largest tree
    hops: Ints
    count: Ints  # v: executions
    busy: Ints  # r: cycles
    first: Ints  # r: earliest start
    last: Ints  # r: latest end
    stall: Ints  # cause
    trace: Ints  # n, (tile, row, start, end)


def fresh(layout: Layout, trace: int) -> State:
    """The state before the first cycle; ``trace`` is how many instructions the trace buffer holds."""
    c = layout.flat
    tiles, rows = len(layout.tiles), len(c.op)
    units = max((len(u) for u in layout.units), default=1)
    slots = (tiles, W)
    widest = int(np.diff(c.tree_ptr).max(initial=1))
    sizes = {"f": slots, "c": (len(c.ring_ptr) - 1,), "m": (int(c.ring_ptr[-1]),)}  # by the first letter of a name
    special: dict[str, tuple[int, ...]] = {
        "scalar": (10,),
        "env": (tiles, layout.depth),
        "limit": (tiles, layout.depth),
        "last_on": (tiles, units),
        "heap_time": (tiles * W + 1,),
        "heap_key": (tiles * W + 1,),
        "link": (layout.links,),
        "header": (widest,),
        "hops": (widest,),
        "count": (len(c.cycles),),
        "busy": (rows,),
        "first": (rows,),
        "last": (rows,),
        "stall": (len(STALLS),),
        "trace": (trace, 4),
        **dict.fromkeys(("f_low", "f_high", "f_flags"), (*slots, layout.ranges)),
    }
    start = {"barrier": -1, "last_on": -1, "c_receiver": -1, "c_sender": -1, "first": 1 << 62}
    arrays: dict[str, NDArray[np.generic]] = {}
    for name in State._fields:
        shape = special.get(name) or sizes.get(name.split("_")[0], (tiles,))
        dtype = np.uint64 if name in MASKS else np.int64
        arrays[name] = np.full(shape, start.get(name, 0), dtype)
    arrays["row"][:] = c.tile_start
    return State(**arrays)  # pyright: ignore[reportArgumentType]  # built by the names of its own fields
