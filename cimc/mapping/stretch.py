"""Weights stretched over the whole chip, free tiles between them: what streams through all layers at once uses all digital
tiles at once, and those stand all over the mesh. The nearer to each the layer it works for, the fewer links carry its rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from cimc.arch.spec import ChipSpec
from cimc.mapping.placement import PlacedMatrix

Matrices = Mapping[str, tuple[PlacedMatrix, ...]]


def stretched(
    matrices: Matrices,
    snake: Sequence[int],
    chip: ChipSpec,
    streaming: Collection[str],
    staying: frozenset[str] = frozenset(),
) -> dict[str, tuple[PlacedMatrix, ...]]:
    """Matrices with each tile moved along the snake that they were placed on, in order and evenly: those ``streaming`` over its
    tiles in the rows of the mesh that digital tiles stand in, or as near to those as there is room, all others over the tiles
    that are left. All its tiles have the same cores. Those ``staying`` (at memory ports) have tiles of their own, and keep
    them."""
    fixed = {part.tile for name in staying for m in matrices[name] for part in m.parts}
    used = {part.tile for copies in matrices.values() for m in copies for part in m.parts} - fixed
    first = {part.tile for name in streaming for m in matrices[name] for part in m.parts} - fixed
    free = [tile for tile in snake if tile not in fixed]
    digital = [t for t in range(chip.tile_count) if chip.tile(t).special or chip.tile(t).matmul]
    rows = {chip.position(t)[1] for t in digital}
    away = {t: min((abs(chip.position(t)[1] - row) for row in rows), default=0) for t in free}
    to: dict[int, int] = {}
    for kept in ([t for t in free if t in first], [t for t in free if t in used - first]):
        taken = set(to.values())
        left = [t for t in free if t not in taken]
        most = sorted(away[t] for t in left)[len(kept) - 1] if kept else 0
        near = [t for t in left if away[t] <= most]
        to.update((tile, near[(2 * i + 1) * len(near) // (2 * len(kept))]) for i, tile in enumerate(kept))

    def moved(matrix: PlacedMatrix) -> PlacedMatrix:
        return replace(matrix, parts=tuple(replace(part, tile=to.get(part.tile, part.tile)) for part in matrix.parts))

    return {value: tuple(moved(m) for m in copies) for value, copies in matrices.items()}
