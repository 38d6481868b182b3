"""Blocks of a weight matrix on cores, one after the other."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product

from cimc.mapping.patches import Pace, chosen, columns
from cimc.mapping.placement import Part, PlacedBlock


class Packing(enum.Enum):
    """How much room stages leave to each other. Stages on one tile wait for each other, because its stream is in order."""

    WIDE = "wide"  # besides, no tile has more columns of products than it can work off while its cores do the next row
    APART = "apart"  # every stage begins on a tile of its own
    CLOSE = "close"  # those that the cores suffice for do
    TIGHT = "tight"  # no core is left free


LOOSE = (Packing.WIDE, Packing.APART)


@dataclass
class Cores:
    """Free cores of the CIM tiles, taken in snake order. ``most``: columns of blocks that a tile is to take, 0: as many as
    there are cores for; ``columns``: how many it has."""

    tiles: Sequence[int]
    capacity: int
    at: int = 0
    used: int = 0
    most: int = 0
    columns: int = 0

    @property
    def free(self) -> int:
        return self.capacity - self.used

    @property
    def left(self) -> int:
        """Cores on tiles that are still empty."""
        return (len(self.tiles) - self.at - 1) * self.capacity

    def next_tile(self) -> bool:
        self.at += 1
        self.used = self.columns = 0
        return self.at < len(self.tiles)

    def take(self, count: int) -> tuple[int, int]:
        first = self.used
        self.used += count
        return self.tiles[self.at], first


@dataclass
class Grid:
    """A weight matrix cut into blocks of a core's size."""

    rows: int
    cols: int
    block_rows: int
    block_cols: int
    parts: list[Part] = field(default_factory=list[Part])

    @property
    def down(self) -> int:
        return -(-self.rows // self.block_rows)

    @property
    def across(self) -> int:
        return -(-self.cols // self.block_cols)

    def put(self, tile: int, core: int, r: range, c: range) -> None:
        """Blocks r × c (indices) on the tile's cores from ``core`` on, column by column."""
        down, across = _spans(self.block_rows, self.rows, r), _spans(self.block_cols, self.cols, c)
        rows, cols = (down[0][0], down[-1][1]), (across[0][0], across[-1][1])
        self.parts.append(Part(tile, rows, cols, _blocks(core, down, across)))


SHARED = 1 << 11
"""Different rectangles of blocks that are kept once: the layers of a model are alike, and mapping tries many placements."""


@lru_cache(SHARED)
def _spans(size: int, whole: int, indices: range) -> tuple[tuple[int, int], ...]:
    """Of blocks along an axis of a matrix, each one's first index and the one behind its last."""
    return tuple([(i * size, min((i + 1) * size, whole)) for i in indices])


@lru_cache(SHARED)
def _blocks(
    core: int, down: tuple[tuple[int, int], ...], across: tuple[tuple[int, int], ...]
) -> tuple[PlacedBlock, ...]:
    """A rectangle of blocks on cores from ``core`` on, column by column."""
    return tuple([PlacedBlock(core + i, rows, cols) for i, (cols, rows) in enumerate(product(across, down))])


def fill(cores: Cores, grid: Grid, tight: bool, pace: Pace | None = None) -> bool:
    """Place a grid from the current tile on; False if the tiles run out. ``pace``: of its rows; None: a matrix taller than a
    tile is placed column by column."""
    if grid.down > cores.capacity:
        return _fill_tall(cores, grid, pace)
    column = 0
    while column < grid.across:
        if cores.most and cores.columns >= cores.most and not cores.next_tile():
            return False
        if grid.down <= cores.free:
            room = cores.most - cores.columns if cores.most else grid.across
            count = min(cores.free // grid.down, grid.across - column, room)
            cores.columns += count
            tile, core = cores.take(count * grid.down)
            grid.put(tile, core, range(grid.down), range(column, column + count))
            column += count
        elif grid.down <= cores.capacity and not tight:
            if not cores.next_tile():
                return False
        elif _fill_column(cores, grid, column):
            column += 1
        else:
            return False
    return True


def _fill_tall(cores: Cores, grid: Grid, pace: Pace | None) -> bool:
    """Place a matrix whose columns of blocks are on several tiles each."""
    if cores.most and cores.columns >= cores.most and not cores.next_tile():
        return False
    size = grid.down, grid.across, cores.capacity, cores.used
    layout = chosen(*size, pace) if pace else columns(*size)
    first = cores.at
    for r in layout:
        if first + r.tile >= len(cores.tiles):
            return False
        grid.put(cores.tiles[first + r.tile], r.core, r.rows, r.cols)
    if last := max(r.tile for r in layout):
        cores.at, cores.columns = first + last, 0
    cores.used = max(r.core + len(r.rows) * len(r.cols) for r in layout if first + r.tile == cores.at)
    return True


def _fill_column(cores: Cores, grid: Grid, column: int) -> bool:
    """Place one column of blocks over as many tiles as it takes."""
    row = 0
    while row < grid.down:
        if not cores.free and not cores.next_tile():
            return False
        count = min(cores.free, grid.down - row)
        tile, core = cores.take(count)
        grid.put(tile, core, range(row, row + count), range(column, column + 1))
        row += count
    return True
