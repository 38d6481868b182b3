"""The front half of the timing loop: the event heap, issue, hazards, and what an end sets free. Compiled by numba."""

from __future__ import annotations

import numpy as np

from cimc.sim.flat import (
    END,
    LOOP,
    NEXT,
    R_EVERYTHING,
    R_OP,
    R_RANGE,
    R_SLOT,
    R_TARGET,
    R_TRIPS,
    R_UNIT,
    R_VARIANT,
    R_VARIANT_AFF,
    V_BOUNDS,
    Flat,
)
from cimc.sim.inner import inner
from cimc.sim.state import (
    CHAIN,
    F_BLOCKED,
    F_CHAIN,
    F_CHAIN_END,
    F_END,
    F_HAZARD,
    F_ISSUE,
    F_MASK,
    F_OPERANDS,
    F_RAW,
    F_RETIRED,
    F_ROW,
    F_SAME,
    F_START,
    F_UNIT,
    F_VARIANT,
    FINAL,
    FIRST,
    HALT,
    HEAP,
    ISSUED,
    LAST,
    OPERAND,
    RECEIVE,
    S_FLAGS,
    S_HIGH,
    S_LOW,
    T_BARRIER,
    T_BARRIER_CHAIN,
    T_BARRIER_END,
    T_HEAD,
    T_NEXT_ISSUE,
    T_RETIRED,
    T_ROW,
    T_TAIL,
    TRACED,
    UNIT,
    UNKNOWN,
    WAIT,
    State,
    W,
)

NEAR = 16  # how many instructions back results that are read are looked for behind other hazards on the same unit


# --- the heap -----------------------------------------------------------------------------------


@inner
def push(s: State, time: int, tile: int, order: int, phase: int) -> None:
    """Add an event."""
    key = (tile << 46) | (order << 2) | phase
    i = s.scalar[HEAP]
    s.scalar[HEAP] = i + 1
    while i > 0:
        up = (i - 1) >> 1
        if s.heap[up, 0] < time or (s.heap[up, 0] == time and s.heap[up, 1] <= key):
            break
        s.heap[i, 0] = s.heap[up, 0]
        s.heap[i, 1] = s.heap[up, 1]
        i = up
    s.heap[i, 0] = time
    s.heap[i, 1] = key


@inner
def drop_first(s: State) -> None:
    """Remove the earliest event."""
    n = s.scalar[HEAP] - 1
    s.scalar[HEAP] = n
    time, key = s.heap[n, 0], s.heap[n, 1]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= n:
            break
        right = child + 1
        if right < n and (
            s.heap[right, 0] < s.heap[child, 0]
            or (s.heap[right, 0] == s.heap[child, 0] and s.heap[right, 1] < s.heap[child, 1])
        ):
            child = right
        if s.heap[child, 0] > time or (s.heap[child, 0] == time and s.heap[child, 1] >= key):
            break
        s.heap[i, 0] = s.heap[child, 0]
        s.heap[i, 1] = s.heap[child, 1]
        i = child
    s.heap[i, 0] = time
    s.heap[i, 1] = key


# --- issue --------------------------------------------------------------------------------------


@inner
def affine(c: Flat, s: State, t: int, index: int) -> int:
    """An affine value for a tile's repeat variables."""
    value = c.affine[index, 0]
    for i in range(c.affine[index, 1], c.affine[index + 1, 1]):
        value += c.terms[i, 1] * s.env[t, c.terms[i, 0]]
    return value


@inner
def step(c: Flat, s: State, t: int) -> int:
    """The tile's next row that is an instruction, or -1 at the end; repeats are counted on the way."""
    row = s.tile[t, T_ROW]
    while True:
        op = c.rows[row, R_OP]
        if op == LOOP:
            slot = c.rows[row, R_SLOT]
            s.env[t, slot] = 0
            s.limit[t, slot] = affine(c, s, t, c.rows[row, R_TRIPS])
            row = row + 1 if s.limit[t, slot] > 0 else c.rows[row, R_TARGET]
        elif op == NEXT:
            slot = c.rows[row, R_SLOT]
            s.env[t, slot] += 1
            row = c.rows[row, R_TARGET] if s.env[t, slot] < s.limit[t, slot] else row + 1
        else:
            break
    s.tile[t, T_ROW] = row
    if op == END:
        return -1
    s.tile[t, T_ROW] = row + 1
    return row


