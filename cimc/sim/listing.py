"""The text of a program as rows, before anything is known of them: instructions and repeats, tile by tile."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import cast

import numpy as np

from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.phases import ALWAYS, phased
from cimc.isa.program import Program, TileProgram
from cimc.sim.pool import numbers
from cimc.sim.reading import Reading
from cimc.sim.tables import DERIVE, DERIVED_COLUMNS, END, LOOP, NEXT, Ints
from cimc.sim.variables import Affines, Overlap, Said, Scope, overlap

MOST = 1 << 40  # times a row is executed, where it matters: more than any run comes to
_PHASE, _SAID = attrgetter("phase"), attrgetter("stage", "turn", "turns")


@dataclass(frozen=True, slots=True)
class _Shape:
    """A repeat with phases, listed: its slots with their lines of ``derived``, the numbers of its scopes by phase, and whether
    it executes anything."""

    overlap: Overlap
    derived: Sequence[tuple[int, int]]
    scopes: Mapping[Said, int]
    executes: bool


class Listing:
    """The rows. ``steps`` are the instructions, ``at`` the row, ``tile`` the index of the tile and ``scope`` the scope (in
    ``scopes``) of each. Rows that are none are in ``controls`` (row, what it is, slot, row to jump to or line of
    ``derived``, affine number of trips or, of the end of a repeat with phases, its rounds and one more). ``derived`` has the
    variables that follow a repeat's."""

    def __init__(self, program: Program, bound: Mapping[str, int]) -> None:
        self.affines = Affines()
        self.tiles = sorted(program.tiles, key=lambda t: t.tile)
        self.reading = Reading()
        self.steps = self.reading.steps
        self.controls: list[tuple[int, int, int, int, int]] = []
        self.derived = array("q")
        self.start: list[int] = []
        self.scopes: list[Scope] = [Scope({}, bound, {}, 0, 1)]
        self._scope: list[int] = []
        self._shapes: dict[tuple[object, ...], _Shape] = {}
        self.depth = 1
        for tile in self.tiles:
            self._tile(tile)
            self.reading.look()
        self.reading.look(least=1)
        self.rows = len(self.steps) + len(self.controls)
        self.row_tile: Ints = np.repeat(np.arange(len(self.tiles)), np.diff([*self.start, self.rows]))
        free = np.ones(self.rows, np.bool_)
        free[[row for row, *_ in self.controls]] = False
        self.at: Ints = np.flatnonzero(free)
        self.tile: Ints = self.row_tile[self.at]
        self.scope: Ints = numbers(self._scope)
        self.phases: Ints = np.array([s.phase for s in self.scopes], np.int64)[self.scope]

    def times(self, which: Ints) -> Ints:
        """How often some of the instructions are executed at most."""
        return np.array([min(s.times, MOST) for s in self.scopes], np.int64)[self.scope[which]]

    def _tile(self, tile: TileProgram) -> None:
        self.start.append(len(self.steps) + len(self.controls))
        self._body(tile.steps, 0)
        self._control(END)

    def _control(self, op: int, slot: int = 0, target: int = 0, trips: int = 0) -> int:
        """Enter a row that is no instruction; its index."""
        row = len(self.steps) + len(self.controls)
        self.controls.append((row, op, slot, target, trips))
        return row

    def _enter(self, steps: Sequence[Instruction], scope: int) -> None:
        self.steps += steps
        self._scope += [scope] * len(steps)

    def _body(self, steps: Sequence[Step], scope: int) -> None:
        kinds, begin = list(map(type, steps)), 0
        for _ in range(kinds.count(Repeat)):
            end = kinds.index(Repeat, begin)
            self._enter(cast(Sequence[Instruction], steps[begin:end]), scope)  # what stands between two repeats
            step, begin = steps[end], end + 1
            if isinstance(step, Repeat):
                self._overlapping(step, scope) if phased(step) else self._repeat(step, scope)
        self._enter(cast(Sequence[Instruction], steps[begin:]), scope)

    def _repeat(self, step: Repeat, around: int) -> None:
        scope = self.scopes[around]
        count = step.count if _executes(step) else 0
        base, terms = (count, ()) if isinstance(count, int) else scope.split(count)
        most = max(0, scope.reach(base, terms)[1])
        slot, trips, place = scope.free, self.affines.enter(base, terms), len(self.controls)
        begin = self._control(LOOP, slot, 0, trips)
        slots, spans = {step.variable: slot}, {slot: (0, max(0, most - 1))}
        for n, d in enumerate(step.derived, slot + 1):
            self._control(DERIVE, n, self._line((slot, d.offset, d.divisor, d.modulus, d.factor)))
            slots[d.name], spans[n] = n, d.bounds(most)
        number, free = len(self.scopes), slot + 1 + len(step.derived)
        slots, spans = {**scope.slots, **slots}, {**scope.spans, **spans}
        self.scopes.append(Scope(slots, scope.known, spans, free, scope.times * most))
        self.depth = max(self.depth, free)
        self._body(step.body, number)
        end = self._control(NEXT, slot, begin + 1)
        self.controls[place] = begin, LOOP, slot, end + 1, trips

    def _overlapping(self, step: Repeat, around: int) -> None:
        """Enter a repeat with phases. Those of which all is the same but for what the instructions do share their scopes."""
        body = cast(Sequence[Instruction], step.body)
        said = list(map(_SAID, [phase or ALWAYS for phase in map(_PHASE, body)]))
        key = around, step.variable, step.count, step.derived, frozenset(said)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = self._shape(overlap(step, sorted(key[-1]), self.scopes[around]))
        slot, place = self.scopes[around].free, len(self.controls)
        trips = self.affines.enter(shape.overlap.steps if shape.executes else 0, ())
        begin = self._control(LOOP, slot, 0, trips)
        self.controls += [(begin + 1 + n, DERIVE, slot, line, 0) for n, (slot, line) in enumerate(shape.derived)]
        self.steps += body
        self._scope += map(shape.scopes.__getitem__, said)
        end = self._control(NEXT, slot, begin + 1, 1 + shape.overlap.rounds)
        self.controls[place] = begin, LOOP, slot, end + 1, trips

    def _shape(self, found: Overlap) -> _Shape:
        first = len(self.scopes)
        self.scopes += found.scopes.values()
        self.depth = max(self.depth, found.free)
        lines = [(slot, self._line(derived)) for slot, derived in found.derived.items()]
        executes = any(s.times > 0 for s in found.scopes.values())
        return _Shape(found, lines, {said: first + n for n, said in enumerate(found.scopes)}, executes)

    def _line(self, derived: tuple[int, int, int, int, int]) -> int:
        self.derived.extend(derived)
        return len(self.derived) // DERIVED_COLUMNS - 1


def _executes(repeat: Repeat) -> bool:
    """Whether anything in a repeat is an instruction that is executed in some round."""
    if not phased(repeat):
        return any(isinstance(s, Instruction) or _executes(s) for s in repeat.body)
    count = repeat.count
    assert isinstance(count, int), "phases need a count that is known"
    return any(isinstance(s, Instruction) and (s.phase or ALWAYS).times(count) > 0 for s in repeat.body)
