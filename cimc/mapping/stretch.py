"""Weights stretched over the whole chip, free tiles between them: what streams through all layers at once uses all digital
tiles at once, and those stand all over the mesh. The nearer to each the layer it works for, the fewer links carry its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cimc.mapping.mapping import PlacedMatrix

Matrices = Mapping[str, tuple[PlacedMatrix, ...]]


def stretched(matrices: Matrices, snake: Sequence[int]) -> dict[str, tuple[PlacedMatrix, ...]]:
    """Matrices with each tile moved along the snake that they were placed on, in order and evenly, to its end. All its tiles
    have the same cores."""
    used = {part.tile for copies in matrices.values() for m in copies for part in m.parts}
    kept = [tile for tile in snake if tile in used]
    to = {tile: snake[(2 * i + 1) * len(snake) // (2 * len(kept))] for i, tile in enumerate(kept)}

    def moved(matrix: PlacedMatrix) -> PlacedMatrix:
        return replace(matrix, parts=tuple(replace(part, tile=to[part.tile]) for part in matrix.parts))

    return {value: tuple(moved(m) for m in copies) for value, copies in matrices.items()}
