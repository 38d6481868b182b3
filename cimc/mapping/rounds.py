"""More weights than cells: what stays in its cores for good, and what takes turns on the rest.

An inference uses the matrices in the same order each time. Of a cyclic order, any that stay are as good as others: the rest
is written once per inference whatever it is (Belady's rule on a cycle). So the chip is cut in two: tiles whose matrices
stay, and a *pool* that the others go round in, each taking the place of the one that was used longest ago. The larger the
pool, the earlier a matrix can be written, behind the work of those before it; and the more matrices are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Node
from cimc.mapping.chips import snake
from cimc.mapping.placement import PlacedMatrix, Placement, Reload, Segment
from cimc.mapping.reload_time import estimate
from cimc.mapping.ring import Grid, Item, Ring, by_segment
from cimc.mapping.staging import Staging

SIZES = 12
"""Steps in which the pool grows from the fewest tiles to all; every size is placed, to be estimated."""

NEARLY = 1.02
"""Of the plans that take at most so much longer than the fastest, the one that writes least is chosen: the estimate is no
better than that, and cells wear out."""

COPIES = (1, 2, 3, 4, 6, 8)
"""Numbers of copies of all weights that are tried."""

WORTH = 1.05
"""Copies are made if without them a run takes so many times as long by the estimate, which knows nothing of vector work."""


class Placer(Protocol):
    """What places the rest (:mod:`cimc.mapping.place`)."""

    chip: ChipSpec
    staging: Staging

    def mvms(self) -> list[tuple[Segment, Node]]:
        """The static matmuls with their segments."""
        ...

    def grid(self, node: Node) -> Grid:
        """A static matmul's weights, cut into blocks."""
        ...

    def replicas(self, wanted: int) -> dict[int, int]:
        """Copies of each segment."""
        ...

    def weight_tiles(self) -> list[int]:
        """Tiles with cores that weights may be on."""
        ...

    def most_copies(self, segment: Segment) -> int:
        """Copies of a segment at most whose vector stages have tiles of their own."""
        ...

    def homes(
        self, replicas: Mapping[int, int], matrices: Mapping[str, tuple[PlacedMatrix, ...]]
    ) -> dict[int, tuple[tuple[tuple[int, ...], ...], ...]]:
        """Tiles of the vector stages."""
        ...

    def tiles(self, matrices: Mapping[str, tuple[PlacedMatrix, ...]]) -> dict[int, tuple[int, ...]]:
        """Tiles of the segments without static matmuls."""
        ...


def in_turns(placer: Placer, precision: str, pool: int | None, copies: int | None = None) -> Placement:
    """Tiles and cores for everything, weights that find no core written during the run. ``pool``: the cores they take turns
    on, ``copies``: of every segment's weights, where a user says it. Raises the does-not-fit diagnostic for a layer that has
    more weights than the chip, and what is wrong with hardware that does not say what writing takes."""
    chip, nodes = placer.chip, {n.outputs[0]: n for _, n in placer.mvms()}
    _writable(chip)
    items = [
        Item(s.index, placer.staging.stages[n.outputs[0]], n.outputs[0], n.inputs[1], s.rows, placer.grid(n))
        for s, n in placer.mvms()
    ]
    tiles = snake(chip, placer.weight_tiles())
    numbers = _numbers(placer, copies)
    found = plan(items, tiles, chip, precision, pool, lambda value: placer.grid(nodes[value]), numbers)
    if found is None and pool is not None:
        why, fix = "the matrices of one segment do not fit into so few cores", "pool=auto, or more cores"
        raise errors.MAPPING_CHOICE(text=f"pool={pool}", why=why, fix=fix)
    if found is None:
        most = max(items, key=lambda i: i.blocks)
        have = len(tiles) * chip.tile(tiles[0]).cores
        raise errors.RELOAD_TOO_LARGE(layer=nodes[most.value].origin, need=most.blocks, chip=chip.name, have=have)
    homes = placer.homes(found.copies, found.matrices)
    tiles = placer.tiles(found.matrices)
    of = placer.staging
    return Placement(found.matrices, homes, of.stages, of.shards, of.reads, tiles, reload=found.reload)


