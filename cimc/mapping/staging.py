"""What the nodes of STREAM segments are for their products: columns that stay on the products' tiles (*shards*), columns that
go to tiles beside these, or rows of a vector *stage*, which has tiles of its own."""

from __future__ import annotations

from collections.abc import Sequence

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import INSTRUCTIONS, Unit
from cimc.mapping.beside import by_columns, coded_columns, goes_aside
from cimc.mapping.brought import Brought
from cimc.mapping.placement import Segment, Style
from cimc.mapping.segment import ELEMENTWISE, MATRIX_OPS, Tail, inside, product, rows_shape
from cimc.ops import OPS, Access
from cimc.ops.layout import integer


class Staging:
    """Stages and shards of all STREAM segments, by output values of their nodes.

    ``stages``: the vector stage of a value; a product's is the stage whose tiles send to its tiles. ``shards``: the product
    on whose tiles a value's columns are. ``aside``: of these, values on the tiles beside. ``reads``: values inside its segment
    that the value's node reads. ``work``: by product, elements that its tiles handle with vectors for each of its columns,
    where it is not 1. ``tails``: by segment, what is seen of values inside."""

    def __init__(
        self, graph: Graph, segments: Sequence[Segment], chip: ChipSpec, inside_only: frozenset[int], brought: Brought
    ) -> None:
        """``inside_only``: segments in which no columns go to tiles beside their own; ``brought``: operands that tiles of
        products are brought."""
        self.graph, self.chip, self.brought = graph, chip, brought
        self.inside_only = inside_only
        self.uses, self.producers = graph.uses(), graph.producers()
        self.stages: dict[str, int] = {}
        self.shards: dict[str, str] = {}
        self.aside: set[str] = set()
        self.reads: dict[str, tuple[str, ...]] = {}
        self.work: dict[str, float] = {}
        self.tails = {s.index: inside(graph, self.uses, s) for s in segments if s.style is Style.STREAM}
        for segment in segments:
            if segment.style is Style.STREAM:
                self._stage(segment)

    def _stage(self, segment: Segment) -> None:
        tails, may_go = self.tails[segment.index], segment.index not in self.inside_only
        for node in segment.nodes:
            roots = [tails[v].root for v in node.inputs if v in tails]
            stage = max((self.stages[r] + (r in self.shards) for r in roots), default=0)
            if node.op in MATRIX_OPS:
                self.shards[node.outputs[0]] = node.outputs[0]
                stage = max((self.stages[r] for r in roots), default=0)
            else:
                source = self._shard_source(node, tails, may_go, stage)
                if source:
                    self.shards.update(dict.fromkeys(node.outputs, source))
                    if node.op == "quantize":
                        share = self._width(node.outputs[0]) / self._width(source)
                        self.work[source] = self.work.get(source, 1.0) + share
                    stage = max((self.stages[r] + (self.shards.get(r, source) != source) for r in roots), default=0)
                elif roots and roots[0] in self.aside and by_columns(self.graph, tails, self.uses, node):
                    self.shards[node.outputs[0]] = self.shards[roots[0]]
            for out in node.outputs:
                if out:
                    self.stages[out] = stage
            self.reads[node.outputs[0]] = tuple(roots)

    def _shard_source(self, node: Node, tails: dict[str, Tail], may_go: bool, stage: int) -> str:
        """The mvm whose column shards a node can work on in place, or "" if it needs whole rows. ``stage``: which has these."""
        op = OPS[node.op]
        if node.op == "quantize":
            source, each = coded_columns(node, tails, self.shards, self.aside)
            whole = source and self._cim_has(Unit.VECTOR) and not integer(self.producers[source], "cols") % each
            return source if whole else ""
        if len(node.outputs) != 1 or node.op not in ELEMENTWISE:
            return ""
        lacking = not self._cim_has(INSTRUCTIONS[node.op].unit)
        if lacking and not (may_go and goes_aside(self.graph, tails, self.uses, node)):
            return ""
        width = self._width(node.outputs[0])
        sources: set[str] = set()
        for i, v in enumerate(node.inputs):
            if op.access(node, i) is not Access.ROWS:
                return ""
            tail = tails.get(v)
            shape = self.graph.type(v).shape
            if (node.outputs[0], i) in self.brought and (tail is None or self.stages[tail.root] < stage):
                continue
            if tail is None:
                if v not in self.graph.constants or product(shape[:-1]) != 1:
                    return ""
            elif tail.root in self.shards:
                if tail != Tail(tail.root, 0, 1, width) or width != self._width(tail.root):
                    return ""
                sources.add(self.shards[tail.root])
            elif tail.width != 1:
                return ""
        if lacking and len(sources) == 1:
            self.aside.add(node.outputs[0])
        return sources.pop() if len(sources) == 1 else ""

    def _width(self, value: str) -> int:
        return rows_shape(self.graph.type(value).shape)[-1]

    def _cim_has(self, unit: Unit) -> bool:
        return all(
            (spec.vector if unit is Unit.VECTOR else spec.special) is not None
            for spec in self.chip.tiles.values()
            if spec.cores
        )

    def count(self, segment: Segment) -> int:
        """Vector stages of a STREAM segment: up to the last one in which whole rows are worked on, or a scale of theirs is
        found."""
        rows = (n for n in segment.nodes if n.outputs[0] not in self.shards or n.outputs[-1] not in self.shards)
        return 1 + max((self.stages[o] for n in rows for o in n.outputs if o), default=0)

    def elements(self, segment: Segment) -> list[int]:
        """Elements a row that each vector stage handles."""
        work = [0] * self.count(segment)
        for node in segment.nodes:
            if node.outputs[0] not in self.shards:
                values = (v for v in (*node.inputs, *node.outputs) if v in self.tails[segment.index])
                widths = (rows_shape(self.graph.type(v).shape)[-1] for v in values)
                work[self.stages[node.outputs[0]]] += sum(widths)
        return work
