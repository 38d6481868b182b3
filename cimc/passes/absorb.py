"""Where a scale per column of a value can be taken up by constants that are there already."""

from __future__ import annotations

from collections.abc import Callable, Collection

from cimc.ir.graph import Graph, Node

Place = tuple[str, int]
"""A constant operand: the output of the node that reads it, and which input it is."""


class Absorbing:
    """The readers and makers of a graph's values. ``scalable``: whether the columns of a linear's weights may be scaled."""

    def __init__(self, graph: Graph, scalable: Callable[[Node], bool]) -> None:
        self._graph = graph
        self._scalable = scalable
        self._maker = {v: n for n in graph.nodes for v in n.outputs if v}
        self._readers: dict[str, list[str]] = {}
        for node in graph.nodes:
            for v in node.inputs:
                self._readers.setdefault(v, []).append(node.outputs[0])

    def places(self, value: str, readers: Collection[str]) -> tuple[Place, ...] | None:
        """The constants whose columns can be scaled so that the value's are: gamma and beta of a norm, the columns of the
        product before a relu, of one factor of a gated unit. Exact, with scales that are powers of two above zero. None if
        there are none, or anyone but ``readers`` (nodes, by their first output) sees the value or one on the way."""
        node = self._maker.get(value)
        seen = set(self._readers.get(value, ()))
        if node is None or value in self._graph.outputs or not seen <= set(readers):
            return None
        return self._through(node)

    def _through(self, node: Node) -> tuple[Place, ...] | None:
        mine = node.outputs[:1]
        if node.op in ("add", "sub"):
            sides = [self._operand(node, i) for i in (0, 1)]
            return None if sides[0] is None or sides[1] is None else (*sides[0], *sides[1])
        if node.op == "mul":
            sides = [self._operand(node, i) for i in (0, 1)]
            found = [s for s in sides if s is not None]
            return min(found, key=len) if found else None
        if node.op == "linear":
            return ((node.outputs[0], 1),) if self._scalable(node) else None
        if node.op == "relu" or (node.op == "reshape" and self._columns_stay(node)):
            return self.places(node.inputs[0], mine)
        return None

    def _operand(self, node: Node, index: int) -> tuple[Place, ...] | None:
        """What takes up the scale of one operand of an elementwise node that the other broadcasts with."""
        value, shape = node.inputs[index], self._graph.types[node.outputs[0]].shape
        if value in self._graph.constants:
            return ((node.outputs[0], index),)
        if self._graph.types[value].shape != shape:
            return None
        return self.places(value, node.outputs[:1])

    def _columns_stay(self, node: Node) -> bool:
        old, new = (self._graph.types[v].shape for v in (node.inputs[0], node.outputs[0]))
        return bool(old) and bool(new) and old[-1] == new[-1]
