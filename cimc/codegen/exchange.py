"""Tiles of a STREAM segment change places until its links carry as evenly as can be found.

Matrices take tiles in the order of execution, and each vector stage the tile that seems best when its turn comes. What a
segment's tiles send each other is known when its code is drafted; some links then carry many times what others do, and set the
pace. Any two tiles of one kind can do each other's work, so pairs change places: at first also where that makes links
fuller, less and less so (simulated annealing), by the sum of fourth powers of what links carry: the fullest ones decide.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.codegen.context import Context
from cimc.codegen.pushed import TAG, takers
from cimc.codegen.spread import sent_to
from cimc.codegen.tilecode import TileCode
from cimc.isa.operands import View, static_shape
from cimc.isa.printer import executed
from cimc.mapping.lanes import INPUT_BITS
from cimc.mapping.mapping import Mapping as Placed
from cimc.mapping.mapping import Placement, Segment, Style
from cimc.mapping.segment import MATRIX_OPS, product

TRIALS, EACH = 1500, 50
"""Pairs that are tried for a segment at most, and for each of its tiles. As the numbers below the best of a few, by the fullest
links of MiniLM's and BERT-base's segments; twice as many trials find some percent more."""

PACE = 0.5
"""Links that carry less than this part of what the cores take do not set the pace, and tiles stay where they are (estimated)."""

HEAT, COOLING = 0.05, 6
"""How much worse a pair may make it at the beginning, as part of the fullest link's fourth power; the power of the part of all
trials that is left with which that falls."""

BASE = 0.1
"""What every link counts as carrying in any case, as part of the fullest one: so a way costs the more the longer it is."""

HOT = 0.8
"""Links that carry more than this part of the fullest: half of the pairs are drawn from those whose messages take one."""

NEAR = 2
"""A tile changes places with one of those nearest to it rather than with another: the power of a number drawn from 0 to 1, which
is its place among them by distance."""

WORTH = 2
"""Sending a head's operands as they are made may take the fullest link longer by so many times what they take on a link: beyond,
rows come later by more than attention begins earlier (of the layers of BERT-base and ViT-base on sram-digital, those with less
than 2 gain, those with more than 4 lose)."""

EVERY = 50
"""Trials after which the fullest links are looked for anew."""

MEMORY, BOUND = -1, -2
"""Global memory, as who sends or takes a message. Tile t as one that takes it wherever the segment's work is done: BOUND - t."""

Message = tuple[int, tuple[int, ...], int]  # tile that sends, tiles that take it, cycles of a link in all

Draft = Callable[[Segment], Context]
"""A segment's code alone."""


def exchanged(placed: Placed, chip: ChipSpec, draft: Draft) -> Placed:
    """The mapping with tiles of STREAM segments exchanged. Who loads or stores what stays in global memory stays where the
    way there is short."""
    placement = placed.placement
    if placement.reload is not None:
        return placed  # tiles of matrices that take turns are shared by many segments
    users = Counter(tile for s in placed.segments for tile in _matrix_tiles(placement, s))
    writing = bool(placement.written)
    for segment in placed.segments:
        if segment.style is not Style.STREAM:
            continue
        found = draft(segment)
        codes, graph = found.codes, found.graph
        values = {*graph.inputs, *found.outputs, *graph.constants}
        bound = {name for value, name in found.names.items() if value in values}
        alone = {t for t in _matrix_tiles(placement, segment) if users[t] == 1 and not writing}
        groups = [*_alike(chip, _vector_tiles(chip)), *_alike(chip, alone)]
        far = _moved_far(chip, codes, bound)
        messages, cells = _messages(chip, codes), _cells(placement, segment, chip)
        exchange = Exchange(chip, [*messages, *far], groups)
        moves = exchange.run() if exchange.fullest > PACE * cells else {}
        others = [m for m in messages if m[1][0] > BOUND]
        if exchange.fullest - max(exchange.without_bound, int(cells)) > WORTH * _operands(found, segment):
            exchange = Exchange(chip, [*others, *far], groups)
            moves = exchange.run() if exchange.fullest > PACE * cells else {}
            loading = (s.index for s in takers(found, segment) if sent_to(found, s))
            placement = replace(placement, loading=placement.loading.union(loading))
        placement = _moved(placement, segment, moves)
    return replace(placed, placement=placement)


