"""What patterns are written with: looking backwards from a node through what has been written already."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np

from cimc.ir.graph import Node
from cimc.ir.levels import FLOATS
from cimc.isa.operands import Element
from cimc.passes.editor import Editor
from cimc.passes.identities import lossless

_TOLERANCE = {Element.F16: 1e-3, Element.BF16: 8e-3}
"""How far a constant may be from the number it stands for: half precision rounds it; others write few digits."""
_DEFAULT_TOLERANCE = 1e-5

_DEEPEST = 6
"""How many products a chain of factors may be nested; real ones have at most four."""


class Match:
    """Questions that patterns ask of the graph written so far."""

    def __init__(self, editor: Editor, readers: Mapping[str, int]) -> None:
        self.editor = editor
        self._readers = readers

    def by(self, value: str, *ops: str) -> Node | None:
        """The node that produces the value, if it is one of these ops."""
        node = self.editor.producer.get(value)
        return node if node is not None and node.op in ops else None

    def only_reader(self, value: str) -> bool:
        """Whether exactly one node (and no output of the graph) reads the value."""
        return self._readers.get(value, 0) == 1

    def shape(self, value: str) -> tuple[int, ...]:
        """The value's shape."""
        return self.editor.types[value].shape

    def element(self, value: str) -> Element:
        """The value's element type."""
        return self.editor.types[value].element

    def scalar(self, value: str) -> float | None:
        """The number that a constant of one element holds."""
        if not self.editor.is_constant(value) or self.editor.types[value].size != 1:
            return None
        return float(np.asarray(self.editor.value(value), np.float64).reshape(()))

    def close(self, value: str, got: float | None, wanted: float) -> bool:
        """Whether a constant is the number it should be, as precisely as the value's element type can say."""
        tolerance = _TOLERANCE.get(self.element(value), _DEFAULT_TOLERANCE)
        return got is not None and math.isclose(got, wanted, rel_tol=tolerance)

    def uncast(self, value: str) -> str:
        """The value before casts that lose nothing."""
        node = self.by(value, "cast")
        while node is not None and lossless(self.element(node.inputs[0]), self.element(value)):
            value = node.inputs[0]
            node = self.by(value, "cast")
        return value

    def same(self, a: str, b: str) -> bool:
        """Whether two values are the same numbers, perhaps in different element types."""
        return a == b or self.uncast(a) == self.uncast(b)

    def with_scalar(self, node: Node) -> tuple[str, float] | None:
        """The other operand and the number, of an elementwise node with one constant scalar (either side)."""
        a, b = node.inputs
        for value, constant in ((a, b), (b, a)):
            number = self.scalar(constant)
            if number is not None and self.shape(value) == self.shape(node.outputs[0]):
                return value, number
        return None

    def scaled(self, value: str) -> tuple[str, float] | None:
        """``value = x · c``: x and c, if it is a product or quotient with a constant scalar."""
        node = self.by(value, "mul", "div", "neg")
        if node is None or self.element(value) not in FLOATS:
            return None
        if node.op == "neg":
            return node.inputs[0], -1.0
        found = self.with_scalar(node)
        if found is None or node.op == "mul":
            return found
        x, number = found
        return (x, 1 / number) if number and x == node.inputs[0] else None

    def unscaled(self, value: str) -> tuple[str, float]:
        """``value = x · c`` with as much as possible in c."""
        factor = 1.0
        found = self.scaled(value)
        while found is not None:
            value, number = found
            factor *= number
            found = self.scaled(value)
        return value, factor

    def plus(self, value: str) -> tuple[str, float] | None:
        """``value = x + c``: x and c."""
        node = self.by(value, "add")
        return self.with_scalar(node) if node is not None else None

    def squared(self, value: str) -> str | None:
        """``value = x²``: x."""
        node = self.by(value, "mul", "pow")
        if node is None:
            return None
        if node.op == "mul":
            return node.inputs[0] if node.inputs[0] == node.inputs[1] else None
        return node.inputs[0] if self.scalar(node.inputs[1]) == 2 else None

    def mean(self, value: str) -> str | None:
        """``value`` = mean of x along its last axis: x. Also spelled as the sum over the number of elements."""
        node = self.by(value, "reduce_mean")
        if node is not None:
            return node.inputs[0]
        total, factor = self.unscaled(value)
        node = self.by(total, "reduce_sum")
        if node is None or not self.close(value, factor, 1 / max(self.shape(node.inputs[0])[-1], 1)):
            return None
        return node.inputs[0]

    def factors(self, value: str, whole: Collection[str] = (), depth: int = _DEEPEST) -> tuple[float, list[str]]:
        """The value as a number times other values, all of its shape; those in ``whole`` are not taken apart."""
        node = self.by(value, "mul", "div", "neg", "pow")
        if value in whole or depth == 0 or node is None:
            return 1.0, [value]
        found = self.scaled(value)
        if found is not None:
            number, values = self.factors(found[0], whole, depth - 1)
            return number * found[1], values
        if node.op == "pow":
            return self._power(value, node, whole, depth)
        if node.op != "mul" or any(self.shape(v) != self.shape(value) for v in node.inputs):
            return 1.0, [value]
        one, other = (self.factors(v, whole, depth - 1) for v in node.inputs)
        return one[0] * other[0], one[1] + other[1]

    def _power(self, value: str, node: Node, whole: Collection[str], depth: int) -> tuple[float, list[str]]:
        exponent = self.scalar(node.inputs[1])
        if exponent not in (2.0, 3.0) or self.shape(node.inputs[0]) != self.shape(value):
            return 1.0, [value]
        number, values = self.factors(node.inputs[0], whole, depth - 1)
        times = int(exponent)
        return number**times, values * times
