"""Constant folding, identities, common subexpressions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Constants, Graph, Node, Type
from cimc.isa.kernels import BINARY
from cimc.ops.op import broadcast
from cimc.passes.editor import Editor, merge_origins
from cimc.passes.identities import RULES

MOST_DUPLICATE = 64
"""Constants of up to this many elements are compared by value, so that equal ones become one."""


@dataclass(frozen=True)
class Fold:
    """Compute what depends on constants only (when its value is first needed), drop what changes nothing, compose
    chains of views and casts, let equal nodes and equal small constants be one.

    Before::

        const %one : f32[]
        %a : f32[2x3] = mul %x, %one
        %b : f32[3x2] = transpose{perm=(1,0)} %a
        %c : f32[2x3] = transpose{perm=(1,0)} %b
        %d : f32[2x3] = exp %c
        %e : f32[2x3] = exp %x
        %f : f32[2x3] = add %d, %e

    After::

        %d : f32[2x3] = exp %x
        %f : f32[2x3] = add %d, %d
    """

    name: ClassVar[str] = "fold"
    takes: ClassVar[tuple[str, ...]] = ("imported", "canonical")
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Outputs of the graph keep their names, so an identity that defines one stays."""
        work = _Folder(Editor(graph, constants))
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish()


class _Folder:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.seen: dict[tuple[object, ...], Node] = {}
        self.equal: dict[tuple[object, ...], str] = {}
        for name in sorted(editor.graph.constants & editor.types.keys()):  # not host calls
            self._share(name)

    def _share(self, name: str) -> None:
        """Let the constant be the first one of its type and value."""
        type = self.editor.types[name]
        if type.size > MOST_DUPLICATE:
            return
        first = self.equal.setdefault((type, self.editor.value(name).tobytes()), name)
        if first != name:
            self.editor.replace(name, first)

    def visit(self, node: Node) -> None:
        node = self._without_empty(self.editor.renamed(node))
        if self.editor.static(node):
            self.editor.fold(node)
            self._share(node.outputs[0])
            return
        simpler = self._simplified(node)
        if simpler is None:
            return
        simpler = without_expand(self.editor, simpler)
        if not self._seen(simpler):
            self.editor.keep(simpler)

    def _without_empty(self, node: Node) -> Node:
        """The node with constants for inputs that have no elements: they are known before anything runs."""
        types = self.editor.types
        inputs = tuple(
            self._empty(types[v]) if v and types[v].size == 0 and not self.editor.is_constant(v) else v
            for v in node.inputs
        )
        return node if inputs == node.inputs or node.op == "host" else replace(node, inputs=inputs)

    def _empty(self, type: Type) -> str:
        array = np.zeros(type.shape, type.element.dtype(exact=False))
        return self.editor.constant(f"empty.{type}", type, lambda _: array)

    def _simplified(self, node: Node) -> Node | None:
        """The node after the rules for its op, and for the op it became; None if another value serves for it."""
        op = ""
        while op != node.op:
            op = node.op
            for rule in RULES.get(op, ()):
                found = rule(self.editor, node) if node.op == op else None
                if isinstance(found, str) and self.editor.replace(node.outputs[0], found):
                    return None
                if isinstance(found, Node):
                    node = found
        return node

    def _seen(self, node: Node) -> bool:
        """Whether an equal node stands already; its outputs then serve for this one's."""
        if node.op == "host":
            return False
        first = self.seen.setdefault((node.op, node.inputs, node.attrs), node)
        if first is node:
            return False
        pairs = list(zip(node.outputs, first.outputs, strict=True))
        return all(self.editor.replace(old, by) for old, by in pairs)


def without_expand(editor: Editor, node: Node) -> Node:
    """An elementwise node that reads what ``expand`` reads, where it broadcasts to the same shape by itself."""
    if node.op not in BINARY and node.op != "select":
        return node
    whole = editor.types[node.outputs[0]].shape
    inputs = list(node.inputs)
    sources: list[Node] = [node]
    for i, v in enumerate(inputs):
        source = editor.producer.get(v)
        if source is None or source.op != "expand":
            continue
        shapes = [editor.types[source.inputs[0] if j == i else other].shape for j, other in enumerate(inputs)]
        if broadcast(*shapes) == whole:
            inputs[i] = source.inputs[0]
            sources.append(source)
    return node if len(sources) == 1 else replace(node, inputs=tuple(inputs), origins=merge_origins(sources))
