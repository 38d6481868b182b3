"""The rows of a program decoded, all of one mnemonic at a time: what differs between them stands in columns of numbers, and
what they cost is made out once for all rows whose numbers are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter, getitem
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cimc.isa.cells import contended, spans
from cimc.isa.instruction import Instruction, Kind
from cimc.isa.operands import Affine, Element
from cimc.isa.program import TileProgram
from cimc.sim import noc
from cimc.sim.job import CELLS, Action, Foreman, Job
from cimc.sim.listing import Listing, Scope, reach
from cimc.sim.pool import Form, Numbers, Pool, Words, distinct, flags, numbers, pack
from cimc.sim.tables import (
    EMPTY,
    R_CHANNEL,
    R_DEST,
    R_EVERYTHING,
    R_OP,
    R_SERVER,
    R_TREE_END,
    R_UNIT,
    R_VARIANT_AFF,
    R_WAY,
    ROW_COLUMNS,
    Ints,
)

_LAYOUT, _BUFFER, _OFFSET = attrgetter("shape", "strides"), attrgetter("buffer"), attrgetter("offset")
_CONSTANT, _TERMS, _ORIGIN = attrgetter("constant"), attrgetter("terms"), attrgetter("origin")
_ELEMENTS = {id(e): number for number, e in enumerate(Element)}  # by identity: hashing a member is slow
_BYTES = np.array([e.bytes for e in Element], np.int64)
OUTSIDE = ""  # the layer of instructions without an origin
Bounds = tuple[int, int]


class Rows(NamedTuple):
    """Rows of one mnemonic with their instructions."""

    at: Ints
    steps: list[Instruction]

    def some(self, places: list[int]) -> Rows:
        """Those at these places."""
        return Rows(self.at[places], [self.steps[i] for i in places])


class Lying(NamedTuple):
    """Where rows lie: index of the tile, home of a global operand (-1: none), links of their ways."""

    tiles: Ints
    homes: Ints
    links: Ints
    crossings: Ints


@dataclass(frozen=True, slots=True)
class Column:
    """An operand of rows of the same mnemonic. ``part`` and ``shape`` are what the cost depends on. Of views: how
    they lie, and the homes of global buffers; of local ones, the buffer, the offset as a number (0 where it moves) and as it
    stands there, and which rows' move. Of matrices that share cores whose cells are written: these, each span of
    neighbouring ones as a local view."""

    part: Ints  # number of the element type, or of the matrix
    shape: Ints | None = None  # and of the extents
    layouts: Ints | None = None
    homes: Ints | None = None
    buffers: Ints | None = None
    offsets: Ints | None = None
    places: Sequence[Affine] = ()
    moving: Sequence[int] = ()
    cells: Sequence[Column] = ()

    @property
    def local(self) -> Sequence[Column]:
        """The local views that it has: itself, its cells or none."""
        return self.cells if self.buffers is None else (self,)


@dataclass(frozen=True, slots=True)
class Late:
    """An instruction whose extents vary; its row, the index of its tile, its home, links within chips and between."""

    step: Instruction
    row: int
    tile: int
    home: int
    links: int
    crossings: int


class Piece(NamedTuple):
    """Rows of one mnemonic whose extents do not vary, with their operands."""

    form: Form
    rows: Rows
    lying: Lying
    columns: list[Column]


class TileNames:
    """What the names of all tiles mean, as numbers."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        chip, tiles = pool.chip, listing.tiles
        letters = "".join(row * chip.chips for row in chip.layout)
        names = {kind.letter: name for name, kind in chip.tiles.items()}
        self.kinds = [names[letters[t.tile]] for t in tiles]
        self.numbers = [t.tile for t in tiles]
        self.cells = [_cells(t) for t in tiles]
        self.matrices = [
            {m.name: pool.matrix(m, len(cells.get(m.name, ()))) for m in t.matrices}
            for t, cells in zip(tiles, self.cells, strict=True)
        ]
        buffers = [b for t in tiles for b in t.buffers]
        self.all_cells = len(buffers)  # the number of a buffer that stands for them
        count = iter(range(len(buffers)))
        self.local = [dict(zip([b.name for b in t.buffers], count, strict=False)) for t in tiles]
        self.address = numbers([*(b.address for b in buffers), CELLS])
        self.element = numbers([*(_ELEMENTS[id(b.element)] for b in buffers), _ELEMENTS[id(Element.I8)]])
        self.item = _BYTES[self.element]
        shared = list(pool.globals.values())
        self.home = numbers([g.tile for g in shared])
        self.shared_element = numbers([_ELEMENTS[id(g.element)] for g in shared])
        self.shared = dict(zip(pool.globals, range(len(shared)), strict=True))

    def held(self, tile: int, step: Instruction) -> int:
        """How many spans of cores an instruction has among its ranges."""
        cells = self.cells[tile]
        return sum(len(cells.get(o, ())) for o in step.operands if isinstance(o, str)) if cells else 0


