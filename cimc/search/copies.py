"""One copy more or fewer of a segment's weights, the others left where they are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Node
from cimc.mapping.beside import columns_aside
from cimc.mapping.parts import CoreBlock, parts
from cimc.mapping.placement import PlacedMatrix, Placement, Segment
from cimc.mapping.segment import MATRIX_OPS, shares
from cimc.mapping.written import weight_tiles
from cimc.ops.layout import integer


def free_cores(placement: Placement, chip: ChipSpec) -> dict[int, list[int]]:
    """By tile, the cores that hold nothing, of the tiles for weights: not those that operands are written into, nor kinds
    with cores of other sizes."""
    held, written = placement.occupied(), placement.written_tiles()
    tiles = (t for t in weight_tiles(chip) if t not in written)
    found = {t: [c for c in range(chip.tile(t).cores) if (t, c) not in held] for t in tiles}
    return {t: cores for t, cores in found.items() if cores}


def fewer(placement: Placement, segment: Segment) -> Placement | None:
    """Without the last copy of a segment's weights; None if it is the only one."""
    homes = placement.homes[segment.index]
    if len(homes) == 1 or len(shares(segment.domain, len(homes) - 1)) != len(homes) - 1:
        return None
    values = [n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS]
    matrices = {**placement.matrices, **{v: placement.matrices[v][:-1] for v in values}}
    beside = dict(placement.beside)
    if segment.index in beside:
        beside[segment.index] = beside[segment.index][:-1]
    return replace(placement, matrices=matrices, homes={**placement.homes, segment.index: homes[:-1]}, beside=beside)


def more(placement: Placement, segment: Segment, chip: ChipSpec, able: Sequence[int]) -> Placement | None:
    """With a further copy in free cores, on tiles that have no other part in this segment as far as there are such: a tile
    issues in order, and one part would wait for the other. Its vector stages get free tiles, or lanes of the other copies.
    None if the cores run out or the rows cannot be shared by so many."""
    homes = placement.homes[segment.index]
    count = len(homes) + 1
    if len(shares(segment.domain, count)) != count:
        return None
    free = free_cores(placement, chip)
    nodes = [n for n in segment.nodes if n.op in MATRIX_OPS]
    matrices = dict(placement.matrices)
    busy = placement.matrix_tiles(segment)
    stage, here = -1, set[int]()
    for node in nodes:
        value = node.outputs[0]
        if placement.stages[value] != stage:
            busy |= here
            stage, here = placement.stages[value], set()
        first = matrices[value][0]
        blocks = _blocks(node, first, free, busy, here)
        if blocks is None:
            return None
        shape, size = (first.rows, first.cols), (integer(node, "rows"), integer(node, "cols"))
        copy = replace(first, replica=count - 1, parts=parts(blocks, shape, size))
        matrices[value] = (*matrices[value], copy)
    used = {p.tile for n in nodes for p in matrices[n.outputs[0]][-1].parts}
    near = sorted(able, key=lambda t: (_far(chip, t, sorted(used)), t))
    stages = _seats(homes, near)
    grown = replace(placement, matrices=matrices, homes={**placement.homes, segment.index: stages})
    if segment.index not in placement.beside:
        return grown
    return replace(grown, beside={**placement.beside, segment.index: _companions(grown, segment, near, chip)})


def _companions(
    placement: Placement, segment: Segment, able: Sequence[int], chip: ChipSpec
) -> tuple[Mapping[int, int], ...]:
    """The tiles beside those of products, copy by copy, with those of the last copy: the nearest that nothing else of the
    segment is on, or, when there is none left, the nearest that stands beside some tile."""
    known = placement.beside[segment.index]
    columns = columns_aside(segment, placement.aside, placement.shards, placement.matrices)[-1]
    seats = placement.seats(segment.index)
    others = [t for copy in known for t in copy.values()]
    free = [t for t in able if t not in seats and t not in others]
    found: dict[int, int] = {}
    for tile in sorted(columns):
        offered = [t for t in free if t not in found.values()] or [*others, *found.values()]
        found[tile] = min(offered, key=lambda t: (_far(chip, t, (tile,)), t))
    return (*known, found)


def _seats(homes: Sequence[Sequence[Sequence[int]]], able: Sequence[int]) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """The stages of all copies with those of a further one: each gets the first tile that is free, a lane of the stage that
    has most, or, when all stages have one, the tile that has fewest."""
    stages = [[list(lanes) for lanes in copy] for copy in homes]
    busy = [tile for copy in stages for lanes in copy for tile in lanes]
    fresh: list[list[int]] = []
    for _ in homes[0]:
        free = next((t for t in able if t not in busy), None)
        widest = max((lanes for copy in stages for lanes in copy), key=len)
        if free is None and len(widest) > 1:
            free = widest.pop()
        elif free is None:
            free = min(able, key=busy.count)
        busy.append(free)
        fresh.append([free])
    return tuple(tuple(tuple(lanes) for lanes in copy) for copy in (*stages, fresh))


def _blocks(
    node: Node, like: PlacedMatrix, free: dict[int, list[int]], busy: set[int], here: set[int]
) -> Mapping[tuple[int, int], CoreBlock] | None:
    """Cores for a matrix's blocks, taken from ``free``: column by column, on the tiles of its stage (``here``) while they
    have room, on others that are not ``busy``, on any; on one tile if one has room for all of the column."""
    down = -(-like.rows // integer(node, "rows"))
    across = -(-like.cols // integer(node, "cols"))
    found: dict[tuple[int, int], CoreBlock] = {}
    for j in range(across):
        if sum(map(len, free.values())) < down:
            return None
        for i, (tile, core) in enumerate(_column(free, down, busy, here)):
            found[(i, j)] = CoreBlock(tile, core)
            here.add(tile)
    return found


def _column(free: dict[int, list[int]], down: int, busy: set[int], here: set[int]) -> Iterator[tuple[int, int]]:
    """Cores for a column of blocks, one tile after the other."""

    def turn(tile: int) -> tuple[bool, bool, bool, int, int]:
        room = len(free[tile])
        return room < down and tile in busy, tile in busy, tile not in here, -room, tile

    left = down
    for tile in sorted((t for t in free if free[t]), key=turn):
        taken, free[tile] = free[tile][:left], free[tile][left:]
        yield from ((tile, core) for core in taken)
        left -= len(taken)
        if not left:
            return


def _far(chip: ChipSpec, tile: int, near: Sequence[int]) -> int:
    return sum(noc.hops(chip, tile, t) for t in near)
