"""Static matmuls that are kept out of the cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cimc.ir.graph import Constants, Graph, Node
from cimc.ops.matmul import DIGITAL
from cimc.passes.chosen import check_layers, chosen
from cimc.passes.editor import Editor


@dataclass(frozen=True)
class Digital:
    """The static matmuls that ``layers`` names (ONNX nodes or weights, patterns with ``*``, commas between) run on the
    digital matmul units: exact 8-bit products, the weights loaded from global memory at each use. ``quantize`` makes
    ``matmul`` of them.

    Before::

        %y : f32[2x3] = linear %x, %w

    After::

        %y : f32[2x3] = linear{unit=digital} %x, %w
    """

    name: ClassVar[str] = "digital"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    layers: str = ""

    def __post_init__(self) -> None:
        check_layers(self.layers, self.name)

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises PASS_OPTION for a name that no static matmul has."""
        wanted = chosen(graph.nodes, self.layers, self.name)
        editor = Editor(graph, constants)
        for node in graph.nodes:
            if node.outputs[0] in wanted and node.op == "linear":
                _emit(editor, node, "linear", (("unit", DIGITAL),))
            elif node.outputs[0] in wanted and len(graph.type(node.inputs[0]).shape) > 1:
                _emit(editor, node, "matmul", ())  # a product of the model's own integers
            else:
                editor.keep(node)
        return editor.finish(self.leaves)


def _emit(editor: Editor, node: Node, op: str, attrs: tuple[tuple[str, str], ...]) -> None:
    editor.emit(op, node.inputs, origins=node.origins, output=node.outputs[0], attrs=attrs)