def _numbers(placer: Placer, copies: int | None) -> list[dict[int, int]]:
    """The numbers of copies that are tried, by segment: so many of each, as far as they have tiles for their vector work."""
    segments = {s.index: s for s, _ in placer.mvms()}
    found: list[dict[int, int]] = []
    for wanted in COPIES if copies is None else (copies,):
        able = {i: min(wanted, placer.most_copies(s)) if copies is None else wanted for i, s in segments.items()}
        numbers = {i: placer.replicas(n)[i] for i, n in able.items()}
        if numbers not in found:
            found.append(numbers)
    return found


def _writable(chip: ChipSpec) -> None:
    """Refuse hardware that does not say what it takes to write cells."""
    for core in (t.core for t in chip.tiles.values() if t.core is not None):
        missing = [] if core.write_row_ns else ["write_row_ns"]
        missing += [] if "cell.write" in chip.costs.energy_pj else ["cell.write energy"]
        if missing:
            raise errors.RELOAD_HARDWARE(chip=chip.name, what=" and no ".join(missing))


@dataclass(frozen=True)
class Plan:
    """Where everything goes. ``cycles``: estimated, of the products alone, with what they wait for their weights."""

    matrices: dict[str, tuple[PlacedMatrix, ...]]
    reload: Reload
    cycles: int
    copies: dict[int, int]


class Grids(Protocol):
    """Makes grids."""

    def __call__(self, value: str) -> Grid:
        """The grid of a matmul's weights, nothing of it placed."""
        ...


@dataclass(frozen=True)
class _How:
    """What all plans have in common. ``fresh``: makes the grid of an item anew."""

    items: Sequence[Item]
    tiles: Sequence[int]
    chip: ChipSpec
    precision: str
    fresh: Grids


def plan(
    items: Sequence[Item],
    tiles: Sequence[int],
    chip: ChipSpec,
    precision: str,
    pool: int | None,
    fresh: Grids,
    copies: Sequence[Mapping[int, int]],
) -> Plan | None:
    """The best plan that was found for cores in the order of ``tiles``; None if there is none: some segment has more weights
    than the chip. ``pool``: its size in cores, where a user says it. ``fresh``: makes the grid of an item anew. ``copies``:
    numbers of copies of the segments to try."""
    how = _How(items, tiles, chip, precision, fresh)
    found = [p for p in _plans(how, pool, copies, tight=False) if p is not None]
    found = found or [p for p in _plans(how, pool, copies[:1], tight=True) if p is not None]
    if not found:
        return None
    single = [p for p in found if max(p.copies.values()) == max(copies[0].values())]
    if single and min(p.cycles for p in single) < WORTH * min(p.cycles for p in found):
        found = single
    fastest = min(p.cycles for p in found)
    best = min((p for p in found if p.cycles <= NEARLY * fastest), key=lambda p: p.reload.cell_writes)
    sizes: dict[int, Plan] = {}
    for p in found:
        known = sizes.get(p.reload.pool)
        sizes[p.reload.pool] = p if known is None or p.cycles < known.cycles else known
    considered = tuple((p.reload.pool, p.reload.cell_writes, p.cycles) for _, p in sorted(sizes.items()))
    return replace(best, reload=replace(best.reload, considered=considered))


def _plans(how: _How, pool: int | None, copies: Sequence[Mapping[int, int]], *, tight: bool) -> Iterator[Plan | None]:
    tiles = how.tiles
    capacity = how.chip.tile(tiles[0]).cores
    largest = max(item.blocks for item in how.items)
    least = max(1, ceil(largest / capacity))
    sizes = {least + round((len(tiles) - least) * k / SIZES) for k in range(SIZES + 1)}
    wanted = sizes if pool is None else {min(len(tiles), max(least, ceil(pool / capacity)))}
    for size in sorted(n for n in wanted if 1 <= n <= len(tiles)):
        for numbers in copies:
            for even in (True, False):
                for apart in (False,) if tight else (True, False):
                    yield _Trial(how, size, numbers, even=even, apart=apart, tight=tight).place()


