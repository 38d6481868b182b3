"""Elementwise ops: unary, binary, select, cast. All operands broadcast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cimc.ir.graph import Node, Type
from cimc.isa.kernels import BINARY, UNARY, cast
from cimc.isa.operands import Element
from cimc.ops.op import Arithmetic, Array, Attribute, Emit, Op, broadcast, call, register
from cimc.ops.written_as import HALVED, TO, written_as, written_dtype

_TO_BOOL = frozenset(("eq", "lt", "le", "gt", "ge", "and", "or", "xor", "not", "isnan", "isinf"))
_OF_BITS = frozenset(("bitnot", "bitand", "bitor", "bitxor", "shl", "shr"))


def _attributes(name: str) -> tuple[Attribute, ...]:
    """Those of an elementwise op: one that makes floats may round them."""
    return () if name in _TO_BOOL or name in _OF_BITS else (TO,)


def _shapes(inputs: Sequence[Type | None]) -> tuple[int, ...]:
    return broadcast(*(t.shape for t in inputs if t is not None))


def _alike(node: Node, a: Type, b: Type) -> None:
    """Raise ValueError for operands of different element types, unless what differs is how many bits they are kept in."""
    halves = a.element.halved or b.element.halved
    if a.element != b.element and not (halves and {a.element, b.element} <= {Element.F32, *HALVED}):
        raise ValueError(f"operands of {node.op} have element types {a.element.value} and {b.element.value}")


class Unary(Op):
    """``y = f(x)``."""

    arity: ClassVar[tuple[int, int]] = (1, 1)
    elementwise: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name  # one class, an instance per function
        self.doc = f"y = {UNARY[name][2]}"
        self.attributes = _attributes(name)

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = inputs
        assert x is not None
        return (Type(Element.B8 if self.name in _TO_BOOL else written_as(node, x.element), x.shape),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        y = call(UNARY[self.name][1], x)
        return (y if self.name in _TO_BOOL else y.astype(written_dtype(node, x.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit(self.name, emit.output(), emit.input(0))


class Binary(Op):
    """``y = f(a, b)``."""

    arity: ClassVar[tuple[int, int]] = (2, 2)
    elementwise: ClassVar[bool] = True

    def __init__(self, name: str) -> None:
        self.name = name  # one class, an instance per function
        self.doc = f"y = {BINARY[name][2]}"
        self.attributes = _attributes(name)

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        a, b = inputs
        assert a is not None
        assert b is not None
        if self.name in _TO_BOOL:
            _alike(node, a, b)
            return (Type(Element.B8, _shapes(inputs)),)
        if self.name not in ("pow", "shl", "shr"):
            _alike(node, a, b)
        return (Type(written_as(node, a.element, inputs), _shapes(inputs)),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        a, b = inputs
        assert a is not None
        y = call(BINARY[self.name][1], a, b)
        return (y if self.name in _TO_BOOL else y.astype(written_dtype(node, a.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit(self.name, emit.output(), emit.input(0), emit.input(1))


class Select(Op):
    """``y = a where condition else b``."""

    name = "select"
    arity: ClassVar[tuple[int, int]] = (3, 3)
    elementwise: ClassVar[bool] = True
    attributes = (TO,)
    doc = "y = a where condition, else b"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        _, a, b = inputs
        assert a is not None
        assert b is not None
        _alike(node, a, b)
        return (Type(written_as(node, a.element, (a, b)), _shapes(inputs)),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        import numpy as np

        condition, a, b = inputs
        assert a is not None
        assert b is not None
        assert condition is not None
        return (np.where(condition, a, b).astype(written_dtype(node, a.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("select", emit.output(), emit.input(0), emit.input(1), emit.input(2))


class Cast(Op):
    """``y = x`` in another element type."""

    name = "cast"
    arity: ClassVar[tuple[int, int]] = (1, 1)
    elementwise: ClassVar[bool] = True
    attributes = (Attribute("to", (str,)),)
    doc = "y = x converted to element type `to`"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = inputs
        assert x is not None
        return (Type(Element(node.attr("to")), x.shape),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        return (cast(x, Element(node.attr("to")).dtype(exact=arithmetic.exact)),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("cast", emit.output(), emit.input(0))


for _name in UNARY:
    register(Unary(_name))
for _name in BINARY:
    register(Binary(_name))
register(Select())
register(Cast())
