"""The front half of the timing loop: issue, hazards, and what an end sets free. Compiled by numba.

Each function is called from one place: the compiled code then holds it once, in line (:mod:`cimc.native`)."""

from __future__ import annotations

import numpy as np

from cimc.native import index, inner
from cimc.sim.relations import EARLIER, EVERY, FEEDS, KIND, LOOK, conflict
from cimc.sim.state import (
    C_FIRST,
    C_RING,
    CHAIN,
    COLLECT,
    ENDED,
    F_CHAIN,
    F_CHAIN_END,
    F_COST,
    F_END,
    F_FREE,
    F_HAZARD,
    F_MASK,
    F_OPERANDS,
    F_ORDER,
    F_PREVIOUS,
    F_RAW,
    F_ROW,
    F_SAME,
    F_START,
    F_UNIT,
    F_WAITERS,
    FINAL,
    FIRST,
    HALT,
    ISSUE,
    ISSUED,
    LAST,
    OPEN,
    OPERAND,
    READY,
    RECEIVE,
    T_BARRIER,
    T_BARRIER_CHAIN,
    T_BARRIER_END,
    T_HEAD,
    T_LATEST,
    T_LONGEST,
    T_NEXT_ISSUE,
    T_OPEN,
    T_ROW,
    T_TAIL,
    TRACED,
    UNKNOWN,
    WAIT,
    State,
    W,
)
from cimc.sim.tables import (
    DERIVE,
    END,
    EVERYTHING,
    LOOP,
    MOVES,
    NEXT,
    R_OP,
    R_RANGE,
    R_SLOT,
    R_TARGET,
    R_TRIPS,
    R_UNIT,
    R_VARIANT,
    R_VARIANT_AFF,
    R_WAITS,
    RANGE_AFF,
    RANGE_FLAGS,
    STAGE,
    TURN,
    VARIANT_BOUNDS,
    VARIANT_COST,
    Flat,
)

MASK = (1 << TURN) - 1
FLAGS = 3  # bits of a range's flags
FLAG_MASK = (1 << FLAGS) - 1
NEAR = 16  # how many instructions back a result that is read is looked for behind another hazard with the same row
_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)  # a shift of it says which bit is set: Leiserson et al. 1998
_BIT = np.zeros(64, np.int64)
for _i in range(64):
    _BIT[int(((1 << _i) * int(_DE_BRUIJN) & (1 << 64) - 1) >> 58)] = _i


@inner
def affine(c: Flat, s: State, t: int, number: int) -> int:
    """An affine value for a tile's repeat variables."""
    value = c.affine[number, 0]
    for i in range(c.affine[number, 1], c.affine[number + 1, 1]):
        value += c.terms[index(i), 1] * s.env[t, index(c.terms[index(i), 0])]
    return value


@inner
def executes(c: Flat, s: State, t: int, row: int) -> bool:
    """Whether it is an instruction's turn: always if it has no phase."""
    phase = c.rows[row, R_TARGET]
    if phase == 0:
        return True
    slot = c.rows[row, R_SLOT]
    now = s.env[t, slot] - (phase >> STAGE)
    if now < 0 or now >= s.limit[t, slot] - c.rows[row, R_TRIPS]:
        return False
    turns = phase & MASK
    return turns == 1 or now % turns == (phase >> TURN) & MASK


@inner
def step(c: Flat, s: State, t: int) -> int:
    """The tile's next row that is an instruction, or -1 at the end; repeats are counted on the way."""
    row = index(s.tile[t, T_ROW])
    while True:
        op = c.rows[row, R_OP]
        if op < LOOP:
            if executes(c, s, t, row):
                break
            row = index(row + 1)
        elif op == NEXT:
            slot = c.rows[row, R_SLOT]
            s.env[t, slot] += 1
            row = index(c.rows[row, R_TARGET] if s.env[t, slot] < s.limit[t, slot] else row + 1)
        elif op == DERIVE:
            source, offset, divisor, modulus, factor = c.derived[c.rows[row, R_TARGET]]
            value = (s.env[t, source] * factor + offset) // divisor
            s.env[t, c.rows[row, R_SLOT]] = value % modulus if modulus else value
            row = index(row + 1)
        elif op == LOOP:
            slot = c.rows[row, R_SLOT]
            s.env[t, slot] = 0
            s.limit[t, slot] = affine(c, s, t, c.rows[row, R_TRIPS])
            row = index(row + 1 if s.limit[t, slot] > 0 else c.rows[row, R_TARGET])
        else:
            break
    s.tile[t, T_ROW] = row
    if op == END:
        return -1
    s.tile[t, T_ROW] = row + 1
    return row


