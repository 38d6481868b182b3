"""Operands of products of activations brought to codes where their rows are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod
from typing import ClassVar

from cimc import errors
from cimc.ir.graph import Attrs, Constants, Graph, Node, Type
from cimc.isa.operands import Element
from cimc.ops import OPS, Form
from cimc.ops.layout import integer, integers
from cimc.ops.matmul import scales_of
from cimc.passes.editor import Editor, live_nodes

VIEWS = frozenset(("reshape", "transpose", "slice", "expand"))


@dataclass(frozen=True)
class Codes:
    """Queries and keys become codes where they are made: a matmul unit rounds its first operand to 8 bits with a scale for each
    row, its second one with a scale for each column, so for scores q · kᵀ both scales are those of a token and head. What is
    stored, sent and loaded are codes of a byte and a float32 for each of these, where it was four bytes an element; the
    product is the same, bit for bit.

    Before::

        %q : f32[1x8x64] = add %q.matmul, %q.bias
        %y : f32[1x2x8x32] = attention{scale=0.5} (%q and %k in heads), %v

    After::

        %q.q8 : q8[1x8x64], %q.scale : f32[1x8x2] = quantize{groups=2} %q
        %y : f32[1x2x8x32] = attention{scale=0.5} (%q.q8 and %k.q8 in heads), %v, , (%q.scale and %k.scale in heads)

    Only where both operands of a product come, through views, from rows that nothing but such products reads, as float32:
    keys of a cache are an output or come from an input, and stay. A row is cut into heads where it is made if tiles have
    whole heads: their width divides ``cols``, the columns of a core. V has a scale for each column over all tokens, which
    nobody knows before the last one is there: it stays as it is. For matmul units of 8 operand bits.
    """

    name: ClassVar[str] = "codes"
    takes: ClassVar[tuple[str, ...]] = ("quantized",)
    leaves: ClassVar[str] = "quantized"

    cols: int = 128

    def __post_init__(self) -> None:
        if self.cols < 1:
            raise errors.PASS_OPTION(option="cols", name=self.name, why=f"{self.cols} is below 1", fix="give 1 or more")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        products = _Finder(graph, self.cols).products()
        work = _Coder(Editor(graph, constants), products)
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish(self.leaves)


@dataclass(frozen=True)
class _Made:
    """Where an operand's rows are made: in ``groups`` equal parts of the rows of ``value``; and the views from there to
    the operand, each with the axis of its result that is a part."""

    value: str
    groups: int
    views: tuple[tuple[Node, int], ...]


class _Finder:
    """Finds the products whose operands can come as codes."""

    def __init__(self, graph: Graph, cols: int) -> None:
        self.graph, self.cols = graph, cols
        self.uses = graph.uses()
        self.producers = graph.producers()

    def products(self) -> dict[str, tuple[_Made, _Made]]:
        """By the result of each such product, where its operands are made."""
        found: dict[str, tuple[_Made, _Made]] = {}
        for node in self.graph.nodes:
            if self._possible(node):
                rank = [len(self.graph.type(v).shape) for v in node.inputs[:2]]
                a, b = self._made(node.inputs[0], rank[0] - 1), self._made(node.inputs[1], rank[1] - 2)
                if a is not None and b is not None:
                    found[node.outputs[0]] = (a, b)
        while True:
            kept = {out: made for out, made in found.items() if all(self._alone(one, found) for one in made)}
            if len(kept) == len(found):
                return found
            found = kept

    def _possible(self, node: Node) -> bool:
        if node.op != "attention" and (node.op != "matmul" or len(node.inputs) != 2):
            return False
        return len(node.inputs) < 5 and all(self.graph.type(v).element is Element.F32 for v in node.inputs[:2])

    def _made(self, value: str, axis: int) -> _Made | None:
        views: list[tuple[Node, int]] = []
        while (node := self.producers.get(value)) is not None and node.op in VIEWS:
            views.insert(0, (node, axis))
            source = node.inputs[0]
            before = self._before(node, axis)
            if before < 0:
                groups = self._groups(node, axis)
                return _Made(source, groups, tuple(views)) if groups else None
            value, axis = source, before
        by_rows = self._by_rows(value) and axis == len(self.graph.type(value).shape) - 1
        return _Made(value, 1, tuple(views)) if by_rows else None

    def _before(self, node: Node, axis: int) -> int:
        """The axis of what a view looks at that is the one of its result, all of it; -1 if there is none."""
        x, y = (self.graph.type(v).shape for v in (node.inputs[0], node.outputs[0]))
        if node.op == "transpose":
            return integers(node, "perm")[axis]
        if node.op == "reshape":
            same = (i for i, n in enumerate(x) if n == y[axis] and prod(x[:i]) == prod(y[:axis]))
            return next(same, -1)
        before = axis - len(y) + len(x)
        return before if before >= 0 and x[before] == y[axis] else -1

    def _groups(self, node: Node, axis: int) -> int:
        """Into how many parts, of which the axis of its result is one, a view cuts the rows of what it looks at; 0 if it does
        not, or tiles need not have whole ones."""
        rows, shape = self.graph.type(node.inputs[0]).shape, self.graph.type(node.outputs[0]).shape
        start = self._first_column(node.inputs[0])
        if node.op != "reshape" or prod(shape[axis + 1 :]) != 1 or not rows or rows[-1] % shape[axis] or start < 0:
            return 0
        return 0 if start % shape[axis] or self.cols % shape[axis] else rows[-1] // shape[axis]

    def _first_column(self, value: str) -> int:
        """Of the rows that a value shows columns of, the first of these; -1 if it does not."""
        first = 0
        while (node := self.producers.get(value)) is not None and node.op in VIEWS:
            x, y = (self.graph.type(v).shape for v in (node.inputs[0], node.outputs[0]))
            if node.op == "slice" and x[:-1] == y[:-1] and integers(node, "step")[-1] == 1:
                first += integers(node, "start")[-1]
            elif node.op != "reshape" or x[-1:] != y[-1:]:
                return -1
            value = node.inputs[0]
        return first if self._by_rows(value) else -1

    def _by_rows(self, value: str) -> bool:
        node = self.producers.get(value)
        if node is None:
            return False
        last = len(self.graph.type(value).shape) - 1
        joined = node.op == "concat" and integer(node, "axis") == last
        return joined or OPS[node.op].form is Form.ROWWISE

    def _alone(self, made: _Made, found: dict[str, tuple[_Made, _Made]]) -> bool:
        """Whether products with codes are all that reads a value."""
        for node, index in self._readers(made.value):
            if node is None or node.outputs[0] not in found or index > 1:
                return False
            of = found[node.outputs[0]][index]
            if (of.value, of.groups) != (made.value, made.groups):
                return False
        return True

    def _readers(self, value: str) -> Iterator[tuple[Node | None, int]]:
        """Who reads a value, through views too, and as which operand; None: it is an output."""
        work = [value]
        while work:
            seen = work.pop()
            if seen in self.graph.outputs:
                yield None, 0
            for node in self.uses.get(seen, []):
                if node.op in VIEWS:
                    work.append(node.outputs[0])
                else:
                    yield from ((node, i) for i, v in enumerate(node.inputs) if v == seen)


class _Coder:
    def __init__(self, editor: Editor, products: dict[str, tuple[_Made, _Made]]) -> None:
        self.editor, self.products = editor, products
        self.made = {one.value: one.groups for pair in products.values() for one in pair}
        self.codes: dict[tuple[str, int], tuple[str, str]] = {}  # value and axis of a row → its codes and scales

    def visit(self, node: Node) -> None:
        editor, (out, *_) = self.editor, node.outputs
        if out not in self.products:
            editor.keep(node)
            for value in node.outputs:
                if value in self.made:
                    self._quantize(node, value)
            return
        (a, a_scale), (b, b_scale) = map(self._seen, self.products[out])
        rest = node.inputs[2:] if node.op == "matmul" else (node.inputs[2], (*node.inputs, "")[3])
        editor.emit(node.op, (a, b, *rest, a_scale, b_scale), origins=node.origins, output=out, attrs=node.attrs)

    def _quantize(self, node: Node, value: str) -> None:
        editor = self.editor
        names = (editor.fresh(f"{value}.q8"), editor.fresh(f"{value}.scale"))
        attrs = (("groups", self.made[value]),) if self.made[value] > 1 else ()
        editor.emit_all("quantize", (value,), origins=node.origins, outputs=names, attrs=attrs)
        self.codes[value, -1] = names

    def _seen(self, made: _Made) -> tuple[str, str]:
        """The codes and scales of an operand: views of those of the rows."""
        key = (made.value, -1)
        for node, axis in made.views:
            before, key = self.codes[key], (node.outputs[0], axis)
            if key not in self.codes:
                self.codes[key] = self._view(node, before[0], ()), self._view(node, before[1], (axis,))
        return self.codes[key]

    def _view(self, node: Node, value: str, single: tuple[int, ...]) -> str:
        """What a view shows of another value, which has one element along the axes ``single`` of the result."""
        attrs: Attrs = node.attrs
        if single and node.op != "transpose":
            which = "size" if node.op == "slice" else "shape"
            extents = tuple(1 if i in single else n for i, n in enumerate(integers(node, which)))
            attrs = tuple((k, extents if k == which else v) for k, v in attrs)
        hint = "scale" if single else "q8"
        output = self.editor.fresh(f"{node.outputs[0]}.{hint}")
        return self.editor.emit(node.op, (value,), origins=node.origins, output=output, attrs=attrs)


def uncoded(graph: Graph) -> Graph:
    """A graph of any level whose products of activations take the values that their codes were made of: what it was without
    :class:`Codes`, with other names. Nothing changes where there are none."""
    work = _Undone(graph)
    nodes = [n for node in graph.nodes for n in work.nodes(node)]
    return graph.with_nodes(live_nodes(nodes, graph.outputs), work.types) if work.plain else graph


class _Undone:
    def __init__(self, graph: Graph) -> None:
        self.graph, self.types = graph, dict(graph.types)
        self.producers = graph.producers()
        self.plain: dict[str, str] = {}  # codes, or a view of them → the values that they were made of

    def nodes(self, node: Node) -> Iterator[Node]:
        """What stands for a node."""
        scales = scales_of(node)
        if not scales:
            yield node
            return
        for value in node.inputs[:2]:
            yield from self._values(value)
        operands = (*(self.plain[v] for v in node.inputs[:2]), *node.inputs[2 : len(node.inputs) - 2])
        plain = replace(node, inputs=operands if operands[-1] else operands[:-1])
        halved = any(self.types[v].element.halved for v in operands[:2])
        if halved and "to" not in dict(node.attrs):
            plain = replace(plain, attrs=(*node.attrs, ("to", self.types[node.outputs[0]].element.value)))
        yield plain

    def _values(self, value: str) -> Iterator[Node]:
        """The views that show of the values what views show of their codes."""
        if value in self.plain:
            return
        node = self.producers[value]
        if node.op == "quantize":
            self.plain[value] = node.inputs[0]
            return
        yield from self._values(node.inputs[0])
        name = f"{value}.plain"
        element = self.types[self.plain[node.inputs[0]]].element
        self.plain[value], self.types[name] = name, Type(element, self.types[value].shape)
        yield replace(node, inputs=(self.plain[node.inputs[0]],), outputs=(name,))
