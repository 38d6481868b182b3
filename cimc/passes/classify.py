"""Tell static matmuls from dynamic ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Array, Attrs, Constants, Graph, Node, Type
from cimc.ir.levels import FLOATS, flat
from cimc.passes.editor import Editor


@dataclass(frozen=True)
class Classify:
    """A product of an activation and a constant matrix becomes ``linear``: its weights can live in cells. The
    matmul's scale goes into the weights; a constant first operand is transposed to be the second; a product over one
    term only is no matmul but a ``mul``.

    Before::

        const %w : f32[1x4x3]
        %y : f32[1x2x3] = matmul{scale=0.5} %x, %w

    After::

        const %w.matrix : f32[4x3]
        %y : f32[1x2x3] = linear %x, %w.matrix
    """

    name: ClassVar[str] = "classify"
    takes: ClassVar[tuple[str, ...]] = ("imported", "canonical")
    leaves: ClassVar[str] = "canonical"

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises LawBroken afterwards, when the result is checked, if ``fold`` has not run before."""
        work = _Classifier(Editor(graph, constants))
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish(self.leaves)


class _Classifier:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.matrices: dict[tuple[str, bool, float], str] = {}

    def visit(self, node: Node) -> None:
        node = self.editor.renamed(node)
        elements = {self.editor.types[v].element for v in node.inputs if v}
        if node.op != "matmul" or len(elements) > 1 or not elements <= FLOATS:
            self.editor.keep(node)
            return
        a, b = node.inputs
        if self._matrix(b):
            self._second(node, a, b)
        elif self._matrix(a):
            self._first(node, a, b)
        elif self.editor.types[a].shape[-1] == 1:
            self._outer(node, a, b)
        else:
            self.editor.keep(node)

    def _matrix(self, value: str) -> bool:
        return self.editor.is_constant(value) and flat(self.editor.types[value].shape)

    def _second(self, node: Node, x: str, w: str) -> None:
        if self.editor.types[w].shape[-2] == 1:
            self._outer(node, x, w)
            return
        self._shaped(node, "linear", (x, self._weights(node, w, transposed=False)))

    def _first(self, node: Node, w: str, x: str) -> None:
        """W · x = (xᵀ · Wᵀ)ᵀ."""
        editor, y = self.editor, node.outputs[0]
        if editor.types[w].shape[-1] == 1:
            self._outer(node, w, x)
            return
        turned = self._transpose(node, x, editor.fresh(f"{y}.x"))
        matrix = self._weights(node, w, transposed=True)
        product = editor.emit("linear", (turned, matrix), origins=node.origins, output=editor.fresh(f"{y}.linear"))
        self._shaped(node, "transpose", (product,), (("perm", _swapped(editor, product)),))

    def _transpose(self, node: Node, value: str, output: str) -> str:
        attrs = (("perm", _swapped(self.editor, value)),)
        return self.editor.emit("transpose", (value,), origins=node.origins, output=output, attrs=attrs)

    def _shaped(self, node: Node, op: str, inputs: tuple[str, ...], attrs: Attrs = ()) -> None:
        """Write ``op`` so that it defines the node's output; a reshape restores leading extents of 1 of the weights."""
        editor, y = self.editor, node.outputs[0]
        rank = len(editor.types[inputs[0]].shape)
        shape = editor.types[y].shape
        if rank == len(shape):
            editor.emit(op, inputs, origins=node.origins, output=y, attrs=attrs)
            return
        narrow = editor.emit(op, inputs, origins=node.origins, output=editor.fresh(f"{y}.{op}"), attrs=attrs)
        editor.emit("reshape", (narrow,), origins=node.origins, output=y, attrs=(("shape", shape),))

    def _outer(self, node: Node, a: str, b: str) -> None:
        """Over one term: (… × m × 1) · (… × 1 × n) is an elementwise product."""
        editor, y = self.editor, node.outputs[0]
        scale = node.number("scale", 1.0)
        if scale == 1.0:
            editor.emit("mul", (a, b), origins=node.origins, output=y)
            return
        element = editor.types[y].element
        factor = editor.fresh(f"{y}.scale")
        editor.constant(factor, Type(element, ()), _filled(scale, element.dtype(exact=False)))
        product = editor.emit("mul", (a, b), origins=node.origins, output=editor.fresh(f"{y}.product"))
        editor.emit("mul", (product, factor), origins=node.origins, output=y)

    def _weights(self, node: Node, w: str, *, transposed: bool) -> str:
        """The constant as a matrix inputs × outputs with the matmul's scale in it; shared by all that use it so."""
        editor = self.editor
        scale = node.number("scale", 1.0)
        type = editor.types[w]
        if len(type.shape) == 2 and not transposed and scale == 1.0:
            return w
        key = (w, transposed, scale)
        if key not in self.matrices:
            rows, cols = type.shape[-2:]
            name = editor.fresh(f"{w}.matrix")
            self.matrices[key] = name
            shape = (cols, rows) if transposed else (rows, cols)
            editor.constant(name, Type(type.element, shape), _matrix(w, (rows, cols), transposed, scale))
        return self.matrices[key]


def _swapped(editor: Editor, value: str) -> tuple[int, ...]:
    rank = len(editor.types[value].shape)
    return (*range(rank - 2), rank - 1, rank - 2)


def _matrix(w: str, shape: tuple[int, int], transposed: bool, scale: float) -> Callable[[Constants], Array]:
    def make(constants: Constants) -> Array:
        value: Array = constants[w].reshape(shape)
        if scale != 1.0:
            value = np.multiply(value, np.float32(scale)).astype(value.dtype, copy=False)
        return np.transpose(value) if transposed else value

    return make


def _filled(value: float, dtype: np.dtype[np.generic]) -> Callable[[Constants], Array]:
    return lambda constants: np.asarray(value, dtype)
