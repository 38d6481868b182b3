"""The order in which a tile issues what its stages do in one step.

Stages of a step work on different blocks, so their instructions may be mixed. A tile issues in order and holds few of them
back, so they are put in the order in which they would start if nothing but units and operands kept them (list scheduling,
those with the longest way to go behind them first, then the longest). Messages are taken in after what does not need them:
they were sent a step before, so there is most of a step for their way. Last comes what they bring for the same step.

What follows special functions in a stage, the scaling behind a norm, is done at the next step: within one step the unit for
vectors would wait for the special one's result, and that one, at the next step, for what stands in the vector unit's queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.codegen.fold import RING, Ring, When
from cimc.codegen.tilecode import TileCode
from cimc.isa.instruction import INSTRUCTIONS, LOCAL, Instruction, Kind, Repeat, Shape, Step, Unit
from cimc.isa.operands import View, static_shape

FAR = 4
"""Latencies of global memory that a load is taken to need: it has a way to go and others before it (estimated)."""

WORKING = (Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL)


@dataclass(frozen=True, slots=True)
class _Access:
    """Elements of a buffer that an instruction touches: at the same variable part of an offset, from the first to the last.
    ``depth``: how many blocks its ring keeps, if it goes to the place of one block there; else 0."""

    buffer: str
    writes: bool
    when: When
    terms: tuple[tuple[str, int], ...]
    low: int
    high: int
    depth: int

    def meets(self, other: _Access) -> bool:
        """Whether the order of the two matters."""
        if not (self.writes or other.writes):
            return False
        if self.terms != other.terms:
            return True
        if self.when != other.when:  # at one step, blocks as far apart as their stages
            return not self.depth or (self.when.start - other.when.start) % self.depth == 0
        return self.low < other.high and other.low < self.high


@dataclass(frozen=True, slots=True)
class _Item:
    """An instruction of a stage: the unit it takes and for how long, when what it makes is there, what it touches."""

    when: When
    index: int
    unit: str
    busy: int
    cycles: int
    touches: tuple[_Access, ...]


@dataclass(slots=True)
class _Node:
    """What is known of an item while it is put in order."""

    before: list[int] = field(default_factory=list[int])
    after: list[int] = field(default_factory=list[int])
    rest: int = 0  # cycles of the longest way from its end to an end


class Order:
    """Orders the stages of a tile, given by when they work; what it has ordered once it knows. ``rings``: what its buffers
    have become."""

    def __init__(
        self, stages: Mapping[When, Sequence[Step]], code: TileCode, chip: ChipSpec, rings: Mapping[str, Ring]
    ) -> None:
        costs = Costs(chip, code)
        self._items = {when: _items(when, steps, costs, rings) for when, steps in stages.items()}
        self._known: dict[tuple[When, ...], list[tuple[When, int]]] = {}

    def __call__(self, working: Sequence[When]) -> list[tuple[When, int]]:
        """What is done in a step in which these stages work, the later ones first: of which stage, and its place there."""
        key = tuple(working)
        if key not in self._known:
            items = [item for when in working for item in self._items[when]]
            late = _late(items)
            now = [item for i, item in enumerate(items) if i not in late]
            then = [item for i, item in enumerate(items) if i in late]
            self._known[key] = [(i.when, i.index) for i in (*_scheduled(now), *_scheduled(then))]
        return self._known[key]


def put_off(stages: dict[When, list[Step]], code: TileCode, chip: ChipSpec) -> None:
    """Move what follows special functions in a stage to the stage that begins a step later, with what it sends. That is then
    taken in at the same step: a tile comes to what it was to have done a step ago before it takes anything in. Stages of
    groups have their own steps (:mod:`cimc.codegen.heads`), and one stays as it is in which another special function follows."""
    costs = Costs(chip, code)
    moved: dict[When, list[Step]] = {}
    for when, steps in stages.items():
        if when.period == 1 and any(_unit(step) is Unit.SPECIAL for step in steps):
            items = _items(when, steps, costs, {})
            after = _following(items)
            if not any(items[i].unit in (Unit.SPECIAL.value, Unit.RECEIVE.value) for i in after):
                moved[replace(when, start=when.start + 1)] = [s for i, s in enumerate(steps) if i in after]
                stages[when] = [s for i, s in enumerate(steps) if i not in after]
    for when, steps in moved.items():  # before what takes it from there
        stages[when] = [*steps, *stages.get(when, ())]


def _unit(step: Step) -> Unit | None:
    return INSTRUCTIONS[step.mnemonic].unit if isinstance(step, Instruction) else None


def _following(items: Sequence[_Item]) -> set[int]:
    """What depends on special functions."""
    nodes = _nodes(items)
    found: set[int] = set()
    for i in range(len(items)):
        if any(k in found or items[k].unit == Unit.SPECIAL.value for k in nodes[i].before):
            found.add(i)
    return found


def _items(when: When, steps: Sequence[Step], costs: Costs, rings: Mapping[str, Ring]) -> list[_Item]:
    """The instructions of a stage."""
    found: list[_Item] = []
    for index, step in enumerate(steps):
        unit, busy, cycles = costs.of(step)
        found.append(_Item(when, index, unit, busy, cycles, tuple(_touches(when, step, rings))))
    return found


class Costs:
    """What instructions take of the units of a tile. ``known``: what those of its kind of tile have been found to take."""

    def __init__(self, chip: ChipSpec, code: TileCode, known: dict[Hashable, int] | None = None) -> None:
        self.chip, self.code = chip, code
        self.units = TileUnits(chip, code.tile)
        self.known: dict[Hashable, int] = {} if known is None else known

    def of(self, step: Step) -> tuple[str, int, int]:
        """Unit, cycles it is taken, cycles until the result is there; a repeat takes all units (an empty name)."""
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            cycles = step.count * sum(self.of(s)[2] for s in step.body)
            return "", cycles, cycles
        spec = INSTRUCTIONS[step.mnemonic]
        if spec.unit is Unit.CORE:
            name = next(o for o in step.operands if isinstance(o, str))
            shape = self._shapes(step)[-1]
            bits = 8 * shape.element.bytes
            busy = shape.rows * self.units.mvm_interval(bits)
            return f"core:{name}", busy, self.units.mvm_cycles(shape.rows, bits)
        if spec.unit in WORKING:
            cycles = self.worked(step)
            return spec.unit.value, cycles, cycles
        if spec.unit is Unit.MEMORY:
            return spec.unit.value, 1, FAR * self.chip.memory.latency_cycles
        size = sum(s.bytes for s in self._shapes(step))
        cycles = max(1, ceil(size / self.chip.noc.link_bytes_per_cycle))
        return spec.unit.value, cycles, cycles

    def worked(self, step: Instruction) -> int:
        """Cycles of an instruction of a vector, special or matmul unit."""
        shapes = self._shapes(step)
        key = (step.mnemonic, step.keywords, *[(s.extents, s.element) for s in shapes])
        found = self.known.get(key)
        if found is None:
            found = self.known[key] = self._counted(step, shapes)
        return found

    def _counted(self, step: Instruction, shapes: Sequence[Shape]) -> int:
        spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
        if spec.cycles is not None:
            return spec.cycles(self.units, *shapes, **words)
        return self.units.lane_cycles(spec.unit.value, spec.bill(self.units, *shapes, **words))

    def _shapes(self, step: Instruction) -> list[Shape]:
        """Shapes of the views of local buffers."""
        rooms = self.code.rooms
        return [
            Shape(static_shape(o), rooms[o.buffer].element)
            for o in step.operands
            if isinstance(o, View) and o.buffer in rooms
        ]


def _touches(when: When, step: Step, rings: Mapping[str, Ring]) -> Iterator[_Access]:
    """The local buffers that a step touches; of a repeat's, all of each."""
    if isinstance(step, Repeat):
        for inner in step.body:
            for access in _touches(when, inner, rings):
                yield _Access(access.buffer, access.writes, when, (("", 0),), 0, 1, 0)
        return
    spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
    for i, operand in enumerate(step.operands):
        kind = spec.access(i, words)
        if isinstance(operand, View) and kind in LOCAL:
            spans = [(n - 1) * s for n, s in zip(static_shape(operand), operand.strides, strict=True)]
            low = operand.offset.constant + sum(min(0, n) for n in spans)
            high = operand.offset.constant + sum(max(0, n) for n in spans) + 1
            terms = operand.offset.terms
            depth = _depth(when, rings.get(operand.buffer), [name for name, _ in terms])
            yield _Access(operand.buffer, kind is not Kind.READ, when, terms, low, high, depth)


