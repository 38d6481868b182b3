"""Streams of tiles that work on several stages at once: what a stage does for one block of rows is written once, and every
stage runs its blocks one *step* after the other, so many steps after the first stage as its data need. A stage may also wait
until it has a group of blocks, and do them together.

In the code of a stage, offsets name variables that stand for the block at hand (``BLOCK`` ...); here they become variables
of the repeats in which the stages of a tile run side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

from cimc.codegen.tilecode import Room, TileCode
from cimc.isa.instruction import Derived, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.isa.steps import walk

SAMPLE, BLOCK = "@sample", "@block"
"""The sample that a block of rows belongs to, and its number in it."""

ROW = "@row"
"""The first row of a block in its sample, where blocks overlap; a number behind it says how many blocks further on."""

RING, WHOLE = "@ring", "@whole"
"""The place of a block in the ring of buffers that keeps it; of its sample, in one that keeps samples (:meth:`Ring.name`)."""


@dataclass(frozen=True, slots=True)
class Turn:
    """``(block number + first) · factor / divisor % modulus``, as blocks are counted through all samples."""

    divisor: int = 1
    modulus: int = 0
    factor: int = 1
    first: int = 0

    def derived(self, period: int, at: int, step: int) -> tuple[Derived, int]:
        """At groups of ``period`` blocks, of which the first is meant, from group ``at`` on and then every ``step``-th: what
        follows a repeat's variable, and the number that it is to be multiplied by. If only the modulus counts, it must be a
        multiple of the period."""
        if self.divisor % period and self.factor == 1:
            return Derived("", at, 1, self.modulus // period, step), period
        common = math.gcd(self.factor * period, self.divisor)
        factor = self.factor * period // common
        start = at * factor + self.first * self.factor // common
        return Derived("", start, self.divisor // common, self.modulus, step * factor), 1


@dataclass(frozen=True, slots=True, order=True)
class When:
    """When a stage works: at every ``period``-th step from ``start`` on, on as many blocks."""

    start: int
    period: int = 1


Ordering = Callable[[Sequence[When]], Sequence[tuple[When, int]]]
"""Of the stages that work in a step, later ones first: in which order their instructions come (stage, place in it)."""


@dataclass(frozen=True, slots=True)
class Ring:
    """A buffer that is kept ``depth`` times, each for ``group`` blocks at once. ``rows``, if not 0: of a sample, whose blocks
    overlap; then its places are ``depth`` rows, not blocks."""

    depth: int
    group: int = 1
    rows: int = 0

    def name(self, stem: str) -> str:
        """The variable that counts its places."""
        return f"{stem}{self.depth}.{self.group}{f'.{self.rows}' if self.rows else ''}"

    def shape(self, block: tuple[int, ...]) -> tuple[int, ...]:
        """Of all of it, for blocks of that shape."""
        return (self.depth, *block[1:]) if self.rows else (self.depth, *block)

    def turn(self, blocks: int) -> Turn:
        """Of its places, with so many blocks to a sample."""
        return Turn(blocks, self.depth, self.rows) if self.rows else Turn(self.group, self.depth)

    def samples(self, blocks: int) -> Turn:
        """Of the samples that it keeps."""
        return Turn(blocks, max(1, self.depth // (self.rows or blocks)))


def substitute(steps: Sequence[Step], value: Callable[[str], Affine]) -> list[Step]:
    """Steps with every variable that begins with ``@`` replaced."""
    known: dict[str, Affine] = {}

    def affine(old: Affine) -> Affine:
        constant, terms = old.constant, dict[str, int]()
        for name, factor in old.terms:
            if not name.startswith("@"):
                terms[name] = terms.get(name, 0) + factor
                continue
            if name not in known:
                known[name] = value(name)
            constant += known[name].constant * factor
            for inner, count in known[name].terms:
                terms[inner] = terms.get(inner, 0) + count * factor
        return Affine.of(constant, terms)

    def view(old: View | str) -> View | str:
        if isinstance(old, View) and any(map(_stands, old.offset.terms)):
            return View(old.buffer, affine(old.offset), old.shape, old.strides)
        return old

    def step(old: Step) -> Step:
        if isinstance(old, Repeat):
            return replace(old, body=tuple([step(s) for s in old.body]))
        operands = tuple([view(o) for o in old.operands])
        return old if operands == old.operands else old.on(operands)

    return [step(s) for s in steps]


def _stands(term: tuple[str, int]) -> bool:
    """Whether a term's variable stands for the block at hand."""
    return term[0].startswith("@")


