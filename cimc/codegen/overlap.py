"""Blocks of rows that overlap: the order in which tiles issue what they do for several blocks of a segment (modulo scheduling).

A tile issues in order, and each of its units takes instructions in the order of issue. Where a block comes back to a tile, as
columns do that are quantised only when the scale of the whole row is known, the next block's messages would wait behind those
of the block before. So a block's instructions are timed as if it were alone, and one block follows the other after as many
cycles as the busiest unit needs for one; messages are given as many cycles more as one block takes the busiest tile's links for,
because they meet others on their way. In each *step* of so many cycles a tile does the first part of one block, the next
part of the block before, and so on; and all in the order of their times.

The order is one for all tiles: by step, by time within it. A send and its receives have one place in it, and so have the parts
of a sum and its collect, so that the argument of :mod:`cimc.codegen.stream` holds: the earliest instruction that has not run can
always run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cimc.arch.spec import ChipSpec
from cimc.codegen.tilecode import TileCode
from cimc.codegen.timed import FREE, RECORDED, Alone, Timed, Work, alike, works
from cimc.isa.instruction import INSTRUCTIONS, MAX_STAGE, WINDOW, Derived, Instruction, Phase, Repeat, Unit
from cimc.isa.messages import SENDING, TAKING, integer
from cimc.isa.operands import Affine, View
from cimc.isa.phases import written_out

BLOCK = "@block"
"""The number of the block at hand, in the offsets of its instructions."""

CLOSE = 0.4
"""Blocks that are alike are in the same order if one takes longer than the other by at most this part of an interval: where
their tiles are far apart, that order makes messages of the one wait. More makes programs shorter, less makes some of them faster,
by 1 or 2 %: on sram-digital GPT-2 small has 5.0 MB with 0.33, 4.6 with 0.5 and 4.0 with 1."""

PLACES = (8, 2, 1)
"""Places at most that a buffer has, with which blocks take turns; fewer where buffers would not fit. 1: blocks come one after the
other."""


@dataclass(frozen=True)
class Overlap:
    """Blocks of a segment that overlap. ``variants``: a block's instructions; block b is like variant b modulo their number.
    ``interval``: cycles from one block to the next. ``rings``: by tile and buffer, how many take turns; a tile's turns count
    only the blocks it takes part in, every ``every``-th."""

    variants: tuple[tuple[Timed, ...], ...]
    interval: int
    rings: Mapping[tuple[int, str], int]
    every: Mapping[int, int]

    def emit(self, codes: Mapping[int, TileCode], blocks: int, variable: str) -> None:
        """Append the code of so many blocks to the tiles."""
        mine = self._by_tile()
        rings: dict[int, dict[str, int]] = {}
        for (tile, name), ring in self.rings.items():
            if ring > 1:
                rings.setdefault(tile, {})[name] = ring
        for tile, code in codes.items():
            places = self._places(tile, mine[tile]) if tile in mine else []
            if any(places):
                _Tile(code, places, blocks, self.every.get(tile, 1), rings.get(tile, {})).emit(variable)

    def in_order(self, tag: int) -> bool:
        """Whether each tile sends messages with tags from ``tag`` on block by block, also where variants take longer."""
        spans: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for timed in self.variants:
            mine: dict[tuple[int, int], tuple[int, int]] = {}
            for item in timed:
                tile, step = item.parts[0]
                if step.mnemonic == "send" and (of := integer(step, "tag")) >= tag:
                    low, high = mine.get((tile, of), (item.start, item.start))
                    mine[tile, of] = min(low, item.start), max(high, item.start)
            for key, span in mine.items():
                spans.setdefault(key, []).append(span)
        count = len(self.variants)
        return all(
            len(of) == count
            and all(
                of[k][1] < of[(k + j) % count][0] + j * self.interval for k in range(count) for j in range(1, count + 1)
            )
            for of in spans.values()
        )

    def _by_tile(self) -> dict[int, list[list[tuple[int, int, Instruction]]]]:
        """By tile, what it does of a block of each variant: start, number, instruction."""
        found: dict[int, list[list[tuple[int, int, Instruction]]]] = {}
        for variant, timed in enumerate(self.variants):
            for number, item in enumerate(timed):
                for tile, step in item.parts:
                    of = found.get(tile) or found.setdefault(tile, [[] for _ in self.variants])
                    of[variant].append((item.start, number, step))
        return found

    def _places(self, tile: int, mine: Sequence[Sequence[tuple[int, int, Instruction]]]) -> list[list[_Place]]:
        """What a tile does of a block of each variant, and where: (step, time in it, number). Its first step begins with what it
        does first: so what it is done with in one step needs no other."""
        first = min((start for of in mine for start, _, _ in of), default=0)
        if self._in_line([[(start - first, step) for start, _, step in of] for of in mine], self.every.get(tile, 1)):
            return [[_Place(0, start - first, number, step) for start, number, step in of] for of in mine]
        return [
            [_Place(*divmod(start - first, self.interval), number, step) for start, number, step in of] for of in mine
        ]

    def _in_line(self, blocks: Sequence[Sequence[tuple[int, Instruction]]], every: int) -> bool:
        """Whether a tile may do one block after the other: its units take what they do in the same order then, nothing waits to
        be issued, and the text is short, without steps that begin or end it.

        Against the order of all tiles, it then comes to what it does first for a block when it is done with the block before:
        less than a turn later, if a block takes less than two. So a message is still received before the next is sent on its
        channel, as long as the tile's own sends are not late: they stand in the last turn."""
        turn = self.interval * every
        last = max((start for of in blocks for start, _ in of), default=0)
        if last >= 2 * turn or 2 * max(map(len, blocks), default=0) > WINDOW:
            return False
        spans: dict[str, tuple[int, int]] = {}
        for start, step in (item for of in blocks for item in of):
            if step.mnemonic in SENDING and last - start > turn:
                return False
            unit = INSTRUCTIONS[step.mnemonic].unit
            key = next((o for o in step.operands if isinstance(o, str)), "") if unit is Unit.CORE else unit.value
            low, high = spans.get(key, (start, start))
            spans[key] = min(low, start), max(high, start)
        return all(high - low < turn for low, high in spans.values())