@inner
def fill(c: Flat, s: State, t: int, slot: int, row: int) -> None:
    """Put a row into a slot: its variant and byte ranges now."""
    variant = c.rows[row, R_VARIANT]
    if c.rows[row, R_VARIANT_AFF] >= 0:
        variant += affine(c, s, t, c.rows[row, R_VARIANT_AFF])
    s.flight[t, slot, F_ROW] = row
    s.flight[t, slot, F_VARIANT] = variant
    s.flight[t, slot, F_END] = UNKNOWN
    s.flight[t, slot, F_BLOCKED] = UNKNOWN
    s.mask[t, slot, F_MASK] = 0
    s.mask[t, slot, F_HAZARD] = 0
    s.mask[t, slot, F_SAME] = 0
    s.mask[t, slot, F_RAW] = 0
    s.flight[t, slot, F_CHAIN] = s.tile[t, T_BARRIER_CHAIN]
    s.flight[t, slot, F_CHAIN_END] = 0
    s.executions[variant] += 1
    bounds = c.variants[variant, V_BOUNDS]
    first = c.rows[row, R_RANGE]
    for i in range(c.rows[row + 1, R_RANGE] - first):
        at = affine(c, s, t, c.ranges[first + i, 0])
        s.span[t, slot, i, S_LOW] = at + c.bounds[bounds + i, 0]
        s.span[t, slot, i, S_HIGH] = at + c.bounds[bounds + i, 1]
        s.span[t, slot, i, S_FLAGS] = c.ranges[first + i, 1]


@inner
def relate(c: Flat, s: State, t: int, a: int, b: int) -> int:
    """How the instruction in slot b depends on the earlier one in a: 1 for a hazard, 3 if it reads what a writes."""
    row_a, row_b = s.flight[t, a, F_ROW], s.flight[t, b, F_ROW]
    found = 0
    for i in range(c.rows[row_a + 1, R_RANGE] - c.rows[row_a, R_RANGE]):
        low, high, flags = s.span[t, a, i, S_LOW], s.span[t, a, i, S_HIGH], s.span[t, a, i, S_FLAGS]
        for j in range(c.rows[row_b + 1, R_RANGE] - c.rows[row_b, R_RANGE]):
            others = s.span[t, b, j, S_FLAGS]
            if ((flags | others) & 1) == 0 or flags & others & 2:
                continue
            if max(low, s.span[t, b, j, S_LOW]) < min(high, s.span[t, b, j, S_HIGH]):
                if flags & 1 and others & 4:
                    return 3
                found = 1
    return found


@inner
def issue(c: Flat, s: State, t: int) -> None:
    """Issue what can be issued."""
    while s.tile[t, T_BARRIER] < 0 and s.tile[t, T_TAIL] - s.tile[t, T_HEAD] < W:
        row = step(c, s, t)
        if row < 0:
            return
        order = s.tile[t, T_TAIL]
        slot = order % W
        if order >= W:
            s.tile[t, T_RETIRED] = s.flight[t, slot, F_RETIRED]
        when = max(s.tile[t, T_NEXT_ISSUE], s.tile[t, T_RETIRED], s.tile[t, T_BARRIER_END])
        s.tile[t, T_NEXT_ISSUE] = when + 1
        s.tile[t, T_TAIL] = order + 1
        s.scalar[ISSUED] += 1
        fill(c, s, t, slot, row)
        s.flight[t, slot, F_ISSUE] = when
        op = c.rows[row, R_OP]
        if op == HALT:
            s.flight[t, slot, F_START] = when
            end(c, s, t, slot, when, 0)
            continue
        depend(c, s, t, slot, order)
        if op == WAIT:
            s.tile[t, T_BARRIER] = slot
        ready(s, t, slot, order)


@inner
def depend(c: Flat, s: State, t: int, slot: int, order: int) -> None:
    """Find what an instruction waits for among those in flight, from the latest back. A unit's instructions end in
    their order, so the latest one with a hazard is all that counts of a unit (of the first 63: they have a bit)."""
    row = s.flight[t, slot, F_ROW]
    everything = c.rows[row, R_EVERYTHING] == 1
    unit = c.rows[row, R_UNIT]
    previous = s.last_on[t, unit]
    s.last_on[t, unit] = order
    s.flight[t, slot, F_OPERANDS] = s.flight[t, slot, F_ISSUE]
    s.flight[t, slot, F_UNIT] = s.flight[t, slot, F_ISSUE]
    settled = np.uint64(0)  # units of which a hazard is known
    fed = np.uint64(0)  # units of which a result that is read is known
    for j in range(order - 1, max(-1, order - W), -1):
        other = j % W
        on = c.rows[s.flight[t, other, F_ROW], R_UNIT]
        bit = np.uint64(1) << np.uint64(on) if on < 63 else np.uint64(0)
        relation = 0
        if not settled & bit or (order - j <= NEAR and not fed & bit):
            relation = 3 if everything else relate(c, s, t, other, slot)
        if relation == 0 and j != previous:
            continue
        hazard = relation > 0 and not settled & bit
        feeds = relation == 3 and not fed & bit
        if relation > 0:
            settled |= bit
        if feeds:
            fed |= bit
        depend_on(s, t, slot, other, hazard, j == previous, feeds)


