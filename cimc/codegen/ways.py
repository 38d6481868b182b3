"""What ways in the mesh cost, between tiles where something is and tiles where something may be put, of many messages at once.

Packets go along the row first, then along the column (:mod:`cimc.arch.noc`). So a way is one part of a row and one of a
column, and costs differences of running sums along them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Costs = NDArray[np.float64]
Numbers = NDArray[np.intp]

AWAY = 0.02
"""What a link taken for the whole of a block costs, however free it is: of several ways to spread messages, the short one
(estimated)."""

SIDES = 6
EAST, WEST, SOUTH, NORTH, OUT, IN = range(SIDES)
"""Of a tile: its links to its neighbours as :mod:`cimc.arch.noc` numbers them, its port and its receive side."""


def power(of: Costs) -> Costs:
    """The sixth: high, so that the fullest tile or link decides (estimated)."""
    square = of * of
    found = square * square
    found *= square
    return found


class Spots:
    """Tiles where something may be put: their rows and columns in a mesh of so many tiles, and which columns there are."""

    def __init__(self, tiles: Sequence[int], size: int, columns: int) -> None:
        self.tiles = np.array(tiles)
        self.size, self.wide = size, columns
        self.y, self.x = np.divmod(self.tiles, columns)
        self.columns, self.column = np.unique(self.x, return_inverse=True)
        self.rows, self.row = np.unique(self.y, return_inverse=True)

    def side(self, side: int, y: Numbers, x: Numbers) -> Numbers:
        """Numbers of a side of tiles."""
        return side * self.size + y * self.wide + x


class Ways:
    """Costs of ways between spots and other tiles, given what is taken ``now``, by side and then tile, in parts of what there is.
    Each message costs as if it were the only one to come, because one alone is soon done."""

    def __init__(self, now: Costs, spots: Spots) -> None:
        self.now, self.spots = now, spots
        self.before = power(now)
        self.across, self.down = np.arange(spots.wide), np.arange(spots.size // spots.wide)

    def _more(self, parts: Costs, sides: Numbers, had: NDArray[np.bool_] | None = None) -> Costs:
        """What it costs to take ``parts`` more of sides; of those that a message ``had`` before, nothing."""
        found = power(self.now[sides] + parts)
        found -= self.before[sides]
        found += AWAY * parts
        if had is not None:
            found[had[np.arange(len(had)).reshape(-1, *(1,) * (found.ndim - 1)), sides]] = 0.0
        return found

    def fetched(self, part: Costs, sources: Numbers) -> Costs:
        """Of a message that comes to each of the spots from a tile of its own, links alone: (spots)."""
        spots = self.spots
        y, x = np.divmod(sources, spots.wide)
        rows, row = np.unique(y, return_inverse=True)
        east, west = (_sums(self._more(part, spots.side(s, rows[:, None], self.across))) for s in (EAST, WEST))
        found = _between(east, west, (row,), x, spots.x)
        south, north = (
            _sums(self._more(part, spots.side(s, self.down, spots.columns[:, None]))) for s in (SOUTH, NORTH)
        )
        return found + _between(south, north, (spots.column,), y, spots.y)

    def arriving(self, parts: Costs, sources: Numbers, had: NDArray[np.bool_]) -> Costs:
        """Of messages from a tile each: (messages, spots); nothing within a tile. ``had``: by message and side."""
        spots, k = self.spots, np.arange(len(parts))[:, None]
        y, x = (at[:, None] for at in np.divmod(sources, spots.wide))
        mine = parts[:, None]
        east, west = (_sums(self._more(mine, spots.side(s, y, self.across), had)) for s in (EAST, WEST))
        found = _between(east, west, (k,), x, spots.x)
        lines = (spots.side(s, self.down, spots.columns[:, None])[None] for s in (SOUTH, NORTH))
        south, north = (_sums(self._more(mine[..., None], line, had)) for line in lines)
        found += _between(south, north, (k, spots.column), y, spots.y)
        found += self._more(mine, spots.side(OUT, y, x), had)
        found += self._more(mine, spots.side(IN, spots.y, spots.x)[None], had)
        found[(y == spots.y) & (x == spots.x)] = 0.0
        return found

    def leaving(self, part: Costs, targets: Numbers) -> Costs:
        """Of a message to several tiles, the dearest way: (spots); nothing within a tile."""
        spots, k = self.spots, np.arange(len(targets))[:, None]
        y, x = (at[:, None] for at in np.divmod(targets, spots.wide))
        east, west = (_sums(self._more(part, spots.side(s, spots.rows[:, None], self.across))) for s in (EAST, WEST))
        found = _between(east, west, (spots.row,), spots.x, x)
        south, north = (_sums(self._more(part, spots.side(s, self.down, x))) for s in (SOUTH, NORTH))
        found = found + _between(south, north, (k,), spots.y, y)
        found += self._more(part, spots.side(OUT, spots.y, spots.x))
        found += self._more(part, spots.side(IN, y, x))
        found[(y == spots.y) & (x == spots.x)] = 0.0
        return found.max(axis=0)


def _sums(costs: Costs) -> Costs:
    """Running sums along the last axis, from 0 on."""
    found = np.zeros((*costs.shape[:-1], costs.shape[-1] + 1))
    np.cumsum(costs, axis=-1, out=found[..., 1:])
    return found


def _between(up: Costs, down: Costs, line: tuple[Numbers, ...], at: Numbers, to: Numbers) -> Costs:
    """From one place of a line to another, given running sums of both ways along lines."""
    return np.where(to <= at, down[*line, at + 1] - down[*line, to + 1], up[*line, to] - up[*line, at])