def _depth(when: When, ring: Ring | None, names: Sequence[str]) -> int:
    """Blocks that a ring keeps, where a stage that does them one by one goes to the place of each; else 0."""
    alone = ring is not None and when.period == ring.group == 1 and not ring.rows
    return ring.depth if ring and alone and names == [ring.name(RING)] else 0


def _scheduled(items: Sequence[_Item]) -> list[_Item]:
    """Items in the order in which they start, if each starts as soon as its unit and its operands let it; of those that could
    start at once the one with the longest way to go when it has ended (Jackson's rule: Carlier, EJOR 11(1), 1982). What nothing
    waits for in this step, a long softmax, comes last on its unit, and runs on while the next step begins."""
    nodes = _nodes(items)
    waits = [len(node.before) for node in nodes]
    ready = [0] * len(items)
    free: dict[str, int] = {}
    heap = [(0, -node.rest, -items[i].cycles, i) for i, node in enumerate(nodes) if not node.before]
    heapq.heapify(heap)
    found: list[_Item] = []
    while heap:
        start, rest, long, i = heapq.heappop(heap)
        item = items[i]
        now = max(ready[i], free.get("", 0), free.get(item.unit, 0) if item.unit else max(free.values(), default=0))
        if now > start:
            heapq.heappush(heap, (now, rest, long, i))
            continue
        found.append(item)
        free[item.unit] = now + item.busy
        for k in nodes[i].after:
            ready[k] = max(ready[k], now + item.cycles)
            waits[k] -= 1
            if not waits[k]:
                heapq.heappush(heap, (ready[k], -nodes[k].rest, -items[k].cycles, k))
    return found


def _late(items: Sequence[_Item]) -> set[int]:
    """Messages that are taken in, and all that depends on them in the same step."""
    nodes = _nodes(items)
    found: set[int] = set()
    for i, item in enumerate(items):
        if item.unit == Unit.RECEIVE.value or not found.isdisjoint(nodes[i].before):
            found.add(i)
    return found


def _nodes(items: Sequence[_Item]) -> list[_Node]:
    """Who comes before whom: what touches the same elements, one of them writing."""
    nodes = [_Node() for _ in items]
    by_buffer: dict[str, list[tuple[int, _Access]]] = {}
    for i, item in enumerate(items):
        for access in item.touches:
            earlier = by_buffer.setdefault(access.buffer, [])
            for k, other in earlier:
                if k != i and access.meets(other) and (not nodes[i].before or nodes[i].before[-1] != k):
                    nodes[i].before.append(k)
            earlier.append((i, access))
        nodes[i].before = sorted(set(nodes[i].before))
        for k in nodes[i].before:
            nodes[k].after.append(i)
    for i in range(len(items) - 1, -1, -1):
        nodes[i].rest = max((items[k].cycles + nodes[k].rest for k in nodes[i].after), default=0)
    return nodes
