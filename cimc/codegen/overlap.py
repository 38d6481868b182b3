"""Blocks of rows that overlap: the order in which tiles issue what they do for several blocks of a segment (modulo scheduling).

A tile issues in order, and each of its units takes instructions in the order of issue. Where a block comes back to a tile, as
columns do that are quantised only when the scale of the whole row is known, the next block's messages would wait behind those
of the block before. So a block's instructions are timed as if it were alone, and one block follows the other after as many
cycles as the busiest unit needs for one. In each *step* of so many cycles a tile does the first part of one block, the next
part of the block before, and so on; and all in the order of their times.

The order is one for all tiles: by step, by time within it. A send and its receives have one place in it, and so have the parts
of a sum and its collect, so that the argument of :mod:`cimc.codegen.stream` holds: the earliest instruction that has not run can
always run.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

from cimc.arch.spec import ChipSpec
from cimc.codegen.tilecode import TileCode
from cimc.codegen.timed import FREE, RECORDED, SENDING, Alone, Timed, works
from cimc.isa.instruction import INSTRUCTIONS, WINDOW, Derived, Instruction, Repeat, Step, Unit
from cimc.isa.operands import Affine, View

BLOCK = "@block"
"""The number of the block at hand, in the offsets of its instructions."""

MOST = 8
"""Places at most that a buffer has, with which blocks take turns."""


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
        for tile, code in codes.items():
            places = self._places(tile, mine[tile]) if tile in mine else []
            if any(places):
                _Tile(self, code, places, blocks).emit(variable)

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


class _Tile:
    """One tile's stream."""

    def __init__(self, overlap: Overlap, code: TileCode, places: Sequence[Sequence[_Place]], blocks: int) -> None:
        self.code, self.blocks = code, blocks
        self.every = overlap.every.get(code.tile, 1)
        self.rings = {name: ring for (tile, name), ring in overlap.rings.items() if tile == code.tile and ring > 1}
        phases = [p.phase for of in places for p in of]
        self.first, self.span = min(phases), max(phases) - min(phases)
        self.places = places if any(list(p) != list(places[0]) for p in places) else places[:1]
        self.period = math.lcm(len(self.places), self.every)
        self.derived: dict[Derived, Derived] = {}

    def emit(self, variable: str) -> None:
        """Steps of which all parts are at work are a repeat; those before and after stand alone."""
        turns = max(0, self.blocks - self.span) // self.period
        begin, end = (self.span, self.span + turns * self.period) if turns > 1 else (0, 0)
        for at in range(begin):
            self.code.steps += self._step(at, "")
        if end > begin:
            body = [s for at in range(begin, begin + self.period) for s in self._step(at, variable)]
            self.code.steps.append(Repeat(variable, turns, tuple(body), tuple(self.derived.values())))
        for at in range(end, self.blocks + self.span):
            self.code.steps += self._step(at, "")
        rooms = self.code.rooms
        rooms.update((n, replace(rooms[n], shape=(ring, *rooms[n].shape))) for n, ring in self.rings.items())

    def _step(self, at: int, variable: str) -> list[Step]:
        """What the tile does in a step; with ``variable``, in the first turn of a repeat."""
        found: list[tuple[int, int, int, Instruction]] = []
        for block in range(max(0, at - self.span), min(self.blocks, at + 1)):
            phase = at - block + self.first
            of = self.places[block % len(self.places)]
            found += [(p.at, block, p.number, p.step) for p in of if p.phase == phase]
        found.sort(key=lambda f: f[:3])
        return [self._here(step, block, variable) for _, block, _, step in found]

    def _here(self, step: Instruction, block: int, variable: str) -> Instruction:
        """An instruction of a block, with its place in rings and in global buffers."""

        def view(old: View) -> View:
            if old.buffer in self.rings:
                place = self._place(block // self.every, self.rings[old.buffer], variable)
                return replace(old, offset=old.offset + place * math.prod(self.code.rooms[old.buffer].shape))
            if all(name != BLOCK for name, _ in old.offset.terms):
                return old
            new = Affine(old.offset.constant)
            now = Affine.of(block, {variable: self.period} if variable else {})
            for name, factor in old.offset.terms:
                new = new + (now if name == BLOCK else Affine.of(0, {name: 1})) * factor
            return replace(old, offset=new)

        if not self.rings and not any(isinstance(o, View) and o.offset.terms for o in step.operands):
            return step
        return replace(step, operands=tuple(view(o) if isinstance(o, View) else o for o in step.operands))

    def _place(self, turn: int, ring: int, variable: str) -> Affine:
        """Which place of a ring a turn has; with ``variable``, in all turns of its repeat."""
        further = self.period // self.every % ring
        if not variable or not further:
            return Affine(turn % ring)
        found = Derived("", turn % ring, 1, ring, further)
        named = self.derived.setdefault(found, replace(found, name=f"{variable}w{len(self.derived)}"))
        return Affine.of(0, {named.name: 1})


def overlapped(
    chip: ChipSpec,
    codes: Mapping[int, TileCode],
    variants: Sequence[Sequence[RECORDED]],
    every: Mapping[int, int],
    rotation: int,
) -> Overlap:
    """How blocks overlap whose instructions are given, in one order for all tiles, for each of the lanes that take turns.
    ``rotation``: buffers at least in place of one; 1: blocks come one after the other."""
    blocks = [works(chip, codes, recorded) for recorded in variants]
    interval = FREE
    if rotation > 1:
        loads: Counter[tuple[int, str]] = Counter()
        for work in chain.from_iterable(chain.from_iterable(blocks)):
            loads[work.tile, work.unit] += work.busy
        interval = -(-max(loads.values(), default=1) // len(variants))
    alone = [Alone(chip, every, interval).run(groups) for groups in blocks]
    spans: dict[tuple[int, str], tuple[int, int]] = {}  # over all lanes: a block may be early, and the next late
    for one in alone:
        for where, (low, high) in one.lives.items():
            first, last = spans.get(where, (low, high))
            spans[where] = min(first, low), max(last, high)
    lives = {where: high - low for where, (low, high) in spans.items()}
    longest = max((life // every.get(tile, 1) for (tile, _), life in lives.items()), default=0)
    interval = max(interval, -(-2 * longest // (2 * MOST - 3)))
    least = {tile: max(1, rotation // every.get(tile, 1)) for tile in codes}
    rings: dict[tuple[int, str], int] = {}
    for (tile, name), life in lives.items():
        turn = interval * every.get(tile, 1)
        slack = turn // 2 if every.get(tile, 1) == 1 else 0
        need = max(least[tile], (life + slack) // turn + 1)
        rings[tile, name] = 1 << (need - 1).bit_length()
    return Overlap(tuple(tuple(one.timed) for one in alone), interval, rings, every)
