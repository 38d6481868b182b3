"""Spellings of onnxruntime's elementwise, pooling and joining operators on quantised values: what the operator does on
numbers, between dequantising its operands and quantising its result."""

from __future__ import annotations

import math
from collections.abc import Callable

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.quant import MS, Grid, dequantize, quantize
from cimc.frontend.quant_matmul import output_grid
from cimc.isa.operands import Element


def _numbers(c: Call, at: int) -> Value:
    """Operand ``at``, followed by its scale and zero point, as float32."""
    x = c.x(at)
    return dequantize(c.b, x, Grid(c.x(at + 1), c.opt(at + 2), x.element))


def _result(c: Call, y: Value, at: int, like: Value) -> Value:
    """Codes of y, with the scale and zero point at input ``at``; the element type of ``like`` without a zero point."""
    grid = output_grid(c.x(at), c.opt(at + 1))
    if grid.zero is None:
        grid = Grid(grid.scale, None, like.element)
    return quantize(c.b, y, grid)


def _pair(op: str) -> Callable[[Call], Value]:
    return lambda c: _result(c, f.binary(c.b, op, _numbers(c, 0), _numbers(c, 3)), 6, c.x(0))


for _name, _op in (("QLinearAdd", "add"), ("QLinearMul", "mul")):
    spelling(_name, domain=MS)(_pair(_op))


@spelling("QLinearSigmoid", domain=MS)
def q_linear_sigmoid(c: Call) -> Value:
    """Sigmoid."""
    return _result(c, f.unary(c.b, "sigmoid", _numbers(c, 0)), 3, c.x(0))


@spelling("QLinearLeakyRelu", domain=MS)
def q_linear_leaky_relu(c: Call) -> Value:
    """Leaky relu of slope ``alpha``."""
    x = _numbers(c, 0)
    below = f.scaled(c.b, x, c.float("alpha", 0.01))
    negative = f.binary(c.b, "lt", x, c.b.scalar(0, Element.F32))
    return _result(c, f.select(c.b, negative, below, x), 3, c.x(0))


@spelling("QLinearSoftmax", domain=MS)
def q_linear_softmax(c: Call) -> Value:
    """Softmax along ``axis``; before opset 13 over all axes from it on."""
    b, x = c.b, _numbers(c, 0)
    axis = c.axis(c.int("axis", -1), x.rank)
    if c.int("opset", 13) >= 13:
        y = f.on_last(b, x, axis, lambda v: f.unary(b, "softmax", v))
    else:
        flat = f.reshape(b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        y = f.reshape(b, f.unary(b, "softmax", flat), x.shape)
    return _result(c, y, 3, c.x(0))


@spelling("QLinearGlobalAveragePool", domain=MS)
def q_linear_global_average_pool(c: Call) -> Value:
    """The mean over the spatial axes."""
    x = _numbers(c, 0)
    if x.rank < 3:
        raise Impossible(f"a global average of {x.type}")
    first = 1 if c.int("channels_last", 0) else 2
    axes = tuple(range(first, first + x.rank - 2))
    return _result(c, f.reduce(c.b, "reduce_mean", x, axes, keep=True), 3, c.x(0))


@spelling("QLinearConcat", domain=MS)
def q_linear_concat(c: Call) -> Value:
    """Operands of different scales one after another, in the scale of the result."""
    count = (len(c) - 2) // 3
    if count < 1 or len(c) != 2 + 3 * count:
        raise Impossible(f"{len(c)} inputs")
    grid = output_grid(c.x(0), c.x(1))
    parts = [_recoded(c.b, c, 2 + 3 * i, grid) for i in range(count)]
    return f.concat(c.b, parts, c.axis(c.int("axis"), parts[0].rank))


def _recoded(b: Builder, c: Call, at: int, grid: Grid) -> Value:
    return quantize(b, _numbers(c, at), grid)
