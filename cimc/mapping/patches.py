"""A matrix whose columns of blocks are taller than a tile, cut into rectangles of blocks: one on each tile.

Column of blocks by column of blocks, a tile takes nearly all inputs of a row. A tile with r rows of blocks × c columns of them
takes the codes of r, and hands on partial sums of c: where sums go from tile to tile, each adding its own, it receives one
and sends one. Which r and c cost least depends on what links carry, and on how long the cores take for a row.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cimc.mapping.sums import SumsAt, most_taken


@dataclass(frozen=True, slots=True)
class Rectangle:
    """Blocks ``rows`` × ``cols`` (indices) on the ``tile``-th tile from the current one, on its cores from ``core`` on."""

    tile: int
    core: int
    rows: range
    cols: range


Layout = tuple[Rectangle, ...]


@dataclass(frozen=True, slots=True)
class Pace:
    """Cycles a row: ``cells``, of a core; ``codes``, of a link for the inputs of a row of blocks; ``sums``, of a link for the
    partial sums of a column of blocks. ``at``: where these are added."""

    cells: int
    codes: float
    sums: float
    at: SumsAt


@functools.lru_cache(maxsize=1 << 10)
def chosen(down: int, across: int, capacity: int, used: int, at: Pace) -> Layout:
    """How ``down`` × ``across`` blocks are laid on tiles of so many cores, of which the first has ``used`` ones: column by
    column, unless rectangles on no more tiles let rows follow each other sooner, by the busiest tile's links; of several
    such those for which all tiles together receive least."""
    best = plain = columns(down, across, capacity, used)
    end = _end(best)
    least = _cost(best, at)
    for layout in _rectangles(down, across, capacity, 1 if used else 0):
        cost = _cost(layout, at)
        if _end(layout) <= end and (cost[0] < least[0] or (cost < least and best is not plain)):
            best, least = layout, cost
    return best


def columns(down: int, across: int, capacity: int, used: int) -> Layout:
    """Column of blocks by column of blocks, no core left free."""
    found: list[Rectangle] = []
    tile = 0
    for column in range(across):
        row = 0
        while row < down:
            if used == capacity:
                tile, used = tile + 1, 0
            count = min(capacity - used, down - row)
            found.append(Rectangle(tile, used, range(row, row + count), range(column, column + 1)))
            row, used = row + count, used + count
    return tuple(found)


def _end(layout: Layout) -> tuple[int, int]:
    """The last tile, and how many of its cores are used."""
    return max((r.tile, r.core + len(r.rows) * len(r.cols)) for r in layout)


def _rectangles(down: int, across: int, capacity: int, first: int) -> Iterator[Layout]:
    """Bands of rows of blocks, as high as each other or all but the last one as high as can be, and each cut by columns."""
    for high in range(min(capacity, down), 0, -1):
        count = -(-down // high)
        even = [down * i // count for i in range(count + 1)]
        full = [*range(0, down, high), down]
        yield _banded(even, across, capacity, first)
        if full != even:
            yield _banded(full, across, capacity, first)


def _banded(borders: Sequence[int], across: int, capacity: int, first: int) -> Layout:
    """The rectangles of bands between borders. Those of different bands have the same columns or none in common, as their
    sums must meet, so a tile may have several."""
    bands = [range(a, b) for a, b in pairwise(borders)]
    cuts = [_cuts(across, max(1, capacity // len(band))) for band in bands]
    edges = sorted({edge for cut in cuts for edge in cut})
    owner: dict[tuple[int, int], int] = {}  # band, first column → tile
    for i, cut in enumerate(cuts):
        for low in cut[:-1]:
            owner[i, low] = first + len(owner)
    found: list[Rectangle] = []
    used: dict[int, int] = {}
    for low, high in pairwise(edges):
        for i, band in enumerate(bands):
            tile = owner[i, max(edge for edge in cuts[i] if edge <= low)]
            found.append(Rectangle(tile, used.get(tile, 0), band, range(low, high)))
            used[tile] = used.get(tile, 0) + len(band) * (high - low)
    return tuple(found)


def _cuts(across: int, most: int) -> list[int]:
    """Borders of as few shares of some columns as there can be, as even as they can be."""
    count = -(-across // most)
    return [across * i // count for i in range(count + 1)]


def _cost(layout: Layout, at: Pace) -> tuple[float, float]:
    """Cycles a row of the cells, or of the tile whose links are busiest; and what all tiles receive."""
    rows: dict[int, set[int]] = {}
    groups: dict[range, list[Rectangle]] = {}
    for r in layout:
        rows.setdefault(r.tile, set()).update(r.rows)
        groups.setdefault(r.cols, []).append(r)
    into = {tile: len(of) * at.codes for tile, of in rows.items()}
    out = dict.fromkeys(rows, 0.0)
    for cols, group in groups.items():
        sums = len(cols) * at.sums
        for i, r in enumerate(group):
            out[r.tile] += sums
            takes = i == 0 or (at.at == "chain" and i + 1 < len(group))
            into[r.tile] += most_taken(at.at, len(group)) * sums if takes else 0
    return max(at.cells, *into.values(), *out.values()), sum(into.values())
