"""The rows of a program decoded, all of one mnemonic at a time: what differs between them stands in columns of numbers, and
what they cost is made out once for all rows whose numbers are the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cimc.isa.instruction import Instruction, Kind
from cimc.isa.operands import Affine, View
from cimc.sim import noc
from cimc.sim.job import Action, Foreman, Job
from cimc.sim.listing import Listing, Scope, reach
from cimc.sim.pool import ELEMENTS, Form, Numbers, Pool, flags, pack
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

AT_HOME = -1, 0, 0  # the way of an access within a tile
OUTSIDE = ""  # the layer of instructions without an origin
Bounds = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Column:
    """An operand of rows of the same mnemonic. ``code``: columns of what the cost depends on, with their sizes. Of views:
    how they lie, and the homes of global buffers; of local ones, the buffer and the offset (0 where it moves), ``places``;
    which rows' move."""

    code: list[tuple[Ints, int]]
    layouts: Ints | None = None
    homes: Ints | None = None
    buffers: Ints | None = None
    offsets: Ints | None = None
    places: Sequence[Affine] = ()
    moving: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Late:
    """An instruction whose extents vary; its row, the index of its tile, its home, links within chips and between."""

    step: Instruction
    row: int
    tile: int
    home: int
    links: int
    crossings: int


