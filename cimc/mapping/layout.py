"""Views resolved: where a value's elements lie in global memory, and copies where strides cannot say it.

Reshape, transpose, slice and expand cost nothing as long as their result is a strided view of what they look at. A value whose
uses are transposed and then merged (attention heads) is *stored* in the transposed order, so that the merge is a view again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cimc.ir.graph import Graph, Node, Type
from cimc.isa.operands import dense_strides
from cimc.mapping.mapping import Home
from cimc.ops import OPS, Form, Layout
from cimc.ops.layout import integers


def is_view(node: Node) -> bool:
    """Whether a node is only another way to look at its operand."""
    return OPS[node.op].form is Form.VIEW


def permuted(shape: tuple[int, ...], perm: tuple[int, ...]) -> Layout:
    """The layout of a value that is dense when its axes are read in the order ``perm``."""
    strides = [0] * len(shape)
    for axis, stride in zip(perm, dense_strides(tuple(shape[p] for p in perm)), strict=True):
        strides[axis] = stride
    return Layout(0, shape, tuple(strides))


class Views:
    """Layouts of all values over the buffers of the values that are stored."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses = graph.uses()
        self.layouts: dict[str, tuple[str, Layout]] = {}
        self.broken: list[Node] = []  # views that no strides can say
        # Serialized host calls are constants without a type: nothing reads them as values.
        stored = [*graph.inputs, *(c for c in sorted(graph.constants) if c in graph.types)]
        for value in stored:
            self._settle(value, Layout.dense(graph.type(value).shape))
        for node in graph.nodes:
            if not is_view(node):
                for out in node.outputs:
                    if out:
                        self._settle(out, self._stored_layout(out))

    def _stored_layout(self, value: str) -> Layout:
        shape = self.graph.type(value).shape
        best = Layout.dense(shape)
        if value in self.graph.outputs:
            return best
        fewest = len(self._trace(value, best)[1])
        for node in self.uses.get(value, []):
            if fewest and node.op == "transpose":
                other = permuted(shape, integers(node, "perm"))
                failures = len(self._trace(value, other)[1])
                if failures < fewest:
                    best, fewest = other, failures
        return best

    def _trace(self, value: str, layout: Layout) -> tuple[dict[str, Layout], list[Node]]:
        """Layouts of everything that views the value, and the views that fail."""
        found: dict[str, Layout] = {value: layout}
        failed: list[Node] = []
        work = [value]
        while work:
            v = work.pop()
            for node in self.uses.get(v, []):
                if not is_view(node):
                    continue
                seen = OPS[node.op].view(node, found[v])
                if seen is None:
                    failed.append(node)
                    continue
                found[node.outputs[0]] = seen
                work.append(node.outputs[0])
        return found, failed

    def _settle(self, value: str, layout: Layout) -> None:
        found, failed = self._trace(value, layout)
        self.layouts.update({v: (value, seen) for v, seen in found.items()})
        self.broken.extend(failed)


def materialize(graph: Graph) -> tuple[Graph, Views]:
    """The graph with a `copy` before every view that strides cannot say and before every output that is not stored
    dense by a node of its own; and the resolved views. Terminates: each round settles at least the first broken view of a
    chain."""
    graph = _own_outputs(graph)
    while True:
        views = Views(graph)
        if not views.broken:
            return graph, views
        graph = _insert_copies(graph, {n.inputs[0] for n in views.broken}, {n.outputs[0] for n in views.broken})


def _insert_copies(graph: Graph, sources: set[str], broken: set[str]) -> Graph:
    types: dict[str, Type] = dict(graph.types)
    nodes: list[Node] = []
    copied: set[str] = set()
    for node in graph.nodes:
        if node.outputs[0] in broken:
            source = node.inputs[0]
            dense = f"{source}.dense"
            if source not in copied:
                copied.add(source)
                types[dense] = types[source]
                nodes.append(Node("copy", (source,), (dense,), (), node.origins))
            node = replace(node, inputs=(dense,))
        nodes.append(node)
    return graph.with_nodes(tuple(nodes), types)


def _own_outputs(graph: Graph) -> Graph:
    """Every output is produced by a node that stores it, once."""
    producers = graph.producers()
    types: dict[str, Type] = dict(graph.types)
    nodes = list(graph.nodes)
    outputs: list[str] = []
    names = graph.output_names or graph.outputs
    for value in graph.outputs:
        node = producers.get(value)
        if node is not None and not is_view(node) and value not in outputs:
            outputs.append(value)
            continue
        own = f"{value}.out{len(outputs)}"
        types[own] = types[value]
        nodes.append(Node("copy", (value,), (own,), (), node.origins if node else ()))
        outputs.append(own)
    changed = replace(graph, outputs=tuple(outputs), output_names=tuple(names))
    return changed.with_nodes(tuple(nodes), types)


def homes(graph: Graph, views: Views) -> dict[str, Home]:
    """The home of every value, views included, in the buffer of the value that is stored."""
    return {
        value: Home(root, graph.type(root).element, layout) for value, (root, layout) in views.layouts.items() if value
    }


def root_types(graph: Graph, found: Mapping[str, Home]) -> dict[str, Type]:
    """Types of the values that are stored."""
    return {home.buffer: graph.type(home.buffer) for home in found.values()}
