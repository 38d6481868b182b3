"""Products of activations whose second operand goes into cells as the model runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from cimc import errors
from cimc.ir.graph import Attrs, Constants, Graph, Node
from cimc.ir.levels import FLOATS
from cimc.isa.operands import Element
from cimc.ops.layout import integers
from cimc.ops.written import NVM, SRAM, WRITTEN
from cimc.origin import Origin
from cimc.passes.editor import Editor


@dataclass(frozen=True)
class Written:
    """Every ``attention``, and every ``matmul`` of two floating-point activations, becomes ``quantize`` →
    ``written_matmul``: the second operand (kᵀ, v) goes into cells, as codes with a scale per column, the first streams
    through them as codes with a scale per row. The arithmetic is that of a matmul unit of 8 operand bits, so in ``integer``
    numerics nothing changes but the time. What is quantised already (the value that the projections read) is not
    quantised again.

    Before::

        %y : f32[1x2x8x4] = attention{scale=0.5} %q, %kt, %v

    After::

        %q.q8 : q8[1x2x8x4], %q.scale : f32[1x2x8x1] = quantize %q
        %scores : f32[1x2x8x8] = written_matmul{cells=nvm, rows=128, cols=128, product=qk} %q.q8, %kt, %q.scale
        (mul by the scale, add of the mask, softmax, and the same with v)
    """

    name: ClassVar[str] = "written"
    takes: ClassVar[tuple[str, ...]] = ("quantized",)
    leaves: ClassVar[str] = "quantized"

    cells: Literal["sram", "nvm"] = NVM
    rows: int = 128
    cols: int = 128

    def __post_init__(self) -> None:
        if self.cells not in (SRAM, NVM):
            why = f"there are no '{self.cells}' cells"
            raise errors.PASS_OPTION(option="cells", name=self.name, why=why, fix="use sram or nvm")
        for option, value in (("rows", self.rows), ("cols", self.cols)):
            if value < 1:
                raise errors.PASS_OPTION(option=option, name=self.name, why=f"{value} is below 1", fix="give 1 or more")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        work = _Writer(Editor(graph, constants), self)
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish(self.leaves)


class _Writer:
    def __init__(self, editor: Editor, how: Written) -> None:
        self.editor = editor
        self.block: Attrs = (("cells", how.cells), ("rows", how.rows), ("cols", how.cols))
        self.codes: dict[str, tuple[str, str]] = {}  # value → its codes and scales, a scale per row

    def visit(self, node: Node) -> None:
        editor = self.editor
        node = editor.renamed(node)
        if node.op == "quantize":
            self.codes[node.inputs[0]] = (node.outputs[0], node.outputs[1])
        if node.op == "attention" and self._dynamic(node, 1) and self._dynamic(node, 2):
            self._attention(node)
        elif node.op == "matmul" and self._dynamic(node, 1):
            scale = node.number("scale", 1.0)
            product = self._product(node, node.inputs[0], node.inputs[1], "matmul")
            self._finish(node, self._scaled(node, product, scale))
        else:
            editor.keep(node)

    def _dynamic(self, node: Node, index: int) -> bool:
        value = node.inputs[index]
        return not self.editor.is_constant(value) and self.editor.types[value].element in FLOATS

    def _attention(self, node: Node) -> None:
        q, k, v = node.inputs[:3]
        kept = str(node.get("kept", ""))
        scores = self._product(node, q, k, "qk", (("kept", kept),) if kept else ())
        scores = self._scaled(node, scores, node.number("scale"))
        if len(node.inputs) > 3 and node.inputs[3]:
            scores = self._emit(node, "add", (scores, self._single(node, node.inputs[3])), "masked")
        weights = self._emit(node, "softmax", (scores,), "weights")
        self._finish(node, self._product(node, weights, v, "pv"))

    def _product(self, node: Node, a: str, b: str, product: str, more: Attrs = ()) -> str:
        """a · b through cells, as float32."""
        codes, scale = self._rows(node, self._single(node, a))
        b = self._single(node, b)
        columns = self._turned(node, b)
        written = [b]
        if self._has_codes(columns):
            written = [self._turned(node, v) for v in self._rows(node, columns)]
        attrs = (*self.block, ("product", product), *more)
        return self._emit(node, WRITTEN, (codes, written[0], scale, *written[1:]), product, attrs)

    def _scaled(self, node: Node, value: str, scale: float) -> str:
        if scale == 1.0:
            return value
        return self._emit(node, "mul", (value, self.editor.number(scale, Element.F32)), "scaled")

    def _single(self, node: Node, value: str) -> str:
        """The value as float32."""
        if self.editor.types[value].element is Element.F32:
            return value
        return self._emit(node, "cast", (value,), "f32", (("to", Element.F32.value),))

    def _finish(self, node: Node, value: str) -> None:
        """The node's output from a float32 value."""
        editor, y = self.editor, node.outputs[0]
        element = editor.types[y].element
        if element is not Element.F32:
            editor.emit("cast", (value,), origins=node.origins, output=y, attrs=(("to", element.value),))
        elif not editor.replace(y, value):
            editor.emit("reshape", (value,), origins=node.origins, output=y, attrs=(("shape", editor.types[y].shape),))

    def _turned(self, node: Node, value: str) -> str:
        """The value with its last two axes exchanged; a transpose of a transpose is one, or none."""
        rank = len(self.editor.types[value].shape)
        perm = (*range(rank - 2), rank - 1, rank - 2)
        before = self.editor.producer.get(value)
        if before is not None and before.op == "transpose":
            inner = integers(before, "perm")
            perm, value = tuple(inner[i] for i in perm), before.inputs[0]
        if perm == tuple(range(rank)):
            return value
        return self._emit(node, "transpose", (value,), "turned", (("perm", perm),))

    def _rows(self, node: Node, value: str) -> tuple[str, str]:
        """Codes and scales of a value, a scale for each row along the last axis: those that it or what it is a view of has
        already, or new ones."""
        if value in self.codes:
            return self.codes[value]
        editor, before = self.editor, self.editor.producer.get(value)
        shape = editor.types[value].shape
        if before is None or not self._has_codes(value):
            names = (editor.fresh(f"{value}.q8"), editor.fresh(f"{value}.scale"))
            editor.emit_all("quantize", (value,), origins=node.origins, outputs=names)
            self.codes[value] = names
            return names
        codes, scale = self._rows(node, before.inputs[0])
        if before.op == "transpose":
            found = tuple(self._emit(node, "transpose", (v,), "turned", before.attrs) for v in (codes, scale))
        else:
            shapes = ((codes, shape), (scale, (*shape[:-1], 1)))
            found = tuple(self._emit(node, "reshape", (v,), "shaped", (("shape", s),)) for v, s in shapes)
        self.codes[value] = (found[0], found[1])
        return self.codes[value]

    def _has_codes(self, value: str) -> bool:
        """Whether a value's rows, or those it is a view of, are quantised already."""
        before = self.editor.producer.get(value)
        while (
            value not in self.codes and before is not None and self._same_rows(before, self.editor.types[value].shape)
        ):
            value = before.inputs[0]
            before = self.editor.producer.get(value)
        return value in self.codes

    def _same_rows(self, view: Node, shape: tuple[int, ...]) -> bool:
        source = self.editor.types[view.inputs[0]].shape
        if view.op == "transpose":
            return integers(view, "perm")[-1] == len(shape) - 1
        return view.op == "reshape" and len(source) > 0 and source[-1] == shape[-1] and shape[-1] != 0

    def _emit(self, node: Node, op: str, inputs: tuple[str, ...], hint: str, attrs: Attrs = ()) -> str:
        origins: tuple[Origin, ...] = node.origins
        output = self.editor.fresh(f"{node.outputs[0]}.{hint}")
        return self.editor.emit(op, inputs, origins=origins, output=output, attrs=attrs)