class TileNames:
    """What the names of a tile mean, as numbers."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        chip = pool.chip
        letters = "".join(row * chip.chips for row in chip.layout)
        names = {kind.letter: name for name, kind in chip.tiles.items()}
        self.kinds = [names[letters[t.tile]] for t in listing.tiles]
        self.numbers = [t.tile for t in listing.tiles]
        self.local: list[dict[str, int]] = []
        self.matrices = [{m.name: pool.matrix(m) for m in t.matrices} for t in listing.tiles]
        known: list[tuple[int, int, int]] = []
        for tile in listing.tiles:
            first = len(known)
            self.local.append({b.name: first + i for i, b in enumerate(tile.buffers)})
            known.extend([(b.address, *ELEMENTS[id(b.element)]) for b in tile.buffers])
        self.address, self.element, self.item = np.array(known, np.int64).reshape(-1, 3).T
        shared = [(g.tile, ELEMENTS[id(g.element)][0]) for g in pool.globals.values()]
        self.home, self.shared_element = np.array(shared, np.int64).reshape(-1, 2).T
        self.shared = {name: i for i, name in enumerate(pool.globals)}


class Decoder:
    """Decodes a listing; :meth:`run` fills the tables that are its attributes, per row or per piece of rows."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        n = len(listing.steps)
        self.pool, self.listing, self.names = pool, listing, TileNames(pool, listing)
        self.rows = np.zeros((n + 1, ROW_COLUMNS), np.int64)
        self.local_views = np.zeros(n + 1, np.int64)
        self.cost = np.zeros(n, np.int64)  # of rows with one variant
        self.variants = np.zeros(n, np.int64)  # how many a row has
        self.varying: dict[int, tuple[list[int], list[list[Bounds]]]] = {}  # row → costs, bounds of its variants
        self.ranges: list[tuple[Ints, int, Ints]] = []  # rows, which local view, lines of the table ``ranges``
        self.bounds: list[tuple[Ints, int, Ints]] = []  # and of ``bounds``, of rows with one variant
        self.late: list[tuple[Form, Late]] = []
        self.units: Numbers[str] = Numbers()
        self._foremen: dict[int, Foreman] = {}
        self._ports: dict[int, int] = {}

    @cached_property
    def tile_kinds(self) -> tuple[list[str], Ints]:
        """The kinds of tiles in use, and which one each tile is of."""
        number: Numbers[str] = Numbers()
        found = np.array([number[k] for k in self.names.kinds], np.int64)
        return list(number), found

    def run(self) -> None:
        """Decode all rows but those in ``late``: their extents vary."""
        for (mnemonic, _), rows in self.listing.alike.items():
            form = Form.of(mnemonic)
            self.late.extend((form, late) for late in self._alike(form, rows))

    def foreman(self, tile: int) -> Foreman:
        """Makes out the jobs of a tile, by its index."""
        if tile not in self._foremen:
            pool, decl = self.pool, self.listing.tiles[tile]
            units = pool.unit(decl.tile, self.names.kinds[tile])
            self._foremen[tile] = Foreman(pool.program, decl, pool.chip, pool.globals, units)
        return self._foremen[tile]

    def port(self, tile: int) -> int:
        """The tile through which one reaches global memory."""
        if tile not in self._ports:
            self._ports[tile] = noc.nearest(self.pool.chip, tile, self.pool.ports)
        return self._ports[tile]

    # --- rows of one mnemonic ---------------------------------------------------------------------

    def _alike(self, form: Form, rows: Sequence[int]) -> list[Late]:
        """Decode rows of a mnemonic with as many operands; returns those whose extents vary, of which only what does not
        depend on them is done."""
        steps = [s for s in map(self.listing.steps.__getitem__, rows) if s is not None]
        at = np.array(rows, np.int64)
        tiles = self.listing.row_tile[at]
        where: list[int] = tiles.tolist()
        columns = [self._column(form, i, steps, where) for i in range(len(steps[0].operands))]
        homes = np.full(len(at), -1, np.int64)
        for column in reversed(columns):
            homes = homes if column.homes is None else np.where(column.homes >= 0, column.homes, homes)
        links, crossings = self._ways(form, at, steps, where, homes)
        self._place(form, at, steps, columns)
        varies = self._varies(columns, len(at))
        if not varies.any():
            self._fixed(form, at, steps, tiles, columns, homes, links, crossings)
            return []
        rest = np.flatnonzero(~varies)
        if len(rest):
            some = [steps[i] for i in rest.tolist()]
            parts = [self._column(form, i, some, tiles[rest].tolist()) for i in range(len(columns))]
            self._fixed(form, at[rest], some, tiles[rest], parts, homes[rest], links[rest], crossings[rest])
        rest = np.flatnonzero(varies)
        found = np.column_stack((at, tiles, homes, links, crossings))[rest].tolist()
        return [Late(steps[i], *numbers) for i, numbers in zip(rest.tolist(), found, strict=True)]

    def _varies(self, columns: Sequence[Column], n: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        table = np.array(self.pool.layouts.varies, np.bool_)
        found = np.zeros(n, np.bool_)
        for column in columns:
            if column.layouts is not None:
                found |= table[column.layouts]
        return found

    def _column(self, form: Form, index: int, steps: Sequence[Instruction], where: Sequence[int]) -> Column:
        """The operand at a position."""
        pool, names = self.pool, self.names
        operands = [s.operands[index] for s in steps]
        if form.kinds[min(index, len(form.kinds) - 1)] is Kind.MATRIX:
            tables = names.matrices
            found = np.array([tables[t][str(o)] for t, o in zip(where, operands, strict=True)], np.int64)
            return Column([(found, len(pool.matrices))])
        views = [o for o in operands if isinstance(o, View)]
        layouts = np.array([pool.layouts[v.shape, v.strides] for v in views], np.int64)
        shapes = np.array(pool.layouts.shape, np.int64)[layouts], len(pool.layouts.shapes)
        if form.shared(index):
            shared = names.shared
            buffers = np.array([shared[v.buffer] for v in views], np.int64)
            return Column([(names.shared_element[buffers], len(ELEMENTS)), shapes], layouts, names.home[buffers])
        local = names.local
        buffers = np.array([local[t][v.buffer] for t, v in zip(where, views, strict=True)], np.int64)
        places = [v.offset for v in views]
        offsets = np.array([o.constant for o in places], np.int64)
        moving = [k for k, o in enumerate(places) if o.terms]
        offsets[moving] = 0
        code = [(names.element[buffers], len(ELEMENTS)), shapes]
        return Column(code, layouts, None, buffers, offsets, places, moving)

    def _ways(
        self, form: Form, at: Ints, steps: Sequence[Instruction], where: Sequence[int], homes: Ints
    ) -> tuple[Ints, Ints]:
        """Enter channels, trees and ways of rows; links within chips and between them."""
        pool, rows, numbers = self.pool, self.rows, self.names.numbers
        none = np.zeros(len(at), np.int64)
        if form.action is Action.SEND:
            routes = {}
            keys = [(numbers[t], s.keywords) for t, s in zip(where, steps, strict=True)]
            for tile, words in keys:
                if (tile, words) not in routes:
                    routes[tile, words] = pool.route(tile, words, form)
            found = np.array([routes[key] for key in keys], np.int64)
            rows[at, R_DEST : R_TREE_END + 1] = found[:, :4]
            return found[:, 4], found[:, 5]
        if form.action is Action.RECEIVE or form.action is Action.WAIT:
            channels = pool.channels
            words = [{**form.defaults, **dict(s.keywords)} for s in steps]
            rows[at, R_CHANNEL] = [
                channels[w["source"], numbers[t], w["tag"], form.token] for t, w in zip(where, words, strict=True)
            ]
        if form.action is Action.MEMORY:
            ways = [
                AT_HOME if home == numbers[t] else pool.way(numbers[t], self.port(numbers[t]) if home < 0 else home)
                for t, home in zip(where, homes.tolist(), strict=True)
            ]
            number, links, crossings = np.array(ways, np.int64).T
            rows[at, R_WAY] = number
            rows[at, R_SERVER] = [pool.servers[home] for home in homes.tolist()]
            return links, crossings
        return none, none

    def _place(self, form: Form, at: Ints, steps: Sequence[Instruction], columns: Sequence[Column]) -> None:
        """Enter what rows are, their units, and how many local views they have."""
        rows, units = self.rows, self.units
        rows[at, R_OP] = form.action
        rows[at, R_VARIANT_AFF] = -1
        rows[at, R_EVERYTHING] = form.action is Action.HOST or (form.action is Action.SEND and form.token)
        self.local_views[at] = sum(c.buffers is not None for c in columns)
        self.variants[at] = 1
        if form.unit == "core":
            place = form.kinds.index(Kind.MATRIX)
            rows[at, R_UNIT] = [units[f"core:{s.operands[place]}"] for s in steps]
        else:
            rows[at, R_UNIT] = units[form.unit]

    # --- cost and ranges --------------------------------------------------------------------------

    def _fixed(
        self,
        form: Form,
        at: Ints,
        steps: Sequence[Instruction],
        tiles: Ints,
        columns: Sequence[Column],
        homes: Ints,
        links: Ints,
        crossings: Ints,
    ) -> None:
        """Enter the costs and ranges of rows whose extents do not vary."""
        pool, (kinds, kind_of) = self.pool, self.tile_kinds
        code = [(kind_of[tiles], len(kinds)), ((homes >= 0).astype(np.int64), 2)]
        if form.words:
            code.append((np.array([pool.words[s.keywords] for s in steps], np.int64), len(pool.words)))
        code.extend(part for column in columns for part in column.code)
        _, first, of = np.unique(pack(code), return_index=True, return_inverse=True)
        jobs = [self._job(steps[i], int(tiles[i]), int(at[i])) for i in first.tolist()]
        longest, most = int(links.max()) + 1, int(crossings.max()) + 1
        code = [(of, len(jobs)), (links, longest), (crossings, most)]
        _, first, priced = np.unique(pack(code), return_index=True, return_inverse=True)
        costs = [
            pool.price(jobs[of[i]], form, kinds[kind_of[tiles[i]]], int(links[i]), int(crossings[i]))
            for i in first.tolist()
        ]
        self.cost[at] = np.array(costs, np.int64)[priced]
        local = [c for c in columns if c.buffers is not None]
        if local:
            marks = np.array([flags(job) for job in jobs], np.int64)
            for j, column in enumerate(local):
                self._ranges(at, j, column, marks[of, j])

    def _job(self, step: Instruction, tile: int, row: int) -> Job:
        env: Mapping[str, int] = {}
        if self.pool.bound or self.listing.scope(row).slots:
            env = {**self.pool.bound, **dict.fromkeys(self.listing.scope(row).slots, 0)}
        return self.foreman(tile).job(step, env, ways=False)

    def _ranges(self, at: Ints, j: int, column: Column, marks: Ints) -> None:
        """Enter the bytes of the j-th local view of rows."""
        assert column.buffers is not None
        assert column.offsets is not None
        lying, item = self.pool.layouts, self.names.item[column.buffers]
        low, high = (np.array(part, np.int64)[column.layouts] for part in (lying.low, lying.high))
        base = self.names.address[column.buffers] + item * column.offsets
        empty = low >= high
        low, high = np.where(empty, 0, base + item * low), np.where(empty, EMPTY, base + item * high)
        self.bounds.append((at, j, np.column_stack((low, high))))
        lines = np.column_stack((np.zeros_like(low), marks, low, high, np.ones_like(low)))
        for k in column.moving:
            scope = self.listing.scope(int(at[k]))
            known = [(int(low[k]), int(high[k]))]
            lines[k] = self.moving(column.places[k], int(item[k]), int(marks[k]), scope, known)
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