class Decoder:
    """Decodes a listing; :meth:`run` fills the tables that are its attributes, per row or per piece of rows."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        n = len(listing.steps)
        self.pool, self.listing, self.names = pool, listing, TileNames(pool, listing)
        self.rows = np.zeros((n + 1, ROW_COLUMNS), np.int64)
        self.layers: Numbers[str] = Numbers({OUTSIDE: 0})
        self.layer = np.zeros(n, np.int64)
        self.local_views = np.zeros(n + 1, np.int64)
        self.cost = np.zeros(n, np.int64)  # of rows with one variant
        self.variants = np.zeros(n, np.int64)  # how many a row has
        self.varying: dict[int, tuple[list[int], list[list[Bounds]]]] = {}  # row → costs, bounds of its variants
        self.ranges: list[tuple[Ints, int, Ints]] = []  # rows, which local view, lines of the table ``ranges``
        self.bounds: list[tuple[Ints, int, Ints]] = []  # and of ``bounds``, of rows with one variant
        self.late: list[tuple[Form, Late]] = []
        self.units: Numbers[str] = Numbers()
        self._pieces: list[Piece] = []
        self._foremen: dict[int, Foreman] = {}

    @cached_property
    def kinds(self) -> tuple[list[str], Ints]:
        """The kinds of tiles in use, and which one each tile is of."""
        number: Numbers[str] = Numbers()
        found = numbers([number[k] for k in self.names.kinds])
        return list(number), found

    @cached_property
    def ports(self) -> Ints:
        """Per tile, the one through which it reaches global memory."""
        return noc.nearest_of(self.pool.chip, numbers(self.names.numbers), numbers(self.pool.ports))

    def run(self) -> None:
        """Decode all rows but those in ``late``: their extents vary."""
        self._read()
        if self._pieces:
            self._fixed(self._pieces)

    def _read(self) -> None:
        steps = self.listing.steps
        for mnemonic, rows in self.listing.alike.items():
            form = Form.of(mnemonic)
            group = [s for s in map(steps.__getitem__, rows) if s is not None]
            shared = Kind.MATRIX in form.kinds and any(self.names.cells)
            if not form.variadic and not shared:
                self._decode(form, Rows(numbers(rows), group))
                continue
            counts = [(len(s.operands), 0) for s in group]
            if shared:
                where = self.listing.row_tile[rows].tolist()
                counts = [(len(s.operands), self.names.held(t, s)) for t, s in zip(where, group, strict=True)]
            for count in set(counts):
                some = [i for i, n in enumerate(counts) if n == count]
                self._decode(form, Rows(numbers(rows), group).some(some))

    def foreman(self, tile: int) -> Foreman:
        """Makes out the jobs of a tile, by its index."""
        if tile not in self._foremen:
            pool, decl = self.pool, self.listing.tiles[tile]
            units = pool.unit(decl.tile, self.names.kinds[tile])
            self._foremen[tile] = Foreman(pool.program, decl, pool.chip, pool.globals, units)
        return self._foremen[tile]

    # --- rows of one mnemonic ---------------------------------------------------------------------

    def _decode(self, form: Form, rows: Rows) -> None:
        """Decode rows of a mnemonic with as many operands, and as many spans of cores among their ranges."""
        tiles = self.listing.row_tile[rows.at]
        columns = [self._column(form, i, rows, tiles.tolist()) for i in range(len(rows.steps[0].operands))]
        homes = np.full(len(tiles), -1, np.int64)
        for column in reversed(columns):
            homes = homes if column.homes is None else np.where(column.homes >= 0, column.homes, homes)
        links, crossings = self._ways(form, rows, tiles, homes)
        self._place(form, rows, columns)
        lying = Lying(tiles, homes, links, crossings)
        varies = self._varies(columns, len(tiles))
        if not varies.any():
            self._pieces.append(Piece(form, rows, lying, columns))
            return
        late = np.flatnonzero(varies).tolist()
        lines = np.column_stack((rows.at, *lying))[late].tolist()
        self.late.extend((form, Late(rows.steps[i], *line)) for i, line in zip(late, lines, strict=True))
        rest = np.flatnonzero(~varies)
        if len(rest):
            some, lying = rows.some(rest.tolist()), Lying(*(part[rest] for part in lying))
            again = [self._column(form, i, some, lying.tiles.tolist()) for i in range(len(columns))]
            self._pieces.append(Piece(form, some, lying, again))

    def _varies(self, columns: Sequence[Column], n: int) -> NDArray[np.bool_]:
        """Which rows have a view whose extents vary."""
        table = np.array(self.pool.layouts.varies, np.bool_)
        found = np.zeros(n, np.bool_)
        if table.any():
            for column in columns:
                found |= table[column.layouts] if column.layouts is not None else False
        return found

    def _column(self, form: Form, index: int, rows: Rows, where: Sequence[int]) -> Column:
        """The operand at a position."""
        pool, names = self.pool, self.names
        operands = [s.operands[index] for s in rows.steps]
        if form.kinds[min(index, len(form.kinds) - 1)] is Kind.MATRIX:
            tables = names.matrices
            found = numbers([tables[t][str(o)] for t, o in zip(where, operands, strict=True)])
            return Column(found, cells=self._cells(where, [str(o) for o in operands]))
        layouts = numbers(list(map(pool.layouts.__getitem__, map(_LAYOUT, operands))))
        shapes = np.array(pool.layouts.shape, np.int64)[layouts]
        buffers = map(_BUFFER, operands)
        if form.shared(index):
            found = numbers(list(map(names.shared.__getitem__, buffers)))
            return Column(names.shared_element[found], shapes, layouts, names.home[found])
        found = numbers(list(map(getitem, map(names.local.__getitem__, where), buffers)))
        places: list[Affine] = list(map(_OFFSET, operands))
        offsets = numbers(list(map(_CONSTANT, places)))
        moving = [k for k, o in enumerate(places) if o.terms] if any(map(_TERMS, places)) else []
        offsets[moving] = 0
        return Column(names.element[found], shapes, layouts, None, found, offsets, places, moving)

    def _cells(self, where: Sequence[int], matrices: Sequence[str]) -> list[Column]:
        """The cores of matrices as columns; each matrix has as many spans of them."""
        names, layouts = self.names, self.pool.layouts
        if not any(names.cells):
            return []
        held = [names.cells[t].get(m, ()) for t, m in zip(where, matrices, strict=True)]
        cells: list[Column] = []
        for part in zip(*held, strict=True):
            lie = numbers([layouts[(end - first,), (1,)] for first, end in part])
            buffers = np.full(len(lie), names.all_cells, np.int64)
            offsets = numbers([first for first, _ in part])
            cells.append(Column(buffers, None, lie, None, buffers, offsets, [Affine()] * len(lie)))
        return cells

    def _ways(self, form: Form, rows: Rows, tiles: Ints, homes: Ints) -> tuple[Ints, Ints]:
        """Enter channels, trees and ways of rows; links within chips and between them."""
        table, at, own = self.rows, rows.at, self.names.numbers
        none = np.zeros(len(at), np.int64)
        if form.action is Action.SEND:
            found = self._routes(form, rows, tiles)
            table[at, R_DEST : R_TREE_END + 1] = found[:, :4]
            return found[:, 4], found[:, 5]
        if form.action is Action.RECEIVE or form.action is Action.WAIT:
            channels, token = self.pool.channels, form.token
            words = [form.complete(s.keywords) for s in rows.steps]
            source, tag = form.place["source"], form.place["tag"]
            pairs = zip(tiles.tolist(), words, strict=True)
            table[at, R_CHANNEL] = numbers([channels[w[source][1], own[t], w[tag][1], token] for t, w in pairs])
        if form.action is Action.MEMORY:
            to = np.where(homes < 0, self.ports[tiles], homes)
            first, of = distinct(tiles * (1 << 32) + 2 * to + (homes < 0))
            mine = numbers(own)[tiles[first]]
            number, links, crossings = self.pool.between(mine, to[first])
            table[at, R_WAY] = np.where(homes[first] == mine, -1, number)[of]
            table[at, R_SERVER] = numbers([self.pool.servers[home] for home in homes.tolist()])
            return links[of], crossings[of]
        return none, none

    def _routes(self, form: Form, rows: Rows, tiles: Ints) -> Ints:
        """The routes of sends: see :meth:`Pool.routes`."""
        own = self.names.numbers
        known: Numbers[tuple[int, Words]] = Numbers()
        of = numbers([known[own[t], s.keywords] for t, s in zip(tiles.tolist(), rows.steps, strict=True)])
        return self.pool.routes([t for t, _ in known], [w for _, w in known], form)[of]

    def _place(self, form: Form, rows: Rows, columns: Sequence[Column]) -> None:
        """Enter what rows are, their layers and units, and how many local views they have."""
        table, units, at = self.rows, self.units, rows.at
        table[at, R_OP] = form.action
        table[at, R_VARIANT_AFF] = -1
        table[at, R_EVERYTHING] = form.action is Action.HOST or (form.action is Action.SEND and form.token)
        self.local_views[at] = sum(len(c.local) for c in columns)
        self.variants[at] = 1
        layers = self.layers
        self.layer[at] = numbers([layers[o.node] if o is not None else 0 for o in map(_ORIGIN, rows.steps)])
        if form.unit == "core":
            place = form.kinds.index(Kind.MATRIX)
            table[at, R_UNIT] = numbers([units[f"core:{s.operands[place]}"] for s in rows.steps])
        else:
            table[at, R_UNIT] = units[form.unit]

    # --- cost and ranges --------------------------------------------------------------------------

    def _fixed(self, pieces: Sequence[Piece]) -> None:
        """Enter the costs and ranges of rows whose extents do not vary."""
        pool, (kinds, kind_of) = self.pool, self.kinds
        at = np.concatenate([p.rows.at for p in pieces])
        lying = Lying(*(np.concatenate(parts) for parts in zip(*(p.lying for p in pieces), strict=True)))
        steps = [step for p in pieces for step in p.rows.steps]
        forms, kind = np.repeat(np.arange(len(pieces)), [len(p.rows.at) for p in pieces]), kind_of[lying.tiles]
        code = [(forms, len(pieces)), (kind, len(kinds)), ((lying.homes >= 0).astype(np.int64), 2), self._words(pieces)]
        for i in range(max(len(p.columns) for p in pieces)):
            columns = [p.columns[i] if i < len(p.columns) else None for p in pieces]
            parts = _joined(pieces, [c.part if c else None for c in columns])
            shapes = _joined(pieces, [c.shape if c else None for c in columns])
            code += [(parts, max(len(_BYTES), len(pool.matrices)) + 1), (shapes, len(pool.layouts.shapes) + 1)]
        first, of = distinct(pack(code))
        jobs = [self._job(steps[i], int(lying.tiles[i]), int(at[i])) for i in first.tolist()]
        code = [(of, len(jobs)), (lying.links, int(lying.links.max()) + 1)]
        first, priced = distinct(pack([*code, (lying.crossings, int(lying.crossings.max()) + 1)]))
        lines = np.column_stack((of, forms, kind, lying.links, lying.crossings))[first].tolist()
        costs = [pool.price(jobs[j], pieces[f].form, kinds[k], *ways) for j, f, k, *ways in lines]
        self.cost[at] = numbers(costs)[priced]
        widest = max(len(job.ranges) for job in jobs)
        marks = np.zeros((len(jobs), widest), np.int64)
        for number, job in enumerate(jobs):
            marks[number, : len(job.ranges)] = flags(job)
        local = [[view for c in p.columns for view in c.local] for p in pieces]
        for j in range(widest):
            has = np.array([len(columns) > j for columns in local], np.bool_)[forms]
            self._ranges(at[has], j, [columns[j] for columns in local if len(columns) > j], marks[of[has], j])

    def _words(self, pieces: Sequence[Piece]) -> tuple[Ints, int]:
        """Numbers for keywords that costs depend on."""
        words = self.pool.words
        found = [numbers([words[s.keywords] for s in p.rows.steps]) if p.form.words else None for p in pieces]
        return _joined(pieces, found), len(words) + 1

    def _job(self, step: Instruction, tile: int, row: int) -> Job:
        env: Mapping[str, int] = {}
        if self.pool.bound or self.listing.scope(row).slots:
            env = {**self.pool.bound, **dict.fromkeys(self.listing.scope(row).slots, 0)}
        return self.foreman(tile).job(step, env, ways=False)

    def _ranges(self, at: Ints, j: int, columns: Sequence[Column], marks: Ints) -> None:
        """Enter the bytes of the j-th local view of rows, one column after the other."""
        buffers = np.concatenate([c.buffers for c in columns if c.buffers is not None])
        layouts = np.concatenate([c.layouts for c in columns if c.layouts is not None])
        offsets = np.concatenate([c.offsets for c in columns if c.offsets is not None])
        lying, item = self.pool.layouts, self.names.item[buffers]
        low, high = (np.array(part, np.int64)[layouts] for part in (lying.low, lying.high))
        base = self.names.address[buffers] + item * offsets
        empty = low >= high
        low, high = np.where(empty, 0, base + item * low), np.where(empty, EMPTY, base + item * high)
        self.bounds.append((at, j, np.column_stack((low, high))))
        lines = np.column_stack((np.zeros_like(low), marks, low, high, np.ones_like(low)))
        starts = np.cumsum([0, *(len(c.places) for c in columns)]).tolist()
        for k, place in ((first + k, c.places[k]) for first, c in zip(starts, columns, strict=False) for k in c.moving):
            scope = self.listing.scope(int(at[k]))
            lines[k] = self.moving(place, int(item[k]), int(marks[k]), scope, [(int(low[k]), int(high[k]))])
        self.ranges.append((at, j, lines))

    def moving(
        self, offset: Affine, item: int, mark: int, scope: Scope, bounds: Sequence[Bounds]
    ) -> tuple[int, int, int, int, int]:
        """The line of a range that is not the same at every execution, and where it can lie at all. ``bounds``: of the
        variants, from its offset."""
        low, high = min(b[0] for b in bounds), max(b[1] for b in bounds)
        if not offset.terms:
            return 0, mark, low, high, int(len(bounds) == 1)
        base, terms = self.listing.affines.split(offset, scope)
        least, greatest = reach(base, terms, scope.trips)
        place = self.listing.affines.enter(base * item, [(s, c * item) for s, c in terms])
        high += greatest * item if high > EMPTY else 0
        return place, mark, low + least * item, high, int(len(bounds) == 1 and not terms)


def _cells(tile: TileProgram) -> dict[str, list[Bounds]]:
    """Of the matrices of a tile for which it matters when cells are written: their cores, in spans of neighbours."""
    changing = contended(tile)
    return {m.name: list(spans([b.core for b in m.blocks])) for m in tile.matrices if m.name in changing}


def _joined(pieces: Sequence[Piece], columns: Sequence[Ints | None]) -> Ints:
    """A column of all pieces, from 1; 0 for those that have none."""
    return np.concatenate(
        [np.zeros(len(p.rows.at), np.int64) if c is None else c + 1 for p, c in zip(pieces, columns, strict=True)]
    )
