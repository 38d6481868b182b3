"""What the names in a program's tiles mean, as numbers: buffers, matrices, kinds of tiles."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter

import numpy as np

from cimc.isa.cells import contended, spans
from cimc.isa.operands import Element
from cimc.isa.program import TileProgram
from cimc.sim.job import CELLS
from cimc.sim.listing import Listing
from cimc.sim.pool import Pool, looked_up, numbers
from cimc.sim.tables import Ints

MOST = 1 << 24  # places of a table of tiles and names; beyond, what is looked up is searched for
_BUFFER = attrgetter("name", "address", "element")
_ELEMENTS = {id(e): number for number, e in enumerate(Element)}  # by identity: hashing a member is slow
_BYTES = np.array([e.bytes for e in Element], np.int64)
ELEMENTS = len(_BYTES)
Bounds = tuple[int, int]


class Names:
    """What the names of all tiles mean, as numbers. Names of buffers are numbered themselves, by the listing's reading.

    Per local buffer (those of all tiles, and behind them one that stands for cells, ``all_cells``): ``address``, ``element``,
    ``item`` bytes. ``shared``: per name, the number of the global buffer, -1 for others; per such: ``home``,
    ``shared_element``. Per tile: its number, kind, ``matrices`` and ``cells`` by name."""

    def __init__(self, pool: Pool, listing: Listing, *, writes: bool) -> None:
        """``writes``: whether any instruction writes cells."""
        chip, tiles, numbering = pool.chip, listing.tiles, listing.reading.buffers
        letters = "".join(row * chip.chips for row in chip.layout)
        names = {kind.letter: name for name, kind in chip.tiles.items()}
        self.kinds = [names[letters[t.tile]] for t in tiles]
        self.tiles = [t.tile for t in tiles]
        self.cells = [_cells(t) if writes else {} for t in tiles]
        self.matrices = [
            {m.name: pool.matrix(m, len(cells.get(m.name, ()))) for m in t.matrices}
            for t, cells in zip(tiles, self.cells, strict=True)
        ]
        buffers = list(chain.from_iterable([t.buffers for t in tiles]))
        told = list(map(_BUFFER, buffers))
        said, addresses, elements = zip(*told, strict=True) if told else ((), (), ())
        self.all_cells = len(buffers)
        self.address = numbers([*addresses, CELLS])
        self.element = looked_up(_ELEMENTS, list(map(id, (*elements, Element.I8))))
        self.item = _BYTES[self.element]
        self._name = looked_up(numbering, said)
        self._tile = np.repeat(np.arange(len(tiles)), [len(t.buffers) for t in tiles])
        shared = list(pool.globals.values())
        self.home = numbers([g.tile for g in shared])
        self.shared_element = numbers([_ELEMENTS[id(g.element)] for g in shared])
        at = numbers([numbering[name] for name in pool.globals])
        self._numbering, self._names = numbering, len(numbering)
        self.shared = np.full(self._names, -1, np.int64)
        self.shared[at] = np.arange(len(at))

    def local(self, tile: Ints, name: Ints) -> Ints:
        """The numbers of local buffers, by the index of the tile and the number of the name."""
        keys, asked = self._tile * self._names + self._name, tile * self._names + name
        if len(self.tiles) * self._names > MOST:
            order = np.argsort(keys)
            return order[np.searchsorted(keys[order], asked)]
        table = np.zeros(len(self.tiles) * self._names, np.int32)  # hardly any of it is ever touched
        table[keys] = np.arange(len(keys))
        return table[asked].astype(np.int64)

    def buffer(self, tile: int, name: str) -> int:
        """The number of a local buffer."""
        return int(self.local(np.array([tile]), np.array([self._numbering[name]]))[0])

    def array(self, name: str) -> int:
        """The number of a global buffer."""
        return int(self.shared[self._numbering[name]])


def _cells(tile: TileProgram) -> dict[str, list[Bounds]]:
    """Of the matrices of a tile for which it matters when cells are written: their cores, in spans of neighbours."""
    changing = contended(tile)
    return {m.name: list(spans([b.core for b in m.blocks])) for m in tile.matrices if m.name in changing}
