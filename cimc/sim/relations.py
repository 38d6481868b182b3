"""Which instructions of a tile's text can have a hazard with which, found once for a program. Compiled by numba.

An execution only conflicts with the 63 before it. So a row's *relations* are the rows from which it can be reached in
that few steps, along the text and around its repeats, and whose bytes meet its own. What is known to be the same at
every execution is settled here; where ranges move with a repeat, the loop looks at the executions themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cimc.sim.tables import (
    ACCUMULATES,
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
    WRITES,
    Ints,
)
from cimc.sim.inner import entry, fingerprint, inner
from cimc.sim.reference import WINDOW

HAZARD, FEEDS, LOOK = 1, 3, 4  # relations of two rows: a hazard; a result that is read; to be looked at every time
BITS = 63  # units of a tile that have a bit in the masks below


@inner
def conflict(earlier: int, later: int) -> int:
    """What the flags of two ranges make of an overlap: 0 for nothing."""
    if ((earlier | later) & WRITES) == 0 or earlier & later & ACCUMULATES:
        return 0
    return FEEDS if earlier & WRITES and later & READS else HAZARD


@inner
def relation(rows: Ints, ranges: Ints, a: int, b: int) -> int:
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
def larger(table: Ints) -> Ints:
    """A table with room for as many rows again."""
    wide = np.zeros((2 * table.shape[0], table.shape[1]), np.int64)
    wide[: table.shape[0]] = table
    return wide


@inner
def note(rows: Ints, ranges: Ints, found: Ints, at: int, a: int, b: int, done: Ints) -> int:
    """Enter what row b has to expect of row a, unless later rows of the same unit make it superfluous: their results
    come later. ``done``: bits of units of which a hazard, of which a result is known. Returns the new length."""
    kind = relation(rows, ranges, a, b)
    bit = 1 << rows[a, R_UNIT] if rows[a, R_UNIT] < BITS else 0
    if kind == 0 or (done[0] & bit and (kind == HAZARD or done[1] & bit)):
        return at
    found[at, 0] = a
    found[at, 1] = kind
    return at + 1


@inner
def settle(done: Ints, kind: int, unit: int) -> None:
    """A row that is always executed on the way to the one looked at settles its unit."""
    bit = 1 << unit if unit < BITS else 0
    if kind in (HAZARD, FEEDS):
        done[0] |= bit
    if kind == FEEDS:
        done[1] |= bit


@inner
def search(rows: Ints, ranges: Ints) -> tuple[Ints, Ints]:
    """Per row, where its relations begin (the next one's begin where they end), and the relations: (row, kind)."""
    n = rows.shape[0] - 1
    begin = np.zeros(n + 1, np.int64)
    found = np.zeros((4 * n + 2 * WINDOW, 2), np.int64)
    points = np.full((n + 1, 2), -1, np.int64)  # place in the text: the row it was passed for, in how few steps
    seen = np.full(n + 1, -1, np.int64)  # row: the row it was looked at for
    stack = np.zeros((64, 2), np.int64)
    done = np.zeros(2, np.int64)
    at = 0
    for b in range(n):
        begin[b] = at
        if rows[b, R_OP] >= LOOP or rows[b, R_RANGE] == rows[b + 1, R_RANGE]:
            continue
        done[:] = 0
        straight = True
        stack[0, 0], stack[0, 1], top = b, 0, 1
        while top > 0:
            top -= 1
            place, steps = stack[top, 0], stack[top, 1]
            while steps < WINDOW - 1:
                if points[place, 0] == b and points[place, 1] <= steps:
                    break
                points[place, 0], points[place, 1] = b, steps
                a = place - 1
                if a < 0 or rows[a, R_OP] == END:
                    break
                if rows[a, R_OP] >= LOOP:  # on from both ways to get here
                    straight = False
                    stack[top, 0], stack[top, 1] = rows[a, R_TARGET] - 1, steps
                    top += 1
                    if top == stack.shape[0]:
                        stack = larger(stack)
                    place = a
                    continue
                if seen[a] != b:
                    seen[a] = b
                    if at == found.shape[0]:
                        found = larger(found)
                    length = note(rows, ranges, found, at, a, b, done)
                    if straight and length > at:
                        settle(done, found[at, 1], rows[a, R_UNIT])
                    at = length
                place, steps = a, steps + 1
    begin[n] = at
    return begin, found[:at].copy()


def _entry(version: int) -> Callable[[Ints, Ints], tuple[Ints, Ints]]:
    """The search behind the function whose machine code numba keeps on disk."""

    @entry
    def relations(rows: Ints, ranges: Ints) -> tuple[Ints, Ints]:
        begin, found = search(rows, ranges)
        begin[0] = 0 * version
        return begin, found

    return relations


relations = _entry(fingerprint())
"""Per row, where its relations begin (the next one's begin where they end), and the relations: (row, kind)."""


def related(rows: Ints, ranges: Ints) -> tuple[Ints, Ints, Ints]:
    """The relations of a program's rows (as :data:`relations`), and which rows' ranges have to be looked at."""
    begin, found = relations(rows, ranges)
    moving = np.zeros(len(rows), np.int64)
    owner = np.repeat(np.arange(len(begin) - 1), np.diff(begin))
    look = found[:, 1] == LOOK
    moving[found[look, 0]] = 1
    moving[owner[look]] = 1
    return begin, found, moving