class _Trial:
    """One way to place everything: a pool of the last ``size`` tiles, so many ``copies`` of each segment as find room.
    ``even``: of every segment but the first some matrices stay, rather than all of the first segments. ``apart``: in the
    pool, every stage begins on a tile of its own. ``tight``: no core is left free, wherever a column of blocks then is."""

    def __init__(
        self, how: _How, size: int, copies: Mapping[int, int], *, even: bool, apart: bool, tight: bool
    ) -> None:
        self.how, self.copies = how, copies
        self.even, self.apart = even, apart
        capacity = how.chip.tile(how.tiles[0]).cores
        self.stay = Ring(how.tiles[: len(how.tiles) - size], capacity, False, tight)
        self.pool = Ring(how.tiles[len(how.tiles) - size :], capacity, True, tight)
        need = sum(item.blocks * copies[item.segment] for item in how.items)
        self.share = 1 - min(1.0, len(self.stay.tiles) * capacity / need)
        self.moved = self.due = 0.0
        self.grids: dict[str, tuple[Grid, ...]] = {}
        self.turning: set[str] = set()

    def place(self) -> Plan | None:
        """Everything on tiles; None if the pool has no room for one copy of some segment."""
        self.stay.begin()
        for members in by_segment(self.how.items):
            wanted = self.copies[members[0].segment]
            if not self._tried(members, wanted) and (wanted == 1 or not self._tried(members, 1)):
                return None
        return self._plan()

    def _tried(self, members: Sequence[Item], count: int) -> bool:
        """So many copies of a segment; nothing if they find no room."""
        before = self.stay.mark, self.pool.mark, self.moved, self.due
        self.pool.begin()
        done = [self._copy(members, copy) for copy in range(count)]
        if all(grids is not None for grids in done):
            placed = [grids for grids in done if grids is not None]
            self.grids |= {m.value: tuple(grids[m.value] for grids in placed) for m in members}
            return True
        self.stay.mark, self.pool.mark, self.moved, self.due = before
        self.turning -= {m.value for m in members}
        return False

    def _copy(self, members: Sequence[Item], copy: int) -> dict[str, Grid] | None:
        """One copy of a segment, on other tiles than the copies before: on one tile they would wait for each other."""
        if copy and not all(ring.next_tile() for ring in self._rings(members)):
            return None
        found: dict[str, Grid] = {}
        stage = -1
        for item in members:
            grid = found[item.value] = self.how.fresh(item.value)
            self.due += item.blocks * self.share
            if self._stays(item, grid, copy):
                continue
            if (copy and item.value not in self.turning) or not self._turns(grid, item.stage != stage):
                return None
            stage = item.stage
            self.moved += item.blocks
            self.turning.add(item.value)
        return found

    def _rings(self, members: Sequence[Item]) -> list[Ring]:
        """Where a segment's matrices are."""
        turning = [m.value in self.turning for m in members]
        return [ring for ring, there in ((self.stay, not all(turning)), (self.pool, any(turning))) if there]

    def _stays(self, item: Item, grid: Grid, copy: int) -> bool:
        """Whether a matrix finds room to stay; as a further copy, if the first one did."""
        if copy:
            return item.value not in self.turning and self.stay.fill(grid)
        turn = self.even and item.segment != self.how.items[0].segment and self.moved + item.blocks / 2 <= self.due
        return bool(self.stay.tiles) and not turn and self.stay.fill(grid)

    def _turns(self, grid: Grid, fresh: bool) -> bool:
        """Whether a matrix finds room in the pool. ``fresh``: it begins a stage."""
        if self.apart and fresh and self.pool.used and not self.pool.next_tile():
            return False
        return self.pool.fill(grid)

    def _plan(self) -> Plan:
        items, chip = self.how.items, self.how.chip
        placed = {
            i.value: tuple(
                PlacedMatrix(i.value, k, i.weight, grid.rows, grid.cols, self.how.precision, tuple(grid.parts))
                for k, grid in enumerate(self.grids[i.value])
            )
            for i in items
        }
        turning = frozenset(self.turning)
        times: dict[int, list[int]] = {}  # by tile: how often each core is written
        for part in (p for v in sorted(turning) for m in placed[v] for p in m.parts):
            found = times.get(part.tile) or times.setdefault(part.tile, [0] * self.pool.capacity)
            for block in part.blocks:
                found[block.core] += 1
        weights = sum(m.rows * m.cols for v in turning for m in placed[v])
        core = chip.tile(self.pool.tiles[0]).core
        pulses = core.crossbars * core.verify_iterations if core else 0
        size = len(self.pool.tiles) * self.pool.capacity
        rounds = max(map(max, times.values()), default=0)
        copies = {i.segment: len(placed[i.value]) for i in items}
        reload = Reload(turning, size, rounds, weights * pulses, weights)
        return Plan(placed, reload, estimate(items, placed, turning, chip), copies)
