"""The inner loop of the fast timing engine: the model of :mod:`cimc.sim.reference` on flat arrays, compiled by numba.

``W`` slots per tile hold the instructions in flight; what one still waits for is a bit mask over them. Events are a
binary heap ordered by (time, tile, order, phase)."""

from __future__ import annotations

from numba import njit

from cimc.sim.flat import Flat
from cimc.sim.issue import drop_first, end, issue, push
from cimc.sim.state import (
    BAD_BYTES,
    BAD_ROW,
    CHANNEL,
    COMPUTE,
    HEAP,
    HOST,
    HOST_FREE,
    MEMORY,
    MEMORY_BUSY,
    MEMORY_FREE,
    MESSAGE,
    QUEUE,
    RECEIVE,
    SEND,
    TRACED,
    UNIT,
    UNKNOWN,
    WAIT,
    Ints,
    State,
    W,
)  # fmt: skip

DONE, MORE, FULL, MISMATCH = range(4)  # what advance() returns

# --- messages and memory ------------------------------------------------------------------------


@njit(cache=True)
def room(c: Flat, s: State, channel: int, now: int, size: int, capacity: int) -> int:
    """When a message may enter the channel, from now on; -1 if not known yet. Forgets what has been released."""
    base = c.ring_ptr[channel]
    ring = c.ring_ptr[channel + 1] - base
    head, taken = s.c_head[channel], s.c_taken[channel]
    while head < taken and s.m_release[base + head % ring] <= now:
        s.c_bytes[channel] -= s.m_bytes[base + head % ring]
        head += 1
    s.c_head[channel] = head
    occupied = s.c_bytes[channel]
    at = now
    while head < s.c_tail[channel] and occupied + size > capacity:
        if head >= taken:
            return -1
        at = s.m_release[base + head % ring]
        occupied -= s.m_bytes[base + head % ring]
        head += 1
    return at


@njit(cache=True)
def chain(s: State, links: Ints, begin: int, stop: int, now: int, occupied: int, hop: int) -> int:
    """A packet along a way: when its last byte arrives."""
    header = now
    for i in range(begin, stop):
        entered = max(header, s.link[links[i]])
        s.link[links[i]] = entered + occupied
        header = entered + hop
    return header + occupied


@njit(cache=True)
def take(c: Flat, s: State, t: int, slot: int) -> int:
    """A recv or wait takes its message if it is there: returns its end, -1 if it has to wait, -2 for a wrong size."""
    row, variant = s.f_row[t, slot], s.f_variant[t, slot]
    channel = c.channel[row]
    taken = s.c_taken[channel]
    if taken == s.c_tail[channel]:
        s.c_receiver[channel] = slot
        s.c_receiver_tile[channel] = t
        return -1
    base = c.ring_ptr[channel]
    at = base + taken % (c.ring_ptr[channel + 1] - base)
    if s.m_bytes[at] != c.size[variant]:
        s.scalar[BAD_ROW] = row
        s.scalar[BAD_BYTES] = s.m_bytes[at]
        return -2
    busy = c.cycles[variant] if c.op[row] == RECEIVE else 0
    copied = s.f_start[t, slot] + busy
    finish = max(copied, s.m_arrival[at])
    s.f_chain_end[t, slot] = max(s.f_chain[t, slot] + busy, s.m_chain[at])
    s.m_release[at] = finish
    s.c_taken[channel] = taken + 1
    s.busy[row] += busy
    s.stall[MESSAGE] += finish - copied
    sender = s.c_sender[channel]
    if sender >= 0:
        u = s.c_sender_tile[channel]
        s.c_sender[channel] = -1
        push(s, finish, u, order_of(s, u, sender), 0)
    return finish


@njit(cache=True)
def order_of(s: State, t: int, slot: int) -> int:
    """The order of the instruction in a slot."""
    newest = s.tail[t] - 1
    return newest - (newest - slot) % W


@njit(cache=True)
def send(c: Flat, s: State, t: int, slot: int, now: int, capacity: int, hop: int) -> int:
    """A send tries to enter its channels. Returns 0, or -2 if a waiting recv expects another size."""
    row, variant = s.f_row[t, slot], s.f_variant[t, slot]
    size, occupied = c.size[variant], c.cycles[variant]
    enter = now
    for i in range(c.dest_ptr[row], c.dest_ptr[row + 1]):
        channel = c.dest_channel[i]
        at = room(c, s, channel, now, size, capacity)
        if at < 0:
            s.c_sender[channel] = slot
            s.c_sender_tile[channel] = t
            if s.f_blocked[t, slot] == UNKNOWN:
                s.f_blocked[t, slot] = now
            return 0
        enter = max(enter, at)
    if enter > now:
        if s.f_blocked[t, slot] == UNKNOWN:
            s.f_blocked[t, slot] = now
        push(s, enter, t, order_of(s, t, slot), 0)
        return 0
    if s.f_blocked[t, slot] != UNKNOWN:
        s.stall[CHANNEL] += now - s.f_blocked[t, slot]
    left = now + occupied
    first = c.tree_ptr[row]
    for i in range(c.tree_ptr[row + 1] - first):
        link, parent = c.tree_link[first + i], c.tree_parent[first + i]
        entered = max(now if parent < 0 else s.header[parent], s.link[link])
        s.link[link] = entered + occupied
        s.header[i] = entered + hop
        s.hops[i] = 1 if parent < 0 else s.hops[parent] + 1
        if parent < 0:
            left = max(left, entered + occupied)
    s.busy[row] += occupied
    for i in range(c.dest_ptr[row], c.dest_ptr[row + 1]):
        channel, leaf = c.dest_channel[i], c.dest_leaf[i]
        base = c.ring_ptr[channel]
        at = base + s.c_tail[channel] % (c.ring_ptr[channel + 1] - base)
        s.m_bytes[at] = size
        s.m_arrival[at] = (now if leaf < 0 else s.header[leaf]) + occupied
        s.m_release[at] = UNKNOWN
        s.m_chain[at] = (
            s.f_chain[t, slot] + s.hops[leaf] * hop + occupied if leaf >= 0 else s.f_chain[t, slot] + occupied
        )
        s.c_tail[channel] += 1
        s.c_bytes[channel] += size
        receiver = s.c_receiver[channel]
        if receiver >= 0:
            s.c_receiver[channel] = -1
            u = s.c_receiver_tile[channel]
            finish = take(c, s, u, receiver)
            if finish == -2:
                return -2
            end(c, s, u, receiver, finish, s.f_chain_end[u, receiver])
            issue(c, s, u)
    end(c, s, t, slot, left, s.f_chain[t, slot] + occupied)
    return 0


