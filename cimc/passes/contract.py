"""What a pass is: a frozen value with a name and typed options that turns a graph into another one."""

from __future__ import annotations

from typing import ClassVar, Protocol

from cimc.ir.graph import Constants, Graph


class Pass(Protocol):
    """One pass. Implementations are frozen dataclasses; their fields are the options that a pipeline's text may set."""

    name: ClassVar[str]
    takes: ClassVar[tuple[str, ...]]
    """Levels of graph that it accepts."""

    leaves: ClassVar[str]
    """The level of the graph it returns; empty: that of the graph it was given."""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """The new graph and its constants; what was given is not changed."""
        ...
