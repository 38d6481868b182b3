"""Spellings of onnxruntime's elementwise, pooling and joining operators on quantised values: what the operator does on
numbers, between dequantising its operands and quantising its result."""

from __future__ import annotations

import math

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.pool import average_of
from cimc.frontend.quant import MS, Grid, codes, dequantize, quantize
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


def _scalar(c: Call, at: int) -> Value:
    """An operator's scale or zero point, as a float32 scalar; 0 for a zero point that is left out."""
    value = c.opt(at)
    if value is None:
        return c.b.scalar(0, Element.F32)
    output_grid(value, None)  # refuses several
    return f.reshape(c.b, f.cast(c.b, c.b.wide(value), Element.F32), ())


def _codes(c: Call, y: Value) -> Value:
    """Codes of y, which is divided by the scale and holds the zero point: onnxruntime rounds behind the sum of the two, so
    that ties fall on even codes and not, as in QuantizeLinear, on codes an even way off zero."""
    grid = output_grid(c.x(6), c.opt(7))
    return codes(c.b, y, None, Grid(grid.scale, None, c.x(0).element if grid.zero is None else grid.element))


@spelling("QLinearMul", domain=MS)
def q_linear_mul(c: Call) -> Value:
    """``round((a - za) · (b - zb) · (sa · sb / sy) + zy)``, in the order of onnxruntime's kernel."""
    b = c.b
    ratio = f.binary(b, "div", f.mul(b, _scalar(c, 1), _scalar(c, 4)), _scalar(c, 6))
    left, right = (f.binary(b, "sub", _plain(c, at), _scalar(c, at + 2)) for at in (0, 3))
    return _codes(c, f.add(b, f.mul(b, f.mul(b, left, right), ratio), _scalar(c, 7)))


@spelling("QLinearAdd", domain=MS)
def q_linear_add(c: Call) -> Value:
    """``round(a · sa / sy + (b · sb / sy + (zy - (za · sa / sy + zb · sb / sy))))``, in the order of onnxruntime's kernel, which
    fuses its multiplications and additions where the processor can."""
    b = c.b
    left, right = (f.binary(b, "div", _scalar(c, at), _scalar(c, 6)) for at in (1, 4))
    zeros = f.add(b, f.mul(b, left, _scalar(c, 2)), f.mul(b, right, _scalar(c, 5)))
    fixed = f.binary(b, "sub", _scalar(c, 7), zeros)
    return _codes(c, f.add(b, f.mul(b, _plain(c, 0), left), f.add(b, f.mul(b, _plain(c, 3), right), fixed)))


def _plain(c: Call, at: int) -> Value:
    """Codes as float32 numbers."""
    return f.cast(c.b, c.b.wide(c.x(at)), Element.F32)


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
    """Softmax along ``axis``; before opset 13 over all axes from it on. onnxruntime's kernel multiplies by the reciprocal of
    the result's scale, which it rounds down to a whole number."""
    b, x = c.b, _numbers(c, 0)
    axis = c.axis(c.int("axis", -1), x.rank)
    if c.int("opset", 13) >= 13:
        y = f.on_last(b, x, axis, lambda v: f.unary(b, "softmax", v))
    else:
        flat = f.reshape(b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        y = f.reshape(b, f.unary(b, "softmax", flat), x.shape)
    grid = output_grid(c.x(3), c.opt(4))
    steps = f.unary(b, "floor", f.binary(b, "div", b.scalar(1, Element.F32), f.reshape(b, grid.scale, ())))
    element = c.x(0).element if grid.zero is None else grid.element
    return codes(b, f.mul(b, y, steps), grid.zero, Grid(grid.scale, grid.zero, element))


@spelling("QLinearGlobalAveragePool", domain=MS)
def q_linear_global_average_pool(c: Call) -> Value:
    """``round(sum(x - zx) · (sx / (sy · n))) + zy`` over the n spatial elements, in the order of onnxruntime's kernel."""
    b, x = c.b, c.x()
    if x.rank < 3:
        raise Impossible(f"a global average of {x.type}")
    first = 1 if c.int("channels_last", 0) else 2
    axes = tuple(range(first, first + x.rank - 2))
    count = b.scalar(math.prod(x.shape[a] for a in axes), Element.F32)
    total = f.reduce(b, "reduce_sum", f.binary(b, "sub", _plain(c, 0), _scalar(c, 2)), axes, keep=True)
    step = f.binary(b, "div", _scalar(c, 1), f.mul(b, _scalar(c, 3), count))
    grid = output_grid(c.x(3), c.opt(4))
    element = x.element if grid.zero is None else grid.element
    return codes(b, f.mul(b, total, step), grid.zero, Grid(grid.scale, grid.zero, element))


@spelling("QLinearAveragePool", domain=MS)
def q_linear_average_pool(c: Call) -> Value:
    """The mean of each window, of an image of either order (``channels_last``)."""
    x, last = _numbers(c, 0), c.int("channels_last", 0)
    if x.rank < 3:
        raise Impossible(f"pooling of {x.type}")
    y = average_of(c, f.move_axis(c.b, x, -1, 1) if last else x)
    return _result(c, f.move_axis(c.b, y, 1, -1) if last else y, 3, c.x(0))


@spelling("QLinearWhere", domain=MS)
def q_linear_where(c: Call) -> Value:
    """The one or the other of two operands of different scales, in the scale of the result."""
    grid = output_grid(c.x(7), c.opt(8))
    return f.select(c.b, c.x(0), _recoded(c.b, c, 1, grid), _recoded(c.b, c, 4, grid))


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
