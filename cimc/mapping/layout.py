"""Views resolved: where a value's elements lie in global memory, and copies where strides cannot say it.

Reshape, transpose, slice, expand and window cost nothing as long as their result is a strided view of what they look at. A
value whose uses are transposed and then merged (attention heads) is *stored* in the transposed order, so that the merge is a
view again. Where only the last axis is no single stride (the windows of a convolution as rows), the value is *folded*: those
who read it row by row load the pieces of its rows. What is padded or joined is stored in its place of the larger value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cimc.ir.graph import Graph, Node, Type
from cimc.isa.operands import dense_strides
from cimc.mapping.placement import Home
from cimc.ops import OPS, Access, Form, Layout
from cimc.ops.layout import integer, integers, reshape_layout
from cimc.ops.op import Part


def is_view(node: Node) -> bool:
    """Whether a node is only another way to look at its operand."""
    return OPS[node.op].form is Form.VIEW


def permuted(shape: tuple[int, ...], perm: tuple[int, ...]) -> Layout:
    """The layout of a value that is dense when its axes are read in the order ``perm``."""
    strides = [0] * len(shape)
    for axis, stride in zip(perm, dense_strides(tuple(shape[p] for p in perm)), strict=True):
        strides[axis] = stride
    return Layout(0, shape, tuple(strides))


def _seen(node: Node, layout: Layout) -> Layout | None:
    """What a view node makes of a layout; of a folded one only what leaves its last axis alone."""
    if not layout.tail or node.op == "reshape":
        return OPS[node.op].view(node, layout)
    last = len(layout.shape) - 1
    same = node.op == "transpose" and integers(node, "perm")[-1] == last
    if node.op == "slice":
        start, size, step = (integers(node, a)[-1] for a in ("start", "size", "step"))
        same = (start, size, step) == (0, layout.shape[-1], 1)
    seen = OPS[node.op].view(node, layout) if same else None
    return replace(seen, tail=layout.tail) if seen else None


def _by_rows(node: Node, value: str) -> bool:
    """Whether a node reads a value row by row only, and so can load rows in pieces."""
    op = OPS[node.op]
    rows = all(op.access(node, i) is Access.ROWS for i, v in enumerate(node.inputs) if v == value)
    return rows and op.form is Form.ROWWISE


class Views:
    """Layouts of all values over the buffers of the values that are stored."""

    def __init__(self, graph: Graph, held: frozenset[str] = frozenset(), *, by_rows: bool = False) -> None:
        """``held``: joined values that have a home of their own, apart from what they are joined of. ``by_rows``: of values
        with axes between the first and the rows (heads), the columns of each row lie together, if all their views allow it."""
        self.graph = graph
        self.held = held
        self.by_rows = by_rows
        self.uses = graph.uses()
        self.shown = dict(viewed_by_outputs(graph).values())
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
        if not self.broken:
            self._place()

    def _stored_layout(self, value: str) -> Layout:
        shape = self.graph.type(value).shape
        best = Layout.dense(shape)
        if value in self.graph.outputs or value in self.shown:
            return self.shown.get(value, best)
        fewest = self._faults(value, best)
        for node in self.uses.get(value, []):
            if any(fewest) and node.op == "transpose":
                other = permuted(shape, integers(node, "perm"))
                faults = self._faults(value, other)
                if faults < fewest:
                    best, fewest = other, faults
        rank = len(shape)
        if self.by_rows and rank > 3:
            other = permuted(shape, (0, rank - 2, *range(1, rank - 2), rank - 1))
            best = other if self._faults(value, other) <= fewest else best
        return best

    def _faults(self, value: str, layout: Layout) -> tuple[int, int]:
        """How many views of a value fail, and how many are folded."""
        found, failed = self._trace(value, layout)
        return len(failed), sum(bool(seen.tail) for seen in found.values())

    def _trace(self, value: str, layout: Layout) -> tuple[dict[str, Layout], list[Node]]:
        """Layouts of everything that views the value, and the views that fail."""
        found: dict[str, Layout] = {value: layout}
        folds: dict[str, Node] = {}  # folded value → the view that folded it
        failed: list[Node] = []
        work = [value]
        while work:
            v = work.pop()
            for node in self.uses.get(v, []):
                if not is_view(node):
                    if v in folds and not _by_rows(node, v):
                        failed.append(folds[v])
                    continue
                seen, out = _seen(node, found[v]), node.outputs[0]
                if seen is None:
                    failed.append(node)
                    continue
                found[out] = seen
                if seen.tail:
                    folds[out] = folds.get(v, node)
                work.append(out)
        return found, failed

    # --- values in their place of larger ones ---------------------------------------------------
    def _place(self) -> None:
        """Store what is padded, or joined along an axis that is not the last, in its region of the result: nobody copies it
        there then. From the last node to the first, so that the result's own place is known."""
        taken: set[str] = set()
        producers = self.graph.producers()
        for node in reversed(self.graph.nodes):
            if not in_regions(self.graph, node) or node.outputs[0] in self.held:
                continue
            types = [self.graph.type(v) for v in node.inputs]
            for part in OPS[node.op].parts(node, types):
                if part.source >= 0 and self.graph.type(node.inputs[part.source]).size:
                    self._claim(node, part, producers, taken)

    def _claim(self, node: Node, part: Part, producers: Mapping[str, Node], taken: set[str]) -> None:
        value, (buffer, whole) = node.inputs[part.source], self.layouts[node.outputs[0]]
        layout: Layout | None = region(whole, part)
        while layout is not None and value in producers and is_view(producers[value]):
            layout, value = _back(self.graph, producers[value], layout), producers[value].inputs[0]
        maker = producers.get(value)
        if layout is None or maker is None or OPS[maker.op].form is Form.HOST:
            return
        if value in taken or value in self.graph.outputs or self.layouts[value][0] != value:
            return
        if self._faults(value, layout) > self._faults(value, self.layouts[value][1]):
            return
        taken.add(value)
        self.layouts.update({v: (buffer, seen) for v, seen in self._trace(value, layout)[0].items()})

    def _settle(self, value: str, layout: Layout) -> None:
        found, failed = self._trace(value, layout)
        self.layouts.update({v: (value, seen) for v, seen in found.items()})
        self.broken.extend(failed)


