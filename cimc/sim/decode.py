"""One tile's stream as rows of the flat tables."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np

from cimc import errors
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.isa.program import TileProgram
from cimc.sim import noc
from cimc.sim.job import Action, Foreman, destinations, number, span
from cimc.sim.pool import Form, Pool
from cimc.sim.tables import EMPTY, END, LOOP, NEXT, R_TARGET, ROW_COLUMNS

MAX_VARIANTS = 1 << 20
OUTSIDE = ""  # the layer of instructions without an origin
VARIES = "varies"
Local = tuple[View, int, int]  # a view of a local buffer, the buffer's address, bytes of an element


class Decoder:
    """Decodes one tile; :meth:`rows` enters its rows into the pool's tables."""

    def __init__(self, pool: Pool, index: int, tile: TileProgram) -> None:
        self.pool, self.index, self.number, self.tile = pool, index, tile.tile, tile
        self.kind = pool.chip.kind(tile.tile)
        self.local = {b.name: (b.address, b.element.bytes, b.element.name) for b in tile.buffers}
        self.matrices = {m.name: pool.matrix(m) for m in tile.matrices}
        self.units: dict[str, int] = {}
        self.slots: dict[str, int] = {}  # of the repeat variables in scope
        self.trips: list[int] = []  # per slot: the most there can be

    @cached_property
    def foreman(self) -> Foreman:
        """Makes out the jobs that have not been seen."""
        return Foreman(self.pool.program, self.tile, self.pool.chip)

    @cached_property
    def port(self) -> int:
        """The tile through which this one reaches global memory."""
        return noc.nearest(self.pool.chip, self.number, self.pool.ports)

    def rows(self) -> None:
        """Decode the tile's stream."""
        self._steps(self.tile.steps, 1)
        self._row(int(END))

    # --- rows -----------------------------------------------------------------------------------

    def _row(
        self,
        op: int,
        instruction: Instruction | None = None,
        loop: tuple[int, int, int] = (0, 0, 0),
        unit: tuple[int, int] = (0, 0),
        where: tuple[int, int, int] = (0, 0, 0),
        variant: tuple[int, int] = (0, -1),
        ranges: int = -1,
        send: tuple[int, int, int, int] = (0, 0, 0, 0),
    ) -> int:
        """Enter a row; its index. ``loop``: slot, target, trips; ``unit``: its number, whether it waits for everything;
        ``where``: channel, way, server."""
        pool = self.pool
        first = len(pool.ranges) // 5 if ranges < 0 else ranges
        pool.rows.extend((op, *loop, *unit, *where, *variant, first, *send))
        pool.instructions.append(instruction)
        pool.row_tile.append(self.index)
        layer = instruction.origin.node if instruction is not None and instruction.origin else OUTSIDE
        pool.row_layer.append(pool.layers.setdefault(layer, len(pool.layers)))
        return len(pool.instructions) - 1

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
        begin = self._row(LOOP, loop=(slot, 0, trips))
        self.trips.append(max(0, most))
        outer = self.slots
        self.slots = {**outer, step.variable: slot}
        self._steps(step.body, times * max(0, most))
        self.slots = outer
        end = self._row(NEXT, loop=(slot, begin + 1, 0))
        self.pool.rows[begin * ROW_COLUMNS + R_TARGET] = end + 1

    def _instruction(self, step: Instruction, times: int) -> None:
        form = self.pool.forms.get(step.mnemonic)
        if form is None:
            form = self.pool.forms[step.mnemonic] = Form.of(step)
        parts, views, name, home, varies = self._operands(step, form)
        kind = form.action
        channel = way = server = links = 0
        send = (0, 0, 0, 0)
        channels: tuple[int, ...] = ()
        if kind is Action.SEND:
            route = self.pool.route(self.number, destinations(step), number(step, "tag"), form.token)
            send, links, channels = (
                (route.dest, route.dest_end, route.tree, route.tree_end),
                route.links,
                route.channels,
            )
        elif kind is Action.RECEIVE or kind is Action.WAIT:
            channel = self.pool.channel(number(step, "source"), self.number, number(step, "tag"), form.token)
        elif kind is Action.MEMORY:
            way, links = self._way(home)
            server = self.pool.servers.setdefault(home, len(self.pool.servers))
        words = step.keywords if form.words else ()
        key = (self.kind, kind, step.mnemonic, words, links, home >= 0)
        first = len(self.pool.ranges) // 5
        variant = self._variants(step, form, key, parts, views, varies, links)
        for c in channels:
            self._traffic(c, times, variant[0])
        self._row(
            int(kind),
            step,
            unit=(self._unit(name), int(kind is Action.HOST or (kind is Action.SEND and form.token))),
            where=(channel, way, server),
            variant=variant,
            ranges=first,
            send=send,
        )

    def _operands(self, step: Instruction, form: Form) -> tuple[list[object], list[Local], str, int, bool]:
        """What the cost depends on, the local views, the unit, the home of a global operand, whether extents vary."""
        parts: list[object] = []
        views: list[Local] = []
        name, home, varies = form.unit, -1, False
        last = len(form.shared) - 1
        for i, operand in enumerate(step.operands):
            if isinstance(operand, str):
                parts.append(self.matrices[operand])
                name = f"core:{operand}" if form.unit == "core" and name == form.unit else name
                continue
            if form.shared[i if i < last else last]:
                buffer = self.pool.globals[operand.buffer]
                element, home = buffer.element.name, buffer.tile if home < 0 else home
            else:
                address, item, element = self.local[operand.buffer]
                views.append((operand, address, item))
            varies = varies or self.pool.reach(operand) == VARIES
            parts.append(element)
            parts.append(operand.shape)
        return parts, views, "memory" if name == "host" else name, home, varies

    def _unit(self, name: str) -> int:
        return self.units.setdefault(name, len(self.units))

    def _way(self, home: int) -> tuple[int, int]:
        """Number and links of the way to a home, or to global memory for -1; (-1, 0) if it is at home."""
        if home == self.number:
            return -1, 0
        return self.pool.way(self.number, self.port if home < 0 else home)

    def _traffic(self, channel: int, times: int, variant: int) -> None:
        """Note how many messages a send puts into a channel, and how small they can be."""
        sizes = [self.pool.prices[c].job.bytes for c in self.pool.variant_cost[variant:]]
        known = self.pool.traffic.setdefault(channel, [0, 1 << 60])
        known[0] += times
        known[1] = min(known[1], *sizes)

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

    def _variants(
        self,
        step: Instruction,
        form: Form,
        key: tuple[object, ...],
        parts: list[object],
        views: list[Local],
        varies: bool,
        links: int,
    ) -> tuple[int, int]:
        """Enter what a row's executions cost and which bytes they touch: first variant, affine offset from it."""
        pool = self.pool
        first = len(pool.variant_cost)
        if not varies:
            cost = self._cost(step, form, (*key, *parts), links, {})
            offset, fixed = -1, True
            spans = [[self._span(view, address, item, pool.reach(view)) for view, address, item in views]]
            self._variant(cost, spans[0])
        else:
            offset, spans = self._varying(step, form, key, views, links)
            cost, fixed = pool.variant_cost[first], len(spans) == 1
        for i, (flags, (view, _, item)) in enumerate(zip(pool.flags[cost], views, strict=True)):
            self._range(flags, view, item, [s[i] for s in spans], fixed)
        return first, offset

    def _span(self, view: View, address: int, item: int, reach: object) -> tuple[int, int]:
        """The bytes of a view, without the part of its offset that moves."""
        if not isinstance(reach, tuple):
            return 0, EMPTY
        low, high = reach
        base = address + item * (0 if view.offset.terms else view.offset.constant)
        return base + low * item, base + high * item

    def _range(self, flags: int, view: View, item: int, spans: list[tuple[int, int]], fixed: bool) -> None:
        """Enter a range: where it can lie at all."""
        low, high = min(s[0] for s in spans), max(s[1] for s in spans)
        offset = 0
        if view.offset.terms:
            base, terms = self._split(view.offset)
            offset = self._affine(base * item, [(s, c * item) for s, c in terms])
            least, greatest = self._reach(view.offset)
            low, high = low + least * item, high + greatest * item if high > EMPTY else high
            fixed = fixed and not terms
        self.pool.ranges.extend((offset, flags, low, high, int(fixed)))

    def _variant(self, cost: int, spans: Sequence[tuple[int, int]]) -> None:
        """Enter one variant of the row that comes next."""
        pool, made = self.pool, self.pool.prices[cost]
        job = made.job
        pool.variant_cost.append(cost)
        pool.variant_row.append(len(pool.instructions))
        bounds = len(pool.bounds) // 2
        pool.variants.extend((job.cycles, job.bytes, made.request, made.response, bounds, job.busy, job.cores))
        for pair in spans:
            pool.bounds.extend(pair)

    def _varying(
        self, step: Instruction, form: Form, key: tuple[object, ...], views: list[Local], links: int
    ) -> tuple[int, list[list[tuple[int, int]]]]:
        """Variants of an instruction whose extents depend on repeat variables or parameters, each of which has its own."""
        shapes = [o.shape for o in step.operands if isinstance(o, View)]
        used = {v for shape in shapes for e in shape if isinstance(e, Affine) for v, _ in e.terms}
        names = sorted(used & set(self.slots))
        trips = [max(1, self.trips[self.slots[n]]) for n in names]
        first, total = len(self.pool.variant_cost), int(np.prod(trips, dtype=np.float64))
        if first + total > MAX_VARIANTS:
            what = f"{step.mnemonic} in line {step.line} of tile {self.number}"
            raise errors.TIMING_TOO_LARGE(what=what, need=total, have=MAX_VARIANTS)
        spans: list[list[tuple[int, int]]] = []
        for values in itertools.product(*(range(t) for t in trips)):
            env = {**self.pool.bound, **dict.fromkeys(self.slots, 0), **dict(zip(names, values, strict=True))}
            parts = [self._part(o, env) for o in step.operands]
            cost = self._cost(step, form, (*key, VARIES, *parts), links, env)
            here = [self._span(v, address, item, _reach_in(v, env)) for v, address, item in views]
            self._variant(cost, here)
            spans.append(here)
        if not names:
            return -1, spans
        steps = [int(np.prod(trips[i + 1 :])) for i in range(len(trips))]
        return self._affine(0, [(self.slots[n], s) for n, s in zip(names, steps, strict=True)]), spans

    def _part(self, operand: View | str, env: Mapping[str, int]) -> object:
        """What the cost depends on in an operand, for these values of the variables."""
        if isinstance(operand, str):
            return self.matrices[operand]
        shape = tuple(max(0, e.evaluate(env)) if isinstance(e, Affine) else e for e in operand.shape)
        element = self.local[operand.buffer][2] if operand.buffer in self.local else ""
        return (
            shape,
            element,
            self.pool.globals[operand.buffer].element.name if operand.buffer in self.pool.globals else "",
        )

    def _cost(self, step: Instruction, form: Form, key: tuple[object, ...], links: int, env: Mapping[str, int]) -> int:
        """The number of what an execution costs."""
        found = self.pool.cost_of.get(key)
        if found is not None:
            return found
        full = env or {**self.pool.bound, **dict.fromkeys(self.slots, 0)}
        return self.pool.add_cost(key, self.foreman.job(step, full), form, self.kind, links)


def _reach_in(view: View, env: Mapping[str, int]) -> object:
    """The elements a view spans from its offset, for these values of the variables."""
    low, high = span(View(view.buffer, Affine(), view.shape, view.strides), env)
    return (low, high) if high > low else None


def _any_instruction(steps: Sequence[Step]) -> bool:
    return any(isinstance(s, Instruction) or _any_instruction(s.body) for s in steps)
