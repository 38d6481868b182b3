"""The front half of the timing loop: the event heap, issue, hazards, and what an end sets free. Compiled by numba."""

from __future__ import annotations

import numpy as np
from numba import njit

from cimc.sim.flat import END, LOOP, NEXT, Flat
from cimc.sim.state import CHAIN, HALT, HEAP, ISSUED, LAST, OPERAND, TRACED, UNIT, UNKNOWN, WAIT, State, W

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
    s.f_raw[t, slot] = 0
    s.f_chain[t, slot] = s.barrier_chain[t]
    s.f_chain_end[t, slot] = 0
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
def feeds(c: Flat, s: State, t: int, a: int, b: int) -> bool:
    """Whether the instruction in slot b reads what the one in slot a writes, and is ordered after it."""
    row_a, row_b = s.f_row[t, a], s.f_row[t, b]
    for i in range(c.range_ptr[row_a + 1] - c.range_ptr[row_a]):
        for j in range(c.range_ptr[row_b + 1] - c.range_ptr[row_b]):
            flags, others = s.f_flags[t, a, i], s.f_flags[t, b, j]
            meets = max(s.f_low[t, a, i], s.f_low[t, b, j]) < min(s.f_high[t, a, i], s.f_high[t, b, j])
            if meets and (flags & 1) and (others & 4) and not (flags & others & 2):
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
            end(c, s, t, slot, when, 0)
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
        longer = ended != UNKNOWN and s.f_chain_end[t, other] > s.f_chain[t, slot]
        if longer and (everything == 1 or feeds(c, s, t, other, slot)):
            s.f_chain[t, slot] = s.f_chain_end[t, other]
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
            if everything == 1 or feeds(c, s, t, other, slot):
                s.f_raw[t, slot] |= bit
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
def end(c: Flat, s: State, t: int, slot: int, time: int, chain_end: int) -> None:
    """An instruction's end is known: free what waits for it. Issuing more is the caller's, once this returns."""
    s.f_end[t, slot] = time
    s.f_chain_end[t, slot] = chain_end
    s.scalar[CHAIN] = max(s.scalar[CHAIN], chain_end)
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
            if s.f_raw[t, other] & bit:
                s.f_chain[t, other] = max(s.f_chain[t, other], chain_end)
            ready(s, t, other, j)
    if s.barrier[t] == slot:
        s.barrier[t] = -1
        s.barrier_end[t] = max(s.barrier_end[t], time)
        s.barrier_chain[t] = max(s.barrier_chain[t], chain_end)
    head = s.head[t]
    retired = s.f_retired[t, (head - 1) % W] if head > 0 else 0
    while head < s.tail[t] and s.f_end[t, head % W] != UNKNOWN:
        retired = max(retired, s.f_end[t, head % W])
        s.f_retired[t, head % W] = retired
        head += 1
    s.head[t] = head
