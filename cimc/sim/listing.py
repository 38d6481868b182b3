"""The text of a program as rows, before anything is known of them: instructions and repeats, tile by tile."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine
from cimc.isa.program import Program, TileProgram
from cimc.sim.reading import Reading
from cimc.sim.tables import DERIVE, DERIVED_COLUMNS, END, LOOP, NEXT, Ints

Terms = Sequence[tuple[int, int]]  # (slot, factor)
MOST = 1 << 40  # times a row is executed, where it matters: more than any run comes to


@dataclass(frozen=True, slots=True)
class Scope:
    """Where rows stand: their tile, the slots of the repeat variables in scope, of every slot of the tile the most trips
    there can be, and how often the rows are executed at most."""

    tile: int
    slots: Mapping[str, int]
    trips: list[int]
    times: int


class Affines:
    """The tables ``affine`` and ``terms`` as they are filled. Number 0 is 0."""

    def __init__(self, bound: Mapping[str, int]) -> None:
        self._bound = bound
        self.affine, self.terms = array("q", (0, 0)), array("q")

    def split(self, value: Affine, scope: Scope) -> tuple[int, Terms]:
        """An affine value as a constant and factors of slots, with the parameters put in."""
        if not value.terms:
            return value.constant, ()
        slots, bound = scope.slots, self._bound
        base = value.constant + sum(c * bound[v] for v, c in value.terms if v not in slots)
        return base, [(slots[v], c) for v, c in value.terms if v in slots]

    def enter(self, base: int, terms: Terms) -> int:
        """The number of an affine value in the tables."""
        self.affine.extend((base, len(self.terms) // 2))
        for pair in terms:
            self.terms.extend(pair)
        return len(self.affine) // 2 - 1


def reach(base: int, terms: Terms, trips: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest value of a split affine value."""
    most = [(c * max(0, trips[s] - 1)) for s, c in terms]
    return base + sum(m for m in most if m < 0), base + sum(m for m in most if m > 0)


class Listing:
    """The rows. ``steps`` are the instructions, ``at`` the row, ``tile`` the index of the tile and ``scope`` the scope (in
    ``scopes``) of each. Rows that are none are in ``controls`` (row, what it is, slot, row to jump to or line of
    ``derived``, affine number of trips). ``derived`` has the variables that follow a repeat's."""

    def __init__(self, program: Program, bound: Mapping[str, int]) -> None:
        self.affines = Affines(bound)
        self.tiles = sorted(program.tiles, key=lambda t: t.tile)
        self.reading = Reading()
        self.steps = self.reading.steps
        self.controls: list[tuple[int, int, int, int, int]] = []
        self.derived = array("q")
        self.start: list[int] = []
        self.scopes: list[Scope] = []
        self._since: list[tuple[int, int]] = []  # the row from which on each holds: (row, scope)
        self.depth = 1
        for index, tile in enumerate(self.tiles):
            self._tile(index, tile)
            self.reading.look()
        self.reading.look(least=1)
        self.rows = len(self.steps) + len(self.controls)
        self.row_tile: Ints = np.repeat(np.arange(len(self.tiles)), np.diff([*self.start, self.rows]))
        free = np.ones(self.rows, np.bool_)
        free[[row for row, *_ in self.controls]] = False
        self.at: Ints = np.flatnonzero(free)
        self.tile: Ints = self.row_tile[self.at]
        since = np.array(self._since, np.int64).reshape(-1, 2)
        self.scope: Ints = since[np.searchsorted(since[:, 0], self.at, "right") - 1, 1]

    def times(self, which: Ints) -> Ints:
        """How often some of the instructions are executed at most."""
        return np.array([min(s.times, MOST) for s in self.scopes], np.int64)[self.scope[which]]

    def _tile(self, index: int, tile: TileProgram) -> None:
        self.start.append(len(self.steps) + len(self.controls))
        scope = Scope(index, {}, [], 1)
        self._body(tile.straight, scope)
        self._control(END)
        self.depth = max(self.depth, len(scope.trips))

    def _control(self, op: int, slot: int = 0, target: int = 0, trips: int = 0) -> int:
        """Enter a row that is no instruction; its index."""
        row = len(self.steps) + len(self.controls)
        self.controls.append((row, op, slot, target, trips))
        return row

    def _enter(self, scope: int) -> None:
        self._since.append((len(self.steps) + len(self.controls), scope))

    def _body(self, steps: Sequence[Step], scope: Scope) -> None:
        number = len(self.scopes)
        self.scopes.append(scope)
        self._enter(number)
        kinds, begin = list(map(type, steps)), 0
        for _ in range(kinds.count(Repeat)):
            end = kinds.index(Repeat, begin)
            self.steps += cast(Sequence[Instruction], steps[begin:end])  # what stands between two repeats
            step, begin = steps[end], end + 1
            if isinstance(step, Repeat):
                self._repeat(step, scope)
                self._enter(number)
        self.steps += cast(Sequence[Instruction], steps[begin:])

    def _repeat(self, step: Repeat, scope: Scope) -> None:
        if not _any_instruction(step.body):
            return
        base, terms = (step.count, ()) if isinstance(step.count, int) else self.affines.split(step.count, scope)
        slot, trips = len(scope.trips), self.affines.enter(base, terms)
        most = max(0, reach(base, terms, scope.trips)[1])
        place = len(self.controls)
        begin = self._control(LOOP, slot, 0, trips)
        scope.trips.append(most)
        slots = {**scope.slots, step.variable: slot, **self._derived(step, slot, most, scope)}
        self._body(step.body, Scope(scope.tile, slots, scope.trips, scope.times * most))
        end = self._control(NEXT, slot, begin + 1)
        self.controls[place] = begin, LOOP, slot, end + 1, trips

    def _derived(self, step: Repeat, slot: int, most: int, scope: Scope) -> dict[str, int]:
        """Enter the variables that follow a repeat's: each has a slot of its own, set at the start of every round."""
        slots: dict[str, int] = {}
        for d in step.derived:
            self.derived.extend((slot, d.offset, d.divisor, d.modulus, d.factor))
            slots[d.name] = len(scope.trips)
            self._control(DERIVE, slots[d.name], len(self.derived) // DERIVED_COLUMNS - 1)
            scope.trips.append(d.bounds(most)[1] + 1)
        return slots


def _any_instruction(steps: Sequence[Step]) -> bool:
    return any(isinstance(s, Instruction) or _any_instruction(s.body) for s in steps)
