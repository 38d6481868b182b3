"""What comes before a batch's region, sample by sample: the products of a picture's patches.

A region begins when all that it loads is there. Where a segment before it makes its rows from inputs alone, in the order of the
samples, the region need not wait for the last of them: the segment has one copy of its weights, and tiles of its own, on
which it works on the next sample while the region works on those before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.ir.graph import Graph, Node
from cimc.mapping.lacking import lacking
from cimc.mapping.lanes import INPUT_BITS
from cimc.mapping.layout import is_view
from cimc.mapping.placement import Placement, Segment, Style
from cimc.mapping.region import Region
from cimc.mapping.segment import MATRIX_OPS, product
from cimc.mapping.units import tiles_with, units_needed

BUFFERS = 4
"""Rows of inputs for which a tile must have room, at least, to load and quantise them (estimated)."""


def ahead(
    graph: Graph, segments: Sequence[Segment], region: Region | None, placement: Placement, chip: ChipSpec
) -> Placement:
    """A placement in which segments that can work sample by sample before the region have one copy, and their vector stages
    tiles that neither the region nor another segment has, if there are such tiles."""
    if region is None:
        return placement
    for segment in _before(graph, segments, region):
        tiles = _free(graph, segments, region, placement, chip, segment)
        stages = len(placement.homes[segment.index][0])
        if len(tiles) < stages or not _pays(graph, segment, placement, chip, region):
            continue
        values = [n.outputs[0] for n in segment.nodes if n.op in MATRIX_OPS]
        near = [p.tile for v in values for p in placement.matrices[v][0].parts]
        tiles.sort(key=lambda t: (sum(noc.hops(chip, t, at) for at in near), t))
        one = {v: placement.matrices[v][:1] for v in values}
        beside = {i: of[:1] if i == segment.index else of for i, of in placement.beside.items()}
        homes = {**placement.homes, segment.index: (tuple((t,) for t in tiles[:stages]),)}
        found = replace(placement, matrices={**placement.matrices, **one}, homes=homes, beside=beside)
        if _tiles(found, segment) <= ahead_tiles(graph, segments, region, found, chip):
            placement = found
    return placement


def ahead_tiles(
    graph: Graph, segments: Sequence[Segment], region: Region | None, placement: Placement, chip: ChipSpec
) -> frozenset[int]:
    """The tiles of the segments that work sample by sample before the region: nothing else has any of them."""
    if region is None:
        return frozenset()
    found: set[int] = set()
    for segment in _before(graph, segments, region):
        own = _tiles(placement, segment)
        others = {t for s in segments if s.index != segment.index for t in _tiles(placement, s)}
        if len(placement.homes[segment.index]) == 1 and not own & (others | _able(placement, region, chip)):
            found |= own
    return frozenset(found)


def _before(graph: Graph, segments: Sequence[Segment], region: Region) -> Iterator[Segment]:
    """Segments with products before a region in one copy, by samples as it, that read nothing that another segment makes."""
    made = {o for s in segments for n in s.nodes for o in n.outputs}
    for node in filter(is_view, graph.nodes):
        if node.inputs[0] in made:
            made.update(node.outputs)
    for segment in segments[: region.segments[0]] if region.copies == 1 else ():
        own = {o for n in segment.nodes for o in n.outputs}
        alone = all(v in own or v not in made for n in segment.nodes for v in n.inputs)
        if segment.style is Style.STREAM and alone and len(segment.domain) > 1 and segment.domain[0] == region.waves:
            yield segment


def _tiles(placement: Placement, segment: Segment) -> set[int]:
    """Tiles of a segment; those of a region's stages are chosen later."""
    index = segment.index
    beside = (t for of in placement.beside.get(index, ()) for t in of.values())
    return {*placement.tiles.get(index, ()), *placement.seats(index), *beside, *placement.matrix_tiles(segment)}


def _able(placement: Placement, region: Region, chip: ChipSpec) -> set[int]:
    """Tiles that may get a stage of the region."""
    units = {units_needed([n]) for p in region.parts for n in _apart(placement, p.segment)}
    return {t for needed in units for t in tiles_with(chip, needed)}


def _apart(placement: Placement, segment: Segment) -> list[Node]:
    """What is done with vectors, and not beside products."""
    return [n for n in segment.nodes if n.op not in MATRIX_OPS and n.outputs[0] not in placement.shards]


def _free(
    graph: Graph, segments: Sequence[Segment], region: Region, placement: Placement, chip: ChipSpec, segment: Segment
) -> list[int]:
    """Tiles without work that can do a segment's."""
    taken = _able(placement, region, chip).union(*(_tiles(placement, s) for s in segments if s is not segment))
    matrices = [n for n in segment.nodes if n.op in MATRIX_OPS]
    taken |= {p.tile for n in matrices for p in placement.matrices[n.outputs[0]][0].parts}
    needed, room = units_needed(_apart(placement, segment)), BUFFERS * _row_bytes(graph, segment)[0]
    able = (t for t in range(chip.tile_count) if not lacking(chip.tile(t), needed))
    return [t for t in able if t not in taken and chip.tile(t).local_bytes >= room]


def _row_bytes(graph: Graph, segment: Segment) -> tuple[int, int]:
    """Bytes of what a row reads of inputs, and of what others read of it."""
    made = {o for n in segment.nodes for o in n.outputs if o}
    read = {v for n in segment.nodes for v in n.inputs if v}
    inputs, outputs = read - made - graph.constants, made - read
    before, after = (sum(graph.type(v).size * graph.type(v).element.bytes for v in of) for of in (inputs, outputs))
    return before // segment.rows, after // segment.rows


def _pays(graph: Graph, segment: Segment, placement: Placement, chip: ChipSpec, region: Region) -> bool:
    """Whether one copy, with its inputs over one tile's link, is done with the first sample before all copies would be with
    all of them, and with each further one before the region would be, had it waited for all."""
    rows, copies = product(segment.domain[1:]), len(placement.homes[segment.index])
    tile = placement.matrices[next(n for n in segment.nodes if n.op in MATRIX_OPS).outputs[0]][0].parts[0].tile
    interval = TileUnits(chip, tile).mvm_interval(INPUT_BITS)
    inputs, outputs = _row_bytes(graph, segment)
    alone = rows * max(interval, inputs / chip.noc.link_bytes_per_cycle)
    memory = region.waves * rows * (inputs + outputs) / chip.memory.bytes_per_cycle
    together = max(-(-region.waves // copies) * rows * interval, memory)
    return alone < together and alone <= region.rows * interval + together / region.waves
