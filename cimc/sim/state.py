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
HEAP, HOST_FREE, LAST, ISSUED, TRACED, BAD_ROW, BAD_BYTES, CHAIN, VERSION = range(9)


# columns of the tables
T_ROW, T_HEAD, T_TAIL, T_NEXT_ISSUE, T_RETIRED, T_BARRIER, T_BARRIER_END, T_BARRIER_CHAIN = range(8)
F_ROW, F_VARIANT, F_ISSUE, F_START, F_END, F_OPERANDS, F_UNIT, F_RETIRED, F_BLOCKED, F_CHAIN, F_CHAIN_END = range(11)
F_MASK, F_HAZARD, F_SAME, F_RAW = range(4)
S_LOW, S_HIGH, S_FLAGS = range(3)
C_HEAD, C_TAKEN, C_TAIL, C_BYTES, C_RECEIVER, C_RECEIVER_TILE, C_SENDER, C_SENDER_TILE = range(8)
M_BYTES, M_ARRIVAL, M_RELEASE, M_CHAIN = range(4)
BUSY, FIRST, FINAL = range(3)
Q_FREE, Q_BUSY = range(2)


class State(NamedTuple):
    """Everything that changes. The tables' columns are named above by the same letter."""

    scalar: Ints
    tile: Ints  # tile, T: next row to issue, oldest order without a known end, instructions issued ...
    env: Ints  # tile, slot: values of the repeat variables
    limit: Ints  # tile, slot: where they end
    last_on: Ints  # tile, unit: order of the last instruction on it
    flight: Ints  # tile, W, F: the instructions in flight; OPERANDS and UNIT: ready and free, as far as known
    mask: NDArray[
        np.uint64
    ]  # tile, W, F_MASK ...: slots it waits for, by hazard, by unit; those whose results it reads
    span: Ints  # tile, W, range, S: bytes it touches
    heap: Ints  # event, (time, key)
    server: Ints  # server of memory accesses, Q: free from, cycles it was busy
    link: Ints  # link: free from
    channel: (
        Ints  # channel, C: oldest message not released, oldest not taken, end; bytes in it; who waits (a slot or -1)
    )
    message: Ints  # message, M: CHAIN is the longest chain up to its arrival
    way: Ints  # link of a tree, (header, hops)
    executions: Ints  # variant: executions
    spent: Ints  # row, (busy cycles, when its work first began, latest end)
    stall: Ints  # cause: cycles
    trace: Ints  # n, (tile, row, start, end)


def fresh(layout: Layout, trace: int) -> State:
    """The state before the first cycle; ``trace`` is how many instructions the trace buffer holds."""
    c = layout.flat
    tiles, channels = len(layout.tiles), len(c.ring_ptr) - 1
    units = max((len(u) for u in layout.units), default=1)

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, np.int64)

    state = State(
        scalar=zeros(9),
        tile=zeros(tiles, 8),
        env=zeros(tiles, layout.depth),
        limit=zeros(tiles, layout.depth),
        last_on=np.full((tiles, units), -1, np.int64),
        flight=zeros(tiles, W, 11),
        mask=np.zeros((tiles, W, 4), np.uint64),
        span=zeros(tiles, W, layout.ranges, 3),
        heap=zeros(tiles * W + 1, 2),
        server=zeros(1 + len(layout.homes), 2),
        link=zeros(layout.links),
        channel=zeros(channels, 8),
        message=zeros(int(c.ring_ptr[-1]), 4),
        way=zeros(layout.widest, 2),
        executions=zeros(len(layout.jobs)),
        spent=zeros(len(c.rows), 3),
        stall=zeros(len(STALLS)),
        trace=zeros(trace, 4),
    )
    state.tile[:, T_ROW] = c.tile_start
    state.tile[:, T_BARRIER] = -1
    state.channel[:, C_RECEIVER] = -1
    state.channel[:, C_SENDER] = -1
    state.spent[:, FIRST] = 1 << 62
    return state
