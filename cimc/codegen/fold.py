"""Streams of tiles that work on several stages at once: what a stage does for one block of rows is written once, and every
stage runs its blocks one *step* after the other, so many steps after the first stage as its data need.

In the code of a stage, offsets name variables that stand for the block at hand (``BLOCK`` ...); here they become variables
of the repeats in which the stages of a tile run side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from cimc.isa.instruction import Derived, Instruction, Repeat, Step
from cimc.isa.operands import Affine, View

SAMPLE, BLOCK = "@sample", "@block"
"""The sample that a block of rows belongs to, and its number in it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """``block number / divisor % modulus``, as it is counted through all samples."""

    divisor: int = 1
    modulus: int = 0


def substitute(steps: Sequence[Step], value: Callable[[str], Affine]) -> list[Step]:
    """Steps with every variable that begins with ``@`` replaced."""

    def affine(old: Affine) -> Affine:
        if not any(name.startswith("@") for name, _ in old.terms):
            return old
        new = Affine(old.constant)
        for name, factor in old.terms:
            new = new + (value(name) if name.startswith("@") else Affine.of(0, {name: 1})) * factor
        return new

    def step(old: Step) -> Step:
        if isinstance(old, Repeat):
            return replace(old, body=tuple(step(s) for s in old.body))
        operands = tuple(replace(o, offset=affine(o.offset)) if isinstance(o, View) else o for o in old.operands)
        return replace(old, operands=operands)

    return [step(s) for s in steps]


def fold(stages: Mapping[int, Sequence[Step]], blocks: int, turns: Mapping[str, Turn]) -> list[Step]:
    """One stream of a tile's stages, by the step at which each does its first of ``blocks`` blocks; at every step the later
    stages come first. ``turns`` says what the variables beginning with ``@`` stand for."""
    cuts = sorted({s for start in stages for s in (start, start + blocks)})
    steps: list[Step] = []
    for low, high in pairwise(cuts):
        active = sorted((s for s in stages if s <= low < s + blocks), reverse=True)
        derived: dict[tuple[int, Turn], Derived] = {}
        body: list[Step] = []
        for start in active:
            value = partial(_value, turns, low - start, high - low, derived)
            body += substitute(stages[start], value)
        if high - low == 1:
            steps += body
        elif body:
            steps.append(Repeat("t", high - low, tuple(body), tuple(derived.values())))
    return steps


def _value(
    turns: Mapping[str, Turn], at: int, count: int, derived: dict[tuple[int, Turn], Derived], name: str
) -> Affine:
    """The value of a variable at the blocks from ``at`` on: a number, or a variable derived from the repeat's."""
    turn = turns[name]
    low, high = Derived("", at, turn.divisor, turn.modulus).bounds(count)
    if low == high:
        return Affine(low)
    if (at, turn) not in derived:
        derived[at, turn] = Derived(f"t{len(derived)}", at, turn.divisor, turn.modulus)
    return Affine.of(0, {derived[at, turn].name: 1})


def instructions(steps: Sequence[Step]) -> list[Instruction]:
    """All instructions of steps, a body once."""
    found: list[Instruction] = []
    for step in steps:
        found += instructions(step.body) if isinstance(step, Repeat) else [step]
    return found
