"""Spellings of integer matrix products. With constant weights they are ``mvm`` on the model's own codes: sums and
zero-point corrections exact in int32, as the standard says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.frontend.quant import MS, Grid, codes, dynamic, is_zero
from cimc.frontend.record import Array
from cimc.ir.levels import flat
from cimc.isa.operands import Element

_BYTES = (Element.I8, Element.U8)
SHIFT = 128
"""Cells hold signed codes: unsigned weights are stored less this, and their zero points too."""


def integer_product(b: Builder, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None) -> Value:
    """``(x - x_zero) · (w - w_zero)`` exactly in int32: x (… × m × k) and w (… × k × n) of 8 bits. Zero points: a
    scalar, one per row of x (… × m), one per column of w (… × n). Raises Impossible if they do not fit."""
    if x.element not in _BYTES or w.element not in _BYTES or x.rank < 1 or w.rank < 1:
        raise Impossible(f"an integer product of {x.type} and {w.type}")
    if x.rank == 1 or w.rank == 1:
        return _of_vectors(b, x, w, x_zero, w_zero)
    x_zero, w_zero = _rows(b, x_zero, x), _columns(b, w_zero, w)
    cells, zeros = b.array(w), None if w_zero is None else b.array(w_zero)
    known = w_zero is None or zeros is not None
    if cells is not None and b.array(x) is None and flat(w.shape) and known and (zeros is None or zeros.ndim <= 2):
        y = in_cells(b, x, cells.reshape(w.shape[-2:]), x_zero, zeros)
        return f.reshape(b, y, (*(1,) * (w.rank - x.rank), *y.shape))
    return f.matmul(b, _centred(b, x, x_zero), _centred(b, w, w_zero))


def _of_vectors(b: Builder, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None) -> Value:
    left = f.reshape(b, x, (1, *x.shape)) if x.rank == 1 else x
    right = f.reshape(b, w, (*w.shape, 1)) if w.rank == 1 else w
    y = integer_product(b, left, right, x_zero, w_zero)
    gone = [a for a, v in ((y.rank - 2, x), (y.rank - 1, w)) if v.rank == 1]
    return f.squeeze(b, y, gone)


def _rows(b: Builder, zero: Value | None, x: Value) -> Value | None:
    """Zero points per row of x, shaped (… × m × 1); a scalar stays one."""
    if zero is None or is_zero(b, zero):
        return None
    if zero.type.size == 1:
        return f.reshape(b, zero, ())
    if zero.rank >= 2 and zero.shape[-1] == 1:
        return zero
    if zero.shape[-1] != x.shape[-2]:
        raise Impossible(f"zero points {zero.type} for the rows of {x.type}")
    return f.unsqueeze(b, zero, -1)


def _columns(b: Builder, zero: Value | None, w: Value) -> Value | None:
    """Zero points per column of w, shaped to broadcast (… × 1 × n); a scalar stays one."""
    if zero is None or is_zero(b, zero):
        return None
    if zero.type.size == 1:
        return f.reshape(b, zero, ())
    if zero.shape[-1] != w.shape[-1]:
        raise Impossible(f"zero points {zero.type} for the columns of {w.type}")
    return zero if zero.rank == 1 or zero.shape[-2] == 1 else f.unsqueeze(b, zero, -2)


def _centred(b: Builder, x: Value, zero: Value | None) -> Value:
    """``x - zero`` in the smallest type that surely holds it."""
    if zero is None:
        return x
    return f.binary(b, "sub", f.cast(b, x, Element.I16), f.cast(b, zero, Element.I16))


def in_cells(b: Builder, x: Value, w: Array, x_zero: Value | None, w_zero: Array | None) -> Value:
    """The product with weights (k × n, int8 or uint8) in cells. With signed codes c = w - s and z = w_zero - s:
    Σ(x - a)(c - z) = Σxc - a·Σc - z·Σx + k·a·z."""
    shift = SHIFT if w.dtype == np.uint8 else 0
    # Flipping the highest bit of an unsigned byte is subtracting 128 in two's complement.
    cells = np.bitwise_xor(w, np.uint8(SHIFT)).view(np.int8) if shift else w
    point = np.zeros((), np.int32) if w_zero is None else w_zero.astype(np.int32)
    point = np.asarray(point - shift, np.int32).reshape(-1 if point.size > 1 else ())
    y = b.emit("mvm", (x, b.constant(np.ascontiguousarray(cells))))[0]
    if x_zero is not None:
        # Σ(c - z) over the inputs, which takes the last term in too.
        sums = cells.sum(axis=0, dtype=np.int32) - np.int32(w.shape[0]) * point
        start = f.cast(b, x_zero, Element.I32)
        y = f.binary(b, "sub", y, f.mul(b, start, b.constant(sums.astype(np.int32))))
    if np.any(point):
        total = b.emit("reduce_sum", (f.cast(b, x, Element.I32),))[0]
        y = f.binary(b, "sub", y, f.mul(b, total, b.constant(point)))
    return y


def columns(b: Builder, scale: Value, w: Value) -> Value:
    """A scale of a matrix operand's columns, shaped to broadcast against the product; a scalar without axes."""
    if scale.type.size == 1:
        return f.reshape(b, scale, ())
    shaped = _columns(b, scale, w)
    return scale if shaped is None else shaped


