"""Tiles that only move values, and tiles for vector stages that stand beside matrices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cimc.ir.graph import Graph
from cimc.mapping.placement import PlacedMatrix, Segment

MIN_REGION = 4096
"""Elements of an assembled value that are worth one more tile to move them (estimated; 1024 and
16384: the same for ViT)."""


def assembling(graph: Graph, segment: Segment, able: Sequence[int], turn: int) -> tuple[int, ...]:
    """Tiles that assemble an ASSEMBLE segment's value, from number ``turn`` of those that are able."""
    elements = max(graph.type(o).size for o in segment.nodes[0].outputs if o)
    count = max(1, min(len(able), elements // MIN_REGION))
    return tuple(able[(turn + i) % len(able)] for i in range(count))


def off_matrices(
    able: Sequence[int], segment: Segment, matrices: Mapping[str, tuple[PlacedMatrix, ...]], least: int
) -> list[int]:
    """Tiles without the segment's matrices, whose products would wait for the vector work in the same stream; all where
    those are fewer than ``least``."""
    busy = {p.tile for n in segment.nodes for m in matrices.get(n.outputs[0], ()) for p in m.parts}
    apart = [t for t in able if t not in busy]
    return apart if len(apart) >= least else list(able)


def of_other_copies(
    segment: Segment, matrices: Mapping[str, tuple[PlacedMatrix, ...]], replicas: int
) -> list[frozenset[int]]:
    """For each copy of a segment the tiles with matrices of others only: vector work there would be done before or after
    theirs, one copy after the other."""
    of = [
        {p.tile for n in segment.nodes for m in matrices.get(n.outputs[0], ())[r : r + 1] for p in m.parts}
        for r in range(replicas)
    ]
    return [frozenset().union(*of) - of[r] for r in range(replicas)]
