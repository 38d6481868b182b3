"""The inner loop of the fast timing engine: the model of :mod:`cimc.sim.reference` on flat arrays, compiled by numba.

``W`` slots per tile hold the instructions in flight; what one still waits for is a bit mask over them. Events are a binary
heap ordered by (time, tile, order, phase)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from cimc.sim.flat import END, LOOP, NEXT, Flat, Layout
from cimc.sim.reference import WINDOW

Ints = NDArray[np.int64]
W = WINDOW
assert W <= 64, "one bit per instruction in flight"
UNKNOWN = -1
COMPUTE, SEND, RECEIVE, MEMORY, HOST, WAIT, HALT = range(7)  # Action, as numba sees it
OPERAND, UNIT, MESSAGE, CHANNEL, QUEUE = range(5)
STALLS = ("operand", "unit", "message", "channel", "memory")
DONE, MORE, FULL, MISMATCH = range(4)  # what advance() returns
# scalars
HEAP, MEMORY_FREE, HOST_FREE, LAST, ISSUED, TRACED, BAD_ROW, BAD_BYTES, MEMORY_BUSY, NOW = range(10)


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
    header: Ints  # links of the largest tree
    count: Ints  # v: executions
    busy: Ints  # r: cycles
    first: Ints  # r: earliest start
    last: Ints  # r: latest end
    stall: Ints  # cause
    trace: Ints  # n, (tile, row, start, end)


def fresh(layout: Layout, trace: int) -> State:
    """The state before the first cycle; ``trace`` is how many instructions the trace buffer holds."""
    c = layout.flat
    tiles, rows, variants = len(layout.tiles), len(c.op), len(c.cycles)
    channels, rings = len(c.ring_ptr) - 1, int(c.ring_ptr[-1])
    units = max((len(u) for u in layout.units), default=1)
    slots = (tiles, W)

    def zeros(*shape: int) -> Ints:
        return np.zeros(shape, np.int64)

    def minus(*shape: int) -> Ints:
        return np.full(shape, -1, np.int64)

    masks = [np.zeros(slots, np.uint64) for _ in range(3)]
    wide = int(np.diff(c.tree_ptr).max(initial=1))
    return State(
        zeros(10), c.tile_start.copy(), zeros(tiles, layout.depth), zeros(tiles, layout.depth), zeros(tiles),
        zeros(tiles), zeros(tiles), zeros(tiles), minus(tiles), zeros(tiles), zeros(*slots), zeros(*slots),
        zeros(*slots), zeros(*slots), zeros(*slots), zeros(*slots), zeros(*slots), zeros(*slots), minus(*slots),
        *masks, zeros(*slots, layout.ranges), zeros(*slots, layout.ranges), zeros(*slots, layout.ranges),
        minus(tiles, units), zeros(tiles * W + 1), zeros(tiles * W + 1), zeros(layout.links), zeros(channels),
        zeros(channels), zeros(channels), zeros(channels), minus(channels), minus(channels), minus(channels),
        minus(channels), zeros(rings), zeros(rings), zeros(rings), zeros(max(1, wide)), zeros(variants), zeros(rows),
        np.full(rows, 1 << 62, np.int64), zeros(rows), zeros(5), zeros(trace, 4),
    )  # fmt: skip


# --- the heap -----------------------------------------------------------------------------------


@njit(cache=True)
def push(s: State, time: int, tile: int, order: int, phase: int) -> None:
    """Add an event."""
    key = (tile << 46) | (order << 2) | phase
    i = s.scalar[HEAP]
    s.scalar[HEAP] = i + 1
    while i > 0:
        up = (i - 1) >> 1
        if s.heap_time[up] < time or (s.heap_time[up] == time and s.heap_key[up] <= key):
            break
        s.heap_time[i] = s.heap_time[up]
        s.heap_key[i] = s.heap_key[up]
        i = up
    s.heap_time[i] = time
    s.heap_key[i] = key


@njit(cache=True)
def drop_first(s: State) -> None:
    """Remove the earliest event."""
    n = s.scalar[HEAP] - 1
    s.scalar[HEAP] = n
    time, key = s.heap_time[n], s.heap_key[n]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        right = child + 1
        if right < n and (
            s.heap_time[right] < s.heap_time[child]
            or (s.heap_time[right] == s.heap_time[child] and s.heap_key[right] < s.heap_key[child])
        ):
            child = right
        if s.heap_time[child] > time or (s.heap_time[child] == time and s.heap_key[child] >= key):
            break
        s.heap_time[i] = s.heap_time[child]
        s.heap_key[i] = s.heap_key[child]
        i = child
    s.heap_time[i] = time
    s.heap_key[i] = key


# --- issue --------------------------------------------------------------------------------------


@njit(cache=True)
def affine(c: Flat, s: State, t: int, index: int) -> int:
    """An affine value for a tile's repeat variables."""
    value = c.aff_const[index]
    for i in range(c.aff_ptr[index], c.aff_ptr[index + 1]):
        value += c.aff_factor[i] * s.env[t, c.aff_slot[i]]
    return value


