"""Dead code elimination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import LEVELS
from cimc.passes.editor import live_nodes


@dataclass(frozen=True)
class Dce:
    """Drop nodes, and constants, that no output depends on.

    Before::

        %a : f32[2] = neg %x
        %b : f32[2] = exp %x
        output %a

    After::

        %a : f32[2] = neg %x
        output %a
    """

    name: ClassVar[str] = "dce"
    takes: ClassVar[tuple[str, ...]] = tuple(LEVELS)
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        return graph.with_nodes(live_nodes(graph.nodes, graph.outputs)), constants