def in_regions(graph: Graph, node: Node) -> bool:
    """Whether a node is assembled of regions: a pad, or a concat along an axis that is not the last (that is one by rows,
    unless it says to be ``apart``)."""
    last = len(graph.type(node.outputs[0]).shape) - 1
    return node.op == "pad" or (node.op == "concat" and (integer(node, "axis") != last or node.get("apart", 0) == 1))


def region(whole: Layout, part: Part) -> Layout:
    """Where a part of an assembled value lies."""
    offset = whole.offset + sum(a * s for a, s in zip(part.start, whole.strides, strict=True))
    return Layout(offset, part.shape, whole.strides)


def _back(graph: Graph, node: Node, layout: Layout) -> Layout | None:
    """The layout of what a view node looks at, from that of the view; None if the view does not tell of all of it."""
    x = graph.type(node.inputs[0]).shape
    if node.op == "transpose":
        perm = integers(node, "perm")
        axes = [perm.index(a) for a in range(len(perm))]
        return Layout(layout.offset, x, tuple(layout.strides[a] for a in axes))
    return reshape_layout(layout, x) if node.op == "reshape" else None


def materialize(graph: Graph, held: frozenset[str] = frozenset()) -> tuple[Graph, Views]:
    """The graph with a `copy` before every view that strides cannot say and before every output that is not stored
    dense by a node of its own; and the resolved views. ``held``: joined values with a home of their own. Terminates: each
    round settles at least the first broken view of a chain."""
    graph = _own_outputs(graph)
    while True:
        views = Views(graph, held)
        if not views.broken:
            return graph, views
        graph = _insert_copies(graph, {n.outputs[0] for n in views.broken})


def _insert_copies(graph: Graph, broken: set[str]) -> Graph:
    """The graph with a `copy` before the views that make these values; one for all that look at the same value."""
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
    """Every output is produced by a node that stores it, once, or is a view of what a node stores for it alone."""
    producers, viewed = graph.producers(), viewed_by_outputs(graph)
    types: dict[str, Type] = dict(graph.types)
    nodes = list(graph.nodes)
    outputs: list[str] = []
    names = graph.output_names or graph.outputs
    for value in graph.outputs:
        node = producers.get(value)
        if value in viewed or (node is not None and not is_view(node) and value not in outputs):
            outputs.append(value)
            continue
        own = f"{value}.out{len(outputs)}"
        types[own] = types[value]
        nodes.append(Node("copy", (value,), (own,), (), node.origins if node else ()))
        outputs.append(own)
    changed = replace(graph, outputs=tuple(outputs), output_names=tuple(names))
    return changed.with_nodes(tuple(nodes), types)


def stored_outputs(graph: Graph) -> frozenset[str]:
    """The graph's outputs, and in place of those that are views what they are views of."""
    viewed = viewed_by_outputs(graph)
    return frozenset(viewed[o][0] if o in viewed else o for o in graph.outputs)


def viewed_by_outputs(graph: Graph) -> dict[str, tuple[str, Layout]]:
    """Output → the value of which it is a view, and that value's layout where the output is dense: of outputs that show all
    of a value which nothing else reads. Who else read it would find it in global memory, where outputs are."""
    producers, uses = graph.producers(), graph.uses()
    found = {o: _viewed(graph, o, producers, uses) for o in graph.outputs if graph.outputs.count(o) == 1}
    return {o: value for o, value in found.items() if value is not None}


def _viewed(
    graph: Graph, output: str, producers: Mapping[str, Node], uses: Mapping[str, list[Node]]
) -> tuple[str, Layout] | None:
    value, layout, readers = output, Layout.dense(graph.type(output).shape), 0
    while (
        value in producers and len(uses.get(value, ())) == readers and (value == output or value not in graph.outputs)
    ):
        node = producers[value]
        if not is_view(node):
            return (value, layout) if readers and OPS[node.op].form is not Form.HOST else None
        before = _back(graph, node, layout)
        if before is None:
            return None
        value, layout, readers = node.inputs[0], before, 1
    return None


def homes(graph: Graph, views: Views) -> dict[str, Home]:
    """The home of every value, views included, in the buffer of the value that is stored."""
    return {
        value: Home(root, graph.type(root).element, layout) for value, (root, layout) in views.layouts.items() if value
    }
