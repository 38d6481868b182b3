"""What the instructions of a program say, as columns of numbers: read off all of them at once, an attribute at a time, as
Python takes several times as long to look at them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Kind, Unit
from cimc.origin import Origin
from cimc.sim.job import CELLS
from cimc.sim.listing import Listing
from cimc.sim.names import ELEMENTS, Names
from cimc.sim.pool import Form, Numbers, Pool, distinct, looked_up, numbers
from cimc.sim.reading import Places, Reading
from cimc.sim.tables import Ints

OUTSIDE = ""  # the layer of instructions without an origin
LOCAL, SHARED, MATRIX = range(3)  # what stands at an operand's place
UNMOVED = -1  # in place of how a view lies: of cells


@dataclass(frozen=True, slots=True)
class Ranges:
    """The local bytes, or cores, that instructions touch, in their order and that of their operands. ``low``, ``high``:
    elements of ``item`` bytes from ``base`` on; ``lie``: how the view lies, or UNMOVED."""

    owner: Ints  # the instruction
    place: Ints  # the how-manyeth of its ranges
    base: Ints
    item: Ints
    low: Ints
    high: Ints
    lie: Ints


class Columns:
    """The instructions of a listing. ``form`` and ``word`` are numbers in ``forms`` and ``words`` (the different keywords),
    ``layer`` and ``unit`` in ``layers`` and ``units``; ``home``: the tile of the global operand, -1 if it is in none;
    ``varies``: whether any extent does. The operands of an instruction begin at ``first``; ``part`` is, of every one, a number
    less than ``parts`` for what the cost depends on. ``writers`` are the instructions that write cells."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        self._pool, self._tile, reading = pool, listing.tile, listing.reading
        self.form, self.word = numbers(reading.of_mnemonic), numbers(reading.of_words)
        self.forms = [Form.of(m) for m in reading.mnemonics]
        writes = [INSTRUCTIONS[m].writes_cells for m in reading.mnemonics]
        self.names = Names(pool, listing, writes=any(writes))
        self.writers: Ints = np.flatnonzero(np.array(writes, np.bool_)[self.form])
        self.words = list(reading.words)
        self.layers, self.layer = _layers(reading.origins)
        steps = len(reading.counts)
        counts = numbers(reading.counts)
        self.first: Ints = np.concatenate(([0], np.cumsum(counts)))
        self._owner = np.repeat(np.arange(steps), counts)
        what = self._kinds(np.arange(len(self._owner)) - self.first[self._owner])
        self._local, self._shared, self._matrix = (np.flatnonzero(what == n) for n in (LOCAL, SHARED, MATRIX))
        self._matrices = [reading.operands[i] for i in self._matrix.tolist()]
        self.home = np.full(steps, -1, np.int64)
        self.varies = np.zeros(steps, np.bool_)
        self.unit, self.units = self._units()
        self.places = Places(list(reading.lies), pool.shapes)
        self.part, self.parts, self.ranges = self._parts(reading)

    def _kinds(self, place: Ints) -> Ints:
        """What stands at the operands' places."""
        widest = max([len(f.kinds) for f in self.forms], default=0)
        table = np.zeros((len(self.forms), widest + 1), np.int64)
        for number, form in enumerate(self.forms):
            table[number, : len(form.kinds)] = [_what(kind) for kind in form.kinds]
        last = numbers([max(0, len(f.kinds) - 1) for f in self.forms])  # stands for all that follow
        form = self.form[self._owner]
        return table[form, np.minimum(place, last[form])]

    def _units(self) -> tuple[Ints, list[str]]:
        """The units of instructions: every matrix is one."""
        units: Numbers[str] = Numbers()
        found = looked_up(units, [f.unit for f in self.forms])[self.form]
        found[self._owner[self._matrix]] = looked_up(units, [f"{Unit.CORE.value}:{name}" for name in self._matrices])
        return found, list(units)

    def _parts(self, reading: Reading) -> tuple[Ints, int, Ranges]:
        """Of operands, numbers for what the cost depends on; and the ranges."""
        pool, names, shapes, count = self._pool, self.names, self._pool.shapes, len(self._owner)
        local, shared, at = self._local, self._shared, self._matrix
        lie, name = np.zeros((2, count), np.int64)
        views = np.ones(count, np.bool_)
        views[at] = False
        lie[views], name[views] = numbers(reading.of_lie), numbers(reading.of_buffer)
        element, shape = np.zeros(count, np.int64), self.places.shape[lie]
        arrays = names.shared[name[shared]]
        element[shared] = names.shared_element[arrays]
        held = np.flatnonzero(names.home[arrays] >= 0)[::-1]  # of several the first counts
        self.home[self._owner[shared[held]]] = names.home[arrays[held]]
        buffers = names.local(self._tile[self._owner[local]], name[local])
        element[local] = names.element[buffers]
        if any(shapes.varies):
            varies = np.array(shapes.varies, np.bool_)[shape]
            self.varies[self._owner[varies & views]] = True
        part = element * len(shapes) + shape
        where = self._tile[self._owner[at]].tolist()
        first = ELEMENTS * len(shapes)
        part[at] = first + numbers([names.matrices[t][m] for t, m in zip(where, self._matrices, strict=True)])
        ranges = self._ranges(buffers, lie[local])
        if any(names.cells):
            ranges = self._with_cells(ranges)
        return part, first + len(pool.matrices), ranges

    def _ranges(self, buffers: Ints, lie: Ints) -> Ranges:
        """The ranges of local views."""
        names, owner = self.names, self._owner[self._local]
        low, high = self.places.reach(np.flatnonzero(np.bincount(lie)))
        return Ranges(owner, _places(owner), names.address[buffers], names.item[buffers], low[lie], high[lie], lie)

    def _with_cells(self, ranges: Ranges) -> Ranges:
        """The ranges with those of cells between them, where these matter: as many of a matrix as it has spans of cores."""
        at, owner = self._matrix, self._owner[self._matrix]
        held = [self.names.cells[t].get(m, ()) for t, m in zip(self._tile[owner].tolist(), self._matrices, strict=True)]
        counts = numbers([len(h) for h in held])
        cells = np.array([span for h in held for span in h], np.int64).reshape(-1, 2)
        n = len(cells)
        order = np.argsort(np.concatenate((self._local, np.repeat(at, counts))), kind="stable")
        more = np.repeat(owner, counts), np.full(n, CELLS), np.ones(n, np.int64), *cells.T, np.full(n, UNMOVED)
        old = ranges.owner, ranges.base, ranges.item, ranges.low, ranges.high, ranges.lie
        found = [np.concatenate(pair)[order] for pair in zip(old, more, strict=True)]
        return Ranges(found[0], _places(found[0]), *found[1:])


def _layers(origins: Sequence[Origin | None]) -> tuple[list[str], Ints]:
    """The layers of instructions. Few origins are shared by many, one after the other: numbers for where they change."""
    layers: Numbers[str] = Numbers({OUTSIDE: 0})
    which = np.fromiter(map(id, origins), np.int64, len(origins))
    runs = np.flatnonzero(np.diff(which, prepend=-1))
    first, same = distinct(which[runs])
    found = [origins[at] for at in runs[first].tolist()]
    of = numbers([layers[origin.node] if origin is not None else 0 for origin in found])
    return list(layers), np.repeat(of[same], np.diff(runs, append=len(origins)))


def _what(kind: Kind) -> int:
    """What stands at the place of an operand of a kind."""
    return MATRIX if kind is Kind.MATRIX else SHARED if kind in GLOBAL else LOCAL


def _places(owner: Ints) -> Ints:
    """Of things that belong to owners, ascending: the how-manyeth of its owner's each is."""
    n = np.arange(len(owner))
    begins = np.ones(len(owner), np.bool_)
    begins[1:] = owner[1:] != owner[:-1]
    return n - np.maximum.accumulate(np.where(begins, n, 0))
