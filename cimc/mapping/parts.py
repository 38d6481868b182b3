"""Blocks of a matrix on cores, gathered into the rectangles that tiles hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cimc.mapping.placement import Part, PlacedBlock


@dataclass(frozen=True, slots=True)
class CoreBlock:
    """Where a block lies."""

    tile: int
    core: int


@dataclass(frozen=True, slots=True)
class _Run:
    """Neighbouring blocks of one column on one tile: indices [first, last)."""

    tile: int
    first: int
    last: int


def parts(
    blocks: Mapping[tuple[int, int], CoreBlock], shape: tuple[int, int], size: tuple[int, int]
) -> tuple[Part, ...]:
    """Rectangles of a matrix of ``shape``, cut into blocks of ``size``, from its blocks by (row, column) index. Columns are
    merged only where all of their blocks lie alike, because the partial sums of a part's columns are added as one; so any
    two parts have the same columns or none in common."""
    down, across = (-(-n // step) for n, step in zip(shape, size, strict=True))
    runs = [_runs(blocks, down, j) for j in range(across)]
    found: list[Part] = []
    first = 0
    for j in range(1, across + 1):
        if j < across and runs[j] == runs[first]:
            continue
        found += (_part(blocks, run, range(first, j), shape, size) for run in runs[first])
        first = j
    return tuple(found)


def _runs(blocks: Mapping[tuple[int, int], CoreBlock], down: int, column: int) -> list[_Run]:
    found: list[_Run] = []
    for i in range(down):
        tile = blocks[(i, column)].tile
        if found and found[-1].tile == tile:
            found[-1] = _Run(tile, found[-1].first, i + 1)
        else:
            found.append(_Run(tile, i, i + 1))
    return found


def _part(
    blocks: Mapping[tuple[int, int], CoreBlock],
    run: _Run,
    columns: range,
    shape: tuple[int, int],
    size: tuple[int, int],
) -> Part:
    def span(index: int, axis: int) -> tuple[int, int]:
        return index * size[axis], min((index + 1) * size[axis], shape[axis])

    placed = tuple(
        PlacedBlock(blocks[(i, j)].core, span(i, 0), span(j, 1)) for j in columns for i in range(run.first, run.last)
    )
    rows, cols = (placed[0].rows[0], placed[-1].rows[1]), (placed[0].cols[0], placed[-1].cols[1])
    return Part(run.tile, rows, cols, placed)