def _operands(context: Context, segment: Segment) -> float:
    """Cycles that a link takes for the operands of a head that are sent to the tiles of the segments after this one, of one tile
    that gets most; no limit if none are."""
    sizes: Counter[int] = Counter()
    for push in dict.fromkeys(p for s in takers(context, segment) for p in sent_to(context, s).values()):
        sizes.update(dict.fromkeys(push.tiles, push.rows * push.cols * push.element.bytes))
    return max(sizes.values(), default=math.inf) / context.chip.noc.link_bytes_per_cycle


def _cells(placement: Placement, segment: Segment, chip: ChipSpec) -> float:
    """Cycles that the cores of each copy take for its share of the segment's rows."""
    copies = [placement.matrices[n.outputs[0]] for n in segment.nodes if n.op in MATRIX_OPS]
    interval = TileUnits(chip, copies[0][0].parts[0].tile).mvm_interval(INPUT_BITS)
    return segment.rows * interval / len(copies[0])


def _matrix_tiles(placement: Placement, segment: Segment) -> set[int]:
    copies = (m for n in segment.nodes if n.op in MATRIX_OPS for m in placement.matrices[n.outputs[0]])
    return {part.tile for copy in copies for part in copy.parts}


def _vector_tiles(chip: ChipSpec) -> set[int]:
    """Tiles that do vector work and hold no weights."""
    return {t for t in range(chip.tile_count) if chip.tile(t).vector is not None and not chip.tile(t).cores}


def _alike(chip: ChipSpec, tiles: Iterable[int]) -> list[list[int]]:
    """The tiles by kind and chip."""
    found: dict[tuple[str, int], list[int]] = {}
    for tile in sorted(tiles):
        found.setdefault((chip.kind(tile), chip.chip_of(tile)), []).append(tile)
    return list(found.values())


def _moved_far(chip: ChipSpec, codes: Mapping[int, TileCode], bound: Collection[str]) -> list[Message]:
    """What tiles load from global memory and store there, as messages of the port that is nearest: of arrays whose names
    are given."""
    found: Counter[tuple[int, int]] = Counter()
    for tile, code in codes.items():
        for step, times in executed(code.steps):
            views = [o for o in step.operands if isinstance(o, View)]
            if not any(v.buffer in bound and v.buffer not in code.rooms for v in views):
                continue
            local = [v for v in views if v.buffer in code.rooms]
            if local:
                size = product(static_shape(local[0])) * code.rooms[local[0].buffer].element.bytes
                way = (tile, MEMORY) if step.mnemonic == "store" else (MEMORY, tile)
                found[way] += times * noc.packet_cycles(chip, size)
    return [(source, (to,), cycles) for (source, to), cycles in found.items()]


def _messages(chip: ChipSpec, codes: Mapping[int, TileCode]) -> list[Message]:
    """What tiles send each other, that between the same tiles as one."""
    found: Counter[tuple[int, tuple[int, ...]]] = Counter()
    for tile, code in codes.items():
        for step, times in executed(code.steps):
            if step.mnemonic in ("send", "reduce"):
                to = dict(step.keywords)["to"]
                view, to, tag = step.operands[0], (to,) if isinstance(to, int) else to, dict(step.keywords)["tag"]
                assert isinstance(view, View)
                assert isinstance(to, tuple)
                assert isinstance(tag, int)
                if tag >= TAG:
                    to = tuple(BOUND - t for t in to)
                size = product(static_shape(view)) * code.rooms[view.buffer].element.bytes
                found[tile, to] += times * noc.packet_cycles(chip, size)
    return [(source, to, cycles) for (source, to), cycles in found.items()]


