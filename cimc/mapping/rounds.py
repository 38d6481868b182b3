"""More weights than cells: what stays in its cores for good, and what takes turns on the rest.

An inference uses the matrices in the same order each time. Of a cyclic order, any that stay are as good as others: the rest
is written once per inference whatever it is (Belady's rule on a cycle). So the chip is cut in two: tiles whose matrices
stay, and a *pool* that the others go round in, each taking the place of the one that was used longest ago. The larger the
pool, the earlier a matrix can be written, behind the work of those before it; and the more matrices are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Protocol

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Node
from cimc.mapping.chips import snake
from cimc.mapping.mapping import Part, PlacedMatrix, Placement, Reload, Segment

SIZES = 12
"""Sizes of the pool that are tried."""

NEARLY = 1.02
"""Of the plans that take at most so much longer than the fastest, the one that writes least is chosen."""

WIDE = 2
"""A pool of so many segments leaves room for the stages of one to begin on tiles of their own."""


class Grid(Protocol):
    """A weight matrix cut into blocks (:mod:`cimc.mapping.place`)."""

    rows: int
    cols: int
    parts: list[Part]

    @property
    def down(self) -> int:
        """Blocks over each other."""
        ...

    @property
    def across(self) -> int:
        """Blocks side by side."""
        ...

    def put(self, tile: int, core: int, r: range, c: range) -> None:
        """Blocks r × c on the tile's cores from ``core`` on."""
        ...


class Placer(Protocol):
    """What places the rest (:mod:`cimc.mapping.place`)."""

    chip: ChipSpec
    stages: dict[str, int]
    shards: dict[str, str]
    reads: dict[str, tuple[str, ...]]

    def mvms(self) -> list[tuple[Segment, Node]]:
        """The static matmuls with their segments."""
        ...

    def grid(self, node: Node) -> Grid:
        """A static matmul's weights, cut into blocks."""
        ...

    def replicas(self, wanted: int) -> dict[int, int]:
        """Copies of each segment."""
        ...

    def homes(
        self, replicas: Mapping[int, int], matrices: Mapping[str, tuple[PlacedMatrix, ...]]
    ) -> dict[int, tuple[tuple[tuple[int, ...], ...], ...]]:
        """Tiles of the vector stages."""
        ...

    def tiles(self, matrices: Mapping[str, tuple[PlacedMatrix, ...]]) -> dict[int, tuple[int, ...]]:
        """Tiles of the segments without static matmuls."""
        ...


def in_turns(placer: Placer, precision: str, pool: int | None) -> Placement:
    """Tiles and cores for everything, weights that find no core written during the run. ``pool``: the cores they take turns
    on, where a user says it. Raises the does-not-fit diagnostic for a layer that has more weights than the chip, and what
    is wrong with hardware that does not say what writing takes."""
    chip, nodes = placer.chip, {n.outputs[0]: n for _, n in placer.mvms()}
    _writable(chip)
    items = [
        Item(s.index, placer.stages[n.outputs[0]], n.outputs[0], n.inputs[1], s.rows, placer.grid(n))
        for s, n in placer.mvms()
    ]
    tiles = snake(chip, [t for t in range(chip.tile_count) if chip.tile(t).cores])
    found = plan(items, tiles, chip, precision, pool, lambda value: placer.grid(nodes[value]))
    if found is None and pool is not None:
        why, fix = "the matrices of one segment do not fit into so few cores", "pool=auto, or more cores"
        raise errors.MAPPING_CHOICE(text=f"pool={pool}", why=why, fix=fix)
    if found is None:
        most = max(items, key=lambda i: i.blocks)
        have = sum(chip.tile(t).cores for t in tiles)
        raise errors.RELOAD_TOO_LARGE(layer=nodes[most.value].origin, need=most.blocks, chip=chip.name, have=have)
    matrices = {value: (matrix,) for value, matrix in found.matrices.items()}
    homes = placer.homes(placer.replicas(1), matrices)
    tiles = placer.tiles(matrices)
    return Placement(matrices, homes, placer.stages, placer.shards, placer.reads, tiles, reload=found.reload)


def _writable(chip: ChipSpec) -> None:
    """Refuse hardware that does not say what it takes to write cells."""
    for core in (t.core for t in chip.tiles.values() if t.core is not None):
        missing = [] if core.write_row_ns else ["write_row_ns"]
        missing += [] if "cell.write" in chip.costs.energy_pj else ["cell.write energy"]
        if missing:
            raise errors.RELOAD_HARDWARE(chip=chip.name, what=" and no ".join(missing))


