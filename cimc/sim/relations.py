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
    END,
    LOOP,
    MOVES,
    NEXT,
    R_OP,
    R_RANGE,
    R_TARGET,
    R_TRIPS,
    R_UNIT,
    R_WAITS,
    RANGE_AFF,
    RANGE_FIXED,
    RANGE_FLAGS,
    RANGE_HIGH,
    RANGE_LOW,
    READS,
    STAGE,
    TURN,
    V_BUSY,
    V_CYCLES,
    WRITES,
    Ints,
    Shorts,
)

HAZARD, FEEDS, LOOK = 1, 3, 4  # relations of two rows: a hazard; a result that is read; to be looked at every time
KIND = 7
EVERY = 8  # in a relation to a row whose ranges are looked at: at all executions, as a later one may end sooner
EARLIER = 4  # in a relation, behind this many bits: the row
MASK = (1 << TURN) - 1
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
def relation(rows: Shorts, ranges: Ints, bounds: Ints, a: int, b: int, same: bool) -> int:
    """What row b has to expect of an earlier execution of row a. ``same``: the last of these is in the same round."""
    found = perhaps = 0
    for i in range(rows[a, R_RANGE], rows[a + 1, R_RANGE]):
        for j in range(rows[b, R_RANGE], rows[b + 1, R_RANGE]):
            if max(ranges[i, RANGE_LOW], ranges[j, RANGE_LOW]) >= min(ranges[i, RANGE_HIGH], ranges[j, RANGE_HIGH]):
                continue
            kind = conflict(ranges[i, RANGE_FLAGS], ranges[j, RANGE_FLAGS])
            sure = ranges[i, RANGE_FIXED] and ranges[j, RANGE_FIXED]
            if (
                same and ranges[i, RANGE_AFF] and ranges[i, RANGE_AFF] == ranges[j, RANGE_AFF]
            ):  # as far apart in every round
                sure = max(bounds[i, 0], bounds[j, 0]) < min(bounds[i, 1], bounds[j, 1])
            if sure:
                found = max(found, kind)
            else:
                perhaps = max(perhaps, kind)
    return LOOK if perhaps > found else found


@inner
def note(
    rows: Shorts,
    ranges: Ints,
    bounds: Ints,
    found: Ints,
    at: int,
    a: int,
    b: int,
    hazards: int,
    results: int,
    same: bool,
) -> int:
    """Enter what row b has to expect of row a, unless later rows of the same unit, which end later, make it superfluous.
    ``hazards``, ``results``: bits of units of which a hazard, of which a result is known; ``same``: see :func:`relation`.
    Returns the new length."""
    bit = 1 << rows[a, R_UNIT] if rows[a, R_UNIT] < BITS else 0
    if hazards & results & bit:
        return at
    kind = relation(rows, ranges, bounds, a, b, same)
    if kind == 0 or (hazards & bit and (kind == HAZARD or results & bit)):
        return at
    found[at, 0] = a
    found[at, 1] = kind
    return at + 1


@inner
def ends(rows: Shorts, ops: Ints, before: Ints, after: Ints) -> None:
    """Of every row in a repeat with phases: how many instructions the repeat executes before the row's first execution, and
    after its last one; of the repeat's end: how many it executes. WINDOW stands for more, and for rows never executed."""
    for end in range(rows.shape[0] - 1):
        if ops[end] != NEXT or rows[end, R_TRIPS] == 0:
            continue
        first = end
        while ops[first - 1] < LOOP:
            first -= 1
            before[first] = after[first] = WINDOW
        count = rows[end, R_TRIPS]
        steps = count + rows[first, R_TRIPS]
        passed, t = 0, 0
        while passed < WINDOW and t < steps:
            for row in range(first, end):
                if its_turn(rows, row, t, count):
                    before[row] = min(before[row], passed)
                    passed += 1
            t += 1
        before[end] = min(passed, WINDOW)
        passed, t = 0, steps
        while passed < WINDOW and t > 0:
            t -= 1
            for row in range(end - 1, first - 1, -1):
                if its_turn(rows, row, t, count):
                    after[row] = min(after[row], passed)
                    passed += 1


@inner
def its_turn(rows: Shorts, row: int, step: int, count: int) -> bool:
    """Whether an instruction with a phase is executed in a step of its repeat, of so many rounds."""
    phase = rows[row, R_TARGET]
    now = step - (phase >> STAGE)
    return 0 <= now < count and now % (phase & MASK) == (phase >> TURN) & MASK


