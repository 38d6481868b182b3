"""Static matmuls with more weights than the chip has cells, as several that take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from cimc import errors
from cimc.ir.constants import Make
from cimc.ir.evaluate import FLOAT_COMPANION
from cimc.ir.graph import Array, Constants, Graph, Node, Type
from cimc.ops import OPS, Access, Form
from cimc.ops.layout import integer
from cimc.passes.editor import Editor

Span = tuple[int, int]


@dataclass(frozen=True)
class Split:
    """Every ``blocked_mvm`` that takes more than ``cores`` cores becomes several, of at most half as many each: one can be
    written while another works. They share the columns, and where a single column of blocks is too tall the rows, whose
    partial sums are added. What goes on column by column stays apart; then the columns are joined where they are stored
    (``concat`` with ``apart``), so that nobody needs whole rows of them.

    Before::

        %acc : q32[2x300] = blocked_mvm{rows=128, cols=128} %x.q8, %w.q8
        %y : f32[2x300] = dequantize %acc, %x.scale, %w.scale

    After, with ``cores=2``::

        %acc.c0 : q32[2x128] = blocked_mvm{rows=128, cols=128} %x.q8, %w.q8.c0
        %y.c0 : f32[2x128] = dequantize %acc.c0, %x.scale, %w.scale.c0
        ...
        %y : f32[2x300] = concat{apart=1, axis=1} %y.c0, %y.c128, %y.c256
    """

    name: ClassVar[str] = "split"
    takes: ClassVar[tuple[str, ...]] = ("partitioned",)
    leaves: ClassVar[str] = "partitioned"

    cores: int = 1

    def __post_init__(self) -> None:
        if self.cores < 1:
            raise errors.PASS_OPTION(
                option="cores", name=self.name, why=f"{self.cores} is below 1", fix="give 1 or more"
            )

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        work = _Splitter(Editor(graph, constants), self.cores, frozenset(graph.outputs))
        for node in graph.nodes:
            work.node(node)
        return work.editor.finish(self.leaves)


class _Splitter:
    """Writes a graph with products in pieces. ``parts``: by value, its spans of columns and their values; a value that is
    also needed whole is in ``whole``."""

    def __init__(self, editor: Editor, cores: int, outputs: frozenset[str]) -> None:
        self.editor = editor
        self.cores = cores
        self.outputs = outputs
        self.parts: dict[str, dict[Span, str]] = {}
        self.makers: dict[str, Node] = {}
        self.whole: set[str] = set()

    def node(self, node: Node) -> None:
        """Write a node, in pieces if it has to be or can be."""
        if node.op == "blocked_mvm" and _blocks(self.editor, node) > self.cores:
            self._join(v for v in node.inputs if v in self.parts)
            self._product(node)
        elif self._follows(node):
            self._by_columns(node)
        else:
            self._join(v for v in node.inputs if v in self.parts)
            self.editor.keep(node)
            return
        self.makers[node.outputs[0]] = node
        if node.outputs[0] in self.outputs:
            self._join(node.outputs)

    def _join(self, values: Iterator[str] | Sequence[str]) -> None:
        """Values in pieces, as a whole too."""
        for value in values:
            if value not in self.whole:
                self.whole.add(value)
                axis = len(self.editor.types[value].shape) - 1
                attrs = (("apart", 1), ("axis", axis))
                origins = self.makers[value].origins
                self.editor.emit(
                    "concat", tuple(self.parts[value].values()), origins=origins, output=value, attrs=attrs
                )

    # --- products -----------------------------------------------------------------------------
    def _product(self, node: Node) -> None:
        k, n = self.editor.types[node.inputs[1]].shape
        high, wide = integer(node, "rows"), integer(node, "cols")
        most = max(1, self.cores // 2)
        down = -(-k // high)
        if down <= most:
            columns, rows = _even(n, wide, most // down), [(0, k)]
        else:
            columns, rows = _even(n, wide, 1), _even(k, high, most)
        y = node.outputs[0]
        self.parts[y] = {span: self._column(node, rows, span, f"{y}.c{span[0]}") for span in columns}

    def _column(self, node: Node, rows: Sequence[Span], cols: Span, name: str) -> str:
        """The product's columns, as the sum over spans of rows."""
        editor, (x, w) = self.editor, node.inputs
        total = ""
        for k, span in enumerate(rows):
            weight = self._cut(w, (span, cols))
            part = self._columns_of(node, x, span) if len(rows) > 1 else x
            out = editor.fresh(name if len(rows) == 1 else f"{name}.r{span[0]}")
            editor.emit("blocked_mvm", (part, weight), origins=node.origins, output=out, attrs=node.attrs)
            if k:
                both = (total, out)
                out = editor.emit("add", both, origins=node.origins, output=editor.fresh(f"{name}.to{span[1]}"))
            total = out
        return total

    def _columns_of(self, node: Node, value: str, span: Span) -> str:
        shape = self.editor.types[value].shape
        lead = len(shape) - 1
        size, start = (*shape[:-1], span[1] - span[0]), (*(0,) * lead, span[0])
        attrs = (("size", size), ("start", start), ("step", (1,) * (lead + 1)))
        output = self.editor.fresh(f"{value}.c{span[0]}")
        return self.editor.emit("slice", (value,), origins=node.origins, output=output, attrs=attrs)

    # --- what follows, column by column ---------------------------------------------------------
    def _follows(self, node: Node) -> bool:
        """Whether a node can be done column by column: all that it reads in pieces is in the same ones, the rest is constant
        or the same for all columns of a row."""
        inside = [v for v in node.inputs if v in self.parts]
        op = OPS[node.op]
        if not inside or not op.elementwise or op.form is not Form.ROWWISE or len(node.outputs) != 1:
            return False
        shape = self.editor.types[node.outputs[0]].shape
        for i, value in enumerate(node.inputs):
            mine = self.editor.types[value].shape
            if op.access(node, i) is not Access.ROWS:
                return False
            if value in self.parts:
                if mine != shape or list(self.parts[value]) != list(self.parts[inside[0]]):
                    return False
            elif not self.editor.is_constant(value) and (not mine or mine[-1] != 1):
                return False
        return True

    def _by_columns(self, node: Node) -> None:
        inside = next(v for v in node.inputs if v in self.parts)
        y = node.outputs[0]
        found: dict[Span, str] = {}
        for span in self.parts[inside]:
            operands = tuple(self._operand(v, span) for v in node.inputs)
            output = self.editor.fresh(f"{y}.c{span[0]}")
            found[span] = self.editor.emit(node.op, operands, origins=node.origins, output=output, attrs=node.attrs)
        self.parts[y] = found

    def _operand(self, value: str, span: Span) -> str:
        if value in self.parts:
            return self.parts[value][span]
        shape = self.editor.types[value].shape
        if not shape or shape[-1] == 1:
            return value
        return self._cut(value, (*((0, n) for n in shape[:-1]), span))

    def _cut(self, constant: str, spans: Sequence[Span]) -> str:
        """A rectangle of a constant, as a constant; one for all who ask for it."""
        old = self.editor.types[constant]
        if all(span == (0, n) for span, n in zip(spans, old.shape, strict=True)):
            return constant
        moved = [f"{letter}{low}" for letter, (low, _) in zip("abcdefgh"[-len(spans) :], spans, strict=True)]
        name = ".".join((constant, "part", *moved))
        type = Type(old.element, tuple(high - low for low, high in spans))
        if constant + FLOAT_COMPANION in self.editor.constants:
            whole = constant + FLOAT_COMPANION
            self.editor.companion(name + FLOAT_COMPANION, _rectangle(whole, tuple(spans)))
        return self.editor.constant(name, type, _rectangle(constant, tuple(spans)))


def _rectangle(constant: str, spans: tuple[Span, ...]) -> Make:
    def make(constants: Constants) -> Array:
        return np.ascontiguousarray(constants[constant][tuple(slice(*span) for span in spans)])

    return make


def _blocks(editor: Editor, node: Node) -> int:
    k, n = editor.types[node.inputs[1]].shape
    return -(-k // integer(node, "rows")) * -(-n // integer(node, "cols"))


def _even(size: int, block: int, most: int) -> list[Span]:
    """``size`` in spans of whole blocks, at most ``most`` each, and as even as they can be."""
    blocks = -(-size // block)
    count = -(-blocks // most)
    edges = [blocks * k // count * block for k in range(count)] + [size]
    return list(pairwise(edges))
