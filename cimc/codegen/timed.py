"""A block of rows of a segment, timed as if it were alone: what comes before what, and how long each buffer is used."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.codegen.order import Costs
from cimc.codegen.tilecode import Room, TileCode
from cimc.isa.instruction import LOCAL, Instruction, Kind, kinds
from cimc.isa.messages import TAKING
from cimc.isa.operands import View, static_shape

FREE = 1 << 40
"""Cycles from one block to the next when there is no other."""

RECORDED = tuple[int, Instruction]  # tile, instruction

Where = tuple[int, str]  # tile, its buffer


@dataclass(frozen=True, slots=True)
class Timed:
    """What belongs together, an instruction, a send with its receives or the parts of a sum with its collect, and when it
    starts if its block is alone."""

    parts: tuple[RECORDED, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Touch:
    """Elements of a buffer, from the first to the last, that an instruction touches."""

    where: Where
    low: int
    high: int
    writes: bool


@dataclass(frozen=True, slots=True)
class Work:
    """An instruction of a tile: its unit, the cycles it takes that and those until it ends, and the local buffers it touches,
    but constants."""

    tile: int
    step: Instruction
    unit: str
    busy: int
    cycles: int
    touched: tuple[Touch, ...]


def works(chip: ChipSpec, codes: Mapping[int, TileCode], recorded: Sequence[RECORDED]) -> list[list[Work]]:
    """A block's instructions, given in one order for all tiles, by what belongs together: what sends first, then what
    takes."""
    known: dict[str, dict[Hashable, int]] = {}  # by kind of tile
    costs = {tile: Costs(chip, code, known.setdefault(chip.kind(tile), {})) for tile, code in codes.items()}
    groups: list[list[Work]] = []
    for tile, step in recorded:
        work = Work(tile, step, *costs[tile].of(step), tuple(_touches(codes[tile], step)))
        last = groups[-1][-1].step.mnemonic if groups else ""
        if step.mnemonic in TAKING or step.mnemonic == last == "reduce":
            groups[-1].append(work)
        else:
            groups.append([work])
    return groups


def _touches(code: TileCode, step: Instruction) -> Iterator[Touch]:
    for kind, operand in zip(kinds(step), step.operands, strict=True):
        if isinstance(operand, View) and kind in LOCAL and not _lasting(code.rooms[operand.buffer]):
            low = operand.offset.constant
            high = low + _reach(static_shape(operand), operand.strides)
            yield Touch((code.tile, operand.buffer), low, high, kind is not Kind.READ)


def _lasting(room: Room) -> bool:
    """Whether a buffer is the same for all blocks."""
    return room.kept or room.fixed


@lru_cache(1 << 12)
def _reach(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Elements from the first to the last of a view."""
    return sum([(n - 1) * s for n, s in zip(shape, strides, strict=True)]) + 1


def alike(groups: Sequence[Sequence[Work]], others: Sequence[Sequence[Work]]) -> bool:
    """Whether two blocks are the same work, on other tiles."""
    return [[(w.step.mnemonic, w.cycles) for w in g] for g in groups] == [
        [(w.step.mnemonic, w.cycles) for w in g] for g in others
    ]


