"""How much a tile takes on: columns of products, and vector stages of blocks that tiles take turns with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cimc.arch.noc import packet_cycles
from cimc.arch.spec import ChipSpec, TileSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Graph
from cimc.isa.operands import Element
from cimc.mapping.beside import column_tiles
from cimc.mapping.fill import Grid
from cimc.mapping.patches import Pace
from cimc.mapping.placement import Part, PlacedMatrix, Segment, Style
from cimc.mapping.segment import MATRIX_OPS, constants_held
from cimc.mapping.sums import SumsAt

WORK = 4
"""Of the vector unit for a column of a product: three actions to bring it to float, one for a bias; and bytes to send. As
many more bring it to codes. (2 and 8: MiniLM takes 3.9 and 3.4 % more cycles.)"""

INPUT_BITS = 8
"""Of activations, in every precision."""


def worked_off(chip: ChipSpec, tile: int) -> int:
    """Columns of products that a tile brings to float, and sends, in the time that a core takes for a row."""
    spec = chip.tile(tile)
    lanes = min(spec.vector.lanes if spec.vector else 1, int(chip.noc.link_bytes_per_cycle))
    return TileUnits(chip, tile).mvm_interval(INPUT_BITS) * lanes // WORK


def pace(chip: ChipSpec, tile: int, block: tuple[int, int], sums: SumsAt, across: bool) -> Pace:
    """That of matrices in blocks of so many rows and columns on tiles as this one. ``across``: a batch streams, for which no
    tile hands on partial sums of others."""
    link, at = chip.noc.link_bytes_per_cycle, sums
    if at in ("auto", "network"):
        at = "network" if chip.noc.reduce else "auto"
    if at == "auto" or (across and at != "network"):
        at = "one" if across else "chain"
    codes, each = block[0] * INPUT_BITS / 8 / link, block[1] * Element.Q32.bytes / link
    return Pace(TileUnits(chip, tile).mvm_interval(INPUT_BITS), codes, each, at)


def bands(chip: ChipSpec, tile: int, grids: Sequence[Grid], at: Pace) -> int:
    """How many columns of the mesh matrices on tiles as this one take together. Two, where the products of a row keep a
    tile's links busy for half of the time that the cores take for it (then what many tiles take comes from more sides), and
    columns are longer than rows, so that a segment's tiles still are near to each other."""
    capacity = chip.tile(tile).cores
    across = max((min(max(1, capacity // g.down), g.across) for g in grids), default=0)
    tall = chip.tile_count // chip.columns > chip.chip_columns
    return 2 if tall and 2 * across * at.sums >= at.cells else 1


def spare(chip: ChipSpec, matrix: PlacedMatrix, part: Part, rows: int) -> float:
    """Cycles for which a tile can receive sums of the part's columns while its cores do so many rows: those in which it
    receives no inputs, shared among all columns that it has."""
    mine = [p for p in matrix.parts if p.tile == part.tile]
    inputs = sum(last - first for first, last in {p.rows for p in mine})
    left = TileUnits(chip, part.tile).mvm_interval(INPUT_BITS) * rows - packet_cycles(chip, inputs * rows)
    return max(0, left) * (part.cols[1] - part.cols[0]) / sum(p.cols[1] - p.cols[0] for p in mine)


def columns_each(grids: Sequence[tuple[Grid, float]], capacity: int, worked: int) -> int:
    """Columns of blocks that each tile of a stage's matrices is to take, as even as they can be: no more than ``capacity``
    cores hold and, if not 0, not more columns than are ``worked`` off. ``grids``: with the work of their columns
    (:data:`WORK`)."""
    across, down = sum(g.across for g, _ in grids), max(g.down for g, _ in grids)
    most = max(1, capacity // down)
    if worked:
        mean = sum(g.across * work for g, work in grids) / across
        most = min(most, max(1, int(worked / mean) // grids[0][0].block_cols))
    return -(-across // -(-across // most))


def columns_time(
    chip: ChipSpec,
    tile: int,
    segments: Sequence[Segment],
    stages: Mapping[str, int],
    matrices: Mapping[str, tuple[PlacedMatrix, ...]],
    copies: Mapping[int, int],
    work: Mapping[str, float],
) -> int:
    """Cycles that the segments' rows take, one after the other, in the tiles (as ``tile``) that hold most columns of their
    products; estimated: nothing waits. ``work``: with a product's columns, where it is not 1 (:data:`WORK`)."""
    interval, found = TileUnits(chip, tile).mvm_interval(INPUT_BITS), 0
    for segment in segments:
        loads: dict[int, dict[int, float]] = {}
        for node in segment.nodes if segment.style is Style.STREAM else ():
            if node.op in MATRIX_OPS:
                of = loads.setdefault(stages[node.outputs[0]], {})
                for at, columns in column_tiles(matrices[node.outputs[0]][:1]).items():
                    of[at] = of.get(at, 0) + columns * work.get(node.outputs[0], 1.0)
        widest = max((max(of.values()) for of in loads.values()), default=0)
        cycles = max(interval, int(interval * widest) // max(1, worked_off(chip, tile)))
        found += cycles * segment.rows // copies.get(segment.index, 1)
    return found


def lanes_together(stages: int, tiles: int, most: int) -> int:
    """How many of so many tiles do all stages of a segment, each of every so many blocks (``most`` at most), where there are
    less than two tiles for a stage: what one stage hands to another then stays in its tile, and each does as much as the
    others. 0: stages have tiles of their own."""
    if min(stages, most) < 2 or not stages <= tiles < 2 * stages:
        return 0
    return 1 << (min(tiles, most).bit_length() - 1)


def lanes(work: Sequence[int], tiles: int, most: int) -> list[int]:
    """How many of so many tiles take turns in each vector stage, ``most`` at most: the stages that handle most elements a row
    are doubled first."""
    counts = [1] * len(work)
    while True:
        left = tiles - sum(counts)
        fits = [s for s, n in enumerate(counts) if 2 * n <= most and n <= left and work[s]]
        if not fits:
            return counts
        counts[max(fits, key=lambda s: work[s] / counts[s])] *= 2


def sharing(graph: Graph, segment: Segment, tile: TileSpec, able: int, bytes_per_cycle: float) -> int:
    """Of ``able`` tiles, those that share a SPREAD segment's rows: all, unless it multiplies by constants. Each tile then
    loads all of them from global memory, one tile after the other, and works off its rows: T tiles take
    T · W / bandwidth + C / T cycles, with W bytes of constants and C cycles of rows through matmul and vector units."""
    held = constants_held(graph, segment.nodes)
    if not held:
        return able
    passes = 0
    for value in held:
        k, n = graph.type(value).shape[-2:]
        passes += math.ceil(k / tile.matmul.rows) * math.ceil(n / tile.matmul.cols) if tile.matmul else 0
    elements = sum(graph.type(o).size for node in segment.nodes for o in node.outputs if o)
    cycles = passes * segment.rows + elements / (tile.vector.lanes if tile.vector else 1)
    best = math.sqrt(cycles * bytes_per_cycle / sum(held.values()))
    return max(1, min(able, round(best)))
