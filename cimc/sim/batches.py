"""Where the values of a recorded run stand, and how instances that are alike find what they read.

All values share one piece of memory. What the instances of a group write stands side by side in it, in the order of what they
read; so what they read mostly stands side by side as well, and is a view. Otherwise it is gathered, in pieces as large as
its runs of neighbours allow. A group's memory is used again when no later level reads it."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.isa.matrix import PRODUCTS
from cimc.sim.packing import Unsuited
from cimc.sim.recording import FOREVER, NONE, VARIABLE, Form, Group, Part, Recorder, Runs

Array = NDArray[np.generic]
Places = NDArray[np.int64]
ALIGN = 256  # bytes: so that neighbours of many extents are whole pieces of memory
ZEROS = 64  # bytes at the beginning that stay zero
CHUNK = 1 << 19  # bytes of an operand beyond which instances are taken in turns: what stays in a processor's cache
MOST_BYTES = 1 << 28  # of values, and of the lists by which they are gathered


@dataclass(frozen=True)
class Direct:
    """An operand that stands in the values' memory: its first byte, and bytes from one instance to the next."""

    at: int
    lead: int


@dataclass(frozen=True)
class Gathered:
    """An operand that is gathered: pieces of ``size`` bytes, to byte ``at`` of the room for such."""

    places: Places
    size: int
    at: int


@dataclass(frozen=True)
class Batch:
    """Instances executed at once: the operands that they read and write, by their places in the form."""

    form: Form
    group: Group
    count: int
    reads: tuple[Direct | Gathered, ...]
    writes: tuple[Direct, ...]


@dataclass
class Layout:
    """``size`` bytes of values, ``room`` bytes for what is gathered, ``lists`` bytes of where it is gathered from. ``fixed``
    and ``batches`` in their order: those that are the same in every run, and the others."""

    size: int = ZEROS
    room: int = 0
    lists: int = 0
    fixed: list[Batch] = field(default_factory=list[Batch])
    batches: list[Batch] = field(default_factory=list[Batch])


