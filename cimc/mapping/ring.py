"""Matrices that take turns, and the cores they take, one tile after the other (:mod:`cimc.mapping.rounds`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from cimc.mapping.placement import Part


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


def by_segment(items: Iterable[Item]) -> list[list[Item]]:
    """The items, segment by segment."""
    return [list(members) for _, members in groupby(items, key=lambda item: item.segment)]


@dataclass
class Ring:
    """Tiles whose cores are taken one after the other; ``round``: from the last one on to the first again; ``tight``: no core
    is left free, even if a column of blocks then is on several tiles."""

    tiles: Sequence[int]
    capacity: int
    round: bool
    tight: bool = False
    at: int = 0
    used: int = 0
    mine: int = 0  # tiles that the present segment is on
    here: bool = False  # whether the present tile is one of them

    @property
    def free(self) -> int:
        """Cores left on the tile."""
        return self.capacity - self.used if self.tiles else 0

    @property
    def mark(self) -> tuple[int, int, int, bool]:
        """Where it stands."""
        return self.at, self.used, self.mine, self.here

    @mark.setter
    def mark(self, before: tuple[int, int, int, bool]) -> None:
        self.at, self.used, self.mine, self.here = before

    def begin(self) -> None:
        """A new segment, whose matrices must not take each other's place."""
        self.mine, self.here = 0, False

    def next_tile(self) -> bool:
        """Go on to the next tile; False if there is none, or the segment is on it already."""
        if self.mine >= len(self.tiles) or (not self.round and self.at + 1 >= len(self.tiles)):
            return False
        self.at = (self.at + 1) % len(self.tiles)
        self.used, self.here = 0, False
        return True

    def fill(self, grid: Grid) -> bool:
        """Place a grid, column by column: columns that fit a tile stay on one. False if there is no room for all of it;
        nothing is placed then."""
        before = self.mark
        column = 0
        while column < grid.across:
            placed = self._columns(grid, column)
            if not placed:
                grid.parts.clear()
                self.mark = before
                return False
            column += placed
        return True

    def _columns(self, grid: Grid, column: int) -> int:
        if not self.tight and self.free < grid.down <= self.capacity and not self.next_tile():
            return 0
        if grid.down <= self.free:
            count = min(self.free // grid.down, grid.across - column)
            self._put(grid, range(grid.down), range(column, column + count))
            return count
        row = 0
        while row < grid.down:
            if not self.free and not self.next_tile():
                return 0
            count = min(self.free, grid.down - row)
            self._put(grid, range(row, row + count), range(column, column + 1))
            row += count
        return 1

    def _put(self, grid: Grid, rows: range, cols: range) -> None:
        grid.put(self.tiles[self.at], self.used, rows, cols)
        self.used += len(rows) * len(cols)
        self.mine += not self.here
        self.here = True
