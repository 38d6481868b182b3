"""Parts of sums in the fast timing engine, added by routers: the plain definition is in :mod:`cimc.sim.reference`."""

from __future__ import annotations

from cimc.native import inner
from cimc.sim.issue import end, message_at
from cimc.sim.lines import enter
from cimc.sim.state import (
    BUSY,
    C_BYTES,
    C_RECEIVER,
    C_RING,
    C_TAIL,
    F_CHAIN,
    F_COST,
    LINK,
    M_ARRIVAL,
    M_BYTES,
    M_CHAIN,
    M_RELEASE,
    READY,
    UNKNOWN,
    Ints,
    State,
)
from cimc.sim.tables import (
    N_INPUTS,
    N_LINK,
    N_NEXT,
    N_PLACE,
    R_CHANNEL,
    R_DEST,
    R_WAY,
    V_ADDED,
    V_CROSS,
    V_CYCLES,
    V_SIZE,
    Flat,
)


@inner
def join(c: Flat, s: State, g: int, row: int, now: int, rates: Ints) -> None:
    """A part of a sum leaves, up to the first router that still waits for another; the last one there takes it on."""
    cost = s.flight[g, F_COST]
    size, own, cross = c.costs[cost, V_SIZE], c.costs[cost, V_CYCLES], c.costs[cost, V_CROSS]
    channel, total = c.dests[c.rows[row, R_DEST], 0], c.rows[row, R_CHANNEL]
    turn = s.channel[channel, C_TAIL]
    at = message_at(s, channel, turn)
    s.message[at, M_BYTES] = size
    s.message[at, M_RELEASE] = UNKNOWN
    s.channel[channel, C_TAIL] = turn + 1
    s.channel[channel, C_BYTES] += size
    s.spent[row, BUSY] += own
    left, free, added, first = now + own, own, 0, True
    header, chain, slowest = now, s.flight[g, F_CHAIN], own
    router = c.rows[row, R_WAY]
    while True:
        if c.routers[router, N_INPUTS] > 1:
            place = c.routers[router, N_PLACE] + turn % s.channel[total, C_RING]
            s.met[place, 0] += 1
            header = s.met[place, 1] = max(s.met[place, 1], header)
            chain = s.met[place, 2] = max(s.met[place, 2], chain)
            slowest = s.met[place, 3] = max(s.met[place, 3], slowest)
            if s.met[place, 0] < c.routers[router, N_INPUTS]:
                break
            for k in range(4):
                s.met[place, k] = 0
            added, first = c.costs[cost, V_ADDED], False
            header, chain, slowest = header + rates[5], chain + rates[5], max(slowest, added)
        link = c.routers[router, N_LINK]
        if link < 0:
            arrive(s, total, size, header + slowest, chain + slowest)
            break
        between = link >= rates[3]
        taken, hop = (max(cross, added), rates[4]) if between else (max(own, added), rates[0])
        entered = enter(s, link, header, taken, now)
        if first:
            left, free = max(left, entered + taken), max(free, taken)
        header, chain, slowest, first = entered + hop, chain + hop, max(slowest, taken), False
        router = c.routers[router, N_NEXT]
    s.spent[row, LINK] += left - now - free
    end(s, g, left, s.flight[g, F_CHAIN] + free)


@inner
def arrive(s: State, total: int, size: int, arrival: int, chain: int) -> None:
    """A sum is on its last way into its channel."""
    at = message_at(s, total, s.channel[total, C_TAIL])
    s.message[at, M_BYTES] = size
    s.message[at, M_ARRIVAL] = arrival
    s.message[at, M_CHAIN] = chain
    s.channel[total, C_TAIL] += 1
    if s.channel[total, C_RECEIVER] >= 0:
        s.ready[s.scalar[READY]] = s.channel[total, C_RECEIVER]
        s.scalar[READY] += 1
        s.channel[total, C_RECEIVER] = -1