def _moved(placement: Placement, segment: Segment, moves: Mapping[int, int]) -> Placement:
    """A segment's work on the tiles that it moves to."""

    def at(tile: int) -> int:
        return moves.get(tile, tile)

    index = segment.index
    homes = {**placement.homes, index: tuple(tuple(tuple(map(at, s)) for s in r) for r in placement.homes[index])}
    beside = dict(placement.beside)
    if index in beside:
        beside[index] = tuple({at(tile): at(aside) for tile, aside in of.items()} for of in beside[index])
    matrices = dict(placement.matrices)
    for value in (n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS):
        parts = (tuple(replace(p, tile=at(p.tile)) for p in copy.parts) for copy in matrices[value])
        matrices[value] = tuple(replace(copy, parts=p) for copy, p in zip(matrices[value], parts, strict=True))
    return replace(placement, homes=homes, beside=beside, matrices=matrices)


@dataclass
class Exchange:
    """The search. ``groups``: tiles that may change places with each other. ``at``: where the work of a tile is done."""

    chip: ChipSpec
    messages: Sequence[Message]
    groups: Sequence[Sequence[int]]
    at: dict[int, int] = field(default_factory=dict[int, int])
    _base: int = 0
    load: defaultdict[int, int] = field(default_factory=lambda: defaultdict[int, int](int))

    def __post_init__(self) -> None:
        self._mesh = noc.mesh(self.chip)
        self.at.update((tile, BOUND - tile) for _, to, _ in self.messages for tile in to if tile <= BOUND)
        self._ports, self._near = noc.memory_ports(self.chip), dict[int, int]()
        self._work: dict[int, int] = {}
        self._around: dict[int, list[int]] = {}
        self._known: dict[tuple[int, int], frozenset[int]] = {}
        self._of: dict[int, list[int]] = {}
        for i, (source, to, _) in enumerate(self.messages):
            for tile in {source, *to} - {MEMORY}:
                self._of.setdefault(tile, []).append(i)
        self._ends = [frozenset(to) for _, to, _ in self.messages]
        self._uses = [self._counted(i) for i in range(len(self.messages))]
        for uses, (_, _, cycles) in zip(self._uses, self.messages, strict=True):
            for link in uses:
                self.load[link] += cycles

    @property
    def fullest(self) -> int:
        """Cycles that the fullest link is taken for."""
        return max(self.load.values(), default=0)

    @property
    def without_bound(self) -> int:
        """The same, if messages to tiles wherever the work is done were not sent."""
        load = Counter(self.load)
        for uses, (_, to, cycles) in zip(self._uses, self.messages, strict=True):
            for link in uses if to[0] <= BOUND else ():
                load[link] -= cycles
        return max(load.values(), default=0)

    def run(self) -> dict[int, int]:
        """Try pairs; where the work of each tile is done then, none if the fullest link carries no less for it."""
        from cimc.analog.rng import Streams  # with all of the physics: most compiles need none of it

        group = {tile: tiles for tiles in self.groups for tile in tiles if len(tiles) > 1}
        roles = hot = sorted(tile for tile in self._of if tile in group)
        trials = min(TRIALS, EACH * len(roles))
        if not trials:
            return {}
        before = top = self.fullest
        self._base = int(BASE * top)
        draws = Streams(0).generator("exchange").random((4, trials)).tolist()
        for n, (which, role, other, luck) in enumerate(zip(*draws, strict=True)):
            if n % EVERY == 0:
                top = self.fullest
                full = self._hot(HOT * top)
                hot = [tile for tile in roles if tile in full] or roles
            offered = hot if which < 0.5 else roles
            one = offered[int(role * len(offered))]
            near = self._nearest(group[one], self.at.get(one, one))
            two = self._work.get(to := near[int(other**NEAR * len(near))], to)
            heat = HEAT * top**4 * (1 - n / trials) ** COOLING
            if one != two:
                self._swap(one, two, -heat * math.log(max(luck, 1e-9)))
        moved = {tile: at for tile, at in self.at.items() if tile != at and tile >= 0}
        return moved if self.fullest < before else {}

    def _hot(self, least: float) -> set[int]:
        """The tiles whose messages take links that carry more than ``least``."""
        links = {link for link, cycles in self.load.items() if cycles > least}
        ends = (self.messages[i] for i, uses in enumerate(self._uses) if not links.isdisjoint(uses))
        return {tile for source, to, _ in ends for tile in (source, *to)}

    def _swap(self, one: int, two: int, most: float) -> None:
        """Let two tiles change places, if the sum of fourth powers grows by less than ``most``."""
        at, load, base = self.at, self.load, self._base
        here, there = at.get(one, one), at.get(two, two)
        at[one], at[two] = there, here
        change: dict[int, int] = {}
        fresh: dict[int, Counter[int]] = {}
        turned: list[tuple[int, frozenset[int], frozenset[int]]] = []
        for i in {*self._of.get(one, ()), *self._of.get(two, ())}:
            source, _, cycles = self.messages[i]
            ends, uses = self._ends[i], self._uses[i]
            if source in (one, two, MEMORY) or MEMORY in ends:
                new = fresh[i] = self._counted(i)
                _add(change, uses.keys() - new.keys(), -cycles)
                _add(change, new.keys() - uses.keys(), cycles)
            elif one not in ends or two not in ends:
                old, now = (here, there) if one in ends else (there, here)
                start = at.get(source, source)
                left, taken = self._links(start, old), self._links(start, now)
                turned.append((i, left, taken))
                _add(change, [link for link in left - taken if uses[link] == 1], -cycles)
                _add(change, [link for link in taken - left if link not in uses], cycles)
        if sum([(load[x] + base + by) ** 4 - (load[x] + base) ** 4 for x, by in change.items()]) >= most:
            at[one], at[two] = here, there
            return
        self._work[here], self._work[there] = two, one
        for link, by in change.items():
            load[link] += by
        for i, uses in fresh.items():
            self._uses[i] = uses
        for i, left, taken in turned:
            self._turn(i, left, taken)

    def _turn(self, number: int, left: Iterable[int], taken: Iterable[int]) -> None:
        """Let one of a message's ways take other links."""
        uses = self._uses[number]
        for link in taken:
            uses[link] += 1
        for link in left:
            uses[link] -= 1
            if not uses[link]:
                del uses[link]

    def _counted(self, number: int) -> Counter[int]:
        """The links of a message, and how many of its destinations lie behind each; a multicast takes shared ones once."""
        source, to, _ = self.messages[number]
        at = self.at
        if source == MEMORY:
            there = at.get(to[0], to[0])
            return Counter(self._links(self._port(there), there))
        here = at.get(source, source)
        if to[0] == MEMORY:
            return Counter(self._links(here, self._port(here)))
        return Counter(chain.from_iterable([self._links(here, at.get(tile, tile)) for tile in to]))

    def _nearest(self, tiles: Sequence[int], at: int) -> list[int]:
        """Some tiles by their distance from one of them."""
        if at not in self._around:
            self._around[at] = sorted(tiles, key=lambda tile: (noc.hops(self.chip, tile, at), tile))
        return self._around[at]

    def _port(self, tile: int) -> int:
        """The port of global memory for a tile."""
        if tile not in self._near:
            self._near[tile] = noc.nearest(self.chip, tile, self._ports)
        return self._near[tile]

    def _links(self, here: int, there: int) -> frozenset[int]:
        found = self._known.get((here, there))
        if found is None:
            found = self._known[here, there] = frozenset(noc.way(self._mesh, here, there))
        return found


def _add(to: dict[int, int], links: Iterable[int], cycles: int) -> None:
    for link in links:
        to[link] = to.get(link, 0) + cycles
