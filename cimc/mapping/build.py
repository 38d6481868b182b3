"""The mapping of a partitioned graph: homes, segments, placement."""

from __future__ import annotations

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.layout import homes, materialize
from cimc.mapping.mapping import Mapping, Style
from cimc.mapping.place import place
from cimc.mapping.segment import segments
from cimc.mapping.stages import in_stages


def build(graph: Graph, chip: ChipSpec, precision: str, choices: Choices = DEFAULT) -> tuple[Graph, Mapping]:
    """Map a partitioned graph onto a chip; the graph comes back with the copies that layouts need. Raises the does-not-fit
    diagnostics."""
    graph, views = materialize(graph)
    found = segments(graph, matmul_room(chip))
    placement = place(graph, found, chip, precision, choices)
    ordered = tuple(in_stages(s, placement) if s.style is Style.STREAM else s for s in found)
    return graph, Mapping(homes(graph, views), ordered, placement, choices)


def matmul_room(chip: ChipSpec) -> int:
    """Bytes of constant operands that a tile with a matmul unit holds at once: half of the smallest such tile's buffer,
    the rest is for what it works on. 0 if the chip has no such tile."""
    return min((t.local_bytes for t in chip.tiles.values() if t.matmul is not None), default=0) // 2
