"""Transposes moved behind what works element by element, so that a chain of such nodes stays with the rows it came from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from cimc.ir.graph import Attrs, Constants, Graph, Node, Type
from cimc.isa.kernels import BINARY, UNARY
from cimc.ops.layout import integer, integers
from cimc.passes.editor import Editor

Perm = tuple[int, ...]

_COMMUTE = frozenset((*UNARY, *BINARY, "select", "cast", "pad", "concat"))
"""Ops that work element by element, or along axes that their attributes name."""


@dataclass(frozen=True)
class Sink:
    """A transpose that makes columns of rows moves behind elementwise nodes, pads and concats: a convolution's channels
    stay last, next to the product they come from, up to where their order matters. Constants are transposed instead. A transpose
    that makes columns again of what were columns before (pixels that become tokens) stays where it is.

    Before::

        %t : f32[1x16x8x8] = transpose{perm=(0,3,1,2)} %x
        %r : f32[1x16x8x8] = relu %t
        %p : f32[1x16x10x10] = pad{before=(0,0,1,1), after=(0,0,1,1)} %r

    After::

        %a : f32[1x8x8x16] = relu %x
        %b : f32[1x10x10x16] = pad{before=(0,1,1,0), after=(0,1,1,0)} %a
        %p : f32[1x16x10x10] = transpose{perm=(0,3,1,2)} %b
    """

    name: ClassVar[str] = "sink"
    takes: ClassVar[tuple[str, ...]] = ("imported", "canonical")
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        work = _Sinker(Editor(graph, constants))
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish()


class _Sinker:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    def visit(self, node: Node) -> None:
        node = self.editor.renamed(node)
        perm = self._common(node)
        if perm is None:
            self.editor.keep(node)
            return
        inputs = tuple(self._turned(node, v, perm) for v in node.inputs)
        whole = self.editor.types[node.outputs[0]]
        type = Type(whole.element, _sorted_back(whole.shape, perm))
        name = self.editor.fresh(f"{node.outputs[0]}.rows")
        self.editor.types[name] = type
        self.editor.keep(replace(node, inputs=inputs, outputs=(name,), attrs=_attrs(node, perm)))
        self._transpose(name, node.outputs[0], node, perm)

    def _common(self, node: Node) -> Perm | None:
        """The transpose before the operands, if one is common to those that have as many axes as the result (but for
        constants) and makes columns of rows."""
        if node.op not in _COMMUTE:
            return None
        rank = len(self.editor.types[node.outputs[0]].shape)
        found: set[Perm] = set()
        for value in node.inputs:
            if self.editor.is_constant(value):
                continue
            maker = self.editor.producer.get(value)
            if maker is None or maker.op != "transpose" or len(self.editor.types[value].shape) != rank:
                return None
            if self._restored(maker):
                return None
            found.add(integers(maker, "perm"))
        perm = found.pop() if len(found) == 1 else ()
        return perm if perm and perm[-1] != rank - 1 else None

    def _restored(self, node: Node) -> bool:
        """Whether the last axis of a transpose is the last one of what it looks at through other transposes and reshapes: its
        columns have been made rows before, and are columns again."""
        axis = integers(node, "perm")[-1]
        while (maker := self.editor.producer.get(node.inputs[0])) is not None and maker.op in ("transpose", "reshape"):
            shape, node = self.editor.types[node.inputs[0]].shape, maker
            if maker.op == "transpose":
                axis = integers(maker, "perm")[axis]
                continue
            before = self.editor.types[maker.inputs[0]].shape
            same = (i for i, n in enumerate(before) if n == shape[axis] and prod(before[:i]) == prod(shape[:axis]))
            axis = next(same, -1)
            if axis < 0:
                return False
        return axis == len(self.editor.types[node.inputs[0]].shape) - 1

    def _turned(self, node: Node, value: str, perm: Perm) -> str:
        """An operand as it is before the transpose."""
        if not self.editor.is_constant(value):
            return self.editor.producer[value].inputs[0]
        type = self.editor.types[value]
        if type.size == 1:
            return value
        shape = (1,) * (len(perm) - len(type.shape)) + type.shape
        full = self.editor.fresh(f"{value}.full")
        self.editor.emit("reshape", (value,), origins=node.origins, output=full, attrs=(("shape", shape),))
        back = _sorted_back(tuple(range(len(perm))), perm)
        return self._transpose(full, self.editor.fresh(f"{value}.rows"), node, back)

    def _transpose(self, value: str, output: str, node: Node, perm: Perm) -> str:
        return self.editor.emit("transpose", (value,), origins=node.origins, output=output, attrs=(("perm", perm),))


def _sorted_back(axes: tuple[int, ...], perm: Perm) -> tuple[int, ...]:
    """What stands along each axis before a transpose, from what stands along those after it."""
    return tuple(axes[perm.index(a)] for a in range(len(perm)))


def _attrs(node: Node, perm: Perm) -> Attrs:
    """The node's attributes, for operands as they are before the transpose."""
    if node.op == "concat":
        return (("axis", perm[integer(node, "axis")]),)
    if node.op == "pad":
        sides = {k: _sorted_back(integers(node, k), perm) for k in ("before", "after")}
        return tuple((k, sides.get(k, v)) for k, v in node.attrs)
    return node.attrs
