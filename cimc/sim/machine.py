"""The inner loop of the fast timing engine: the model of :mod:`cimc.sim.reference` on flat arrays, compiled by numba.

``W`` slots per tile hold the instructions in flight; what one still waits for is a bit mask over them. Events are a
binary heap ordered by (time, tile, order, phase)."""

from __future__ import annotations

import pathlib
import zlib
from collections.abc import Callable

from cimc.sim.flat import (
    R_CHANNEL,
    R_DEST,
    R_OP,
    R_SERVER,
    R_TREE,
    R_WAY,
    V_CYCLES,
    V_REQUEST,
    V_RESPONSE,
    V_SIZE,
    Flat,
)
from cimc.sim.inner import entry, inner
from cimc.sim.issue import drop_first, end, issue, push
from cimc.sim.state import (
    BAD_BYTES,
    BAD_ROW,
    BUSY,
    C_BYTES,
    C_HEAD,
    C_RECEIVER,
    C_RECEIVER_TILE,
    C_SENDER,
    C_SENDER_TILE,
    C_TAIL,
    C_TAKEN,
    CHANNEL,
    COMPUTE,
    F_BLOCKED,
    F_CHAIN,
    F_CHAIN_END,
    F_ROW,
    F_START,
    F_VARIANT,
    FIRST,
    HEAP,
    HOST,
    HOST_FREE,
    ISSUED,
    M_ARRIVAL,
    M_BYTES,
    M_CHAIN,
    M_RELEASE,
    MEMORY,
    MESSAGE,
    Q_BUSY,
    Q_FREE,
    QUEUE,
    RECEIVE,
    SEND,
    T_TAIL,
    TRACED,
    UNIT,
    UNKNOWN,
    VERSION,
    WAIT,
    Ints,
    State,
    W,
)  # fmt: skip

SOURCES = ("flat.py", "inner.py", "issue.py", "machine.py", "reference.py", "state.py")
DONE, MORE, FULL, MISMATCH = range(4)  # what advance() returns

# --- messages and memory ------------------------------------------------------------------------


@inner
def room(c: Flat, s: State, channel: int, now: int, size: int, capacity: int) -> int:
    """When a message may enter the channel, from now on; -1 if not known yet. Forgets what has been released."""
    base = c.ring_ptr[channel]
    ring = c.ring_ptr[channel + 1] - base
    head, taken = s.channel[channel, C_HEAD], s.channel[channel, C_TAKEN]
    while head < taken and s.message[base + head % ring, M_RELEASE] <= now:
        s.channel[channel, C_BYTES] -= s.message[base + head % ring, M_BYTES]
        head += 1
    s.channel[channel, C_HEAD] = head
    occupied = s.channel[channel, C_BYTES]
    at = now
    while head < s.channel[channel, C_TAIL] and occupied + size > capacity:
        if head >= taken:
            return -1
        at = s.message[base + head % ring, M_RELEASE]
        occupied -= s.message[base + head % ring, M_BYTES]
        head += 1
    return at


@inner
def chain(s: State, links: Ints, begin: int, stop: int, now: int, occupied: int, hop: int) -> int:
    """A packet along a way: when its last byte arrives."""
    header = now
    for i in range(begin, stop):
        entered = max(header, s.link[links[i]])
        s.link[links[i]] = entered + occupied
        header = entered + hop
    return int(header + occupied)


@inner
def take(c: Flat, s: State, t: int, slot: int) -> int:
    """A recv or wait takes its message if it is there: returns its end, -1 if it has to wait, -2 for a wrong size."""
    row, variant = s.flight[t, slot, F_ROW], s.flight[t, slot, F_VARIANT]
    channel = c.rows[row, R_CHANNEL]
    taken = s.channel[channel, C_TAKEN]
    if taken == s.channel[channel, C_TAIL]:
        s.channel[channel, C_RECEIVER] = slot
        s.channel[channel, C_RECEIVER_TILE] = t
        return -1
    base = c.ring_ptr[channel]
    at = base + taken % (c.ring_ptr[channel + 1] - base)
    if s.message[at, M_BYTES] != c.variants[variant, V_SIZE]:
        s.scalar[BAD_ROW] = row
        s.scalar[BAD_BYTES] = s.message[at, M_BYTES]
        return -2
    busy = c.variants[variant, V_CYCLES] if c.rows[row, R_OP] == RECEIVE else 0
    copied = s.flight[t, slot, F_START] + busy
    finish = max(copied, s.message[at, M_ARRIVAL])
    s.flight[t, slot, F_CHAIN_END] = max(s.flight[t, slot, F_CHAIN] + busy, s.message[at, M_CHAIN])
    s.message[at, M_RELEASE] = finish
    s.channel[channel, C_TAKEN] = taken + 1
    s.spent[row, BUSY] += busy
    s.spent[row, FIRST] = min(s.spent[row, FIRST], finish - busy)  # what came before was waiting
    s.stall[MESSAGE] += finish - copied
    sender = s.channel[channel, C_SENDER]
    if sender >= 0:
        u = s.channel[channel, C_SENDER_TILE]
        s.channel[channel, C_SENDER] = -1
        push(s, finish, u, order_of(s, u, sender), 0)
    return finish


