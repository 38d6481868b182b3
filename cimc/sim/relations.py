"""Which instructions of a tile's text can have a hazard with which, found once for a program. Compiled by numba.

An execution only conflicts with the 63 before it. So a row's *relations* are the rows from which it can be reached in
that few steps, along the text and around its repeats, and whose bytes meet its own. What is known to be the same at
every execution is settled here; where ranges move with a repeat, the loop looks at the executions themselves.

Of several hazards on one unit only the last counts if it ends last. Most do, as a unit takes its instructions in order,
one at a time. But the memory path and a matrix are free before the end of what they were taken for: there another access,
or a product without rows, may come to its end sooner."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import WINDOW
from cimc.sim.inner import entry, fingerprint, inner
from cimc.sim.job import CELLS, Action
from cimc.sim.tables import (
    ACCUMULATES,
    DERIVE,
    END,
    LOOP,
    R_OP,
    R_RANGE,
    R_TARGET,
    R_UNIT,
    RANGE_FIXED,
    RANGE_FLAGS,
    RANGE_HIGH,
    RANGE_LOW,
    READS,
    V_BUSY,
    V_CYCLES,
    WRITES,
    Ints,
    Shorts,
)

HAZARD, FEEDS, LOOK = 1, 3, 4  # relations of two rows: a hazard; a result that is read; to be looked at every time
EVERY = 2  # of a row whose ranges are looked at: at all executions, as a later one may end sooner
BITS = 63  # units of a tile that have a bit in the masks below
PLACES = 64  # of a tile's bytes: one bit each
Masks = NDArray[np.uint64]


@inner
def conflict(earlier: int, later: int) -> int:
    """What the flags of two ranges make of an overlap: 0 for nothing."""
    if ((earlier | later) & WRITES) == 0 or earlier & later & ACCUMULATES:
        return 0
    return FEEDS if earlier & WRITES and later & READS else HAZARD


@inner
def relation(rows: Shorts, ranges: Ints, a: int, b: int) -> int:
    """What row b has to expect of an earlier execution of row a."""
    found = perhaps = 0
    for i in range(rows[a, R_RANGE], rows[a + 1, R_RANGE]):
        for j in range(rows[b, R_RANGE], rows[b + 1, R_RANGE]):
            if max(ranges[i, RANGE_LOW], ranges[j, RANGE_LOW]) >= min(ranges[i, RANGE_HIGH], ranges[j, RANGE_HIGH]):
                continue
            kind = conflict(ranges[i, RANGE_FLAGS], ranges[j, RANGE_FLAGS])
            if ranges[i, RANGE_FIXED] and ranges[j, RANGE_FIXED]:
                found = max(found, kind)
            else:
                perhaps = max(perhaps, kind)
    return LOOK if perhaps > found else found


@inner
def note(rows: Shorts, ranges: Ints, found: Ints, at: int, a: int, b: int, hazards: int, results: int) -> int:
    """Enter what row b has to expect of row a, unless later rows of the same unit, which end later, make it superfluous.
    ``hazards``, ``results``: bits of units of which a hazard, of which a result is known. Returns the new length."""
    bit = 1 << rows[a, R_UNIT] if rows[a, R_UNIT] < BITS else 0
    if hazards & results & bit:
        return at
    kind = relation(rows, ranges, a, b)
    if kind == 0 or (hazards & bit and (kind == HAZARD or results & bit)):
        return at
    found[at, 0] = a
    found[at, 1] = kind
    return at + 1


@inner
def search(
    rows: Shorts, ranges: Ints, masks: Masks, last: Ints, begin: Ints, found: Ints, room: Ints, first: int
) -> int:
    """Find the relations of the rows from ``first`` on. Returns the row for which ``found`` was too short, or how many
    rows there are. ``room``: five lines of 2 · rows + 3 numbers to work with, the
    last with what the rows are."""
    points, here, there = room[0], room[1], room[2]  # places in the text: for which row passed; to be passed now; next
    ops = room[4]
    at = begin[first]
    for b in range(first, rows.shape[0] - 1):
        begin[b] = at
        touched, written = masks[b, 0], masks[b, 1]
        if touched == 0:
            continue
        hazards = results = 0  # bits of units that a row settles which is always executed on the way to this one
        a = b - 1
        while b - a < WINDOW and a >= 0 and ops[a] < LOOP:  # straight back, what is always executed before
            if (masks[a, 0] & written) | (masks[a, 1] & touched):  # they may touch the same bytes, and one writes them
                if at == found.shape[0]:
                    return b
                length = note(rows, ranges, found, at, a, b, hazards, results)
                if length > at and last[a] and rows[a, R_UNIT] < BITS and found[at, 1] != LOOK:
                    hazards |= 1 << rows[a, R_UNIT]
                    results |= (found[at, 1] == FEEDS) << rows[a, R_UNIT]
                at = length
            a -= 1
        passed = a + 2  # places from here to b
        here[0], count = a + 1, 1
        for _ in range(WINDOW - b + a):  # steps back
            k = ahead = 0
            while k < count:
                place = here[k]
                k += 1
                a = place - 1
                if points[place] == b or passed <= place <= b or a < 0 or ops[a] == END:
                    continue
                points[place] = b
                if ops[a] == DERIVE:
                    here[count] = a
                    count += 1
                    continue
                if ops[a] >= LOOP:  # from both ways to get here
                    here[count], here[count + 1] = a, rows[a, R_TARGET] - 1
                    count += 2
                    continue
                if (masks[a, 0] & written) | (masks[a, 1] & touched):
                    if at == found.shape[0]:
                        return b
                    at = note(rows, ranges, found, at, a, b, hazards, results)
                there[ahead] = a
                ahead += 1
            here, there, count = there, here, ahead
            if count == 0:
                break
    begin[rows.shape[0] - 1] = at
    return rows.shape[0] - 1


def _entry(version: int) -> Callable[[Shorts, Ints, Masks, Ints, Ints, Ints, Ints, int], int]:
    """The search behind the function whose machine code numba keeps on disk."""

    @entry
    def relations(
        rows: Shorts, ranges: Ints, masks: Masks, last: Ints, begin: Ints, found: Ints, room: Ints, first: int
    ) -> int:
        room[3, 0] = version
        return search(rows, ranges, masks, last, begin, found, room, first)

    return relations


relations = _entry(fingerprint())


def places(rows: Shorts, ranges: Ints, tiles: Ints) -> Masks:
    """Per row, the places that it touches and those that it writes, of the 64 into which the bytes of its tile are divided;
    none for rows without ranges. Cells are everywhere."""
    n = len(rows)
    owner = np.repeat(np.arange(n - 1), np.diff(rows[:, R_RANGE]))
    low, high = ranges[:, RANGE_LOW], ranges[:, RANGE_HIGH]
    some, cells = low < high, high > CELLS
    ends = np.zeros(int(tiles.max(initial=0)) + 1, np.int64)
    np.maximum.at(ends, tiles[owner], np.where(cells, 0, high))
    size = ((np.maximum(ends, 0) + PLACES - 1) // PLACES)[tiles[owner]]
    size = np.maximum(size, 1)
    first = np.clip(low // size, 0, PLACES - 1)
    final = np.clip((high - 1) // size, 0, PLACES - 1)
    all_of = np.uint64((1 << PLACES) - 1)
    bits = (all_of >> (PLACES - 1 - final + first).astype(np.uint64)) << first.astype(np.uint64)
    bits = np.where(some, np.where(cells, all_of, bits), np.uint64(0))
    masks = np.zeros((n, 2), np.uint64)
    begin = np.flatnonzero(np.diff(owner, prepend=-1))  # of each row that has any
    written = np.where(ranges[:, RANGE_FLAGS] & WRITES > 0, bits, np.uint64(0))
    for column, of in enumerate((bits, written) if len(owner) else ()):
        masks[owner[begin], column] = np.bitwise_or.reduceat(of, begin)
    return masks


def ends_last(rows: Ints, costs: Ints, owner: Ints, tiles: Ints) -> Ints:
    """Per row, whether what it is executed for ends last of all that its unit was taken for until then. ``costs`` of
    all variants, ``owner``: their rows, ``tiles``: index of a row's tile.

    An instruction ends ``cycles - busy`` after it has handed its unit over, so one that starts later and takes that long
    ends no sooner. For the memory path there is no such number."""
    n, op = len(tiles), rows[:-1, R_OP]
    takes, after = np.full(n, 1 << 60), np.zeros(n, np.int64)
    np.minimum.at(takes, owner, costs[:, V_CYCLES])
    np.maximum.at(after, owner, costs[:, V_CYCLES] - costs[:, V_BUSY])
    after[op != Action.COMPUTE] = 0
    width = int(rows[:, R_UNIT].max(initial=0)) + 1
    unit = tiles * width + rows[:-1, R_UNIT]
    longest = np.zeros(int(unit.max(initial=0)) + 1, np.int64)
    np.maximum.at(longest, unit, after)
    return ((takes >= longest[unit]) & (op != Action.MEMORY)).astype(np.int64)


def related(rows: Shorts, ranges: Ints, last: Ints, counts: Ints, tiles: Ints) -> tuple[Ints, Ints, Ints]:
    """Per row, where its relations begin (the next one's begin where they end); the relations: (row, kind); per row,
    whether its ranges have to be looked at, and :data:`EVERY`. ``last``: :func:`ends_last`, ``tiles``: indices.

    Executions of a row that always takes the same end in order, on the memory path too: its packets go the same way and
    are as long each time, so that none finds a gap between reservations that the one before has not found."""
    n = len(rows) - 1
    begin, room = np.zeros(n + 1, np.int64), np.full((5, 2 * n + 3), -1, np.int64)
    room[4, : n + 1] = rows[:, R_OP]
    found = np.zeros((8 * n + WINDOW, 2), np.int64)
    first = 0
    masks = places(rows, ranges, tiles)
    while (first := relations(rows, ranges, masks, last, begin, found, room, first)) < n:
        found = np.concatenate((found, np.zeros_like(found)))
        room[0] = -1
    found = found[: begin[n]].copy()
    moving = np.zeros(n + 1, np.int64)
    owner = np.repeat(np.arange(n), np.diff(begin))
    look = found[:, 1] == LOOK
    moving[found[look, 0]] = 1
    moving[owner[look]] = 1
    moving[:-1][(moving[:-1] > 0) & (last == 0) & (counts > 1)] = EVERY
    return begin, found, moving
