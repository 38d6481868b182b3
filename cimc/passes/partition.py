"""Cut static matmuls into blocks that fit a core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cimc import errors
from cimc.ir.graph import Constants, Graph
from cimc.passes.editor import Editor


@dataclass(frozen=True)
class Partition:
    """Every ``mvm`` becomes ``blocked_mvm``, with blocks of at most ``rows`` inputs by ``cols`` outputs: what one
    core holds.

    Before::

        %acc : q32[2x300] = mvm %x.q8, %w.q8

    After::

        %acc : q32[2x300] = blocked_mvm{rows=128, cols=128} %x.q8, %w.q8
    """

    name: ClassVar[str] = "partition"
    takes: ClassVar[tuple[str, ...]] = ("quantized",)
    leaves: ClassVar[str] = "partitioned"

    rows: int = 128
    cols: int = 128

    def __post_init__(self) -> None:
        for option, value in (("rows", self.rows), ("cols", self.cols)):
            if value < 1:
                raise errors.PASS_OPTION(option=option, name=self.name, why=f"{value} is below 1", fix="give 1 or more")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        editor = Editor(graph, constants)
        attrs = (("rows", self.rows), ("cols", self.cols))
        for node in graph.nodes:
            if node.op == "mvm":
                output = node.outputs[0]
                editor.emit("blocked_mvm", node.inputs, origins=node.origins, output=output, attrs=attrs)
            else:
                editor.keep(node)
        return editor.finish(self.leaves)
