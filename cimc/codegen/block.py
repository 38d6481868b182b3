"""One block of rows on one tile: operands resolved to views, instructions appended. The :class:`~cimc.ops.op.Emit` of ops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cimc.codegen.tilecode import TileCode, columns, row_part
from cimc.ir.graph import Graph, Node
from cimc.isa.instruction import Value
from cimc.isa.operands import Element, View
from cimc.mapping.segment import ELEMENTWISE
from cimc.mapping.space import width
from cimc.ops import OPS, Access
from cimc.ops.matmul import scales_of
from cimc.origin import Origin


@dataclass
class BlockEmit:
    """Lowers nodes for ``rows`` rows on a tile. ``operand(node, index)`` finds a view of an input."""

    graph: Graph
    code: TileCode
    rows: int
    operand: Callable[[Node, int], View]
    node: Node
    outputs: dict[str, View] = field(default_factory=dict[str, View])
    matrix_name: str = ""
    width: int = 0  # columns of the outputs, where they are a shard; 0: all of them
    dying: frozenset[str] = frozenset()  # values that nothing reads after this block's node

    def element(self, index: int) -> Element:
        """See :class:`cimc.ops.op.Emit`."""
        return self.graph.type(self.node.inputs[index]).element

    def input(self, index: int) -> View:
        """See :class:`cimc.ops.op.Emit`."""
        view = self.operand(self.node, index)
        if view.shape[0] == 1 and self.rows != 1 and self._by_rows(index):
            return row_part(view, self.rows)
        return view

    def _by_rows(self, index: int) -> bool:
        """Whether the instruction wants this operand row by row: only elementwise ones broadcast a row that all share, and
        of the others what comes after the first operand (masks, scales)."""
        if OPS[self.node.op].access(self.node, index) is not Access.ROWS or self.node.op in ELEMENTWISE:
            return False
        return index == 0 or self.node.op == "gather" or self.node.inputs[index] in scales_of(self.node)

    def output(self, index: int = 0) -> View:
        """See :class:`cimc.ops.op.Emit`."""
        value = self.node.outputs[index]
        if value not in self.outputs:
            shape = (self.rows, self.width or width(self.graph, value))
            element = self.graph.type(value).element
            self.outputs[value] = self._in_place(element, shape) or self.code.buffer(element, shape, self.node.op)
        return self.outputs[value]

    def _in_place(self, element: Element, shape: tuple[int, int]) -> View | None:
        """An operand whose bytes an elementwise result may take."""
        if self.node.op not in ELEMENTWISE:
            return None
        for i, value in enumerate(self.node.inputs):
            if value in self.dying and self.graph.type(value).element is element:
                view = self.operand(self.node, i)
                if (view.shape, view.strides) == (shape, (shape[1], 1)):
                    return view
        return None

    def matrix(self) -> str:
        """See :class:`cimc.ops.op.Emit`."""
        return self.matrix_name

    def scratch(self, element: Element, shape: tuple[int, ...]) -> View:
        """See :class:`cimc.ops.op.Emit`."""
        return self.code.buffer(element, shape, "s")

    def emit(self, mnemonic: str, *operands: View | str, **keywords: Value) -> None:
        """See :class:`cimc.ops.op.Emit`."""
        self.code.emit(mnemonic, *operands, origin=self.origin, **keywords)

    @property
    def origin(self) -> Origin:
        """The layer the instructions are accounted to."""
        return self.node.origin

    def lower(self) -> None:
        """Emit the node's instructions."""
        if self.node.op == "concat":
            self._concat()
            return
        OPS[self.node.op].lower(self.node, self)

    def _concat(self) -> None:
        target = self.output()
        at = 0
        for i, value in enumerate(self.node.inputs):
            count = width(self.graph, value)
            source = self.input(i)
            if source.shape[0] != self.rows:
                source = row_part(source, self.rows)
            if count:
                self.emit("copy", columns(target, at, 1, count), source)
            at += count
