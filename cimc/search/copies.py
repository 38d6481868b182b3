"""One copy more or fewer of a segment's weights, the others left where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Node
from cimc.mapping.mapping import PlacedMatrix, Placement, Segment
from cimc.mapping.parts import CoreBlock, parts
from cimc.mapping.segment import MATRIX_OPS, shares
from cimc.ops.layout import integer


def free_cores(placement: Placement, chip: ChipSpec) -> dict[int, list[int]]:
    """By tile, the cores that hold nothing."""
    taken: dict[int, set[int]] = {}
    for matrix in (m for copies in placement.matrices.values() for m in copies):
        for part in matrix.parts:
            taken.setdefault(part.tile, set()).update(b.core for b in part.blocks)
    found = {t: [c for c in range(chip.tile(t).cores) if c not in taken.get(t, ())] for t in range(chip.tile_count)}
    return {t: cores for t, cores in found.items() if cores}


def fewer(placement: Placement, segment: Segment) -> Placement | None:
    """Without the last copy of a segment's weights; None if it is the only one."""
    homes = placement.homes[segment.index]
    if len(homes) == 1 or len(shares(segment.domain, len(homes) - 1)) != len(homes) - 1:
        return None
    values = [n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS]
    matrices = {**placement.matrices, **{v: placement.matrices[v][:-1] for v in values}}
    return replace(placement, matrices=matrices, homes={**placement.homes, segment.index: homes[:-1]})


def more(placement: Placement, segment: Segment, chip: ChipSpec, able: Sequence[int]) -> Placement | None:
    """With a further copy in free cores, each column of blocks on one tile where one has room, and vector stages on the
    tiles that have fewest in this segment. None if the cores run out or the rows cannot be shared by so many."""
    homes = placement.homes[segment.index]
    count = len(homes) + 1
    if len(shares(segment.domain, count)) != count:
        return None
    free = free_cores(placement, chip)
    matrices = dict(placement.matrices)
    used: list[int] = []
    for node in (n for n in segment.nodes if n.op in MATRIX_OPS):
        first = matrices[node.outputs[0]][0]
        blocks = _blocks(node, first, free, used)
        if blocks is None:
            return None
        shape, size = (first.rows, first.cols), (integer(node, "rows"), integer(node, "cols"))
        copy = replace(first, replica=count - 1, parts=parts(blocks, shape, size))
        matrices[node.outputs[0]] = (*matrices[node.outputs[0]], copy)
        used += (p.tile for p in copy.parts)
    busy = [tile for stages in homes for lanes in stages for tile in lanes]
    stages: list[tuple[int, ...]] = []
    for _ in homes[0]:
        tile = min(able, key=lambda t: (busy.count(t), _far(chip, t, used)))
        busy.append(tile)
        stages.append((tile,))
    return replace(placement, matrices=matrices, homes={**placement.homes, segment.index: (*homes, tuple(stages))})


def _blocks(
    node: Node, like: PlacedMatrix, free: dict[int, list[int]], used: Sequence[int]
) -> Mapping[tuple[int, int], CoreBlock] | None:
    """Cores for a matrix's blocks, taken from ``free``: column by column on the tile that the last one is on, on one that
    holds nothing yet, on any with room, or else over several."""
    down = -(-like.rows // integer(node, "rows"))
    across = -(-like.cols // integer(node, "cols"))
    found: dict[tuple[int, int], CoreBlock] = {}
    last = used[-1] if used else -1
    for j in range(across):
        if sum(map(len, free.values())) < down:
            return None
        for i, (tile, core) in enumerate(_column(free, down, last)):
            found[(i, j)] = CoreBlock(tile, core)
            last = tile
    return found


def _column(free: dict[int, list[int]], down: int, last: int) -> Iterator[tuple[int, int]]:
    """Cores for a column of blocks: on one tile if one has room, the last one first, then the one with most room."""
    fits = [t for t, cores in free.items() if len(cores) >= down]
    order = [last] if last in fits else sorted(fits or free, key=lambda t: (-len(free[t]), t))
    left = down
    for tile in order:
        taken, free[tile] = free[tile][:left], free[tile][left:]
        yield from ((tile, core) for core in taken)
        left -= len(taken)
        if not left:
            return


def _far(chip: ChipSpec, tile: int, near: Sequence[int]) -> int:
    x, y = chip.position(tile)
    return sum(abs(x - chip.position(t)[0]) + abs(y - chip.position(t)[1]) for t in near)