@inner
def issue(c: Flat, s: State) -> None:
    """Issue an instruction of the last tile that may be able to, or take that tile off the list."""
    t = index(s.open[index(s.scalar[OPEN] - 1)])
    order = index(s.tile[t, T_TAIL])
    held = s.tile[t, T_BARRIER] >= 0 or order - s.tile[t, T_HEAD] >= W
    row = -1 if held else step(c, s, t)
    if row < 0:
        s.scalar[OPEN] -= 1
        s.tile[t, T_OPEN] = 0
        return
    row = index(row)
    g = index(t * W + order % W)
    free = max(s.tile[t, T_NEXT_ISSUE], s.tile[t, T_BARRIER_END])
    when = max(free, s.retired[g]) if order >= W else free
    s.spent[row, ISSUE] += when - free
    s.tile[t, T_NEXT_ISSUE] = when + 1
    s.tile[t, T_TAIL] = order + 1
    s.scalar[ISSUED] += 1
    fill(c, s, t, g, row, order, when)
    op = c.rows[row, R_OP]
    if op == HALT:
        s.flight[g, F_START] = when
        s.flight[g, F_END] = when
        s.flight[g, F_FREE] = when
        s.ended[s.scalar[ENDED]] = g
        s.scalar[ENDED] += 1
        return
    s.spent[row, OPERAND] -= when  # and what it becomes is added when it begins
    if c.rows[row, R_WAITS] & EVERYTHING:
        depend_on_all(s, t, g, order)
    else:
        depend(c, s, t, g, row, order)
    same_unit(s, t, g, index(c.rows[row, R_UNIT]), order)
    if op == WAIT:
        s.tile[t, T_BARRIER] = g
    if s.flight[g, F_MASK] == 0:
        s.ready[s.scalar[READY]] = g
        s.scalar[READY] += 1


@inner
def fill(c: Flat, s: State, t: int, g: int, row: int, order: int, when: int) -> None:
    """Put a row into a slot: its variant and, where they have to be looked at, its byte ranges now."""
    variant = index(c.rows[row, R_VARIANT])
    if c.rows[row, R_VARIANT_AFF] >= 0:
        variant = index(variant + affine(c, s, t, index(c.rows[row, R_VARIANT_AFF])))
    s.executions[variant] += 1
    s.flight[g, F_ROW] = row
    s.flight[g, F_ORDER] = order
    s.flight[g, F_COST] = c.variants[variant, VARIANT_COST]
    s.flight[g, F_OPERANDS] = when
    s.flight[g, F_UNIT] = when
    s.flight[g, F_START] = UNKNOWN
    s.flight[g, F_END] = UNKNOWN
    s.flight[g, F_FREE] = UNKNOWN
    s.flight[g, F_CHAIN] = s.tile[t, T_BARRIER_CHAIN]
    s.flight[g, F_CHAIN_END] = 0
    s.flight[g, F_PREVIOUS] = s.latest[row]
    s.flight[g, F_MASK] = 0
    s.flight[g, F_HAZARD] = 0
    s.flight[g, F_SAME] = 0
    s.flight[g, F_RAW] = 0
    s.flight[g, F_WAITERS] = 0
    if c.rows[row, R_WAITS] & MOVES:
        bounds, first = index(c.variants[variant, VARIANT_BOUNDS]), index(c.rows[row, R_RANGE])
        ranges = c.rows[row + 1, R_RANGE] - first
        s.span[g, 0] = ranges
        for i in range(ranges):
            at = affine(c, s, t, index(c.ranges[first + i, RANGE_AFF]))
            low, high = at + c.bounds[bounds + i, 0], max(at + c.bounds[bounds + i, 1], -1)
            s.span[g, 1 + 2 * i] = low << FLAGS | c.ranges[first + i, RANGE_FLAGS]
            s.span[g, 2 + 2 * i] = high << FLAGS


# --- what it waits for --------------------------------------------------------------------------


