"""Order between tiles: a tile that reads what another one stored waits for its token, as late as it may.

A tile signals when a segment is done. Who reads waits where it first reads what that tile stored: before a step, or in a
round of a repeat, so that a lane begins with rows that are there while others are still worked on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache

from cimc.codegen.tilecode import instruction
from cimc.isa.instruction import INSTRUCTIONS, MAX_STAGE, Instruction, Kind, Phase, Repeat, Step, kinds
from cimc.isa.operands import View, static_shape
from cimc.isa.phases import ALWAYS

MOST_WRITTEN = 4096
"""Instructions that a repeat comes to at most, if tokens are waited for in single rounds of it: engines write it out
(estimated: what a tile's text has besides)."""

Place = tuple[int, int]
"""A step of a segment's code, and a round of it if it is a repeat."""

ALL = (0, 1 << 62)
"""All elements of an array."""


@dataclass
class Chunk:
    """A segment's code on one tile. ``signals``: tiles that get a token, by the number of the step that comes next; ``waits``:
    tiles whose token is waited for, and where; ``awaited``: tiles whose tokens the steps themselves wait for, and the segment
    that gives them."""

    segment: int
    steps: tuple[Step, ...]
    signals: dict[int, set[int]] = field(default_factory=dict[int, set[int]])
    waits: list[tuple[int, Place]] = field(default_factory=list[tuple[int, Place]])
    reload: bool = False  # the steps write a matrix for it
    awaited: Mapping[int, int] = field(default_factory=dict[int, int])

    def ordered(self) -> tuple[Step, ...]:
        """The steps with all that is waited for and signalled."""
        at: dict[int, dict[int, list[int]]] = {}
        for source, (step, turn) in self.waits:
            at.setdefault(step, {}).setdefault(turn, []).append(source)
        found: list[Step] = []
        for i, step in enumerate(self.steps):
            found += self._signal(i)
            turns = at.get(i, {})
            found += [_wait(source) for source in turns.pop(0, ())]
            found.append(_within(step, turns) if turns else step)
        return (*found, *self._signal(len(self.steps)))

    def _signal(self, at: int) -> list[Step]:
        return [instruction("signal", to=tuple(sorted(self.signals[at])))] if at in self.signals else []

    def signal(self, at: int, tile: int) -> None:
        """Give a tile a token before a step."""
        self.signals.setdefault(at, set()).add(tile)


@dataclass(frozen=True, slots=True)
class _Touch:
    """What an instruction reads or writes of an array: elements [low, high), ``step`` further in each round of the repeat
    it stands in, in the rounds that are ``turn`` modulo ``turns``, ``stage`` rounds late."""

    at: int
    low: int
    high: int
    step: int = 0
    count: int = 1
    phase: Phase = ALWAYS

    def first(self, low: int, high: int) -> Place | None:
        """The step, and its round, that first touches elements [low, high); None if none does."""
        turn = 0 if self.high > low else -(-(low + 1 - self.high) // self.step) if self.step > 0 else self.count
        turn += (self.phase.turn - turn) % self.phase.turns
        if turn >= self.count or self.low + turn * self.step >= high:
            return None
        return self.at, min(turn + self.phase.stage, self.count - 1)


Stored = list[tuple[int, dict[str, tuple[int, int]]]]
"""Steps that store, and the elements of each array between which they do."""


def order(chunks: Mapping[int, list[Chunk]], producers: Mapping[str, Mapping[int, Sequence[int]]]) -> None:
    """Tokens between the tiles' chunks; one covers all that the other tile stored before. ``producers``: of each array, by
    segment, the tiles that store into it."""
    chunk_of = {(tile, c.segment): c for tile, found in chunks.items() for c in found if not c.reload}
    stored = cache(lambda source, segment: _stored(chunk_of[source, segment].steps))
    for tile, found in chunks.items():
        synced: dict[int, int] = {}
        for chunk in found:
            synced.update(chunk.awaited)
            needed: dict[int, dict[int, dict[int, Place]]] = {}  # by source, segment and step
            for name, segment, source, touches in _reads(chunk, producers):
                if source == tile or synced.get(source, -1) >= segment:
                    continue
                for step, hulls in stored(source, segment):
                    first = _first(touches, hulls.get(name))
                    if first is not None:
                        places = needed.setdefault(source, {}).setdefault(segment, {})
                        places[step] = min(places.get(step, first), first)
            for source, of in sorted(needed.items()):
                synced[source] = max(of)
                _tokens(chunk, (tile, source), of, chunk_of[source, max(of)])


def _reads(
    chunk: Chunk, producers: Mapping[str, Mapping[int, Sequence[int]]]
) -> Iterator[tuple[str, int, int, Sequence[_Touch]]]:
    """What a chunk reads of arrays that earlier segments store: the array, a segment, one of its tiles that store into it, and
    the reads of it."""
    for name, touches in _touched(chunk.steps, Kind.GLOBAL_READ).items():
        for segment, tiles in producers.get(name.partition(".")[0], {}).items():
            for source in tiles if segment < chunk.segment else ():
                yield name, segment, source, touches


def _tokens(chunk: Chunk, ends: tuple[int, int], needed: Mapping[int, Mapping[int, Place]], sender: Chunk) -> None:
    """The tokens of one tile for another's chunk: one behind all that it stores, and one before that behind what is needed
    first, if the rest is needed in later rounds."""
    tile, source = ends
    first = min(place for places in needed.values() for place in places.values())
    places = needed[sender.segment]
    early = max((step for step, place in places.items() if place == first), default=-1)
    late = min((place for step, place in places.items() if step > early), default=None)
    plain = all(isinstance(step, Instruction) for step in sender.steps)
    if len(needed) == 1 and plain and late is not None and late[0] == first[0] and _rounds(chunk.steps[first[0]]):
        chunk.waits.append((source, first))
        sender.signal(early + 1, tile)
        first = late
    at, turn = first
    chunk.waits.append((source, (at, turn if _rounds(chunk.steps[at]) else 0)))
    sender.signal(len(sender.steps), tile)


def _first(touches: Sequence[_Touch], stored: tuple[int, int] | None) -> Place | None:
    """Where the elements between which a tile stores are read first."""
    found = [t.first(*stored) for t in touches] if stored is not None else []
    return min((p for p in found if p is not None), default=None)


def _rounds(step: Step) -> int:
    """After how many rounds of a repeat turns come back if one of them is waited in; 0 where that cannot be."""
    if not isinstance(step, Repeat) or not isinstance(step.count, int):
        return 0
    turns = 1
    for inner in step.body:
        if isinstance(inner, Repeat):
            return 0
        turns = math.lcm(turns, inner.phase.turns if inner.phase else 1)
    rounds = -(-step.count // turns) * turns
    return rounds if rounds <= MAX_STAGE and len(step.body) * rounds <= MOST_WRITTEN else 0


def _within(step: Step, turns: Mapping[int, Sequence[int]]) -> Repeat:
    """A repeat in whose rounds tiles are waited for, by round."""
    assert isinstance(step, Repeat)
    rounds = _rounds(step)
    waits = [replace(_wait(s), phase=Phase(0, turn, rounds)) for turn in sorted(turns) for s in turns[turn]]
    return replace(step, body=(*waits, *step.body))


@lru_cache(1 << 12)
def _wait(source: int) -> Instruction:
    """In MiniLM one instruction in five is a wait, in SqueezeNet seven in ten."""
    return instruction("wait", source=source)


def _stored(steps: Sequence[Step]) -> Stored:
    """What steps store."""
    found: dict[int, dict[str, tuple[int, int]]] = {}
    for name, touches in _touched(steps, Kind.GLOBAL_WRITE).items():
        for t in touches:
            low, high = found.setdefault(t.at, {}).get(name, (t.low, t.high))
            found[t.at][name] = (min(low, t.low), max(high, t.high + t.step * (t.count - 1)))
    return sorted(found.items())


def _touched(steps: Sequence[Step], kind: Kind) -> dict[str, list[_Touch]]:
    """What steps read, or write, of each global array."""
    found: dict[str, list[_Touch]] = {}
    for at, step in enumerate(steps):
        for name, touch in _of(at, step, kind, ()):
            found.setdefault(name, []).append(touch)
    return found


def _of(at: int, step: Step, kind: Kind, loops: tuple[Repeat, ...]) -> Iterator[tuple[str, _Touch]]:
    if isinstance(step, Repeat):
        for inner in step.body:
            yield from _of(at, inner, kind, (*loops, step))
        return
    if not INSTRUCTIONS[step.mnemonic].reaches:
        return
    for of, operand in zip(kinds(step), step.operands, strict=True):
        if isinstance(operand, View) and of is kind:
            yield operand.buffer, _touch(at, step, operand, loops)


def _touch(at: int, step: Instruction, view: View, loops: tuple[Repeat, ...]) -> _Touch:
    """All of the array, from the first round on, where it is not told by the round of one repeat."""
    terms = dict(view.offset.terms)
    known = len(loops) <= 1 and all(isinstance(r.count, int) and set(terms) <= {r.variable} for r in loops)
    if step.mnemonic not in ("load", "store") or not known or min((*view.strides, *terms.values()), default=0) < 0:
        return _Touch(at, *ALL)
    low = view.offset.constant
    high = low + sum((n - 1) * s for n, s in zip(static_shape(view), view.strides, strict=True)) + 1
    if not loops:
        return _Touch(at, low, high)
    count = loops[0].count
    assert isinstance(count, int)
    return _Touch(at, low, high, terms.get(loops[0].variable, 0), count, step.phase or ALWAYS)
