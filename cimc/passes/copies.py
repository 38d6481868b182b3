"""Static matmuls held several times, their results averaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cimc import errors
from cimc.ir.graph import Constants, Graph, Node
from cimc.ops.matmul import CORES
from cimc.passes.chosen import check_layers, chosen
from cimc.passes.editor import Editor

COUNTS = (2, 4, 8)


@dataclass(frozen=True)
class Copies:
    """The static matmuls that ``layers`` names (ONNX nodes or weights, patterns with ``*``, commas between) are held by
    ``count`` sets of cells each, and their results are averaged: errors of the cells that are independent become smaller
    by the root of ``count``. All levels of numerics but the analog one compute what they did, bit for bit: sums of equal
    numbers and halves are exact.

    Products of the model's own integers and digital ones are left as they are.

    Before::

        %y : f32[2x3] = linear %x, %w

    After, with ``count=2``::

        %y.copy : f32[2x3] = linear %x, %w
        %y.copy.1 : f32[2x3] = linear %x, %w
        %y.sum : f32[2x3] = add %y.copy, %y.copy.1
        %y : f32[2x3] = mul %y.sum, %0.5.f32
    """

    name: ClassVar[str] = "copies"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    count: int = 2
    layers: str = "*"

    def __post_init__(self) -> None:
        if self.count not in COUNTS:
            why = f"{self.count} is none of {', '.join(map(str, COUNTS))}"
            fix = "give a power of two, so that the mean of equal results is that result"
            raise errors.PASS_OPTION(option="count", name=self.name, why=why, fix=fix)
        check_layers(self.layers, self.name)

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises PASS_OPTION for a name that no static matmul has."""
        static = any(n.op in ("linear", "mvm") for n in graph.nodes)
        wanted = chosen(graph.nodes, self.layers, self.name) if static else frozenset[str]()
        editor = Editor(graph, constants)
        for node in graph.nodes:
            if node.outputs[0] in wanted and node.op == "linear" and node.get("unit", CORES) == CORES:
                self._copied(editor, editor.renamed(node))
            else:
                editor.keep(node)
        return editor.finish(self.leaves)

    def _copied(self, editor: Editor, node: Node) -> None:
        y, origins = node.outputs[0], node.origins
        parts: list[str] = []
        for _ in range(self.count):
            output = editor.fresh(f"{y}.copy")
            parts.append(editor.emit("linear", node.inputs, origins=origins, output=output, attrs=node.attrs))
        while len(parts) > 1:  # a tree: every sum is of equal numbers where nothing is analog
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [editor.emit("add", p, origins=origins, output=editor.fresh(f"{y}.sum")) for p in pairs]
        share = editor.number(1 / self.count, editor.types[y].element)
        editor.emit("mul", (parts[0], share), origins=origins, output=y)