class Placing:
    """From a recording to a layout. Raises Unsuited if it takes too much memory."""

    def __init__(self, recorder: Recorder) -> None:
        self._starts = np.array(recorder.starts, np.int64)
        self._rank = np.zeros(len(self._starts), np.int64)  # of a piece, in the order of its group
        self._bytes = np.zeros(len(self._starts), np.int64)  # where it stands
        self._item = np.ones(len(self._starts), np.int64)
        self._next = 0
        self._free: list[tuple[int, int]] = []
        self._used: list[tuple[int, int, int]] = []  # last level, begin, size
        self.layout = Layout()
        for group in sorted(recorder.groups.values(), key=lambda g: g.level):
            self._release(group.level)
            self._place(group)

    def offset(self, first: int) -> int:
        """Where a value stands."""
        return int(self._located(np.array([first]))[0])

    def runs(self, runs: Runs, size: int, item: int) -> Direct | Gathered:
        """Values that are read after the run."""
        return self._operand([runs], size, item, 0)

    def _place(self, group: Group) -> None:
        count = len(group.outs)
        form = group.form
        order = np.arange(count) if form is None else self._order(group)
        pieces = np.searchsorted(self._starts, np.array(group.outs, np.int64)[order])
        regions: list[int] = []
        for k, (size, dtype) in enumerate(zip(group.sizes, group.dtypes, strict=True)):
            self._rank[pieces + k] = self._next + np.arange(count) * size
            self._next += count * size
            region = self._region(count * size * dtype.itemsize, group)
            self._bytes[pieces + k] = region + np.arange(count) * (size * dtype.itemsize)
            self._item[pieces + k] = dtype.itemsize
            regions.append(region)
        if form is not None:
            target = self.layout.fixed if group.level < VARIABLE else self.layout.batches
            target.extend(self._batches(group, form, order, regions))

    def _order(self, group: Group) -> Places:
        """Instances in the order of what they read."""
        keys = [self._ranked(np.array([_first(r) for r in runs], np.int64)) for runs in group.reads]
        return np.lexsort(keys[::-1]) if keys else np.arange(len(group.outs))

    def _ranked(self, firsts: Places) -> Places:
        pieces = np.searchsorted(self._starts, firsts, "right") - 1
        return np.where(firsts == NONE, NONE, self._rank[pieces] + firsts - self._starts[pieces])

    def _located(self, firsts: Places) -> Places:
        pieces = np.searchsorted(self._starts, firsts, "right") - 1
        found = self._bytes[pieces] + (firsts - self._starts[pieces]) * self._item[pieces]
        return np.where(firsts == NONE, 0, found)

    def _batches(self, group: Group, form: Form, order: Places, regions: Sequence[int]) -> Iterator[Batch]:
        count = len(order)
        sizes = [p.packed.size * p.dtype.itemsize for p in form.parts]
        some = max(1, CHUNK // max(sizes)) if form.stacks else 1
        reads = [[runs[i] for i in order.tolist()] for runs in group.reads]
        parts = [form.parts[i] for i in form.reading]
        for begin in range(0, count, some):
            end = min(count, begin + some)
            operands: list[Direct | Gathered] = []
            at = 0
            for part, runs in zip(parts, reads, strict=True):
                operand = self._operand(runs[begin:end], part.packed.size, part.dtype.itemsize, at)
                if form.step.mnemonic in PRODUCTS and _meets(operand, operands):
                    operand = self._gathered(*self._pieces(runs[begin:end], part), at)
                if isinstance(operand, Gathered):
                    at += -(-len(operand.places) * operand.size // ALIGN) * ALIGN
                operands.append(operand)
            self.layout.room = max(self.layout.room, at)
            written = [(i, form.parts[i]) for i in form.writing]
            writes = tuple(
                Direct(region + begin * sizes[i], sizes[i]) for region, (i, _) in zip(regions, written, strict=True)
            )
            yield Batch(form, group, end - begin, tuple(operands), writes)

    def _pieces(self, runs: Sequence[Runs], part: Part) -> tuple[Places, Places]:
        return self._spans(runs, part.packed.size, part.dtype.itemsize)

    def _operand(self, runs: Sequence[Runs], size: int, item: int, at: int) -> Direct | Gathered:
        if all(isinstance(r, int) for r in runs):
            places = self._located(np.array(runs, np.int64))
            steps = np.diff(places)
            if not len(steps) or bool((steps == steps[0]).all()):
                return Direct(int(places[0]), int(steps[0]) if len(steps) else 0)
        return self._gathered(*self._spans(runs, size, item), at)

    def _spans(self, runs: Sequence[Runs], size: int, item: int) -> tuple[Places, Places]:
        """First bytes and numbers of bytes."""
        heads = np.concatenate([np.array([r]) if isinstance(r, int) else r[0] for r in runs])
        lengths = np.concatenate([np.array([size]) if isinstance(r, int) else r[1] for r in runs])
        return self._located(heads), lengths * item

    def _gathered(self, places: Places, lengths: Places, at: int) -> Gathered:
        size = math.gcd(int(np.gcd.reduce(places)), int(np.gcd.reduce(lengths)))
        each = lengths // size
        ends = np.cumsum(each)
        index = np.repeat(places // size - (ends - each), each) + np.arange(int(ends[-1]))
        self.layout.lists += index.nbytes
        if self.layout.lists > MOST_BYTES:
            raise Unsuited(f"lists of where operands are take more than {MOST_BYTES >> 20} MiB")
        return Gathered(index, size, at)

    def _region(self, size: int, group: Group) -> int:
        """Memory for what a group writes."""
        size = -(-size // ALIGN) * ALIGN
        lasts = FOREVER if group.form is None or group.level < VARIABLE else group.last
        for k, (begin, free) in enumerate(self._free):
            if free >= size:
                del self._free[k]
                if free > size:
                    insort(self._free, (begin + size, free - size))
                break
        else:
            begin = -(-self.layout.size // ALIGN) * ALIGN
            self.layout.size = begin + size
            if self.layout.size > MOST_BYTES:
                raise Unsuited(f"values take more than {MOST_BYTES >> 20} MiB")
        self._used.append((lasts, begin, size))
        return begin

    def _release(self, level: int) -> None:
        """Memory that is read by no level from this one on."""
        gone = [(begin, size) for last, begin, size in self._used if last < level]
        if not gone:
            return
        self._used = [u for u in self._used if u[0] >= level]
        self._free = list(_joined(sorted([*self._free, *gone])))


def _joined(pieces: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Neighbouring pieces of memory as one."""
    begin = size = 0
    for at, more in pieces:
        if size and begin + size == at:
            size += more
            continue
        if size:
            yield begin, size
        begin, size = at, more
    if size:
        yield begin, size


def _meets(operand: Direct | Gathered, others: Iterable[Direct | Gathered]) -> bool:
    """Whether NumPy could take two factors for one, and its transpose."""
    return isinstance(operand, Direct) and any(isinstance(o, Direct) and o.at == operand.at for o in others)


def _first(runs: Runs) -> int:
    return runs if isinstance(runs, int) else int(runs[0][0])