def fold(
    stages: Mapping[When, Sequence[Step]], blocks: int, turns: Mapping[str, Turn], order: Ordering | None = None
) -> list[Step]:
    """One stream of a tile's stages, for ``blocks`` blocks (a multiple of every period); at every step the later stages come
    first, or what ``order`` says of those that work in it. ``turns`` says what the variables beginning with ``@`` stand for."""
    order = order or partial(_one_by_one, stages)
    cuts = sorted({s for when in stages for s in (when.start, when.start + blocks)})
    steps: list[Step] = []
    for low, high in pairwise(cuts):
        active = {w: s for w, s in sorted(stages.items(), reverse=True) if w.start <= low < w.start + blocks}
        period = math.lcm(*(w.period for w in active))
        rounds = (high - low) // period
        steps += _rounds(active, low, (period, rounds), turns, order)
        steps += _rounds(active, low + rounds * period, (high - low - rounds * period, 1), turns, order)
    return steps


def _one_by_one(stages: Mapping[When, Sequence[Step]], working: Sequence[When]) -> list[tuple[When, int]]:
    """Stage after stage."""
    return [(when, i) for when in working for i in range(len(stages[when]))]


def _rounds(
    active: Mapping[When, Sequence[Step]],
    low: int,
    size: tuple[int, int],
    turns: Mapping[str, Turn],
    order: Ordering,
) -> list[Step]:
    """The steps from ``low`` on: (so many a round, rounds)."""
    length, rounds = size
    derived: dict[Derived, Derived] = {}
    body: list[Step] = []
    for step in range(low, low + length):
        ready: dict[When, list[Step]] = {}
        for when, code in active.items():
            group, rest = divmod(step - when.start, when.period)
            if rest == 0:
                value = partial(_value, turns, when.period, (group, length // when.period, rounds), derived)
                ready[when] = substitute(code, value)
        body += [ready[when][i] for when, i in order(tuple(ready))]
    if rounds == 1 or not body:
        return body
    return [Repeat("t", rounds, tuple(body), tuple(derived.values()))] if rounds else []


def _value(
    turns: Mapping[str, Turn],
    period: int,
    groups: tuple[int, int, int],
    derived: dict[Derived, Derived],
    name: str,
) -> Affine:
    """The value of a variable at groups of ``period`` blocks (the first, how far apart, how many): a number, or a multiple
    of a variable derived from the repeat's."""
    at, factor, count = groups
    found, scale = turns[name].derived(period, at, max(1, factor))
    low, high = found.bounds(count)
    if low == high:
        return Affine(low * scale)
    named = derived.setdefault(found, replace(found, name=f"t{len(derived)}"))
    return Affine.of(0, {named.name: scale})


def spans(
    stages: Mapping[When, Sequence[Step]], rooms: Mapping[str, Room]
) -> tuple[dict[str, tuple[int, int, int]], dict[str, int]]:
    """Of a tile's buffers: the first and the last start of the stages that touch it, and how many blocks they do at once;
    and the least place at which a product has it, 3 if none has."""
    span: dict[str, tuple[int, int, int]] = {}
    rank: dict[str, int] = {}
    touched = (
        (when, step.mnemonic, i, o.buffer)
        for when, steps in stages.items()
        for step in walk(steps)
        for i, o in enumerate(step.operands)
        if isinstance(o, View) and o.buffer in rooms and not rooms[o.buffer].key
    )
    for when, mnemonic, i, name in touched:
        low, high, group = span.get(name, (when.start, when.start, 1))
        span[name] = (min(low, when.start), max(high, when.start), max(group, when.period))
        rank[name] = min(i if mnemonic == "mvm" else 3, rank.get(name, 3))
    return span, rank


def ringed(steps: Sequence[Step], rings: Mapping[str, Ring], code: TileCode) -> list[Step]:
    """Steps whose views of buffers go to the block at hand in the ring that each becomes."""

    def view(old: View) -> View:
        ring = rings.get(old.buffer)
        if ring is None:
            return old
        if any(name == WHOLE for name, _ in old.offset.terms):
            terms = {ring.name(WHOLE) if name == WHOLE else name: factor for name, factor in old.offset.terms}
            return old.at(Affine.of(old.offset.constant, terms))
        place = math.prod(code.rooms[old.buffer].shape[1 if ring.rows else 0 :])
        return old.at(old.offset + Affine.of(0, {ring.name(RING): place}))

    def step(old: Step) -> Step:
        if isinstance(old, Repeat):
            return replace(old, body=tuple(step(s) for s in old.body))
        return old.on(tuple([view(o) if isinstance(o, View) else o for o in old.operands]))

    return [step(s) for s in steps]
