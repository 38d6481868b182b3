"""What the instructions of a program say, as columns of numbers: read off all of them at once, an attribute at a time, as
Python takes several times as long to look at them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, compress, pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from cimc.isa.cells import contended, spans
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Kind, Unit
from cimc.isa.operands import Element, View
from cimc.isa.program import TileProgram
from cimc.origin import Origin
from cimc.sim.job import CELLS
from cimc.sim.listing import Listing
from cimc.sim.pool import Form, Numbers, Pool, Words, attributes, looked_up, numbers, read_off
from cimc.sim.tables import Ints

OUTSIDE = ""  # the layer of instructions without an origin
LOCAL, SHARED, MATRIX = range(3)  # what stands at an operand's place
UNMOVED = -1  # in place of how a view lies: of cells
_MNEMONIC, _OPERANDS = attrgetter("mnemonic"), attrgetter("operands")
_KEYWORDS, _ORIGIN = attrgetter("keywords"), attrgetter("origin")
_LIE, _BUFFER, _SHAPE = attrgetter("lie"), attrgetter("buffer"), attrgetter("shape")
_ELEMENTS = {id(e): number for number, e in enumerate(Element)}  # by identity: hashing a member is slow
_BYTES = np.array([e.bytes for e in Element], np.int64)
Bounds = tuple[int, int]


class Names:
    """What the names of all tiles mean, as numbers."""

    def __init__(self, pool: Pool, listing: Listing, *, writes: bool) -> None:
        """``writes``: whether any instruction writes cells."""
        chip, tiles = pool.chip, listing.tiles
        letters = "".join(row * chip.chips for row in chip.layout)
        names = {kind.letter: name for name, kind in chip.tiles.items()}
        self.kinds = [names[letters[t.tile]] for t in tiles]
        self.tiles = [t.tile for t in tiles]
        self.cells = [_cells(t) if writes else {} for t in tiles]
        self.matrices = [
            {m.name: pool.matrix(m, len(cells.get(m.name, ()))) for m in t.matrices}
            for t, cells in zip(tiles, self.cells, strict=True)
        ]
        buffers = [b for t in tiles for b in t.buffers]
        self.all_cells = len(buffers)  # the number of a buffer that stands for them
        count = iter(range(len(buffers)))
        self.local = [dict(zip([b.name for b in t.buffers], count, strict=False)) for t in tiles]
        self.address = numbers([*[b.address for b in buffers], CELLS])
        self.element = numbers([*[_ELEMENTS[id(b.element)] for b in buffers], _ELEMENTS[id(Element.I8)]])
        self.item = _BYTES[self.element]
        shared = list(pool.globals.values())
        self.home = numbers([g.tile for g in shared])
        self.shared_element = numbers([_ELEMENTS[id(g.element)] for g in shared])
        self.shared = dict(zip(pool.globals, range(len(shared)), strict=True))


def _cells(tile: TileProgram) -> dict[str, list[Bounds]]:
    """Of the matrices of a tile for which it matters when cells are written: their cores, in spans of neighbours."""
    changing = contended(tile)
    return {m.name: list(spans([b.core for b in m.blocks])) for m in tile.matrices if m.name in changing}


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
        self._pool, self._tile, steps = pool, listing.tile, listing.steps
        mnemonics: Numbers[str] = Numbers()
        self.form = read_off(mnemonics, _MNEMONIC, steps)
        self.forms = [Form.of(m) for m in mnemonics]
        writes = [INSTRUCTIONS[m].writes_cells for m in mnemonics]
        self.names = Names(pool, listing, writes=any(writes))
        self.writers: Ints = np.flatnonzero(np.array(writes, np.bool_)[self.form])
        words: Numbers[Words] = Numbers()
        self.word = read_off(words, _KEYWORDS, steps)
        self.words = list(words)
        self.layers, self.layer = _layers(attributes(_ORIGIN, steps))
        operands = attributes(_OPERANDS, steps)
        counts = np.fromiter(map(len, operands), np.int64, len(operands))
        self.first: Ints = np.concatenate(([0], np.cumsum(counts)))
        self._owner = np.repeat(np.arange(len(steps)), counts)
        self._operands: list[View | str] = list(chain.from_iterable(operands))
        self._what = self._kinds(np.arange(len(self._owner)) - self.first[self._owner])
        self.home = np.full(len(steps), -1, np.int64)
        self.varies = np.zeros(len(steps), np.bool_)
        self.unit, self.units = self._units()
        self.part, self.parts, self.ranges = self._parts()

    def _kinds(self, place: Ints) -> Ints:
        """What stands at the operands' places."""
        widest = max([len(f.kinds) for f in self.forms], default=0)
        table = np.zeros((len(self.forms), widest + 1), np.int64)
        for number, form in enumerate(self.forms):
            table[number, : len(form.kinds)] = [_what(kind) for kind in form.kinds]
        last = numbers([max(0, len(f.kinds) - 1) for f in self.forms])  # stands for all that follow
        form = self.form[self._owner]
        return table[form, np.minimum(place, last[form])]

    def _some(self, what: int) -> tuple[Ints, list[Any]]:
        """The operands of a kind: where they stand, and they themselves."""
        chosen = self._what == what
        return np.flatnonzero(chosen), list(compress(self._operands, chosen.tolist()))

    def _units(self) -> tuple[Ints, list[str]]:
        """The units of instructions: every matrix is one."""
        units: Numbers[str] = Numbers()
        found = looked_up(units, [f.unit for f in self.forms])[self.form]
        at, matrices = self._some(MATRIX)
        found[self._owner[at]] = looked_up(units, [f"{Unit.CORE.value}:{name}" for name in matrices])
        return found, list(units)

    def _parts(self) -> tuple[Ints, int, Ranges]:
        """Of operands, numbers for what the cost depends on; and the ranges."""
        pool, names, shapes = self._pool, self.names, self._pool.shapes
        element, shape = np.zeros((2, len(self._owner)), np.int64)
        shared, views = self._some(SHARED)
        arrays = read_off(names.shared, _BUFFER, views)
        element[shared], shape[shared] = names.shared_element[arrays], read_off(shapes, _SHAPE, views)
        held = np.flatnonzero(names.home[arrays] >= 0)[::-1]  # of several the first counts
        self.home[self._owner[shared[held]]] = names.home[arrays[held]]
        local, views = self._some(LOCAL)
        lie = read_off(pool.lies, _LIE, views)
        buffers = self._buffers(local, attributes(_BUFFER, views))
        element[local], shape[local] = names.element[buffers], np.array(pool.lies.shape, np.int64)[lie]
        if any(shapes.varies):
            varies = np.array(shapes.varies, np.bool_)[shape]
            self.varies[self._owner[varies & (self._what != MATRIX)]] = True
        part = element * len(shapes) + shape
        at, matrices = self._some(MATRIX)
        where = self._tile[self._owner[at]].tolist()
        first = len(_BYTES) * len(shapes)
        part[at] = first + numbers([names.matrices[t][m] for t, m in zip(where, matrices, strict=True)])
        ranges = self._ranges(local, buffers, lie)
        if any(names.cells):
            ranges = self._with_cells(ranges, local, at, matrices)
        return part, first + len(pool.matrices), ranges

    def _buffers(self, at: Ints, named: Sequence[str]) -> Ints:
        """The numbers of the buffers of local views, whose names mean something in every tile."""
        local = self.names.local
        ends = np.searchsorted(self._tile[self._owner[at]], np.arange(1, len(local) + 1)).tolist()
        parts = [named[a:b] for a, b in pairwise([0, *ends])]
        found = chain.from_iterable(map(of.__getitem__, part) for of, part in zip(local, parts, strict=True))
        return np.fromiter(found, np.int64, len(named))

    def _ranges(self, at: Ints, buffers: Ints, lie: Ints) -> Ranges:
        """The ranges of local views."""
        names, lies, owner = self.names, self._pool.lies, self._owner[at]
        low, high = (np.array(part, np.int64)[lie] for part in (lies.low, lies.high))
        return Ranges(owner, _places(owner), names.address[buffers], names.item[buffers], low, high, lie)

    def _with_cells(self, ranges: Ranges, local: Ints, at: Ints, matrices: Sequence[str]) -> Ranges:
        """The ranges with those of cells between them, where these matter: as many of a matrix as it has spans of cores."""
        owner = self._owner[at]
        held = [self.names.cells[t].get(m, ()) for t, m in zip(self._tile[owner].tolist(), matrices, strict=True)]
        counts = numbers([len(h) for h in held])
        cells = np.array([span for h in held for span in h], np.int64).reshape(-1, 2)
        n = len(cells)
        order = np.argsort(np.concatenate((local, np.repeat(at, counts))), kind="stable")
        more = np.repeat(owner, counts), np.full(n, CELLS), np.ones(n, np.int64), *cells.T, np.full(n, UNMOVED)
        old = ranges.owner, ranges.base, ranges.item, ranges.low, ranges.high, ranges.lie
        found = [np.concatenate(pair)[order] for pair in zip(old, more, strict=True)]
        return Ranges(found[0], _places(found[0]), *found[1:])


def _layers(origins: Sequence[Origin | None]) -> tuple[list[str], Ints]:
    """The layers of instructions. Few origins are shared by many: numbers for those."""
    layers: Numbers[str] = Numbers({OUTSIDE: 0})
    which = list(map(id, origins))
    number = {i: layers[o.node] if o is not None else 0 for i, o in dict(zip(which, origins, strict=True)).items()}
    return list(layers), looked_up(number, which)


def _what(kind: Kind) -> int:
    """What stands at the place of an operand of a kind."""
    return MATRIX if kind is Kind.MATRIX else SHARED if kind in GLOBAL else LOCAL


def _places(owner: Ints) -> Ints:
    """Of things that belong to owners, ascending: the how-manyeth of its owner's each is."""
    n = np.arange(len(owner))
    begins = np.ones(len(owner), np.bool_)
    begins[1:] = owner[1:] != owner[:-1]
    return n - np.maximum.accumulate(np.where(begins, n, 0))
