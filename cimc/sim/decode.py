"""One tile's stream as rows of the flat tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from cimc import errors
from cimc.isa.instruction import Derived, Instruction, Repeat, Step
from cimc.isa.operands import Affine, View, extent
from cimc.isa.program import TileProgram
from cimc.sim import noc
from cimc.sim.job import Action, Foreman, destinations, number, span
from cimc.sim.pool import Form, Pool, Reach, Route
from cimc.sim.tables import (
    DERIVE,
    DERIVED_COLUMNS,
    EMPTY,
    END,
    LOOP,
    NEXT,
    R_RANGE,
    R_TARGET,
    R_TRIPS,
    RANGE_COLUMNS,
    ROW_COLUMNS,
)

MAX_VARIANTS = 1 << 20
OUTSIDE = ""  # the layer of instructions without an origin
Local = tuple[View, int, int, Reach]  # a view of a local buffer, the buffer's address, bytes of an element
NOWHERE = Route((), 0, 0, 0, 0, 0, 0)
_ZEROS = (0,) * (R_RANGE - R_TRIPS - 1)


class Decoder:
    """Decodes one tile; :meth:`rows` enters its rows into the pool's tables."""

    def __init__(self, pool: Pool, index: int, tile: TileProgram) -> None:
        self.pool, self.index, self.number, self.tile = pool, index, tile.tile, tile
        self.kind = pool.chip.kind(tile.tile)
        self.local = {b.name: (b.address, b.element.bytes, b.element.name) for b in tile.buffers}
        self.matrices = {m.name: pool.matrix(m) for m in tile.matrices}
        self.parts: list[object] = []  # of the instruction at hand: what its cost depends on
        self.views: list[Local] = []  # and its operands in local buffers
        self.units: dict[str, int] = {}
        self.slots: dict[str, int] = {}  # of the repeat variables in scope
        self.trips: list[int] = []  # per slot: the most there can be

    @cached_property
    def foreman(self) -> Foreman:
        """Makes out the jobs that have not been seen."""
        return Foreman(self.pool.program, self.tile, self.pool.chip, self.pool.globals)

    @cached_property
    def port(self) -> int:
        """The tile through which this one reaches global memory."""
        return noc.nearest(self.pool.chip, self.number, self.pool.ports)

    def rows(self) -> None:
        """Decode the tile's stream."""
        self._steps(self.tile.steps, 1)
        self._control(END)

    # --- rows -----------------------------------------------------------------------------------

    def _row(self, row: tuple[int, ...], instruction: Instruction | None) -> int:
        """Enter a row; its index."""
        pool = self.pool
        pool.rows.extend(row)
        pool.instructions.append(instruction)
        pool.row_tile.append(self.index)
        layer = instruction.origin.node if instruction is not None and instruction.origin else OUTSIDE
        pool.row_layer.append(pool.layers.setdefault(layer, len(pool.layers)))
        return len(pool.instructions) - 1

    def _control(self, op: int, slot: int = 0, target: int = 0, trips: int = 0) -> int:
        """Enter a row that is no instruction; its index."""
        return self._row((op, slot, target, trips, *_ZEROS, len(self.pool.ranges) // RANGE_COLUMNS, 0, 0, 0, 0), None)

    def _steps(self, steps: Sequence[Step], times: int) -> None:
        for step in steps:
            if isinstance(step, Repeat):
                self._repeat(step, times)
            else:
                self._instruction(step, times)

    def _repeat(self, step: Repeat, times: int) -> None:
        if not _any_instruction(step.body):
            return
        count = step.count if isinstance(step.count, Affine) else Affine(step.count)
        slot, trips = len(self.trips), self._affine(*self._split(count))
        most = self._reach(count)[1]
        begin = self._control(LOOP, slot, 0, trips)
        self.trips.append(max(0, most))
        outer = self.slots
        self.slots = {**outer, step.variable: slot}
        for d in step.derived:
            self._derive(slot, d, most)
        self._steps(step.body, times * max(0, most))
        self.slots = outer
        end = self._control(NEXT, slot, begin + 1)
        self.pool.rows[begin * ROW_COLUMNS + R_TARGET] = end + 1

    def _derive(self, slot: int, d: Derived, count: int) -> None:
        """Enter a variable that follows a repeat's: it has a slot of its own, set at the start of every round."""
        number = self.pool.derived
        number.extend((slot, d.offset, d.divisor, d.modulus, d.factor))
        self._control(DERIVE, len(self.trips), len(number) // DERIVED_COLUMNS - 1)
        self.slots[d.name] = len(self.trips)
        self.trips.append(d.bounds(count)[1] + 1)

    def _instruction(self, step: Instruction, times: int) -> None:
        pool = self.pool
        form = pool.forms.get(step.mnemonic) or pool.form(step)
        kind = form.action
        name, home, varies = self._operands(step, form)
        channel = way = server = links = crossings = 0
        route = NOWHERE
        if kind is Action.SEND:
            route = pool.route(self.number, destinations(step), number(step, "tag"), form.token)
            links, crossings = route.links, route.crossings
        elif kind is Action.RECEIVE or kind is Action.WAIT:
            channel = pool.channel(number(step, "source"), self.number, number(step, "tag"), form.token)
        elif kind is Action.MEMORY:
            way, links, crossings = self._way(home)
            server = pool.servers.setdefault(home, len(pool.servers))
        key = (self.kind, step.mnemonic, step.keywords if form.words else (), links, crossings, home >= 0)
        first, ranges = len(pool.variant_cost), len(pool.ranges) // RANGE_COLUMNS
        offset = self._varying(step, form, key, links) if varies else self._constant(step, form, key, links)
        if route.channels:
            self._traffic(route.channels, times, first)
        unit = self.units.setdefault(name, len(self.units))
        everything = kind is Action.HOST or (kind is Action.SEND and form.token)
        where = (unit, int(everything), channel, way, server, first, offset, ranges)
        self._row((kind, 0, 0, 0, *where, route.dest, route.dest_end, route.tree, route.tree_end), step)

    def _operands(self, step: Instruction, form: Form) -> tuple[str, int, bool]:
        """The unit, the home of a global operand, whether extents vary; fills ``parts``, what the cost depends on, and
        ``views``, the operands in local buffers."""
        parts: list[object] = []
        views: list[Local] = []
        self.parts, self.views = parts, views
        name, home, varies = form.unit, -1, False
        layouts, shared, last = self.pool.layouts, form.shared, len(form.shared) - 1
        for i, operand in enumerate(step.operands):
            if isinstance(operand, str):
                parts.append(self.matrices[operand])
                if name == "core":
                    name = f"core:{operand}"
                continue
            layout = layouts.get((operand.shape, operand.strides)) or self.pool.layout(operand)
            varies = varies or layout.varies
            if shared[i if i < last else last]:
                buffer = self.pool.globals[operand.buffer]
                home = buffer.tile if home < 0 else home
                element = buffer.element.name
            else:
                address, item, element = self.local[operand.buffer]
                views.append((operand, address, item, layout.reach))
            parts.append(element)
            parts.append(layout.shape)
        return "memory" if name == "host" else name, home, varies

    def _way(self, home: int) -> tuple[int, int, int]:
        """Number and links (within chips, between them) of the way to a home, or to global memory for -1; (-1, 0, 0) if
        it is at home."""
        if home == self.number:
            return -1, 0, 0
        return self.pool.way(self.number, self.port if home < 0 else home)

    def _traffic(self, channels: Sequence[int], times: int, variant: int) -> None:
        """Note how many messages a send puts into its channels, and how small they can be."""
        smallest = min(self.pool.prices[c].job.bytes for c in self.pool.variant_cost[variant:])
        for channel in channels:
            known = self.pool.traffic.setdefault(channel, [0, 1 << 60])
            known[0] += times
            known[1] = min(known[1], smallest)

    # --- affine values --------------------------------------------------------------------------

    def _split(self, value: Affine) -> tuple[int, list[tuple[int, int]]]:
        """An affine value as a constant and factors of slots, with the parameters put in."""
        if not value.terms:
            return value.constant, []
        bound = self.pool.bound
        base = value.constant + sum(c * bound[v] for v, c in value.terms if v not in self.slots)
        return base, [(self.slots[v], c) for v, c in value.terms if v in self.slots]

    def _affine(self, base: int, terms: Sequence[tuple[int, int]]) -> int:
        """The number of an affine value in the tables."""
        pool = self.pool
        for slot, factor in terms:
            pool.terms.extend((slot, factor))
        pool.affine.extend((base, len(pool.terms) // 2 - len(terms)))
        return len(pool.affine) // 2 - 1

    def _reach(self, value: Affine) -> tuple[int, int]:
        """The least and the greatest value it can take."""
        base, terms = self._split(value)
        most = [(c * max(0, self.trips[s] - 1)) for s, c in terms]
        return base + sum(m for m in most if m < 0), base + sum(m for m in most if m > 0)

    # --- variants and ranges --------------------------------------------------------------------

    def _constant(self, step: Instruction, form: Form, key: tuple[object, ...], links: int) -> int:
        """Enter the one variant of an instruction whose extents do not change, and its ranges. Returns -1: no offset."""
        pool = self.pool
        cost = pool.cost_of.get((*key, *self.parts))
        if cost is None:
            cost = self._price(step, form, (*key, *self.parts), links, {})
        self._variant(cost)
        for flags, (view, address, item, reach) in zip(pool.flags[cost], self.views, strict=True):
            low, high = 0, EMPTY
            if reach is not None:
                base = address + item * (0 if view.offset.terms else view.offset.constant)
                low, high = base + item * reach[0], base + item * reach[1]
            pool.bounds.extend((low, high))
            if view.offset.terms:
                self._moving(flags, view, item, [(low, high)])
            else:
                pool.ranges.extend((0, flags, low, high, 1))
        return -1

    def _variant(self, cost: int) -> None:
        """Enter one variant of the row that comes next; its bounds follow."""
        pool, price = self.pool, self.pool.prices[cost]
        pool.variant_cost.append(cost)
        pool.variant_row.append(len(pool.instructions))
        job = price.job
        bounds = len(pool.bounds) // 2
        access = (price.request, price.response, bounds, job.busy, job.cores, price.cross, price.cross_back)
        pool.variants.extend((job.cycles, job.bytes, *access))

    def _moving(self, flags: int, view: View, item: int, bounds: Sequence[tuple[int, int]]) -> None:
        """Enter a range that is not the same at every execution, and where it can lie at all. ``bounds``: of the
        variants, from its offset."""
        base, terms = self._split(view.offset)
        offset = self._affine(base * item, [(s, c * item) for s, c in terms]) if view.offset.terms else 0
        least, greatest = self._reach(view.offset) if view.offset.terms else (0, 0)
        low, high = min(b[0] for b in bounds) + least * item, max(b[1] for b in bounds)
        high += greatest * item if high > EMPTY else 0
        self.pool.ranges.extend((offset, flags, low, high, int(len(bounds) == 1 and not terms)))

    def _varying(self, step: Instruction, form: Form, key: tuple[object, ...], links: int) -> int:
        """Enter the variants of an instruction whose extents depend on repeat variables or parameters, and its ranges.
        Returns the affine offset from the first variant, or -1."""
        pool = self.pool
        shapes = [o.shape for o in step.operands if isinstance(o, View)]
        used = {v for shape in shapes for e in shape if isinstance(e, Affine) for v, _ in e.terms}
        names = sorted(used & set(self.slots))
        trips = [max(1, self.trips[self.slots[n]]) for n in names]
        first, total = len(pool.variant_cost), int(np.prod(trips, dtype=np.float64))
        if first + total > MAX_VARIANTS:
            what = f"{step.mnemonic} in line {step.line} of tile {self.number}"
            raise errors.TIMING_TOO_LARGE(what=what, need=total, have=MAX_VARIANTS)
        bounds: list[list[tuple[int, int]]] = []
        for values in itertools.product(*(range(t) for t in trips)):
            env = {**pool.bound, **dict.fromkeys(self.slots, 0), **dict(zip(names, values, strict=True))}
            extents = tuple(tuple(extent(e, env) for e in shape) for shape in shapes)
            self._variant(self._price(step, form, (*key, *self.parts, extents), links, env))
            bounds.append([_bounds(view, address, item, env) for view, address, item, _ in self.views])
            for pair in bounds[-1]:
                pool.bounds.extend(pair)
        for i, flags in enumerate(pool.flags[pool.variant_cost[first]]):
            view, _, item, _ = self.views[i]
            self._moving(flags, view, item, [b[i] for b in bounds])
        if not names:
            return -1
        steps = [int(np.prod(trips[i + 1 :])) for i in range(len(trips))]
        return self._affine(0, [(self.slots[n], s) for n, s in zip(names, steps, strict=True)])

    def _price(self, step: Instruction, form: Form, key: tuple[object, ...], links: int, env: Mapping[str, int]) -> int:
        """The number of what an execution costs; made out if it is new. ``env`` may be empty if nothing depends on it."""
        found = self.pool.cost_of.get(key)
        if found is not None:
            return found
        full = env or {**self.pool.bound, **dict.fromkeys(self.slots, 0)}
        return self.pool.add_price(key, self.foreman.job(step, full), form, self.kind, links)


def _bounds(view: View, address: int, item: int, env: Mapping[str, int]) -> tuple[int, int]:
    """The bytes of a view for these values of the variables, without the part of its offset that moves."""
    low, high = span(View(view.buffer, Affine(), view.shape, view.strides), env)
    if high <= low:
        return 0, EMPTY
    base = address + item * (0 if view.offset.terms else view.offset.constant)
    return base + item * low, base + item * high


def _any_instruction(steps: Sequence[Step]) -> bool:
    return any(isinstance(s, Instruction) or _any_instruction(s.body) for s in steps)