@njit(cache=True)
def step(c: Flat, s: State, t: int) -> int:
    """The tile's next row that is an instruction, or -1 at the end; repeats are counted on the way."""
    row = s.row[t]
    while True:
        op = c.op[row]
        if op == LOOP:
            slot = c.slot[row]
            s.env[t, slot] = 0
            s.limit[t, slot] = affine(c, s, t, c.trips[row])
            row = row + 1 if s.limit[t, slot] > 0 else c.target[row]
        elif op == NEXT:
            slot = c.slot[row]
            s.env[t, slot] += 1
            row = c.target[row] if s.env[t, slot] < s.limit[t, slot] else row + 1
        else:
            break
    s.row[t] = row
    if op == END:
        return -1
    s.row[t] = row + 1
    return row


@njit(cache=True)
def fill(c: Flat, s: State, t: int, slot: int, row: int) -> None:
    """Put a row into a slot: its variant and byte ranges now."""
    variant = c.variant[row]
    if c.variant_aff[row] >= 0:
        variant += affine(c, s, t, c.variant_aff[row])
    s.f_row[t, slot] = row
    s.f_variant[t, slot] = variant
    s.f_end[t, slot] = UNKNOWN
    s.f_blocked[t, slot] = UNKNOWN
    s.f_mask[t, slot] = 0
    s.f_hazard[t, slot] = 0
    s.f_same[t, slot] = 0
    s.count[variant] += 1
    bounds = c.bounds_ptr[variant]
    first = c.range_ptr[row]
    for i in range(c.range_ptr[row + 1] - first):
        at = affine(c, s, t, c.range_aff[first + i])
        s.f_low[t, slot, i] = at + c.low[bounds + i]
        s.f_high[t, slot, i] = at + c.high[bounds + i]
        s.f_flags[t, slot, i] = c.range_flags[first + i]


@njit(cache=True)
def conflict(c: Flat, s: State, t: int, a: int, b: int) -> bool:
    """Whether the instructions in two slots have a hazard."""
    row_a, row_b = s.f_row[t, a], s.f_row[t, b]
    for i in range(c.range_ptr[row_a + 1] - c.range_ptr[row_a]):
        for j in range(c.range_ptr[row_b + 1] - c.range_ptr[row_b]):
            low = max(s.f_low[t, a, i], s.f_low[t, b, j])
            high = min(s.f_high[t, a, i], s.f_high[t, b, j])
            if low < high:
                flags = s.f_flags[t, a, i]
                others = s.f_flags[t, b, j]
                if ((flags | others) & 1) and not (flags & others & 2):
                    return True
    return False


@njit(cache=True)
def issue(c: Flat, s: State, t: int) -> None:
    """Issue what can be issued."""
    while s.barrier[t] < 0 and s.tail[t] - s.head[t] < W:
        row = step(c, s, t)
        if row < 0:
            return
        order = s.tail[t]
        slot = order % W
        if order >= W:
            s.retired[t] = s.f_retired[t, slot]
        when = max(s.next_issue[t], s.retired[t], s.barrier_end[t])
        s.next_issue[t] = when + 1
        s.tail[t] = order + 1
        s.scalar[ISSUED] += 1
        fill(c, s, t, slot, row)
        s.f_issue[t, slot] = when
        op = c.op[row]
        if op == HALT:
            s.f_start[t, slot] = when
            end(c, s, t, slot, when)
            continue
        depend(c, s, t, slot, order)
        if op == WAIT:
            s.barrier[t] = slot
        ready(s, t, slot, order)