@inner
def order_of(s: State, t: int, slot: int) -> int:
    """The order of the instruction in a slot."""
    newest = s.tile[t, T_TAIL] - 1
    return newest - (newest - slot) % W


@inner
def send(c: Flat, s: State, t: int, slot: int, now: int, capacity: int, hop: int) -> int:
    """A send tries to enter its channels. Returns 0, or -2 if a waiting recv expects another size."""
    row, variant = s.flight[t, slot, F_ROW], s.flight[t, slot, F_VARIANT]
    size, occupied = c.variants[variant, V_SIZE], c.variants[variant, V_CYCLES]
    enter = now
    for i in range(c.rows[row, R_DEST], c.rows[row + 1, R_DEST]):
        channel = c.dests[i, 0]
        at = room(c, s, channel, now, size, capacity)
        if at < 0:
            s.channel[channel, C_SENDER] = slot
            s.channel[channel, C_SENDER_TILE] = t
            if s.flight[t, slot, F_BLOCKED] == UNKNOWN:
                s.flight[t, slot, F_BLOCKED] = now
            return 0
        enter = max(enter, at)
    if enter > now:
        if s.flight[t, slot, F_BLOCKED] == UNKNOWN:
            s.flight[t, slot, F_BLOCKED] = now
        push(s, enter, t, order_of(s, t, slot), 0)
        return 0
    if s.flight[t, slot, F_BLOCKED] != UNKNOWN:
        s.stall[CHANNEL] += now - s.flight[t, slot, F_BLOCKED]
    left = now + occupied
    first = c.rows[row, R_TREE]
    for i in range(c.rows[row + 1, R_TREE] - first):
        link, parent = c.trees[first + i, 0], c.trees[first + i, 1]
        entered = max(now if parent < 0 else s.way[parent, 0], s.link[link])
        s.link[link] = entered + occupied
        s.way[i, 0] = entered + hop
        s.way[i, 1] = 1 if parent < 0 else s.way[parent, 1] + 1
        if parent < 0:
            left = max(left, entered + occupied)
    s.spent[row, BUSY] += occupied
    for i in range(c.rows[row, R_DEST], c.rows[row + 1, R_DEST]):
        channel, leaf = c.dests[i, 0], c.dests[i, 1]
        base = c.ring_ptr[channel]
        at = base + s.channel[channel, C_TAIL] % (c.ring_ptr[channel + 1] - base)
        s.message[at, M_BYTES] = size
        s.message[at, M_ARRIVAL] = (now if leaf < 0 else s.way[leaf, 0]) + occupied
        s.message[at, M_RELEASE] = UNKNOWN
        s.message[at, M_CHAIN] = (
            s.flight[t, slot, F_CHAIN] + s.way[leaf, 1] * hop + occupied
            if leaf >= 0
            else s.flight[t, slot, F_CHAIN] + occupied
        )
        s.channel[channel, C_TAIL] += 1
        s.channel[channel, C_BYTES] += size
        receiver = s.channel[channel, C_RECEIVER]
        if receiver >= 0:
            s.channel[channel, C_RECEIVER] = -1
            u = s.channel[channel, C_RECEIVER_TILE]
            finish = take(c, s, u, receiver)
            if finish == -2:
                return -2
            end(c, s, u, receiver, finish, s.flight[u, receiver, F_CHAIN_END])
            issue(c, s, u)
    end(c, s, t, slot, left, s.flight[t, slot, F_CHAIN] + occupied)
    return 0


