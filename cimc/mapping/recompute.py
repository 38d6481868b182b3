"""Values that are computed again where they are read, because that takes fewer bytes than fetching them.

An attention's mask is the case: from a row of tokens and a constant triangle it becomes a matrix of floats, which every head
of every layer reads. Its elementwise nodes join the segment that reads it, over all of that segment's rows: rows of the
constant stay in the tiles (:mod:`cimc.codegen.spread`), and only the tokens' row travels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cimc.ir.graph import Graph, Node, Type
from cimc.mapping.placement import Segment, Style
from cimc.mapping.segment import ELEMENTWISE, product, raw_domain
from cimc.ops import OPS, Access, Form

KEPT_SHARE = 8
"""A constant that stays in a tile takes at most a part in so many of its local buffer (estimated; 2 and 32: the
same for GPT-2)."""

WORTH = 2
"""Times as many bytes a value must have as what it is computed of, each time it is read: the instructions that
compute it take time as well (estimated; 1 and 4: the same for GPT-2)."""


@dataclass
class _Copies:
    """The nodes that compute a value again for one reader: ``nodes`` with the views they need, in order."""

    graph: Graph
    producers: Mapping[str, Node]
    kept: int  # bytes of constants that stay in a tile
    lead: tuple[int, ...]  # extents of the rows they are computed for
    suffix: str
    nodes: list[Node] = field(default_factory=list[Node])
    types: dict[str, Type] = field(default_factory=dict[str, Type])

    def bytes(self, value: str) -> int:
        """What a value costs where it is read: constants that stay there cost nothing, and what is worth it is computed."""
        size = self.graph.type(value).bytes
        if value in self.graph.constants and size <= self.kept:
            return 0
        made = self._made(value)
        return min(size, made) if made >= 0 else size

    def worth(self, value: str) -> bool:
        """Whether a value is to be computed again."""
        made = self._made(value)
        return made >= 0 and WORTH * max(1, made) <= self.graph.type(value).bytes

    def _made(self, value: str) -> int:
        """Bytes of what a value is computed of; -1 if it is not by elements of its own shape."""
        node = self.producers.get(value)
        if node is None or node.op not in ELEMENTWISE or len(node.outputs) != 1:
            return -1
        return sum(self.bytes(v) for v in dict.fromkeys(node.inputs) if v)

    def add(self, value: str) -> str:
        """Compute a value again; its name here."""
        name = f"{value}{self.suffix}"
        if name not in self.types:
            node, old = self.producers[value], self.graph.type(value)
            inputs = tuple(self._operand(v) for v in node.inputs)
            self.nodes.append(replace(node, inputs=inputs, outputs=(name,)))
            self.types[name] = Type(old.element, (*self.lead, old.shape[-1]))
        return name

    def _operand(self, value: str) -> str:
        """What a value computed again reads: such a value, a row that all share, or the rows it has of another one."""
        if value and self.worth(value):
            return self.add(value)
        if not value or product(self.graph.type(value).shape[:-1]) == 1:
            return value
        seen = f"{value}{self.suffix}"
        old = self.graph.type(value)
        shape = (*self.lead, old.shape[-1])
        if seen not in self.types:
            self.nodes.append(Node("expand", (value,), (seen,), (("shape", shape),)))
            self.types[seen] = Type(old.element, shape)
        return seen


def recomputed(graph: Graph, segments: Sequence[Segment], kept: int) -> tuple[Graph, tuple[Segment, ...]]:
    """The graph and its segments with such values computed again. ``kept``: bytes of a constant that may stay in a tile."""
    copies = {id(n): found for s in segments for n, found in _wanted(graph, s, kept)}
    if not copies:
        return graph, tuple(segments)
    readers = {k: found[0] for k, found in copies.items()}
    types = dict(graph.types)
    nodes: list[Node] = []
    for node in graph.nodes:
        if id(node) in copies:
            made = copies[id(node)][1]
            types |= made.types
            nodes += made.nodes
        nodes.append(readers.get(id(node), node))
    left = _alive(nodes, graph.outputs)
    found: list[Segment] = []
    for segment in segments:
        inside: list[Node] = []
        for node in segment.nodes:
            if id(node) in copies:
                inside += (n for n in copies[id(node)][1].nodes if OPS[n.op].form is not Form.VIEW)
            if left.issuperset(o for o in node.outputs if o) or id(node) in copies:
                inside.append(readers.get(id(node), node))
        if inside:
            found.append(replace(segment, index=len(found), nodes=tuple(inside)))
    kept_nodes = tuple(n for n in nodes if left.intersection(n.outputs))
    return graph.with_nodes(kept_nodes, types), tuple(found)


def _wanted(graph: Graph, segment: Segment, kept: int) -> Iterator[tuple[Node, tuple[Node, _Copies]]]:
    """The nodes of a segment that read values which are to be computed again: as they read them then, and the copies."""
    if segment.style is not Style.SPREAD:
        return
    own = {o for n in segment.nodes for o in n.outputs}
    for node in segment.nodes:
        if not any(OPS[node.op].access(node, i) is Access.WHOLE for i, v in enumerate(node.inputs) if v):
            continue
        lead = raw_domain(graph, node)
        copies = _Copies(graph, graph.producers(), kept, lead, f".for.{node.outputs[0]}")
        inputs = list(node.inputs)
        for i, value in enumerate(node.inputs):
            if i and value and value not in own and _broadcast(graph, node, i, lead) and copies.worth(value):
                inputs[i] = copies.add(value)
        if copies.nodes:
            yield node, (replace(node, inputs=tuple(inputs)), copies)


def _broadcast(graph: Graph, node: Node, index: int, lead: tuple[int, ...]) -> bool:
    """Whether an operand has several rows, each of which several rows of the node read."""
    rows = product(graph.type(node.inputs[index]).shape[:-1])
    return OPS[node.op].access(node, index) is Access.ROWS and 1 < rows < product(lead)


def _alive(nodes: Sequence[Node], outputs: Sequence[str]) -> set[str]:
    """Outputs of the nodes that something needs."""
    found = set(outputs)
    for node in reversed(nodes):
        if found.intersection(node.outputs):
            found.update(o for o in node.outputs if o)
            found.update(v for v in node.inputs if v)
    return found