@inner
def depend(c: Flat, s: State, t: int, g: int, row: int, order: int) -> None:
    """Find what an instruction waits for among the last executions of the rows it is related to."""
    for i in range(c.related_begin[row], c.related_begin[row + 1]):
        relation = index(c.related[index(i)])
        kind, every = relation & KIND, (relation & EVERY) != 0
        j = int(s.latest[relation >> EARLIER])
        hazard = False
        while order - j < W:
            other = index(t * W + j % W)
            found = overlap(s, other, g) if kind == LOOK else kind
            if found:
                depend_on(s, g, other, every or not hazard, found == FEEDS)
                hazard = True
            if kind != LOOK or (not every and (found == FEEDS or (hazard and order - j > NEAR))):
                break
            j = s.flight[other, F_PREVIOUS]
    s.latest[row] = order


@inner
def overlap(s: State, a: int, b: int) -> int:
    """How the instruction in slot b depends on the earlier one in slot a, by the bytes they touch."""
    found = 0
    for i in range(1, 1 + 2 * s.span[a, 0], 2):
        low, high = s.span[a, i], s.span[a, i + 1]
        for j in range(1, 1 + 2 * s.span[b, 0], 2):
            if max(low, s.span[b, j]) < min(high, s.span[b, j + 1]):
                found = max(found, conflict(low & FLAG_MASK, s.span[b, j] & FLAG_MASK))
    return found


@inner
def depend_on(s: State, g: int, other: int, hazard: bool, feeds: bool) -> None:
    """Note one dependence on operands: by time if the other's end is known, by mask if not."""
    ended = s.flight[other, F_END]
    if ended != UNKNOWN:
        if hazard:
            s.flight[g, F_OPERANDS] = max(s.flight[g, F_OPERANDS], ended)
        if feeds:
            s.flight[g, F_CHAIN] = max(s.flight[g, F_CHAIN], s.flight[other, F_CHAIN_END])
        return
    bit = 1 << other % W
    s.flight[g, F_MASK] |= bit
    s.flight[other, F_WAITERS] |= 1 << g % W
    if hazard:
        s.flight[g, F_HAZARD] |= bit
    if feeds:
        s.flight[g, F_RAW] |= bit


@inner
def depend_on_all(s: State, t: int, g: int, order: int) -> None:
    """A signal waits for all that is in flight. What has left the window ended before it was issued."""
    s.flight[g, F_OPERANDS] = max(s.flight[g, F_OPERANDS], s.tile[t, T_LATEST])
    s.flight[g, F_CHAIN] = max(s.flight[g, F_CHAIN], s.tile[t, T_LONGEST])
    mine = 1 << g % W
    for j in range(s.tile[t, T_HEAD], order):
        other = index(t * W + j % W)
        if s.flight[other, F_END] == UNKNOWN:
            bit = 1 << j % W
            s.flight[g, F_MASK] |= bit
            s.flight[g, F_HAZARD] |= bit
            s.flight[g, F_RAW] |= bit
            s.flight[other, F_WAITERS] |= mine


@inner
def same_unit(s: State, t: int, g: int, unit: int, order: int) -> None:
    """An instruction waits until the one before it on its unit hands the unit over."""
    previous = s.last_on[t, unit]
    s.last_on[t, unit] = order
    if order - previous >= W:
        return
    other = index(t * W + previous % W)
    if s.flight[other, F_FREE] != UNKNOWN:
        s.flight[g, F_UNIT] = max(s.flight[g, F_UNIT], s.flight[other, F_FREE])
        return
    bit = 1 << previous % W
    s.flight[g, F_MASK] |= bit
    s.flight[g, F_SAME] |= bit
    s.flight[other, F_WAITERS] |= 1 << g % W


@inner
def message_at(s: State, channel: int, turn: int) -> int:
    """Where the turn-th message of a channel stands."""
    return index(s.channel[channel, C_FIRST] + index(turn) % s.channel[channel, C_RING])


# --- what an end sets free ----------------------------------------------------------------------


@inner
def end(s: State, g: int, time: int, chain_end: int) -> None:
    """Note an end; what follows from it is :func:`cimc.sim.issue.finish`'s."""
    s.flight[g, F_END] = time
    if s.flight[g, F_FREE] == UNKNOWN:
        s.flight[g, F_FREE] = time
    s.flight[g, F_CHAIN_END] = chain_end
    s.ended[s.scalar[ENDED]] = g
    s.scalar[ENDED] += 1