@dataclass(frozen=True)
class Item:
    """A static matmul, in the order of execution. ``rows`` of its segment go through it."""

    segment: int
    stage: int
    value: str
    weight: str
    rows: int
    grid: Grid

    @property
    def blocks(self) -> int:
        """Cores it takes."""
        return self.grid.down * self.grid.across


@dataclass(frozen=True)
class Plan:
    """Where everything goes. ``cycles``: estimated, of the products alone, with what they wait for their weights."""

    matrices: dict[str, PlacedMatrix]
    reload: Reload
    cycles: int


@dataclass
class Ring:
    """Tiles whose cores are taken one after the other; ``round``: from the last one on to the first again."""

    tiles: Sequence[int]
    capacity: int
    round: bool
    at: int = 0
    used: int = 0
    passed: int = 0  # tiles gone through since a segment began

    @property
    def free(self) -> int:
        """Cores left on the tile."""
        return self.capacity - self.used if self.tiles else 0

    def begin(self) -> None:
        """A new segment, whose matrices must not take each other's place."""
        self.passed = 1

    def next_tile(self) -> bool:
        """Go on to the next tile; False if there is none, or the segment is on it already."""
        if self.passed >= len(self.tiles) or (not self.round and self.at + 1 >= len(self.tiles)):
            return False
        self.at = (self.at + 1) % len(self.tiles)
        self.used = 0
        self.passed += self.round
        return True

    def fill(self, grid: Grid) -> bool:
        """Place a grid, column by column: columns that fit a tile stay on one. False if there is no room for all of it;
        nothing is placed then."""
        before = (self.at, self.used, self.passed)
        column = 0
        while column < grid.across:
            placed = self._columns(grid, column)
            if not placed:
                grid.parts.clear()
                self.at, self.used, self.passed = before
                return False
            column += placed
        return True

    def _columns(self, grid: Grid, column: int) -> int:
        if grid.down <= self.capacity and grid.down > self.free and not self.next_tile():
            return 0
        if grid.down <= self.free:
            count = min(self.free // grid.down, grid.across - column)
            grid.put(self.tiles[self.at], self.used, range(grid.down), range(column, column + count))
            self.used += count * grid.down
            return count
        row = 0
        while row < grid.down:
            if not self.free and not self.next_tile():
                return 0
            count = min(self.free, grid.down - row)
            grid.put(self.tiles[self.at], self.used, range(row, row + count), range(column, column + 1))
            self.used += count
            row += count
        return 1


def plan(
    items: Sequence[Item], tiles: Sequence[int], chip: ChipSpec, precision: str, pool: int | None, fresh: Grids
) -> Plan | None:
    """The best plan that was found for cores in the order of ``tiles``; None if there is none: some segment has more weights
    than the chip. ``pool``: its size in cores, where a user says it. ``fresh``: makes the grid of an item anew."""
    found = [p for p in _plans(items, tiles, chip, precision, pool, fresh) if p is not None]
    if not found:
        return None
    fastest = min(p.cycles for p in found)
    best = min((p for p in found if p.cycles <= NEARLY * fastest), key=lambda p: p.reload.cell_writes)
    sizes: dict[int, Plan] = {}
    for p in found:
        known = sizes.get(p.reload.pool)
        sizes[p.reload.pool] = p if known is None or p.cycles < known.cycles else known
    considered = tuple((p.reload.pool, p.reload.cell_writes, p.cycles) for _, p in sorted(sizes.items()))
    return replace(best, reload=replace(best.reload, considered=considered))


class Grids(Protocol):
    """Makes grids."""

    def __call__(self, value: str) -> Grid:
        """The grid of a matmul's weights, nothing of it placed."""
        ...


def _plans(
    items: Sequence[Item], tiles: Sequence[int], chip: ChipSpec, precision: str, pool: int | None, fresh: Grids
) -> Iterator[Plan | None]:
    capacity = chip.tile(tiles[0]).cores
    largest = max(item.blocks for item in items)
    least = max(1, ceil(largest / capacity))
    sizes = {least + round((len(tiles) - least) * k / SIZES) for k in range(SIZES + 1)}
    wanted = sizes if pool is None else {min(len(tiles), max(least, ceil(pool / capacity)))}
    for size in sorted(n for n in wanted if 1 <= n <= len(tiles)):
        for even in (True, False):
            for apart in (True, False):
                yield _Trial(items, tiles, size, chip, precision, fresh).place(even=even, apart=apart)


class _Trial:
    """One way to place everything: a pool of the last ``size`` tiles."""

    def __init__(
        self, items: Sequence[Item], tiles: Sequence[int], size: int, chip: ChipSpec, precision: str, fresh: Grids
    ) -> None:
        self.items, self.chip, self.precision, self.fresh = items, chip, precision, fresh
        capacity = chip.tile(tiles[0]).cores
        self.stay = Ring(tiles[: len(tiles) - size], capacity, False)
        self.pool = Ring(tiles[len(tiles) - size :], capacity, True)

    def place(self, *, even: bool, apart: bool) -> Plan | None:
        """``even``: of every segment but the first some matrices stay, rather than all of the first segments. ``apart``: in
        the pool, every stage begins on a tile of its own."""
        total = sum(item.blocks for item in self.items)
        room = len(self.stay.tiles) * self.stay.capacity
        share = 1 - min(1.0, room / total)
        moved = due = 0.0
        grids: dict[str, Grid] = {}
        turning: set[str] = set()
        last = (-1, -1)
        self.stay.begin()
        for item in self.items:
            grid = grids[item.value] = self.fresh(item.value)
            due += item.blocks * share
            turn = even and item.segment != self.items[0].segment and moved + item.blocks / 2 <= due
            keep = bool(self.stay.tiles) and not turn
            if keep and self.stay.fill(grid):
                continue
            if item.segment != last[0]:
                self.pool.begin()
            if apart and last != (item.segment, item.stage) and self.pool.used and not self.pool.next_tile():
                return None
            if not self.pool.fill(grid):
                return None
            last = (item.segment, item.stage)
            moved += item.blocks
            turning.add(item.value)
        return self._plan(grids, frozenset(turning))

    def _plan(self, grids: dict[str, Grid], turning: frozenset[str]) -> Plan:
        placed = {
            i.value: PlacedMatrix(
                i.value,
                0,
                i.weight,
                grids[i.value].rows,
                grids[i.value].cols,
                self.precision,
                tuple(grids[i.value].parts),
            )
            for i in self.items
        }
        written = [(part.tile, block) for v in sorted(turning) for part in placed[v].parts for block in part.blocks]
        times: dict[tuple[int, int], int] = {}
        for tile, block in written:
            times[tile, block.core] = times.get((tile, block.core), 0) + 1
        weights = sum(placed[v].rows * placed[v].cols for v in turning)
        core = self.chip.tile(self.pool.tiles[0]).core
        pulses = core.crossbars * core.verify_iterations if core else 0
        size = len(self.pool.tiles) * self.pool.capacity
        rounds = max(times.values(), default=0)
        reload = Reload(turning, size, rounds, weights * pulses, weights)
        return Plan(placed, reload, estimate(self.items, placed, turning, self.chip))


def estimate(items: Sequence[Item], placed: dict[str, PlacedMatrix], turning: frozenset[str], chip: ChipSpec) -> int:
    """Cycles of the products, segment by segment, each when the last has ended and its weights are there. Weights come
    through global memory: what can be written from the start on comes all mixed, the rest one after the other, from when
    the matrices used before on their tile are done with; a matrix is written in the time of its deepest block, from when its
    first weights can come."""
    used: dict[int, int] = {}  # tile → end of the last segment with a matrix on it
    by_segment: dict[int, list[Item]] = {}
    for item in items:
        by_segment.setdefault(item.segment, []).append(item)
    memory = mixed = _burst(by_segment.values(), placed, turning, chip)
    now = 0
    for members in by_segment.values():
        start = now
        for part in (p for i in members if i.value in turning for p in placed[i.value].parts):
            if part.tile not in used:
                start = max(start, mixed, _writing(part, chip))
                continue
            begun = max(memory, used[part.tile])
            memory = begun + _loading(part, chip)
            start = max(start, memory, begun + _writing(part, chip))
        one = placed[members[0].value].parts[0].tile
        now = start + members[0].rows * TileUnits(chip, one).mvm_interval(8)
        for part in (p for i in members for p in placed[i.value].parts):
            used[part.tile] = now
    return now


def _burst(
    segments: Iterable[Sequence[Item]], placed: dict[str, PlacedMatrix], turning: frozenset[str], chip: ChipSpec
) -> int:
    """Cycles for the weights that tiles load before they have done anything else."""
    total = 0
    used: set[int] = set()
    for members in segments:
        parts = [p for i in members if i.value in turning for p in placed[i.value].parts if p.tile not in used]
        total += sum(_loading(part, chip) for part in parts)
        used |= {p.tile for i in members for p in placed[i.value].parts}
    return total


def _loading(part: Part, chip: ChipSpec) -> int:
    weights = (part.rows[1] - part.rows[0]) * (part.cols[1] - part.cols[0])
    return ceil(weights / chip.memory.bytes_per_cycle)


def _writing(part: Part, chip: ChipSpec) -> int:
    blocks = [(b.rows[1] - b.rows[0], b.cols[1] - b.cols[0]) for b in part.blocks]
    return TileUnits(chip, part.tile).program_cycles(blocks)
