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
from cimc.native import entry, fingerprint, inner
from cimc.sim.job import CELLS, Action
from cimc.sim.rounds import ends
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
    V_BUSY,
    V_CYCLES,
    WRITES,
    Ints,
    Shorts,
)

SOURCES = ("isa/instruction.py", "sim/rounds.py", "sim/tables.py")
"""Where what is compiled here comes from, beside this file."""

HAZARD, FEEDS, LOOK = 1, 3, 4  # relations of two rows: a hazard; a result that is read; to be looked at every time
KIND = 7  # the bits of a relation that hold one of these
EVERY = 8  # in a relation to a row whose ranges are looked at: at all executions, as a later one may end sooner
EARLIER = 4  # in a relation, behind this many bits: the row
BITS = 63  # units of a tile that have a bit in the masks below
PLACES = 64  # of a tile's bytes: one bit each
# What lines of numbers the search works with are. POINTS: of places in the text, for which row they were passed. Places that are
# to be passed are in queues, by how many instructions they are back at least: HEADS has the last entry of each (and how many
# entries there are in COUNT), PLACE of an entry what it is, BEHIND the entry before it. OPS: what the rows are; BEFORE, AFTER:
# see :func:`ends`.
POINTS, PLACE, BEHIND, HEADS, OPS, BEFORE, AFTER = range(7)
COUNT = WINDOW
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
def meet(masks: Masks, a: int, b: int) -> bool:
    """Whether rows may touch the same bytes, and one writes them."""
    return (masks[a, 0] & masks[b, 1]) | (masks[a, 1] & masks[b, 0]) != 0


@inner
def before_it(
    rows: Shorts, ranges: Ints, bounds: Ints, masks: Masks, last: Ints, ops: Ints, found: Ints, at: int, b: int
) -> tuple[int, int, int, int, int]:
    """Straight back from row b: enter the relations there, at most two for every row. Returns how many there are, where that
    ends, how many instructions from there on are always executed before b, and the units of which a hazard, of which a
    result is known."""
    hazards = results = 0  # bits of units that a row settles which is always executed on the way to this one
    a, sure, phase = b - 1, 1, rows[b, R_TARGET]
    while sure < WINDOW and a >= 0 and ops[a] < LOOP:
        same = rows[a, R_TARGET] == phase
        if meet(masks, a, b):
            length = note(rows, ranges, bounds, found, at, a, b, hazards, results, same)
            if length > at and same and last[a] and rows[a, R_UNIT] < BITS and found[at, 1] != LOOK:
                hazards |= 1 << rows[a, R_UNIT]
                results |= (found[at, 1] == FEEDS) << rows[a, R_UNIT]
            at = length
        a -= 1
        sure += same
    return at, a + 1, sure, hazards, results


@inner
def enter(queue: Ints, level: int, place: int) -> None:
    """Put a place into the queue of a number of steps back."""
    if level < WINDOW - 1:
        entry = queue[HEADS, COUNT]
        queue[HEADS, COUNT] = entry + 1
        queue[PLACE, entry], queue[BEHIND, entry] = place, queue[HEADS, level]
        queue[HEADS, level] = entry


@inner
def around(
    rows: Shorts,
    ranges: Ints,
    bounds: Ints,
    masks: Masks,
    found: Ints,
    room: Ints,
    at: int,
    b: int,
    passed: int,
    own: int,
    hazards: int,
    results: int,
) -> int:
    """Enter the relations of row b to rows on all ways to the places in the queues, but for those from ``passed`` on to b and
    those of its own repeat with phases, which ends in row ``own``. Returns how many there are."""
    points, ops, before, after, queue = room[POINTS], room[OPS], room[BEFORE], room[AFTER], room
    for level in range(WINDOW - 1):
        while queue[HEADS, level] >= 0:
            entry = queue[HEADS, level]
            queue[HEADS, level] = queue[BEHIND, entry]
            place = queue[PLACE, entry]
            a = place - 1
            if points[place] == b or passed <= place <= b or a < 0 or ops[a] == END:
                continue
            points[place] = b
            if ops[a] == NEXT and rows[a, R_TRIPS]:
                k = a - 1
                while ops[k] < LOOP and own != a:
                    if level + after[k] < WINDOW - 1 and meet(masks, k, b):
                        at = note(rows, ranges, bounds, found, at, k, b, hazards, results, False)
                    k -= 1
                enter(queue, level + before[a], rows[a, R_TARGET] - 1)
                continue
            if ops[a] == LOOP or ops[a] == NEXT:  # from both ways to get here
                enter(queue, level, rows[a, R_TARGET] - 1)
            elif ops[a] < LOOP and meet(masks, a, b):
                at = note(rows, ranges, bounds, found, at, a, b, hazards, results, False)
            enter(queue, level + (ops[a] < LOOP), a)
    return at


@inner
def search(
    rows: Shorts, ranges: Ints, bounds: Ints, masks: Masks, last: Ints, begin: Ints, found: Ints, room: Ints, first: int
) -> int:
    """Find the relations of the rows from ``first`` on. Returns the row for which ``found`` may be too short, or how many
    rows there are. ``room``: lines to work with, each longer than twice the rows and WINDOW together.

    Rows with phases are found by how many instructions there are at least between them and the ends of their repeat; within
    it, all are near each other but where as many as that stand between that are always executed too."""
    ops = room[OPS]
    ends(rows, ops, room[BEFORE], room[AFTER])
    at = begin[first]
    for b in range(first, rows.shape[0] - 1):
        begin[b] = at
        if masks[b, 0] == 0:
            continue
        if found.shape[0] - at < rows.shape[0]:
            return b
        at, place, sure, hazards, results = before_it(rows, ranges, bounds, masks, last, ops, found, at, b)
        if sure == WINDOW:
            continue
        passed, own, level = place + 1, -1, sure - 1
        if rows[b, R_TARGET]:
            own = b + 1
            while ops[own] < LOOP:
                own += 1
            for a in range(own - 1, b - 1, -1):  # in earlier steps of the repeat
                if meet(masks, a, b):
                    at = note(rows, ranges, bounds, found, at, a, b, hazards, results, False)
            place, level = rows[own, R_TARGET] - 1, room[BEFORE, b]
        room[HEADS, COUNT] = 0
        enter(room, level, place)
        if room[HEADS, COUNT]:
            at = around(rows, ranges, bounds, masks, found, room, at, b, passed, own, hazards, results)
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
        room[HEADS, COUNT + 1] = version
        return search(rows, ranges, bounds, masks, last, begin, found, room, first)

    return relations


relations = _entry(fingerprint(*SOURCES))


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
    room[OPS, : n + 1] = rows[:, R_OP]
    found = np.zeros((8 * n + WINDOW, 2), np.int64)
    first = 0
    masks = places(rows, ranges, tiles)
    while (first := relations(rows, ranges, bounds, masks, last, begin, found, room, first)) < n:
        found = np.concatenate((found, np.zeros_like(found)))
        room[POINTS] = -1
    earlier, kind = found[: begin[n]].T
    owner = np.repeat(np.arange(n), np.diff(begin))
    look = kind == LOOK
    moves = np.zeros(n, np.bool_)
    moves[earlier[look]] = True
    moves[owner[look]] = True
    rows[:-1, R_WAITS] |= MOVES * moves
    every = EVERY * (moves & (last == 0) & (counts > 1))
    return begin, earlier << EARLIER | every[earlier] | kind