@njit(cache=True)
def depend(c: Flat, s: State, t: int, slot: int, order: int) -> None:
    """Find what an instruction waits for among those in flight."""
    row = s.f_row[t, slot]
    when = s.f_issue[t, slot]
    operands = when
    unit_free = when
    everything = c.everything[row]
    previous = s.last_on[t, c.unit[row]]
    s.last_on[t, c.unit[row]] = order
    for j in range(max(0, order - W + 1), order):
        other = j % W
        ended = s.f_end[t, other]
        if ended != UNKNOWN and ended <= operands and ended <= unit_free:
            continue
        hazard = everything == 1 or conflict(c, s, t, other, slot)
        if not hazard and j != previous:
            continue
        if ended != UNKNOWN:
            if hazard:
                operands = max(operands, ended)
            if j == previous:
                unit_free = max(unit_free, ended)
            continue
        bit = np.uint64(1) << np.uint64(other)
        s.f_mask[t, slot] |= bit
        if hazard:
            s.f_hazard[t, slot] |= bit
        if j == previous:
            s.f_same[t, slot] |= bit
    s.f_operands[t, slot] = operands
    s.f_unit[t, slot] = unit_free


@njit(cache=True)
def ready(s: State, t: int, slot: int, order: int) -> None:
    """Put the start among the events if nothing is waited for."""
    if s.f_mask[t, slot] != 0:
        return
    when, operands, unit_free = s.f_issue[t, slot], s.f_operands[t, slot], s.f_unit[t, slot]
    start = max(operands, unit_free)
    s.f_start[t, slot] = start
    s.stall[OPERAND] += operands - when
    s.stall[UNIT] += start - operands
    push(s, start, t, order, 0)


@njit(cache=True)
def end(c: Flat, s: State, t: int, slot: int, time: int) -> None:
    """An instruction's end is known: free what waits for it. Issuing more is the caller's, once this returns."""
    s.f_end[t, slot] = time
    row = s.f_row[t, slot]
    s.first[row] = min(s.first[row], s.f_start[t, slot])
    s.last[row] = max(s.last[row], time)
    s.scalar[LAST] = max(s.scalar[LAST], time)
    if s.trace.shape[0]:
        n = s.scalar[TRACED]
        s.scalar[TRACED] = n + 1
        s.trace[n, 0] = t
        s.trace[n, 1] = row
        s.trace[n, 2] = s.f_start[t, slot]
        s.trace[n, 3] = time
    bit = np.uint64(1) << np.uint64(slot)
    for j in range(max(s.head[t], s.tail[t] - W), s.tail[t]):
        other = j % W
        if s.f_mask[t, other] & bit:
            s.f_mask[t, other] &= ~bit
            if s.f_hazard[t, other] & bit:
                s.f_operands[t, other] = max(s.f_operands[t, other], time)
            if s.f_same[t, other] & bit:
                s.f_unit[t, other] = max(s.f_unit[t, other], time)
            ready(s, t, other, j)
    if s.barrier[t] == slot:
        s.barrier[t] = -1
        s.barrier_end[t] = max(s.barrier_end[t], time)
    head = s.head[t]
    retired = s.f_retired[t, (head - 1) % W] if head > 0 else 0
    while head < s.tail[t] and s.f_end[t, head % W] != UNKNOWN:
        retired = max(retired, s.f_end[t, head % W])
        s.f_retired[t, head % W] = retired
        head += 1
    s.head[t] = head


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
        s.c_tail[channel] += 1
        s.c_bytes[channel] += size
        receiver = s.c_receiver[channel]
        if receiver >= 0:
            s.c_receiver[channel] = -1
            u = s.c_receiver_tile[channel]
            finish = take(c, s, u, receiver)
            if finish == -2:
                return -2
            end(c, s, u, receiver, finish)
            issue(c, s, u)
    end(c, s, t, slot, left)
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
        end(c, s, t, slot, finish)


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
        s.scalar[NOW] = now
        t = key >> 46
        order = (key >> 2) & ((1 << 44) - 1)
        slot = order % W
        row, variant = s.f_row[t, slot], s.f_variant[t, slot]
        op = c.op[row]
        if op == COMPUTE:
            s.busy[row] += c.cycles[variant]
            end(c, s, t, slot, now + c.cycles[variant])
        elif op == SEND:
            if send(c, s, t, slot, now, capacity, hop) < 0:
                return MISMATCH
        elif op == RECEIVE or op == WAIT:
            finish = take(c, s, t, slot)
            if finish == -2:
                return MISMATCH
            if finish >= 0:
                end(c, s, t, slot, finish)
        elif op == MEMORY:
            memory(c, s, t, slot, order, key & 3, now, hop, rates)
        elif op == HOST:
            start = max(now, s.scalar[HOST_FREE])
            s.stall[UNIT] += start - now
            s.scalar[HOST_FREE] = start + c.cycles[variant]
            s.busy[row] += c.cycles[variant]
            end(c, s, t, slot, s.scalar[HOST_FREE])
        issue(c, s, t)
    return MORE
