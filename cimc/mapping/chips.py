"""Which chip does what, where there are several: work stays beside the matrices it belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cimc.arch.spec import ChipSpec, TileSpec
from cimc.mapping.placement import PlacedMatrix, Segment

Matrices = Mapping[str, tuple[PlacedMatrix, ...]]  # by output value, copy by copy


def snake(chip: ChipSpec, tiles: Iterable[int], across: bool = False, wide: int = 1) -> list[int]:
    """Tiles along a boustrophedon through one chip's mesh after the other's: neighbours in the list are neighbours on the
    chip. It goes down the columns where the tiles for vector work stand in columns, and along the rows otherwise: then each
    tile of a matrix has links of its own to them. ``across``: along the rows in any case, for a batch that streams, whose
    matrices are stretched over the rows of those tiles afterwards. ``wide``: neighbouring columns of such tiles at most
    that are gone down together, along their rows: what lies on as many tiles then has more links to it."""
    tiles = list(tiles)
    width, height = chip.chip_columns, chip.tile_count // chip.columns
    down = not across and _in_columns(chip)
    bands = _bands(sorted({chip.position(tile)[0] % width for tile in tiles}), wide) if down else []
    place = {x: (i, k) for i, band in enumerate(bands) for k, x in enumerate(band)}

    def key(tile: int) -> tuple[int, int, int, int]:
        x, y = chip.position(tile)
        x %= width
        if not down:
            return chip.chip_of(tile), y, x if y % 2 == 0 else width - 1 - x, 0
        band, aside = place[x]
        if wide == 1:
            return chip.chip_of(tile), x, y if x % 2 == 0 else height - 1 - y, 0
        y = y if band % 2 == 0 else height - 1 - y
        return chip.chip_of(tile), band, y, aside if y % 2 == 0 else len(bands[band]) - 1 - aside

    return sorted(tiles, key=key)


def _bands(columns: Sequence[int], wide: int) -> list[list[int]]:
    """Columns of the mesh in bands of ``wide`` neighbours at most, as even as they can be."""
    runs: list[list[int]] = []
    for x in columns:
        if runs and runs[-1][-1] == x - 1:
            runs[-1].append(x)
        else:
            runs.append([x])
    found: list[list[int]] = []
    for run in runs:
        count = -(-len(run) // wide)
        found += [run[len(run) * i // count : len(run) * (i + 1) // count] for i in range(count)]
    return found


def _in_columns(chip: ChipSpec) -> bool:
    """Whether the tiles that have a vector unit and no cores take up fewer columns than rows."""
    beside = [chip.position(t) for t, kind in _kinds(chip) if kind.vector is not None and not kind.cores]
    return len({x % chip.chip_columns for x, _ in beside}) < len({y for _, y in beside})


def _kinds(chip: ChipSpec) -> Iterable[tuple[int, TileSpec]]:
    return ((t, chip.tile(t)) for t in range(chip.tile_count))


def near_memory(chip: ChipSpec, tiles: Iterable[int]) -> list[int]:
    """Tiles in the order of how many rows of the mesh they are from one with a memory port: packets go along the row first,
    so the tiles of such a row do not share a column's links."""
    rows = {chip.position(t)[1] for t, kind in _kinds(chip) if kind.memory_port}
    away = [min((abs(row - y) for y in rows), default=0) for row in range(chip.tile_count // chip.columns)]
    return sorted(tiles, key=lambda tile: away[chip.position(tile)[1]])


def on_chips(chip: ChipSpec, tiles: Sequence[int], wanted: frozenset[int], least: int = 1) -> list[int]:
    """Those of some tiles that are on the chips wanted; all of them if those are fewer than ``least``."""
    found = [t for t in tiles if chip.chip_of(t) in wanted]
    return found if len(found) >= least else list(tiles)


def chips_of(chip: ChipSpec, segment: Segment, matrices: Matrices) -> frozenset[int]:
    """The chips on which a segment's matrices stand, all copies of them."""
    placed = (m for node in segment.nodes for out in node.outputs for m in matrices.get(out, ()))
    return frozenset(chip.chip_of(part.tile) for matrix in placed for part in matrix.parts)


def between(chip: ChipSpec, segments: Sequence[Segment], matrices: Matrices) -> dict[int, frozenset[int]]:
    """By segment, the chips for its work: those of the nearest matrices both before and after it, whose values it takes
    and gives as a rule; where these share none, those before (attention on both would read all of K and V over the link,
    tile by tile), or else those after."""
    before, after = (_nearest(chip, order, matrices) for order in (segments, segments[::-1]))
    return {i: (before[i] & after[i]) or before[i] or after[i] for i in before}


def _nearest(chip: ChipSpec, segments: Sequence[Segment], matrices: Matrices) -> dict[int, frozenset[int]]:
    """By segment, the chips of the last matrices that come before it in this order."""
    found: dict[int, frozenset[int]] = {}
    last: frozenset[int] = frozenset()
    for segment in segments:
        found[segment.index] = last
        last = chips_of(chip, segment, matrices) or last
    return found