@njit(cache=True)
def memory(c: Flat, s: State, t: int, slot: int, order: int, phase: int, now: int, hop: int, rates: Ints) -> None:
    """One of the three phases of a memory access: the request leaves, it is served, the response leaves."""
    row, variant = s.f_row[t, slot], s.f_variant[t, slot]
    if phase == 0:
        occupied = max(1, -(-c.request[variant] // rates[1]))
        push(s, chain(s, c.there_link, c.there_ptr[t], c.there_ptr[t + 1], now, occupied, hop), t, order, 1)
    elif phase == 1:
        begin = max(now, s.scalar[MEMORY_FREE])
        s.stall[QUEUE] += begin - now
        s.scalar[MEMORY_BUSY] += c.cycles[variant]
        s.scalar[MEMORY_FREE] = begin + c.cycles[variant]
        push(s, s.scalar[MEMORY_FREE] + rates[3], t, order, 2)
    else:
        occupied = max(1, -(-c.response[variant] // rates[1]))
        finish = chain(s, c.back_link, c.back_ptr[t], c.back_ptr[t + 1], now, occupied, hop)
        s.busy[row] += finish - s.f_start[t, slot]
        end(c, s, t, slot, finish, s.f_chain[t, slot] + alone(c, t, variant, hop, rates))


@njit(cache=True)
def alone(c: Flat, t: int, variant: int, hop: int, rates: Ints) -> int:
    """Cycles of a memory access that meets no other."""
    hops = c.there_ptr[t + 1] - c.there_ptr[t] + c.back_ptr[t + 1] - c.back_ptr[t]
    packets = max(1, -(-c.request[variant] // rates[1])) + max(1, -(-c.response[variant] // rates[1]))
    return hops * hop + packets + c.cycles[variant] + rates[3]


@njit(cache=True)
def begin_all(c: Flat, s: State) -> None:
    """Issue the first instructions of every tile."""
    for t in range(s.row.shape[0]):
        issue(c, s, t)


@njit(cache=True)
def advance(c: Flat, s: State, rates: Ints, events: int) -> int:
    """Handle up to ``events`` events. ``rates``: router cycles, link bytes per cycle, channel bytes, memory latency.

    Returns DONE (no event is left), MORE, FULL (the trace buffer is to be emptied) or MISMATCH (a message of the wrong
    size: BAD_ROW, BAD_BYTES)."""
    hop, capacity = rates[0], rates[2]
    for _ in range(events):
        if s.scalar[HEAP] == 0:
            return DONE
        if s.trace.shape[0] and s.scalar[TRACED] + s.row.shape[0] * (W + 1) > s.trace.shape[0]:
            return FULL
        now, key = s.heap_time[0], s.heap_key[0]
        drop_first(s)
        t = key >> 46
        order = (key >> 2) & ((1 << 44) - 1)
        slot = order % W
        row, variant = s.f_row[t, slot], s.f_variant[t, slot]
        op = c.op[row]
        if op == COMPUTE:
            s.busy[row] += c.cycles[variant]
            end(c, s, t, slot, now + c.cycles[variant], s.f_chain[t, slot] + c.cycles[variant])
        elif op == SEND:
            if send(c, s, t, slot, now, capacity, hop) < 0:
                return MISMATCH
        elif op in (RECEIVE, WAIT):
            finish = take(c, s, t, slot)
            if finish == -2:
                return MISMATCH
            if finish >= 0:
                end(c, s, t, slot, finish, s.f_chain_end[t, slot])
        elif op == MEMORY:
            memory(c, s, t, slot, order, key & 3, now, hop, rates)
        elif op == HOST:
            start = max(now, s.scalar[HOST_FREE])
            s.stall[UNIT] += start - now
            s.scalar[HOST_FREE] = start + c.cycles[variant]
            s.busy[row] += c.cycles[variant]
            end(c, s, t, slot, s.scalar[HOST_FREE], s.f_chain[t, slot] + c.cycles[variant])
        issue(c, s, t)
    return MORE
