"""Spellings of onnxruntime's quantised elementwise operators: dequantise, compute, quantise."""

from __future__ import annotations

import math

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value
from cimc.frontend.call import Call, Translate, spelling
from cimc.frontend.contrib import MS
from cimc.frontend.quant import codes, dequantize_linear, operand, quantize_linear


def _pair(op: str) -> Translate:
    def translate(c: Call) -> Value:
        y = f.binary(c.b, op, operand(c, 0), operand(c, 3))
        return codes(c, y, 6, c.x(0).element)

    return translate


spelling("QLinearAdd", domain=MS)(_pair("add"))
spelling("QLinearMul", domain=MS)(_pair("mul"))


@spelling("QLinearSigmoid", domain=MS)
def q_linear_sigmoid(c: Call) -> Value:
    """Sigmoid of codes."""
    return codes(c, f.unary(c.b, "sigmoid", operand(c, 0)), 3, c.x(0).element)


@spelling("QLinearLeakyRelu", domain=MS)
def q_linear_leaky_relu(c: Call) -> Value:
    """Leaky relu of codes."""
    x = operand(c, 0)
    below = f.binary(c.b, "lt", x, c.b.scalar(0, x.element))
    y = f.select(c.b, below, f.scaled(c.b, x, c.float("alpha", 0.01)), x)
    return codes(c, y, 3, c.x(0).element)


@spelling("QLinearSoftmax", domain=MS, note="computed in float; onnxruntime's own table may differ by a code")
def q_linear_softmax(c: Call) -> Value:
    """Softmax of codes."""
    x = operand(c, 0)
    axis = c.axis(c.int("axis", -1), x.rank)
    if c.int("opset", 13) < 13:
        flat = f.reshape(c.b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        y = f.reshape(c.b, c.b.emit("softmax", (flat,))[0], x.shape)
    else:
        y = f.on_last(c.b, x, axis, lambda v: c.b.emit("softmax", (v,))[0])
    return codes(c, y, 3, c.x(0).element)


@spelling("QLinearConcat", domain=MS)
def q_linear_concat(c: Call) -> Value:
    """Codes of several scales brought to one."""
    count, rest = divmod(len(c) - 2, 3)
    if rest or count < 1:
        raise Impossible("operands come in threes")
    parts = [operand(c, 2 + 3 * i) for i in range(count)]
    y = f.concat(c.b, parts, c.axis(c.int("axis"), parts[0].rank))
    return codes(c, y, 0, c.x(2).element)


@spelling("QLinearReduceMean", domain=MS)
def q_linear_reduce_mean(c: Call) -> Value:
    """Mean of codes."""
    x = operand(c, 0)
    axes = c.axes(c.ints("axes") or tuple(range(x.rank)), x.rank)
    y = f.reduce(c.b, "reduce_mean", x, axes, keep=bool(c.int("keepdims", 1)))
    return codes(c, y, 3, c.x(0).element)


@spelling("QLinearGlobalAveragePool", domain=MS)
def q_linear_global_average_pool(c: Call) -> Value:
    """Mean of codes over the spatial axes."""
    x = operand(c, 0)
    axes = tuple(range(1, x.rank - 1) if c.int("channels_last", 0) else range(2, x.rank))
    return codes(c, f.reduce(c.b, "reduce_mean", x, axes, keep=True), 3, c.x(0).element)


@spelling("QLinearWhere", domain=MS)
def q_linear_where(c: Call) -> Value:
    """Elements of one of two operands, brought to one scale."""
    y = f.select(c.b, c.x(0), operand(c, 1), operand(c, 4))
    return codes(c, y, 7, c.x(1).element)


spelling("QuantizeLinear", domain=MS)(quantize_linear)
spelling("DequantizeLinear", domain=MS)(dequantize_linear)