@dataclass(frozen=True, slots=True)
class _Place:
    phase: int
    at: int
    number: int
    step: Instruction


@dataclass(frozen=True, slots=True)
class _Line:
    """What a tile does for its blocks, and when: (place in a step, time, stages from the last on, number), and for which of its
    variants."""

    key: tuple[int, int, int, int]
    step: Instruction
    of: tuple[int, ...]


class _Tile:
    """One tile's stream: a repeat over the blocks it takes part in, block ``first`` and every ``step``-th from there on.
    ``rings``: of its buffers, those of which several take turns."""

    def __init__(
        self, code: TileCode, places: Sequence[Sequence[_Place]], blocks: int, every: int, rings: Mapping[str, int]
    ) -> None:
        self.code = code
        self.every = every
        self.rings = rings
        mine = [k for k, of in enumerate(places) if of]
        own = mine == list(range(mine[0], len(places), self.every)) and len(places) % self.every == 0
        self.first, self.step = (mine[0], self.every) if own else (0, 1)
        self.places = places[self.first :: self.step]
        self.count = len(range(self.first, blocks, self.step))
        self.derived: dict[int, Derived] = {}

    def emit(self, variable: str) -> None:
        """Append the steps, and give rings their places."""
        body = tuple(s for line in self._lines() for s in self._steps(line, variable))
        repeat = Repeat(variable, self.count, body, tuple(self.derived.values()))
        if self.count > 1:
            self.code.steps.append(repeat)
        else:
            self.code.steps += written_out(repeat)
        rooms = self.code.rooms
        rooms.update((n, replace(rooms[n], shape=(ring, *rooms[n].shape))) for n, ring in self.rings.items())

    def _lines(self) -> list[_Line]:
        """What is done, in the order of all tiles: in a step by time, of the same time for the earlier block first."""
        first = min(p.phase for of in self.places for p in of)
        found: dict[tuple[tuple[int, int, int, int], Instruction], list[int]] = {}
        for k, of in enumerate(self.places):
            for p in of:
                stage, at = divmod(p.phase - first, self.step)
                found.setdefault(((at, p.at, -stage, p.number), p.step), []).append(k)
        lines = [_Line(key, step, tuple(of)) for (key, step), of in found.items()]
        return sorted(lines, key=lambda line: (line.key, line.of))

    def _steps(self, line: _Line, variable: str) -> Iterator[Instruction]:
        """The instruction of a line: once, or for each of its variants."""
        stage, turns = -line.key[2], len(self.places)
        operands = tuple(self._view(o, variable) if isinstance(o, View) else o for o in line.step.operands)
        for turn, of in ((0, 1),) if len(line.of) == turns else ((k, turns) for k in line.of):
            phase = Phase(stage, turn, of) if stage or of > 1 else None
            yield Instruction(line.step.mnemonic, operands, line.step.keywords, line.step.origin, phase=phase)

    def _view(self, old: View, variable: str) -> View:
        """A view of a block, with its place in a ring or in a global buffer."""
        if old.buffer in self.rings:
            place = self._place(self.rings[old.buffer], variable)
            return old.at(old.offset + place * math.prod(self.code.rooms[old.buffer].shape))
        if all(name != BLOCK for name, _ in old.offset.terms):
            return old
        new = Affine(old.offset.constant)
        for name, factor in old.offset.terms:
            new = new + Affine.of(*((self.first, {variable: self.step}) if name == BLOCK else (0, {name: 1}))) * factor
        return old.at(new)

    def _place(self, ring: int, variable: str) -> Affine:
        """Which place of a ring a block has: turns count the blocks that the tile takes part in."""
        if ring not in self.derived:
            self.derived[ring] = Derived(f"{variable}w{len(self.derived)}", 0, self.every // self.step, ring)
        return Affine.of(0, {self.derived[ring].name: 1})


def overlapped(
    chip: ChipSpec,
    codes: Mapping[int, TileCode],
    variants: Sequence[Sequence[RECORDED]],
    every: Mapping[int, int],
    rotation: int,
    most: int = PLACES[0],
) -> Overlap:
    """How blocks overlap whose instructions are given, in one order for all tiles, for each of the lanes that take turns.
    ``rotation``: buffers at least in place of one, ``most``: at most; 1: blocks come one after the other."""
    rotation = min(rotation, most)
    blocks = [works(chip, codes, recorded) for recorded in variants]
    interval, late = _pace(blocks) if rotation > 1 else (FREE, 0)
    alone = [Alone(chip, every, interval, late).run(groups) for groups in blocks]
    ends = [max((t.start for t in one.timed), default=0) for one in alone]
    close = max(ends) - min(ends) <= CLOSE * interval
    if close and all(alike(blocks[0], groups) for groups in blocks[1:]):
        nearest = alone[ends.index(min(ends))]
        alone = [Alone(chip, every, interval).like(nearest, groups) for groups in blocks]
    lives = _lives(alone)
    longest = max((life // every.get(tile, 1) for (tile, _), life in lives.items()), default=0)
    interval = max(interval, -(-2 * longest // max(1, 2 * most - 3)), -(-max(ends) // MAX_STAGE))
    least = {tile: max(1, rotation // every.get(tile, 1)) for tile in codes}
    rings = _rings(lives, interval, every, least)
    return Overlap(tuple(tuple(one.timed) for one in alone), interval, rings, every)


def _pace(blocks: Sequence[Sequence[Sequence[Work]]]) -> tuple[int, int]:
    """Cycles from one block to the next that the busiest unit needs for one, of all lanes in turn; and those that messages are
    given beyond their way, as many as a block takes the busiest tile's links for."""
    loads: Counter[tuple[int, str]] = Counter()
    moved: Counter[tuple[int, str]] = Counter()
    for work in chain.from_iterable(chain.from_iterable(blocks)):
        loads[work.tile, work.unit] += work.busy
        if work.step.mnemonic in TAKING or work.step.mnemonic in SENDING:
            moved[work.tile, work.unit] += work.busy
    return -(-max(loads.values(), default=1) // len(blocks)), max(moved.values(), default=0) // len(blocks)


def _lives(alone: Sequence[Alone]) -> dict[tuple[int, str], int]:
    """By tile and buffer, the cycles that it is in use for a block, over all lanes: a block may be early, and the next late."""
    spans: dict[tuple[int, str], tuple[int, int]] = {}
    for one in alone:
        for where, (low, high) in one.lives.items():
            first, last = spans.get(where, (low, high))
            spans[where] = min(first, low), max(last, high)
    return {where: high - low for where, (low, high) in spans.items()}


def _rings(
    lives: Mapping[tuple[int, str], int], interval: int, every: Mapping[int, int], least: Mapping[int, int]
) -> dict[tuple[int, str], int]:
    """Places of each buffer, a power of two and at least ``least`` of its tile, so that it is done with before its turn comes
    again; half a turn more where a tile takes part in every block."""
    rings: dict[tuple[int, str], int] = {}
    for (tile, name), life in lives.items():
        turn = interval * every.get(tile, 1)
        slack = turn // 2 if every.get(tile, 1) == 1 else 0
        need = max(least[tile], (life + slack) // turn + 1)
        rings[tile, name] = 1 << (need - 1).bit_length()
    return rings
