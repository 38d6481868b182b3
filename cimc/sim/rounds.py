"""How far the instructions of a repeat with phases are from its ends, for :mod:`cimc.sim.relations`. Compiled by numba."""

from __future__ import annotations

from cimc.isa.instruction import WINDOW
from cimc.native import inner
from cimc.sim.tables import LOOP, NEXT, R_TARGET, R_TRIPS, STAGE, TURN, Ints, Shorts

MASK = (1 << TURN) - 1


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
        count = rows[end, R_TRIPS] - 1
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
