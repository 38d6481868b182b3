"""The rows of a program decoded, all at once: what differs between them stands in columns of numbers, and what they cost is
made out once for all rows whose numbers are the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cimc.isa.instruction import Instruction
from cimc.isa.operands import Affine
from cimc.sim.columns import Columns
from cimc.sim.job import Action, Foreman, Job
from cimc.sim.listing import Listing
from cimc.sim.names import Bounds
from cimc.sim.pool import Form, Numbers, Pool, distinct, flags, looked_up, numbers, pack
from cimc.sim.tables import (
    EMPTY,
    EVERYTHING,
    R_CHANNEL,
    R_DEST,
    R_OP,
    R_SERVER,
    R_SLOT,
    R_TARGET,
    R_TREE_END,
    R_TRIPS,
    R_UNIT,
    R_VARIANT_AFF,
    R_WAITS,
    R_WAY,
    RANGE_COLUMNS,
    RANGE_FIXED,
    ROW_COLUMNS,
    Ints,
)
from cimc.sim.travel import Travels
from cimc.sim.variables import Scope

OPERANDS = 4  # of an instruction that are looked at in columns; those of the few with more, one by one


@dataclass(frozen=True, slots=True)
class Late:
    """An instruction whose extents vary: its number, its row, the index of its tile and its home."""

    step: Instruction
    form: Form
    number: int
    row: int
    tile: int
    home: int


class Decoder:
    """Decodes a listing; :meth:`run` fills the tables that are its attributes. Instructions in ``late`` vary: their costs and
    ranges are left to :mod:`cimc.sim.varying`."""

    def __init__(self, pool: Pool, listing: Listing) -> None:
        self.pool, self.listing, self.columns = pool, listing, Columns(pool, listing)
        self.names = self.columns.names
        self.travels = Travels(pool.chip, listing, self.columns)
        n = listing.rows
        self.rows = np.zeros((n + 1, ROW_COLUMNS), np.int64)
        self.local_views = np.zeros(n + 1, np.int64)  # of a row, among them the cores where these matter
        self.cost = np.zeros(n, np.int64)  # of rows with one variant
        self.variants = np.zeros(n, np.int64)  # how many a row has
        self.varying: dict[int, tuple[list[int], list[list[Bounds]]]] = {}  # row → costs, bounds of its variants
        self.ranges: Ints = np.zeros((0, RANGE_COLUMNS), np.int64)
        self.bounds: Ints = np.zeros((0, 2), np.int64)  # per range, of rows with one variant
        self.late = self._late()
        self._foremen: dict[int, Foreman] = {}

    def run(self) -> None:
        """Decode all rows but those in ``late``."""
        self._place()
        self._ranges(self._costs())

    def foreman(self, tile: int) -> Foreman:
        """Makes out the jobs of a tile, by its index."""
        if tile not in self._foremen:
            pool, decl = self.pool, self.listing.tiles[tile]
            units = pool.unit(decl.tile, self.names.kinds[tile])
            self._foremen[tile] = Foreman(pool.program, decl, pool.chip, pool.globals, units)
        return self._foremen[tile]

    def _late(self) -> list[Late]:
        listing, columns = self.listing, self.columns
        at = np.flatnonzero(columns.varies)
        lines = np.column_stack((columns.form[at], at, listing.at[at], listing.tile[at], columns.home[at])).tolist()
        return [Late(listing.steps[k], columns.forms[f], k, *line) for f, k, *line in lines]

    def _place(self) -> None:
        """Enter what rows are, their units and ways, and how many local views they have."""
        columns, travels, at = self.columns, self.travels, self.listing.at
        table = np.zeros((len(at), ROW_COLUMNS), np.int64)
        table[:, R_OP], table[:, R_UNIT], table[:, R_VARIANT_AFF] = travels.action, columns.unit, -1
        waits = [f.action is Action.HOST or (f.action is Action.SEND and f.token) for f in columns.forms]
        table[:, R_WAITS] = EVERYTHING * numbers(waits)[columns.form]
        table[:, R_CHANNEL], table[:, R_WAY], table[:, R_SERVER] = travels.channel, travels.way, travels.server
        table[:, R_DEST : R_TREE_END + 1] = travels.sent
        table[:, (R_SLOT, R_TARGET, R_TRIPS)] = self.listing.phases
        self.rows[at] = table
        self.variants[at] = 1
        self.local_views[at] = np.bincount(columns.ranges.owner, minlength=len(at))

    # --- cost -------------------------------------------------------------------------------------

    def _costs(self) -> Ints:
        """Enter what rows cost. Returns the flags of all ranges."""
        listing, columns, pool = self.listing, self.columns, self.pool
        kinds: Numbers[str] = Numbers()
        kind = looked_up(kinds, self.names.kinds)[listing.tile]
        first, of = distinct(self._alike(kind, len(kinds)))
        names, forms = list(kinds), columns.forms
        lines = np.column_stack((first, listing.tile[first], kind[first], columns.form[first])).tolist()
        marks: list[int] = []
        begin: list[int] = []
        costs = np.zeros(len(first), np.int64)
        fixed = (~columns.varies[first]).tolist()
        for number, (k, tile, of_kind, form) in enumerate(lines):
            begin.append(len(marks))
            if fixed[number]:
                job = self._job(k, tile)
                costs[number] = pool.price(job, forms[form], names[of_kind])
                marks += flags(job)
        self.cost[listing.at] = costs[of]
        ranges = columns.ranges
        found = np.array([*marks, 0], np.int64)
        at = numbers(begin)[of[ranges.owner]] + ranges.place
        return found[np.where(columns.varies[ranges.owner], -1, at)]

    def _alike(self, kind: Ints, kinds: int) -> Ints:
        """A number for every instruction that is the same for those that cost the same."""
        columns = self.columns
        matter = np.array([f.words for f in columns.forms], np.bool_)[columns.form]
        code = [
            (columns.form, len(columns.forms)),
            (kind, kinds),
            ((columns.home >= 0).astype(np.int64), 2),
            (np.where(matter, columns.word, 0), len(columns.words)),
        ]
        first, counts = columns.first[:-1], np.diff(columns.first)
        part, last = np.concatenate((columns.part + 1, [0])), len(columns.part)
        for i in range(min(OPERANDS, int(counts.max(initial=0)))):
            code.append((part[np.where(counts > i, first + i, last)], columns.parts + 1))
        many = np.flatnonzero(counts > OPERANDS)
        if len(many):
            more: Numbers[bytes] = Numbers({b"": 0})
            rest = [part[first[k] + OPERANDS : first[k] + counts[k]].tobytes() for k in many.tolist()]
            column = np.zeros(len(counts), np.int64)
            column[many] = looked_up(more, rest)
            code.append((column, len(more)))
        return pack(code)

    def _job(self, number: int, tile: int) -> Job:
        scope = self.listing.scopes[int(self.listing.scope[number])]
        env: Mapping[str, int] = {**scope.known, **dict.fromkeys(scope.slots, 0)}
        return self.foreman(tile).job(self.listing.steps[number], env, ways=False)

    # --- ranges -----------------------------------------------------------------------------------

    def _ranges(self, marks: Ints) -> None:
        """Enter the bytes of local views, row by row."""
        ranges = self.columns.ranges
        low, high = ranges.base + ranges.item * ranges.low, ranges.base + ranges.item * ranges.high
        empty = ranges.low >= ranges.high
        low[empty], high[empty] = 0, EMPTY
        high[self.columns.varies[ranges.owner]] = EMPTY
        self.bounds = np.column_stack((low, high))
        self.ranges = np.column_stack((np.zeros_like(low), marks, low, high, np.ones_like(low)))
        moves = np.array([*self.columns.places.moves, False], np.bool_)[ranges.lie]  # the last stands for UNMOVED
        moves &= ~self.columns.varies[ranges.owner]
        if moves.any():
            self._move(np.flatnonzero(moves))

    def _move(self, at: Ints) -> None:
        """Enter where ranges whose offset moves can lie: those with the same offset in the same scope by as much."""
        ranges, scope = self.columns.ranges, self.listing.scope[self.columns.ranges.owner[at]]
        columns = [
            (ranges.lie[at], len(self.columns.places.lies)),
            (ranges.item[at], 1 << 8),
            (scope, len(self.listing.scopes)),
        ]
        first, of = distinct(pack(columns))
        lies = self.columns.places.lies
        lines = np.column_stack((ranges.lie[at[first]], ranges.item[at[first]], scope[first])).tolist()
        found: list[tuple[int, int, int, bool]] = []
        for lie, item, within in lines:
            found.append(self.moving(lies[lie].offset, item, self.listing.scopes[within]))
        place, least, greatest, fixed = np.array(found, np.int64).T[:, of]
        table = self.ranges
        table[at, 0], table[at, RANGE_FIXED] = place, fixed
        table[at, 2] += least
        table[at, 3] += np.where(table[at, 3] > EMPTY, greatest, 0)

    def moving(self, offset: Affine, item: int, scope: Scope) -> tuple[int, int, int, bool]:
        """The affine number of a range's offset in bytes, its least and greatest value, whether it is always the same."""
        base, terms = scope.split(offset)
        least, greatest = scope.reach(base, terms)
        place = self.listing.affines.enter(base * item, [(s, c * item) for s, c in terms])
        return place, least * item, greatest * item, not terms
