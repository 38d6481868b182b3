"""What the timing loop changes as it runs: arrays, so that numba sees only those.

An instruction in flight has a *slot*: number ``tile · W + order % W``, over all tiles."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import WINDOW
from cimc.sim.reference import RESERVATIONS
from cimc.sim.tables import R_UNIT, Layout, lined

Ints = NDArray[np.int64]
W = WINDOW
assert W <= 64, "one bit per instruction in flight"
UNKNOWN = -1
COMPUTE, SEND, RECEIVE, MEMORY, HOST, WAIT, HALT, REDUCE, COLLECT = range(9)  # Action, as numba sees it
STALLS = ("issue", "operand", "unit", "message", "channel", "link", "memory")
"""What an execution may have to wait for; see docs/contract.md."""
BUSY, FIRST, FINAL, ISSUE, OPERAND, UNIT, LINK, OTHER = range(8)
# What OTHER counts follows from the row: MESSAGE of one that takes messages, CHANNEL of one that sends, QUEUE of an access.
MESSAGE = CHANNEL = QUEUE = OTHER
# scalars; OPEN, READY, ENDED and HEAP are the lengths of what State calls so
OPEN, READY, ENDED, HEAP, HOST_FREE, LAST, ISSUED, TRACED, BAD, CHAIN, VERSION = range(11)
NOW, NOW_KEY = 11, 12  # the event that happens
STEP = 13  # see State.due: of the cycles that one place stands for, the binary logarithm
PLACES = 4096  # of State.due


# columns of the tables
T_ROW, T_HEAD, T_TAIL, T_NEXT_ISSUE, T_BARRIER, T_BARRIER_END, T_BARRIER_CHAIN, T_OPEN = range(8)
T_LATEST, T_LONGEST = 8, 9
F_ROW, F_ORDER, F_PREVIOUS, F_START, F_END, F_CHAIN_END, F_FREE, F_WAITERS = range(8)  # what those behind it look at
F_MASK, F_HAZARD, F_SAME, F_RAW, F_OPERANDS, F_UNIT, F_CHAIN, F_COST = range(8, 16)  # what those before it change
C_HEAD, C_TAKEN, C_TAIL, C_BYTES, C_RECEIVER, C_SENDER, C_FIRST, C_RING = range(8)
M_BYTES, M_ARRIVAL, M_RELEASE, M_CHAIN = range(4)
Q_FREE, Q_BUSY = range(2)


class State(NamedTuple):
    """Everything that changes. The tables' columns are named above by the same letter."""

    scalar: Ints
    tile: Ints  # tile, T: next row to issue, oldest order without a known end, orders issued, the wait that holds up issue
    env: Ints  # tile, slot: values of the repeat variables
    limit: Ints  # tile, slot: where they end
    last_on: Ints  # tile, unit: order of the last instruction on it
    chain_on: Ints  # tile, unit: where the chain through the cores of a matrix has come to
    # slot, F: an instruction in flight; OPERANDS and UNIT: ready and free, as far as known; WAITERS, MASK, HAZARD, SAME, RAW:
    # bits of places in the window: who waits for it; for whom it waits at all, by hazard, by unit, for results.
    flight: Ints
    retired: Ints  # slot: when all up to it had ended
    blocked: Ints  # slot: since when a send has been waiting for room, or UNKNOWN
    span: Ints  # slot: how many ranges it has, then of each from which byte, with its flags in the last bits, and to which one
    open: Ints  # tiles that may be able to issue
    ready: Ints  # slots that have nothing left to wait for
    ended: Ints  # slots whose end has become known
    heap: Ints  # event, (time, key)
    server: Ints  # server of memory accesses, Q: free from, cycles it was busy
    line: Ints  # link: how many reservations it has, then from when and to when each
    # channel, C: oldest message not released, oldest not taken, end; bytes in it; slots that wait, or -1; its messages begin
    # at FIRST and there are RING places for them
    channel: Ints
    message: Ints  # message, M: CHAIN is the longest chain up to its arrival
    met: Ints  # router of sums · turn: parts that have come; last header; longest chain; longest occupation
    way: Ints  # link of a tree, (header; cycles of one that meets nobody; longest occupation up to it)
    executions: Ints  # variant: executions
    # place: cycles of the queue of global memory for accesses whose chain up to them has place << STEP cycles or more
    due: Ints
    spent: Ints  # row, one cache line: busy cycles, when its work first began, latest end; by cause, waiting
    latest: Ints  # row: order of its latest execution
    trace: Ints  # n, (tile, row, start, end)


def fresh(layout: Layout, trace: int) -> State:
    """The state before the first cycle; ``trace`` is how many instructions the trace buffer holds."""
    c = layout.flat
    tiles, channels = len(layout.tiles), len(c.ring_ptr) - 1
    units = 1 + int(c.rows[:, R_UNIT].max(initial=0))

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, np.int64)

    state = State(
        scalar=zeros(14),
        tile=zeros(tiles, 10),
        env=zeros(tiles, layout.depth),
        limit=zeros(tiles, layout.depth),
        last_on=np.full((tiles, units), -W, np.int64),
        chain_on=zeros(tiles, units),
        flight=lined(tiles * W, 16, np.int64),
        retired=zeros(tiles * W),
        blocked=np.full(tiles * W, UNKNOWN, np.int64),
        span=lined(tiles * W, 1 + 2 * layout.ranges, np.int64),
        open=np.arange(tiles)[::-1].copy(),
        ready=zeros(tiles * W),
        ended=zeros(tiles * W),
        heap=zeros(tiles * (W + 1), 2),
        server=zeros(1 + len(layout.homes), 2),
        line=lined(layout.links_of_chip, 1 + 2 * (RESERVATIONS + 1), np.int64),
        channel=lined(channels, 8, np.int64),
        message=zeros(int(c.ring_ptr[-1]), 4),
        met=zeros(layout.met, 4),
        way=zeros(layout.widest, 3),
        executions=zeros(layout.variants),
        due=zeros(PLACES),
        spent=lined(len(c.rows), 8, np.int64),
        latest=np.full(len(c.rows), -W, np.int64),
        trace=zeros(trace, 4),
    )
    state.scalar[OPEN] = tiles
    state.scalar[BAD] = state.scalar[NOW] = -1
    state.tile[:, T_ROW] = c.tile_start
    state.tile[:, T_BARRIER] = -1
    state.tile[:, T_OPEN] = 1
    state.channel[:, C_RECEIVER] = -1
    state.channel[:, C_SENDER] = -1
    state.channel[:, C_FIRST] = c.ring_ptr[:-1]
    state.channel[:, C_RING] = np.diff(c.ring_ptr)
    state.spent[:, FIRST] = 1 << 62
    return state