@inner
def memory(c: Flat, s: State, t: int, slot: int, order: int, phase: int, now: int, hop: int, rates: Ints) -> None:
    """One of the three phases of a memory access: the request leaves, it is served, the response leaves."""
    row, variant = s.flight[t, slot, F_ROW], s.flight[t, slot, F_VARIANT]
    way, server = c.rows[row, R_WAY], c.rows[row, R_SERVER]
    if phase == 0:
        occupied = max(1, -(-c.variants[variant, V_REQUEST] // rates[1]))
        there = now if way < 0 else chain(s, c.there_link, c.ways[way, 0], c.ways[way + 1, 0], now, occupied, hop)
        push(s, there, t, order, 1)
    elif phase == 1:
        begin = max(now, s.server[server, Q_FREE])
        s.stall[QUEUE] += begin - now
        s.server[server, Q_BUSY] += c.variants[variant, V_CYCLES]
        s.server[server, Q_FREE] = begin + c.variants[variant, V_CYCLES]
        push(s, s.server[server, Q_FREE] + (rates[3] if server == 0 else hop), t, order, 2)
    else:
        occupied = max(1, -(-c.variants[variant, V_RESPONSE] // rates[1]))
        back = now if way < 0 else chain(s, c.back_link, c.ways[way, 1], c.ways[way + 1, 1], now, occupied, hop)
        s.spent[row, BUSY] += back - s.flight[t, slot, F_START]
        end(c, s, t, slot, back, s.flight[t, slot, F_CHAIN] + alone(c, row, variant, hop, rates))


@inner
def alone(c: Flat, row: int, variant: int, hop: int, rates: Ints) -> int:
    """Cycles of a memory access that meets no other."""
    way = c.rows[row, R_WAY]
    served = c.variants[variant, V_CYCLES] + (rates[3] if c.rows[row, R_SERVER] == 0 else hop)
    if way < 0:
        return served
    hops = c.ways[way + 1, 0] - c.ways[way, 0] + c.ways[way + 1, 1] - c.ways[way, 1]
    packets = max(1, -(-c.variants[variant, V_REQUEST] // rates[1])) + max(
        1, -(-c.variants[variant, V_RESPONSE] // rates[1])
    )
    return hops * hop + packets + served


@inner
def loop(c: Flat, s: State, rates: Ints, events: int) -> int:
    """Handle up to ``events`` events; see :data:`advance`."""
    hop, capacity = rates[0], rates[2]
    if s.scalar[ISSUED] == 0:
        for t in range(s.tile.shape[0]):
            issue(c, s, t)
    for _ in range(events):
        if s.scalar[HEAP] == 0:
            return DONE
        if s.trace.shape[0] and s.scalar[TRACED] + s.tile.shape[0] * (W + 1) > s.trace.shape[0]:
            return FULL
        now, key = s.heap[0, 0], s.heap[0, 1]
        drop_first(s)
        t = key >> 46
        order = (key >> 2) & ((1 << 44) - 1)
        slot = order % W
        row, variant = s.flight[t, slot, F_ROW], s.flight[t, slot, F_VARIANT]
        op = c.rows[row, R_OP]
        if op == COMPUTE:
            s.spent[row, BUSY] += c.variants[variant, V_CYCLES]
            end(
                c,
                s,
                t,
                slot,
                now + c.variants[variant, V_CYCLES],
                s.flight[t, slot, F_CHAIN] + c.variants[variant, V_CYCLES],
            )
        elif op == SEND:
            if send(c, s, t, slot, now, capacity, hop) < 0:
                return MISMATCH
        elif op in (RECEIVE, WAIT):
            finish = take(c, s, t, slot)
            if finish == -2:
                return MISMATCH
            if finish >= 0:
                end(c, s, t, slot, finish, s.flight[t, slot, F_CHAIN_END])
        elif op == MEMORY:
            memory(c, s, t, slot, order, key & 3, now, hop, rates)
        elif op == HOST:
            start = max(now, s.scalar[HOST_FREE])
            s.stall[UNIT] += start - now
            s.scalar[HOST_FREE] = start + c.variants[variant, V_CYCLES]
            s.spent[row, BUSY] += c.variants[variant, V_CYCLES]
            end(c, s, t, slot, s.scalar[HOST_FREE], s.flight[t, slot, F_CHAIN] + c.variants[variant, V_CYCLES])
        issue(c, s, t)
    return MORE


def _fingerprint() -> int:
    """A number that changes with the sources of everything compiled into the loop."""
    here = pathlib.Path(__file__).parent
    return zlib.crc32(b"".join((here / name).read_bytes() for name in SOURCES))


def _entry(version: int) -> Callable[[Flat, State, Ints, int], int]:
    """The loop behind the one function whose machine code numba keeps on disk. Whether that code is still good numba
    decides by the function's own file and the values it closes over; ``version`` stands for the other files."""

    @entry
    def advance(c: Flat, s: State, rates: Ints, events: int) -> int:
        s.scalar[VERSION] = version
        return loop(c, s, rates, events)

    return advance


advance = _entry(_fingerprint())
"""``advance(flat, state, rates, events)`` handles up to ``events`` events; ``rates``: router cycles, link bytes per
cycle, channel bytes, memory latency. Returns DONE (no event is left), MORE, FULL (the trace buffer is to be emptied) or
MISMATCH (a message of the wrong size: BAD_ROW, BAD_BYTES)."""


def compiled() -> bool:
    """Whether this process has the loop's machine code. If not, the first call of :data:`advance` loads it from disk or,
    once on a machine, compiles it: some ten seconds."""
    return bool(getattr(advance, "signatures", True))
