"""Repeats whose rounds overlap, written out: what is executed, without phases.

A repeat of ``count`` rounds in which the latest instruction is ``S`` stages late goes through ``count + S`` steps. In step t
an instruction of stage s is executed for round t - s, if there is such a round and it is the instruction's turn. Steps in which
all stages are at work are alike but for the turns, so as many of them as there are turns are the body of a repeat again; those
before and after stand alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cimc.isa.instruction import Derived, Instruction, Phase, Repeat, Step
from cimc.isa.operands import Affine, Extent, View

ALWAYS = Phase()


def straight(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The steps without phases; the same object if there are none."""
    if not any(isinstance(s, Repeat) and _any(s) for s in steps):
        return steps
    return tuple(_each(steps))


def phased(repeat: Repeat) -> bool:
    """Whether instructions right in a repeat's body have phases."""
    return any(isinstance(s, Instruction) and s.phase is not None for s in repeat.body)


def extent_of(repeat: Repeat) -> tuple[int, int]:
    """The latest stage of a repeat's instructions, and after how many rounds turns come back."""
    phases = [s.phase for s in repeat.body if isinstance(s, Instruction) and s.phase is not None]
    return max((p.stage for p in phases), default=0), math.lcm(*(p.turns for p in phases))


def at_most(repeat: Repeat) -> int:
    """Instructions that a repeat comes to when it is written out, at most."""
    stages, turns = extent_of(repeat)
    return len(repeat.body) * 2 * (stages + turns)


def written_out(repeat: Repeat) -> list[Step]:
    """A repeat with phases as steps without."""
    return _Rounds(repeat).steps()


def _any(repeat: Repeat) -> bool:
    return phased(repeat) or any(isinstance(s, Repeat) and _any(s) for s in repeat.body)


def _each(steps: Sequence[Step]) -> Iterator[Step]:
    for step in steps:
        if not isinstance(step, Repeat) or not _any(step):
            yield step
        elif phased(step):
            yield from written_out(step)
        else:
            yield replace(step, body=tuple(_each(step.body)))


@dataclass
class _Rounds:
    """The rounds of one repeat. ``_known``: what its variables are in a round, or in all that follow a turn of all turns later;
    ``_derived``: the variables that follow the rounds of the repeat that is made."""

    repeat: Repeat
    _known: dict[tuple[int, int], dict[str, Affine]] = field(default_factory=dict[tuple[int, int], dict[str, Affine]])
    _derived: dict[Derived, Derived] = field(default_factory=dict[Derived, Derived])

    def steps(self) -> list[Step]:
        """All of it."""
        count = self.repeat.count
        assert isinstance(count, int), "phases need a count that is known"
        stages, turns = extent_of(self.repeat)
        loops = max(0, count - stages) // turns
        begin, end = (stages, stages + loops * turns) if loops > 1 else (0, 0)
        found: list[Step] = [s for at in range(begin) for s in self._step(at, count, 0)]
        if loops > 1:
            body = tuple(s for at in range(begin, begin + turns) for s in self._step(at, count, turns))
            repeat = self.repeat
            found.append(Repeat(repeat.variable, loops, body, tuple(self._derived.values()), repeat.line))
        found += [s for at in range(end, count + stages) for s in self._step(at, count, 0)]
        return found

    def _step(self, at: int, count: int, turns: int) -> Iterator[Instruction]:
        """What is executed in a step, or in that and all that follow ``turns`` later."""
        for step in self.repeat.body:
            assert isinstance(step, Instruction), "repeats do not stand beside phases"
            phase = step.phase or ALWAYS
            now = at - phase.stage
            if 0 <= now < count and now % phase.turns == phase.turn:
                yield self._here(step, self._variables(now, turns))

    def _variables(self, now: int, turns: int) -> dict[str, Affine]:
        known = self._known.get((now, turns))
        if known is None:
            variable = self.repeat.variable
            known = {variable: Affine.of(now, {variable: turns})}
            known.update((d.name, self._follows(d, now, turns)) for d in self.repeat.derived)
            self._known[now, turns] = known
        return known

    def _follows(self, derived: Derived, now: int, turns: int) -> Affine:
        """A derived variable in a round and those that follow."""
        factor, offset = derived.factor * turns, derived.offset + derived.factor * now
        if derived.modulus:
            around = derived.divisor * derived.modulus
            factor, offset = factor % around, offset % around
        if not factor:
            return Affine(derived.at(now))
        found = Derived("", offset, derived.divisor, derived.modulus, factor)
        name = f"{self.repeat.variable}'{len(self._derived)}"  # no name of a text: it hides none
        return Affine.of(0, {self._derived.setdefault(found, replace(found, name=name)).name: 1})

    @staticmethod
    def _here(step: Instruction, variables: dict[str, Affine]) -> Instruction:
        """An instruction with its variables put in."""

        def value(old: Affine) -> Affine:
            new = Affine(old.constant)
            for name, factor in old.terms:
                new = new + variables.get(name, Affine.of(0, {name: 1})) * factor
            return new

        def extent(old: Extent) -> Extent:
            return old if isinstance(old, int) else value(old)

        def view(old: View) -> View:
            if not old.offset.terms and all(isinstance(n, int) for n in old.shape):
                return old
            return View(old.buffer, value(old.offset), tuple(extent(n) for n in old.shape), old.strides)

        operands = tuple(view(o) if isinstance(o, View) else o for o in step.operands)
        return Instruction(step.mnemonic, operands, step.keywords, step.origin, step.line)