@dataclass
class Alone:
    """A block, and others like it ``interval`` cycles before and after; units of a tile serve all of those it takes part in,
    every ``every``-th. ``late``: cycles that a message is given beyond its way, for what it meets there. ``lives``: of
    buffers, from the start of what touches them first to the end of what touches them last."""

    chip: ChipSpec
    every: Mapping[int, int]
    interval: int = FREE
    late: int = 0
    timed: list[Timed] = field(default_factory=list[Timed])
    starts: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])  # of the instructions of each of them
    lives: dict[Where, tuple[int, int]] = field(default_factory=dict[Where, tuple[int, int]])
    _taken: dict[tuple[int, str], list[tuple[int, int]]] = field(
        default_factory=dict[tuple[int, str], list[tuple[int, int]]]
    )
    _touched: dict[Where, list[tuple[Touch, int, int]]] = field(
        default_factory=dict[Where, list[tuple[Touch, int, int]]]
    )  # with start and end

    def like(self, other: Alone, groups: Sequence[Sequence[Work]]) -> Alone:
        """Time a block's instructions as those of another one like it (:func:`alike`), which other tiles do: where they lie makes
        a difference of some hops, and what is issued in the same order needs its text only once."""
        for group, timed, starts in zip(groups, other.timed, other.starts, strict=True):
            for work, start in zip(group, starts, strict=True):
                sent = timed.start if work.step.mnemonic in TAKING else FREE
                self._lives(work, start, start + work.cycles, sent)
            self.timed.append(Timed(tuple((work.tile, work.step) for work in group), timed.start))
            self.starts.append(starts)
        return self

    def run(self, groups: Sequence[Sequence[Work]]) -> Alone:
        """Time a block's instructions."""
        router = self.chip.noc.router_cycles
        for group in groups:
            sent = [(work.tile, *self._work(work, 0)) for work in group if work.step.mnemonic not in TAKING]
            start = max(at for _, at, _ in sent)
            starts = [at for _, at, _ in sent]
            for work in group[len(sent) :]:
                arrival = max(end + noc.hops(self.chip, tile, work.tile) * router for tile, _, end in sent)
                starts.append(self._work(work, arrival + self.late, start)[0])
            self.timed.append(Timed(tuple((work.tile, work.step) for work in group), start))
            self.starts.append(tuple(starts))
        for i, group in enumerate(groups):
            if group[0].step.mnemonic == "load" and self.timed[i].start == 0:
                self._delay(i, group[0])
        return self

    def _delay(self, number: int, load: Work) -> None:
        """Let a load that waits for nothing start as late as it may."""
        where = load.touched[0].where
        first = min(end for _, _, end in self._touched[where])
        begins = [start for _, start, _ in self._touched[where] if start >= first]
        late = min(begins, default=first) - first
        self.timed[number] = Timed(self.timed[number].parts, self.timed[number].start + late)
        self.starts[number] = (self.starts[number][0] + late, *self.starts[number][1:])
        self.lives[where] = self.lives[where][0] + late, self.lives[where][1]

    def _work(self, work: Work, arrival: int, sent: int = FREE) -> tuple[int, int]:
        """Start and end of an instruction; a receive ends not before its message has arrived, and is there when it is
        ``sent``."""
        ready = max([0, arrival - work.cycles, *(self._ready(touch) for touch in work.touched)])
        start = self._slot((work.tile, work.unit), ready, work.busy)
        end = start + work.cycles
        for touch in work.touched:
            self._touched.setdefault(touch.where, []).append((touch, start, end))
        self._lives(work, start, end, sent)
        return start, end

    def _lives(self, work: Work, start: int, end: int, sent: int) -> None:
        for touch in work.touched:
            low, high = self.lives.get(touch.where, (start, end))
            self.lives[touch.where] = min(low, start, sent), max(high, end)

    def _slot(self, key: tuple[int, str], ready: int, busy: int) -> int:
        """The first time from ``ready`` on at which a unit is free for so long, of all blocks; then it no longer is."""
        turn = self.interval * self.every.get(key[0], 1)
        taken = self._taken.setdefault(key, [])
        start = ready
        while start < ready + turn:
            at = start % turn
            over = _met(taken, at, busy, turn)
            if not over:
                insort(taken, (at, busy))
                return start
            start += over
        return ready

    def _ready(self, touch: Touch) -> int:
        return max(
            (
                end
                for old, _, end in self._touched.get(touch.where, ())
                if (old.writes or touch.writes) and old.low < touch.high and touch.low < old.high
            ),
            default=0,
        )


def _met(taken: Sequence[tuple[int, int]], at: int, busy: int, turn: int) -> int:
    """Cycles until what is taken of a turn in the ``busy`` cycles from ``at`` on is over, 0: nothing is. ``taken``: where it
    begins and for how long, sorted; nothing meets, so the last of several ends last."""
    found = 0
    before = bisect_left(taken, (at + busy,))
    if before:
        found = max(0, sum(taken[before - 1]) - at)
    around = bisect_left(taken, (at + busy - turn,))
    if around:
        found = max(found, sum(taken[around - 1]) - at + turn)
    if taken:
        found = max(found, sum(taken[-1]) - turn - at)  # of the turn before
    return found