def rows(b: Builder, scale: Value, x: Value) -> Value:
    """The same of a matrix operand's rows."""
    if scale.type.size == 1:
        return f.reshape(b, scale, ())
    shaped = _rows(b, scale, x)
    return scale if shaped is None else shaped


def requantized(b: Builder, acc: Value, scales: Sequence[Value], grid: Grid) -> Value:
    """int32 sums of scales a and w (and more) as codes of the grid: ``round(acc · (a · w / scale)) + zero``."""
    factor = scales[0]
    for s in scales[1:]:
        factor = f.mul(b, factor, s)
    factor = f.binary(b, "div", factor, f.reshape(b, grid.scale, ()))
    zero = None if grid.zero is None else f.reshape(b, grid.zero, ())
    return codes(b, f.mul(b, f.cast(b, acc, Element.F32), factor), zero, grid)


def output_grid(scale: Value, zero: Value | None) -> Grid:
    """The grid of an output with one scale. Raises Unsupported if it has several."""
    if scale.type.size != 1 or (zero is not None and zero.type.size != 1):
        raise Unsupported("an output with a scale per row")
    return Grid(scale, zero, Element.U8 if zero is None else zero.element)


@spelling("MatMulInteger", note="constant weights: their own codes in cells")
def mat_mul_integer(c: Call) -> Value:
    """int32 products of 8-bit integers less their zero points."""
    return integer_product(c.b, c.x(0), c.x(1), c.opt(2), c.opt(3))


@spelling("QLinearMatMul", note="constant weights: their own codes in cells")
def q_linear_mat_mul(c: Call) -> Value:
    """8-bit integers with scales in, 8-bit integers out."""
    b, x, w = c.b, c.x(0), c.x(3)
    acc = integer_product(b, x, w, c.x(2), c.x(5))
    scales = [f.cast(b, s, Element.F32) for s in (rows(b, c.x(1), x), columns(b, c.x(4), w))]
    grid = output_grid(f.cast(b, c.x(6), Element.F32), c.x(7))
    return requantized(b, acc, scales, grid)


@spelling("QGemm", domain=MS, note="constant weights: their own codes in cells")
def q_gemm(c: Call) -> Value:
    """Products of 8-bit integers plus an int32 term, as codes or, without an output scale, as numbers."""
    b = c.b
    x = f.swap(b, c.x(0), 0, 1) if c.int("transA", 0) else c.x(0)
    w = f.swap(b, c.x(3), 0, 1) if c.int("transB", 0) else c.x(3)
    acc = f.add(b, integer_product(b, x, w, c.opt(2), c.opt(5)), c.opt(6))
    scale = f.scaled(b, rows(b, c.x(1), x), c.float("alpha", 1.0))
    scales = [scale, columns(b, c.x(4), w)]
    if c.opt(7) is None:
        return f.mul(b, f.cast(b, acc, Element.F32), f.mul(b, *scales))
    return requantized(b, acc, scales, output_grid(c.x(7), c.opt(8)))


@spelling("MatMulIntegerToFloat", domain=MS, note="constant weights: their own codes in cells")
def mat_mul_integer_to_float(c: Call) -> Value:
    """Products of 8-bit integers times their scales, plus a bias."""
    b, x, w = c.b, c.x(0), c.x(1)
    acc = integer_product(b, x, w, c.opt(4), c.opt(5))
    return to_float(c, acc, rows(b, c.x(2), x), columns(b, c.x(3), w), c.opt(6))


def to_float(c: Call, acc: Value, x_scale: Value, w_scale: Value, bias: Value | None) -> Value:
    """Sums times both scales, plus a bias."""
    y = f.mul(c.b, f.cast(c.b, acc, Element.F32), f.mul(c.b, x_scale, w_scale))
    return f.add(c.b, f.cast(c.b, y, x_scale.element), bias)


@spelling("DynamicQuantizeMatMul", domain=MS, note="constant weights: their own codes in cells")
def dynamic_quantize_mat_mul(c: Call) -> Value:
    """Numbers quantised by the range they turn out to have, times 8-bit weights with scales."""
    b, w = c.b, c.x(1)
    x, scale, zero = dynamic(b, c.x(0))
    acc = integer_product(b, x, w, zero, c.opt(3))
    return to_float(c, acc, scale, columns(b, c.x(2), w), c.opt(4))


@spelling("DynamicQuantizeLSTM", domain=MS, runs="host")
def dynamic_quantize_lstm(c: Call) -> Value:
    """Left to the host, whose onnxruntime also knows what its outputs are."""
    raise NeedsHost("recurrent layers run one step after another, which no tile program of cimc does")
