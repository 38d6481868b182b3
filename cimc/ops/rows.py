"""Ops on whole rows: reductions along the last axis, softmax, norms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from cimc.ir.graph import Node, Type
from cimc.isa.kernels import REDUCE, layer_norm, log_softmax, rms_norm, softmax
from cimc.isa.operands import Element
from cimc.ops.op import Arithmetic, Array, Attribute, Emit, Op, call, register
from cimc.ops.written_as import TO, written_as, written_dtype

_INDICES = frozenset(("reduce_argmax", "reduce_argmin"))


class Reduce(Op):
    """One number per row; the last axis becomes 1."""

    arity: ClassVar[tuple[int, int]] = (1, 1)

    def __init__(self, name: str) -> None:
        self.name = name  # one class, an instance per function
        self.attributes = () if name in _INDICES else (TO,)
        self.doc = f"{REDUCE[name][2]} along the last axis, which becomes 1"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = inputs
        assert x is not None
        if not x.shape:
            raise ValueError(f"{self.name} needs at least one axis")
        index = self.name in _INDICES
        element = Element.I64 if index else written_as(node, x.element)
        return (Type(element, (*x.shape[:-1], 1)),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        y = call(REDUCE[self.name][1], x)
        index = self.name in _INDICES
        return (y if index else y.astype(written_dtype(node, x.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit(self.name, emit.output(), emit.input(0))


class _Same(Op):
    """An op whose output has the type of its input."""

    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (TO,)

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = inputs
        assert x is not None
        if not x.shape:
            raise ValueError(f"{self.name} needs at least one axis")
        return (Type(written_as(node, x.element), x.shape),)


class Softmax(_Same):
    """Softmax along the last axis."""

    name = "softmax"
    doc = "softmax along the last axis"

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        return (softmax(x).astype(written_dtype(node, x.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("softmax", emit.output(), emit.input(0))


class LogSoftmax(_Same):
    """Logarithm of the softmax along the last axis."""

    name = "log_softmax"
    doc = "logarithm of the softmax along the last axis"

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        return (call(log_softmax, x).astype(written_dtype(node, x.dtype, arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("log_softmax", emit.output(), emit.input(0))


class LayerNorm(_Same):
    """Layer normalisation along the last axis, without gain and bias (a mul and an add)."""

    name = "layer_norm"
    attributes = (Attribute("epsilon", (float,)), TO)
    doc = "(x - mean) / sqrt(variance + epsilon) along the last axis"

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        y = layer_norm(x, node.number("epsilon"))
        return (y.astype(written_dtype(node, x.dtype, arithmetic)),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("layer_norm", emit.output(), emit.input(0), epsilon=node.number("epsilon"))


class RmsNorm(_Same):
    """Root-mean-square normalisation along the last axis, without gain (a mul)."""

    name = "rms_norm"
    attributes = (Attribute("epsilon", (float,)), TO)
    doc = "x / sqrt(mean(x²) + epsilon) along the last axis"

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        y = rms_norm(x, node.number("epsilon"))
        return (y.astype(written_dtype(node, x.dtype, arithmetic)),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("rms_norm", emit.output(), emit.input(0), epsilon=node.number("epsilon"))


for _name in REDUCE:
    register(Reduce(_name))
for _op in (Softmax(), LogSoftmax(), LayerNorm(), RmsNorm()):
    register(_op)