@inner
def search(
    rows: Shorts, ranges: Ints, bounds: Ints, masks: Masks, last: Ints, begin: Ints, found: Ints, room: Ints, first: int
) -> int:
    """Find the relations of the rows from ``first`` on. Returns the row for which ``found`` was too short, or how many
    rows there are. ``room``: seven lines of 2 · rows + 3 numbers or more than WINDOW to work with, the last but two with what
    the rows are.

    Rows with phases are found by how many instructions there are at least between them and the ends of their repeat; within
    it, all are near each other but where as many as that stand between that are always executed too."""
    points = room[0]  # places in the text: for which row passed
    places, behind, heads = room[1], room[2], room[3]  # entries of queues, one for each number of steps back
    ops, before, after = room[4], room[5], room[6]
    ends(rows, ops, before, after)
    at = begin[first]
    for b in range(first, rows.shape[0] - 1):
        begin[b] = at
        touched, written = masks[b, 0], masks[b, 1]
        if touched == 0:
            continue
        hazards = results = 0  # bits of units that a row settles which is always executed on the way to this one
        phase = rows[b, R_TARGET]
        a, sure = b - 1, 1
        while sure < WINDOW and a >= 0 and ops[a] < LOOP:  # straight back, and what is always executed before
            same = rows[a, R_TARGET] == phase
            if (masks[a, 0] & written) | (masks[a, 1] & touched):  # they may touch the same bytes, and one writes them
                if at == found.shape[0]:
                    return b
                length = note(rows, ranges, bounds, found, at, a, b, hazards, results, same)
                if length > at and same and last[a] and rows[a, R_UNIT] < BITS and found[at, 1] != LOOK:
                    hazards |= 1 << rows[a, R_UNIT]
                    results |= (found[at, 1] == FEEDS) << rows[a, R_UNIT]
                at = length
            a -= 1
            sure += same
        if sure == WINDOW:
            continue
        passed = a + 2  # places from here to b
        own = -1
        place, level = a + 1, sure - 1
        if phase:
            own = b + 1
            while ops[own] < LOOP:
                own += 1
            for a in range(own - 1, b - 1, -1):  # in earlier steps of the repeat
                if (masks[a, 0] & written) | (masks[a, 1] & touched):
                    if at == found.shape[0]:
                        return b
                    at = note(rows, ranges, bounds, found, at, a, b, hazards, results, False)
            place, level = rows[own, R_TARGET] - 1, before[b]
        if level >= WINDOW - 1:
            continue
        places[0], behind[0], heads[1 + level] = place, -1, 0
        count = left = 1
        while left and level < WINDOW - 1:
            entry = heads[1 + level]
            if entry < 0:
                level += 1
                continue
            heads[1 + level] = behind[entry]
            left -= 1
            place = places[entry]
            a = place - 1
            if points[place] == b or passed <= place <= b or a < 0 or ops[a] == END:
                continue
            points[place] = b
            further = level
            if ops[a] == NEXT and rows[a, R_TRIPS]:
                further += before[a]
                k = a - 1
                while ops[k] < LOOP and own != a:
                    if level + after[k] < WINDOW - 1 and (masks[k, 0] & written) | (masks[k, 1] & touched):
                        if at == found.shape[0]:
                            return b
                        at = note(rows, ranges, bounds, found, at, k, b, hazards, results, False)
                    k -= 1
                a = rows[a, R_TARGET] - 1
            elif ops[a] == LOOP or ops[a] == NEXT:  # from both ways to get here
                places[count], behind[count] = rows[a, R_TARGET] - 1, heads[1 + level]
                heads[1 + level] = count
                count += 1
                left += 1
            elif ops[a] < LOOP:
                further += 1
                if (masks[a, 0] & written) | (masks[a, 1] & touched):
                    if at == found.shape[0]:
                        return b
                    at = note(rows, ranges, bounds, found, at, a, b, hazards, results, False)
            if further < WINDOW - 1:
                places[count], behind[count] = a, heads[1 + further]
                heads[1 + further] = count
                count += 1
                left += 1
    begin[rows.shape[0] - 1] = at
    return rows.shape[0] - 1


def _entry(version: int) -> Callable[[Shorts, Ints, Ints, Masks, Ints, Ints, Ints, Ints, int], int]:
    """The search behind the function whose machine code numba keeps on disk."""

    @entry
    def relations(
        rows: Shorts,
        ranges: Ints,
        bounds: Ints,
        masks: Masks,
        last: Ints,
        begin: Ints,
        found: Ints,
        room: Ints,
        first: int,
    ) -> int:
        room[3, 0] = version
        return search(rows, ranges, bounds, masks, last, begin, found, room, first)

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


def related(rows: Shorts, ranges: Ints, bounds: Ints, last: Ints, counts: Ints, tiles: Ints) -> tuple[Ints, Ints]:
    """Per row, where its relations begin (the next one's begin where they end); the relations: row, :data:`EVERY`, kind. What
    moves is marked in the rows. ``bounds``: per range of a row with one variant, the bytes from
    its offset on. ``last``: :func:`ends_last`, ``tiles``: indices.

    Executions of a row that always takes the same end in order, on the memory path too: its packets go the same way and
    are as long each time, so that none finds a gap between reservations that the one before has not found."""
    n = len(rows) - 1
    begin, room = np.zeros(n + 1, np.int64), np.full((7, 2 * n + 3 + WINDOW), -1, np.int64)
    room[4, : n + 1] = rows[:, R_OP]
    found = np.zeros((8 * n + WINDOW, 2), np.int64)
    first = 0
    masks = places(rows, ranges, tiles)
    while (first := relations(rows, ranges, bounds, masks, last, begin, found, room, first)) < n:
        found = np.concatenate((found, np.zeros_like(found)))
        room[:4] = -1
    earlier, kind = found[: begin[n]].T
    owner = np.repeat(np.arange(n), np.diff(begin))
    look = kind == LOOK
    moves = np.zeros(n, np.bool_)
    moves[earlier[look]] = True
    moves[owner[look]] = True
    rows[:-1, R_WAITS] |= MOVES * moves
    every = EVERY * (moves & (last == 0) & (counts > 1))
    return begin, earlier << EARLIER | every[earlier] | kind
