"""The mapping of a partitioned graph: homes, segments, placement."""

from __future__ import annotations

from dataclasses import replace

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph
from cimc.mapping.ahead import ahead
from cimc.mapping.brought import brought
from cimc.mapping.caches import wanted
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.layout import Views, homes, materialize
from cimc.mapping.mapping import Mapping
from cimc.mapping.pinned import apply
from cimc.mapping.place import place
from cimc.mapping.placement import Home, Segment, Style
from cimc.mapping.placement_file import Pinned
from cimc.mapping.recompute import KEPT_SHARE, recomputed
from cimc.mapping.region import Region, find
from cimc.mapping.segment import cores_needed, segments
from cimc.mapping.stages import in_stages
from cimc.mapping.written import cells_of, weight_cores
from cimc.passes.codes import uncoded

CODES_COST = 1.04
"""Where bringing operands to codes costs tiles of products more than that many times of their time, they stay as they are: what
the products of activations gain is less then (estimated; MiniLM on `sram-digital`: 2 % pays, 9 % does not). Where a batch
streams it does not count: what tiles for vector work receive sets the pace there."""


def build(
    graph: Graph, chip: ChipSpec, precision: str, choices: Choices = DEFAULT, pinned: Pinned | None = None
) -> tuple[Graph, Mapping]:
    """Map a partitioned graph onto a chip (:func:`_built`), with the operands of products of activations as codes or not, as
    the choices say. The graph comes back as it was mapped."""
    if choices.codes == "off":
        return _built(uncoded(graph), chip, precision, choices, pinned)
    if choices.codes == "on":
        return _built(graph, chip, precision, choices, pinned)
    found = _built(graph, chip, precision, choices, None)
    if found[1].placement.busy and found[1].region is None:
        plain = _built(uncoded(graph), chip, precision, choices, None)
        if found[1].placement.time > CODES_COST * plain[1].placement.time:
            graph, found = uncoded(graph), plain
    return found if pinned is None else _built(graph, chip, precision, choices, pinned)


def _built(
    graph: Graph, chip: ChipSpec, precision: str, choices: Choices, pinned: Pinned | None
) -> tuple[Graph, Mapping]:
    """Map a partitioned graph onto a chip; the graph comes back with the copies that layouts need. ``pinned``: the placement
    that a user gives. Raises the does-not-fit diagnostics, PLACEMENT, and CACHE."""
    if choices.cache != "memory" and choices.optimize == "throughput":
        why, fix = "a batch that streams reads no cache in its place", "leave --optimize throughput out"
        raise errors.CACHE(how=choices.cache, why=why, fix=fix)
    graph, views = materialize(graph)
    caches = wanted(graph, choices.cache)
    held = frozenset(c.present for c in caches)
    if held:
        graph, views = materialize(graph, held)
    found, stored = segments(graph, matmul_room(chip)), homes(graph, views)
    cores = weight_cores(chip, next(filter(None, map(cells_of, found)), ""))
    if choices.reload and sum(cores_needed(graph, n) for n in graph.nodes) > cores:
        # A segment's weights are in cells together; half of the chip leaves room for the next one's.
        found = segments(graph, matmul_room(chip), cores // 2)
    if choices.optimize == "throughput":
        choices = replace(choices, aside=False)  # a stage's columns stay on the tiles of their products
    region = None
    if choices.optimize == "throughput" and not choices.reload:
        graph, found, stored, region = _streamed(graph, found, stored, matmul_room(chip) * 2 // KEPT_SHARE)
        region = _shared(region, choices.replicas or 1) if region else None
    if choices.optimize == "latency":
        graph, found = recomputed(graph, found, matmul_room(chip) * 2 // KEPT_SHARE)
        stored = homes(graph, Views(graph, held))
    said = dict.fromkeys(region.segments, region.copies) if region else {}
    placement = place(graph, found, chip, precision, choices, said=said, brought=brought(graph, region))
    placement = ahead(graph, found, region, placement, chip)
    ordered = tuple(in_stages(s, placement) if s.style is Style.STREAM else s for s in found)
    if pinned is not None:
        placement = apply(pinned, graph, ordered, chip, precision, placement)
    if region is not None:
        parts = (replace(p, segment=replace(p.segment, nodes=ordered[p.segment.index].nodes)) for p in region.parts)
        region = replace(region, parts=tuple(parts))
    return graph, Mapping(stored, ordered, placement, choices, region, caches)


def _streamed(
    graph: Graph, found: tuple[Segment, ...], stored: dict[str, Home], kept: int
) -> tuple[Graph, tuple[Segment, ...], dict[str, Home], Region | None]:
    """The graph, the segments, homes and region of a batch that streams. Masks are computed again where they are read, if no
    less streams then."""
    plain = _region(graph, found, stored)
    again, copied = recomputed(graph, found, kept)
    if again is graph or plain[2] is None:
        return graph, *plain
    other = _region(again, copied, homes(again, Views(again)))
    return (graph, *plain) if other[2] is None or len(other[2].parts) < len(plain[2].parts) else (again, *other)


def _region(
    graph: Graph, found: tuple[Segment, ...], stored: dict[str, Home]
) -> tuple[tuple[Segment, ...], dict[str, Home], Region | None]:
    """The segments, homes and region of a batch that streams. Where some products do not stream with values as they lie,
    values with heads are tried row by row: of the two what has more segments in it."""
    ordered, region = find(graph, stored, found)
    inside = frozenset(region.segments if region else ())
    if all(s.style is not Style.STREAM or s.index in inside for s in ordered):
        return ordered, stored, region
    other = homes(graph, Views(graph, by_rows=True))
    again, more = find(graph, other, found)
    if more is None or len(more.parts) <= len(inside):
        return ordered, stored, region
    return again, other, more


def _shared(region: Region, copies: int) -> Region:
    """A region in copies that share its samples. Raises MAPPING_CHOICE."""
    if region.waves % copies:
        why = f"{region.waves} samples cannot be shared evenly among {copies} copies"
        raise errors.MAPPING_CHOICE(text=f"replicas={copies}", why=why, fix="give a divisor of the batch")
    return replace(region, copies=copies)


def matmul_room(chip: ChipSpec) -> int:
    """Bytes of constant operands that a tile with a matmul unit holds at once: half of the smallest such tile's buffer,
    the rest is for what it works on. 0 if the chip has no such tile."""
    return min((t.local_bytes for t in chip.tiles.values() if t.matmul is not None), default=0) // 2
