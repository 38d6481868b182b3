"""Which tiles hand rows to each other from segment to segment: a residual stays where it is if one tile makes and takes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cimc.codegen.context import Context
from cimc.ir.graph import Node
from cimc.mapping.placement import Placement, Segment
from cimc.mapping.segment import MATRIX_OPS
from cimc.ops import OPS, Access

Role = tuple[int, int]
"""A segment, and the tile whose work in it is meant."""


@dataclass(frozen=True, slots=True)
class Handed:
    """Rows that the tile ``source`` of an earlier segment makes and ``to`` takes."""

    source: Role
    to: Role


def handed(context: Context, placement: Placement, segment: Segment) -> Iterator[Handed]:
    """What lanes of earlier segments hand to those of this one, where as many tiles take turns with the rows: one tile then
    makes all the rows that another one takes (:mod:`cimc.codegen.dealt`). Of copies that are fewer on one side, the
    first ones."""
    for value, node in _brought_in(context, segment):
        before = context.segment_of.get(value, -1)
        if before not in placement.homes or value in placement.shards:
            continue
        made = [stages[placement.stages[value]] for stages in placement.homes[before]]
        taken = [stages[placement.stages[node.outputs[0]]] for stages in placement.homes[segment.index]]
        for sources, to in zip(made, taken, strict=False):
            if len(sources) == len(to):
                ends = zip(sources, to, strict=True)
                yield from (Handed((before, a), (segment.index, b)) for a, b in ends)


def _brought_in(context: Context, segment: Segment) -> Iterator[tuple[str, Node]]:
    """Values from outside that stages of a segment read row by row, and their nodes."""
    tails = context.tails(segment)
    for node in segment.nodes:
        if node.op in MATRIX_OPS or node.outputs[0] in context.placement.shards:
            continue
        for i, value in enumerate(node.inputs):
            if value and value not in tails and OPS[node.op].access(node, i) is Access.ROWS:
                yield context.homes[value].buffer, node