@inner
def depend_on(s: State, t: int, slot: int, other: int, hazard: bool, same: bool, feeds: bool) -> None:
    """Note one dependence: by time if the other's end is known, by mask if not."""
    ended = s.flight[t, other, F_END]
    if ended != UNKNOWN:
        if hazard:
            s.flight[t, slot, F_OPERANDS] = max(s.flight[t, slot, F_OPERANDS], ended)
        if same:
            s.flight[t, slot, F_UNIT] = max(s.flight[t, slot, F_UNIT], ended)
        if feeds:
            s.flight[t, slot, F_CHAIN] = max(s.flight[t, slot, F_CHAIN], s.flight[t, other, F_CHAIN_END])
        return
    bit = np.uint64(1) << np.uint64(other)
    if hazard or same or feeds:
        s.mask[t, slot, F_MASK] |= bit
    if hazard:
        s.mask[t, slot, F_HAZARD] |= bit
    if same:
        s.mask[t, slot, F_SAME] |= bit
    if feeds:
        s.mask[t, slot, F_RAW] |= bit


@inner
def ready(s: State, t: int, slot: int, order: int) -> None:
    """Put the start among the events if nothing is waited for."""
    if s.mask[t, slot, F_MASK] != 0:
        return
    when, operands, unit_free = s.flight[t, slot, F_ISSUE], s.flight[t, slot, F_OPERANDS], s.flight[t, slot, F_UNIT]
    start = max(operands, unit_free)
    s.flight[t, slot, F_START] = start
    s.stall[OPERAND] += operands - when
    s.stall[UNIT] += start - operands
    push(s, start, t, order, 0)


@inner
def end(c: Flat, s: State, t: int, slot: int, time: int, chain_end: int) -> None:
    """An instruction's end is known: free what waits for it. Issuing more is the caller's, once this returns."""
    s.flight[t, slot, F_END] = time
    s.flight[t, slot, F_CHAIN_END] = chain_end
    s.scalar[CHAIN] = max(s.scalar[CHAIN], chain_end)
    row = s.flight[t, slot, F_ROW]
    if c.rows[row, R_OP] != RECEIVE:  # of which the copying counts, not the waiting
        s.spent[row, FIRST] = min(s.spent[row, FIRST], s.flight[t, slot, F_START])
    s.spent[row, FINAL] = max(s.spent[row, FINAL], time)
    s.scalar[LAST] = max(s.scalar[LAST], time)
    if s.trace.shape[0]:
        n = s.scalar[TRACED]
        s.scalar[TRACED] = n + 1
        s.trace[n, 0] = t
        s.trace[n, 1] = row
        s.trace[n, 2] = s.flight[t, slot, F_START]
        s.trace[n, 3] = time
    bit = np.uint64(1) << np.uint64(slot)
    for j in range(max(s.tile[t, T_HEAD], s.tile[t, T_TAIL] - W), s.tile[t, T_TAIL]):
        other = j % W
        if s.mask[t, other, F_MASK] & bit:
            s.mask[t, other, F_MASK] &= ~bit
            if s.mask[t, other, F_HAZARD] & bit:
                s.flight[t, other, F_OPERANDS] = max(s.flight[t, other, F_OPERANDS], time)
            if s.mask[t, other, F_SAME] & bit:
                s.flight[t, other, F_UNIT] = max(s.flight[t, other, F_UNIT], time)
            if s.mask[t, other, F_RAW] & bit:
                s.flight[t, other, F_CHAIN] = max(s.flight[t, other, F_CHAIN], chain_end)
            ready(s, t, other, j)
    if s.tile[t, T_BARRIER] == slot:
        s.tile[t, T_BARRIER] = -1
        s.tile[t, T_BARRIER_END] = max(s.tile[t, T_BARRIER_END], time)
        s.tile[t, T_BARRIER_CHAIN] = max(s.tile[t, T_BARRIER_CHAIN], chain_end)
    head = s.tile[t, T_HEAD]
    retired = s.flight[t, (head - 1) % W, F_RETIRED] if head > 0 else 0
    while head < s.tile[t, T_TAIL] and s.flight[t, head % W, F_END] != UNKNOWN:
        retired = max(retired, s.flight[t, head % W, F_END])
        s.flight[t, head % W, F_RETIRED] = retired
        head += 1
    s.tile[t, T_HEAD] = head
