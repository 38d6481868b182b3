"""What is known of the variables where rows of the timing engine stand: their slots, values, and bounds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from cimc.isa.instruction import Derived, Phase, Repeat
from cimc.isa.operands import Affine
from cimc.isa.phases import extent_of
from cimc.sim.tables import packed_phase

Terms = Sequence[tuple[int, int]]  # (slot, factor)
Said = tuple[int, int, int]  # a phase: stage, turn, turns
MOST_ROUNDS = 1 << 20  # of a repeat with phases that matter to which of its instructions can follow each other


@dataclass(frozen=True, slots=True)
class Scope:
    """Where rows stand: variables in ``slots``, or ``known`` to be always the same there (parameters among them); of every slot
    the least and the greatest value; the first slot that is free; how often the rows are executed at most; and what
    :class:`cimc.sim.tables.Flat` says of their phase: slot, phase, latest stage."""

    slots: Mapping[str, int]
    known: Mapping[str, int]
    spans: Mapping[int, tuple[int, int]]
    free: int
    times: int
    phase: tuple[int, int, int] = (0, 0, 0)

    def split(self, value: Affine) -> tuple[int, Terms]:
        """An affine value as a constant and factors of slots, with what is known put in."""
        if not value.terms:
            return value.constant, ()
        slots, known = self.slots, self.known
        base = value.constant + sum(c * known[v] for v, c in value.terms if v not in slots)
        return base, [(slots[v], c) for v, c in value.terms if v in slots]

    def reach(self, base: int, terms: Terms) -> tuple[int, int]:
        """The least and the greatest value of a split affine value."""
        least = greatest = base
        for slot, factor in terms:
            ends = [factor * end for end in self.spans[slot]]
            least, greatest = least + min(ends), greatest + max(ends)
        return least, greatest


class Affines:
    """The tables ``affine`` and ``terms`` as they are filled. Number 0 is 0."""

    def __init__(self) -> None:
        self.affine, self.terms = array("q", (0, 0)), array("q")

    def enter(self, base: int, terms: Terms) -> int:
        """The number of an affine value in the tables."""
        self.affine.extend((base, len(self.terms) // 2))
        for pair in terms:
            self.terms.extend(pair)
        return len(self.affine) // 2 - 1


@dataclass(frozen=True, slots=True)
class Overlap:
    """What all repeats with the same rounds and phases have in common. ``derived``: slots that are set in every step, each
    from the slot that counts the steps by a line of :class:`cimc.sim.tables.Flat`'s ``derived``; ``rounds``: a count
    that begins and ends with the same turns, and is not too long for a row. ``scopes``: of instructions, by phase."""

    steps: int
    rounds: int
    free: int
    derived: Mapping[int, tuple[int, int, int, int, int]]
    scopes: Mapping[Said, Scope]


def overlap(repeat: Repeat, phases: Iterable[Said], scope: Scope) -> Overlap:
    """Of a repeat in a scope, with instructions of these phases.

    An instruction that is executed once, or after each turn of whose turns a derived variable is back where it was, has
    constants for variables."""
    count = repeat.count
    assert isinstance(count, int), "phases need a count that is known"
    latest, turns = extent_of(repeat)
    made = _Slots(scope.free)
    scopes = {said: _of_phase(repeat, said, latest, scope, made) for said in phases}
    short = count if count < MOST_ROUNDS else MOST_ROUNDS + (count - MOST_ROUNDS) % turns
    return Overlap(count + latest, short, made.free, made.derived, scopes)


class _Slots:
    """The slots of a repeat with phases: the first counts its steps, the others are ``derived`` from it."""

    def __init__(self, first: int) -> None:
        self._first, self.free = first, first + 1
        self.derived: dict[int, tuple[int, int, int, int, int]] = {}
        self._made: dict[tuple[int, Derived], int] = {}

    def of(self, stage: int, variable: Derived) -> int:
        """The slot of a variable so many stages late."""
        if not stage and variable == Derived(variable.name):
            return self._first
        found = self._made.setdefault((stage, variable), self.free)
        if found == self.free:
            d = variable
            self.derived[found] = self._first, d.offset - stage * d.factor, d.divisor, d.modulus, d.factor
            self.free += 1
        return found


def _of_phase(repeat: Repeat, said: Said, latest: int, scope: Scope, made: _Slots) -> Scope:
    """The scope of a repeat's instructions of a phase."""
    known, slots, spans = dict(scope.known), dict(scope.slots), dict(scope.spans)
    count, (stage, turn, turns) = repeat.count, said
    assert isinstance(count, int), "phases need a count that is known"
    times, values = _values(repeat.variable, repeat.derived, count, turn, turns)
    for variable, least, greatest, moves in values:
        if moves:
            slots[variable.name] = slot = made.of(stage, variable)
            spans[slot] = least, greatest
        else:
            slots.pop(variable.name, None)
            known[variable.name] = least
    return Scope(slots, known, spans, made.free, scope.times * times, (scope.free, packed_phase(*said), latest))


@lru_cache(1 << 12)
def _values(
    name: str, derived: tuple[Derived, ...], count: int, turn: int, turns: int
) -> tuple[int, list[tuple[Derived, int, int, bool]]]:
    """In how many of a repeat's rounds it is an instruction's turn. Of the repeat's variables: the least and the greatest value
    in these, and whether it is not always the same."""
    phase = Phase(0, turn, turns)
    times = phase.times(count)
    found: list[tuple[Derived, int, int, bool]] = []
    for variable in (Derived(name), *derived):
        follows = _follows(variable, phase) if times > 1 else None
        low, high = follows.bounds(times) if follows else (variable.at(turn), variable.at(turn))
        found.append((variable, low, high, follows is not None))
    return times, found


def _follows(variable: Derived, phase: Phase) -> Derived | None:
    """A variable in the rounds that are the turn of a phase, by their number; None if it is always the same."""
    factor, offset = variable.factor * phase.turns, variable.offset + variable.factor * phase.turn
    if variable.modulus:
        around = variable.divisor * variable.modulus
        factor, offset = factor % around, offset % around
    return replace(variable, factor=factor, offset=offset) if factor else None