@inner
def finish(c: Flat, s: State) -> None:
    """The last of the slots that have ended: free what waits for it."""
    s.scalar[ENDED] -= 1
    g = index(s.ended[index(s.scalar[ENDED])])
    t = g // W
    time, chain_end, row = s.flight[g, F_END], s.flight[g, F_CHAIN_END], index(s.flight[g, F_ROW])
    s.scalar[CHAIN] = max(s.scalar[CHAIN], chain_end)
    s.scalar[LAST] = max(s.scalar[LAST], time)
    s.tile[t, T_LATEST] = max(s.tile[t, T_LATEST], time)
    s.tile[t, T_LONGEST] = max(s.tile[t, T_LONGEST], chain_end)
    if c.rows[row, R_OP] != RECEIVE and c.rows[row, R_OP] != COLLECT:  # of which the copying counts, not the waiting
        s.spent[row, FIRST] = min(s.spent[row, FIRST], s.flight[g, F_START])
    s.spent[row, FINAL] = max(s.spent[row, FINAL], time)
    if s.trace.shape[0]:
        n = s.scalar[TRACED]
        s.scalar[TRACED] = n + 1
        s.trace[n, 0] = t
        s.trace[n, 1] = row
        s.trace[n, 2] = s.flight[g, F_START]
        s.trace[n, 3] = time
    waiters = s.flight[g, F_WAITERS]
    while waiters:
        low = waiters & -waiters
        waiters ^= low
        release(s, g, t * W + int(_BIT[(np.uint64(low) * _DE_BRUIJN) >> np.uint64(58)]), time, chain_end)
    if s.tile[t, T_BARRIER] == g:
        s.tile[t, T_BARRIER] = -1
        s.tile[t, T_BARRIER_END] = max(s.tile[t, T_BARRIER_END], time)
        s.tile[t, T_BARRIER_CHAIN] = max(s.tile[t, T_BARRIER_CHAIN], chain_end)
    retire(s, t)
    if s.tile[t, T_OPEN] == 0:
        s.tile[t, T_OPEN] = 1
        s.open[s.scalar[OPEN]] = t
        s.scalar[OPEN] += 1


@inner
def release(s: State, g: int, other: int, time: int, chain_end: int) -> None:
    """Tell an instruction that one it waits for ends."""
    bit = 1 << g % W
    if not s.flight[other, F_MASK] & bit:
        return  # it waited for the unit alone, and has got it
    s.flight[other, F_MASK] &= ~bit
    if s.flight[other, F_HAZARD] & bit:
        s.flight[other, F_OPERANDS] = max(s.flight[other, F_OPERANDS], time)
    if s.flight[other, F_SAME] & bit:
        s.flight[other, F_UNIT] = max(s.flight[other, F_UNIT], s.flight[g, F_FREE])
    if s.flight[other, F_RAW] & bit:
        s.flight[other, F_CHAIN] = max(s.flight[other, F_CHAIN], chain_end)
    if s.flight[other, F_MASK] == 0:
        s.ready[s.scalar[READY]] = other
        s.scalar[READY] += 1


@inner
def hand_over(s: State, g: int, time: int) -> None:
    """An instruction that has not ended gives its unit to the next one."""
    s.flight[g, F_FREE] = time
    bit = 1 << g % W
    waiters = s.flight[g, F_WAITERS]
    while waiters:
        low = waiters & -waiters
        waiters ^= low
        other = g // W * W + int(_BIT[(np.uint64(low) * _DE_BRUIJN) >> np.uint64(58)])
        if s.flight[other, F_SAME] & bit:
            s.flight[other, F_SAME] &= ~bit
            s.flight[other, F_UNIT] = max(s.flight[other, F_UNIT], time)
            if not (s.flight[other, F_HAZARD] | s.flight[other, F_RAW]) & bit:
                s.flight[other, F_MASK] &= ~bit
                if s.flight[other, F_MASK] == 0:
                    s.ready[s.scalar[READY]] = other
                    s.scalar[READY] += 1


@inner
def retire(s: State, t: int) -> None:
    """Move on the oldest order of which the end is not known; RETIRED is when all up to it had ended."""
    head = index(s.tile[t, T_HEAD])
    retired = s.retired[t * W + (head - 1) % W] if head > 0 else 0
    while head < s.tile[t, T_TAIL] and s.flight[t * W + head % W, F_END] != UNKNOWN:
        retired = max(retired, s.flight[t * W + head % W, F_END])
        s.retired[t * W + head % W] = retired
        head += 1
    s.tile[t, T_HEAD] = head
