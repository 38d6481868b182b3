"""The mapping of a partitioned graph: homes, segments, placement."""

from __future__ import annotations

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.layout import homes, materialize
from cimc.mapping.mapping import Mapping, Style
from cimc.mapping.place import in_stages, place
from cimc.mapping.segment import segments


def build(graph: Graph, chip: ChipSpec, precision: str, choices: Choices = DEFAULT) -> tuple[Graph, Mapping]:
    """Map a partitioned graph onto a chip; the graph comes back with the copies that layouts need. Raises the does-not-fit
    diagnostics."""
    graph, views = materialize(graph)
    found = segments(graph)
    placement = place(graph, found, chip, precision, choices)
    ordered = tuple(in_stages(s, placement) if s.style is Style.STREAM else s for s in found)
    return graph, Mapping(homes(graph, views), ordered, placement, choices)
