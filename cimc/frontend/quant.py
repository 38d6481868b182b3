"""Spellings of quantised operators, in their literal meaning: what the standard's formulas say, step by step.

Integer products are exact. With constant weights they are ``mvm`` on the model's own codes, corrected for zero points::

    Σ (a - za)(w - zw) = Σ a·w - zw·Σ a - za·Σ w + k·za·zw
"""

from __future__ import annotations

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.frontend.elementwise import target_element
from cimc.isa.operands import Element

_BYTES = (Element.I8, Element.U8)
_RANGES = {
    Element.I8: (-128, 127),
    Element.U8: (0, 255),
    Element.I16: (-32768, 32767),
    Element.U16: (0, 65535),
    Element.I32: (-(2**31), 2**31 - 1),
}
_NARROW = {"int4": (-8, 7), "uint4": (0, 15)}


def spread(b: Builder, v: Value | None, shape: tuple[int, ...], axis: int, block: int) -> Value | None:
    """A scale or zero point, shaped to broadcast over ``shape``: one, one per index of ``axis``, or one per block."""
    if v is None or (v.type.size == 1 and v.rank <= 1):
        return None if v is None else f.reshape(b, v, ())
    if not -len(shape) <= axis < len(shape):
        raise Impossible(f"axis {axis} of a tensor with {len(shape)} dimensions")
    at = axis % len(shape)
    if v.rank == 1 and not block:
        if v.shape[0] != shape[at]:
            raise Impossible(f"{v.shape[0]} scales for axis {axis} of {list(shape)}")
        return f.reshape(b, v, [v.shape[0] if a == at else 1 for a in range(len(shape))])
    if v.rank != len(shape) or not block or -(-shape[at] // block) != v.shape[at]:
        raise Impossible(f"scales {list(v.shape)} in blocks of {block} for {list(shape)}")
    wide = f.expand(b, f.unsqueeze(b, v, at + 1), (*v.shape[: at + 1], block, *v.shape[at + 1 :]))
    flat = f.reshape(b, wide, (*v.shape[:at], v.shape[at] * block, *v.shape[at + 1 :]))
    return f.part(b, flat, at, 0, shape[at])


def dequantized(b: Builder, x: Value, scale: Value, zero: Value | None) -> Value:
    """``(x - zero) · scale``, operands shaped to broadcast; in the scale's element type."""
    work = f.cast(b, x, Element.F32)
    if zero is not None and not _is_zero(b, zero):
        work = f.binary(b, "sub", work, f.cast(b, zero, Element.F32))
    return f.cast(b, f.mul(b, work, f.cast(b, scale, Element.F32)), scale.element)


def _is_zero(b: Builder, v: Value) -> bool:
    known = b.array(v)
    return known is not None and not known.any()


def quantized(b: Builder, x: Value, scale: Value, zero: Value | None, element: Element, narrow: str = "") -> Value:
    """``clip(round(x / scale) + zero)`` as codes, operands shaped to broadcast."""
    codes = f.unary(b, "round", f.binary(b, "div", f.cast(b, x, Element.F32), f.cast(b, scale, Element.F32)))
    return saturated(b, codes, zero, element, narrow)


def saturated(b: Builder, codes: Value, zero: Value | None, element: Element, narrow: str = "") -> Value:
    """Rounded numbers plus the zero point, clipped to the codes' range."""
    if element not in _RANGES:
        raise Unsupported(f"codes of type {element.value}")
    low, high = _NARROW.get(narrow, _RANGES[element])
    if zero is not None and not _is_zero(b, zero):
        codes = f.add(b, codes, f.cast(b, zero, Element.F32))
    codes = f.binary(b, "max", codes, b.scalar(low, Element.F32))
    codes = f.binary(b, "min", codes, b.scalar(high, Element.F32))
    y = f.cast(b, codes, element)
    return Value(y.name, y.type, narrow) if narrow else y


@spelling("QuantizeLinear", note="to 4-, 8-, 16- and 32-bit integers; per tensor, axis or block")
def quantize_linear(c: Call) -> Value:
    """Codes in the zero point's type, ``output_dtype``'s, or uint8."""
    b, x, scale, zero = c.b, c.x(0), c.x(1), c.opt(2)
    element, narrow = (zero.element, zero.narrow) if zero is not None else (Element.U8, "")
    if zero is None and c.int("output_dtype", 0):
        element = target_element(c, c.int("output_dtype"))
    axis, block = c.int("axis", 1), c.int("block_size", 0)
    scale = spread(b, scale, x.shape, axis, block) or scale
    return quantized(b, x, scale, spread(b, zero, x.shape, axis, block), element, narrow)


@spelling("DequantizeLinear", note="from 4-, 8-, 16- and 32-bit integers; per tensor, axis or block")
def dequantize_linear(c: Call) -> Value:
    """``(x - zero) · scale``."""
    b, x, scale, zero = c.b, c.x(0), c.x(1), c.opt(2)
    axis, block = c.int("axis", 1), c.int("block_size", 0)
    scale = spread(b, scale, x.shape, axis, block) or scale
    y = dequantized(b, x, scale, spread(b, zero, x.shape, axis, block))
    return f.cast(b, y, target_element(c, c.int("output_dtype"))) if c.int("output_dtype", 0) else y


@spelling("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: Call) -> tuple[Value, ...]:
    """uint8 codes with scale and zero point found at run time; the range always holds zero."""
    return _dynamic(c.b, c.x())


def _dynamic(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    axes = tuple(range(x.rank))
    nothing = b.scalar(0, Element.F32)
    low, high = x, x
    if x.rank:
        low, high = (f.reduce(b, op, x, axes, keep=False) for op in ("reduce_min", "reduce_max"))
    low, high = f.binary(b, "min", low, nothing), f.binary(b, "max", high, nothing)
    scale = f.binary(b, "div", f.binary(b, "sub", high, low), b.scalar(255, Element.F32))
    flat = f.binary(b, "eq", scale, nothing)
    scale = f.select(b, flat, b.scalar(1, Element.F32), scale)
    start = f.unary(b, "neg", f.binary(b, "div", low, scale))
    zero = f.binary(b, "min", f.binary(b, "max", f.unary(b, "round", start), nothing), b.scalar(255, Element.F32))
    zero = f.cast(b, zero, Element.U8)
    return quantized(b, x, scale, zero, Element.U8), scale, zero


def _signed(b: Builder, v: Value, zero: Value | None) -> tuple[Value, Value | None]:
    """Constant codes as int8: unsigned ones and their zero point move by 128."""
    if v.element == Element.I8:
        return v, zero
    codes, at = b.array(v), b.array(zero) if zero is not None else np.zeros((), np.uint8)
    assert codes is not None
    assert at is not None
    moved = b.constant((codes.astype(np.int16) - 128).astype(np.int8))
    return moved, b.constant(at.astype(np.int32) - 128)


def integer_product(c: Call, x: Value, zx: Value | None, y: Value, zy: Value | None) -> Value:
    """``Σ (x - zx)(y - zy)`` in int32: x (… × m × k), zero points shaped to broadcast over their operand."""
    b = c.b
    if x.element not in _BYTES or y.element not in _BYTES:
        raise Unsupported(f"an integer product of {x.element.value} and {y.element.value}")
    fixed = zy is None or b.array(zy) is not None
    if (
        b.array(y) is not None
        and y.rank == 2
        and x.rank
        and fixed
        and (zx is None or zx.rank == 0 or zx.shape[-1] == 1)
    ):
        return _on_cores(b, x, zx, y, zy)
    return f.matmul(b, _centred(b, x, zx), _centred(b, y, zy))


def _centred(b: Builder, x: Value, zero: Value | None) -> Value:
    """Codes less their zero point, in 16 bits (they have at most 9)."""
    wide = f.cast(b, x, Element.I16)
    if zero is None or _is_zero(b, zero):
        return x if x.element == Element.I8 else wide
    return f.binary(b, "sub", wide, f.cast(b, zero, Element.I16))


def _on_cores(b: Builder, x: Value, zx: Value | None, y: Value, zy: Value | None) -> Value:
    weight, centre = _signed(b, y, zy)
    z = b.emit("mvm", (x, weight))[0]
    if centre is not None and not _is_zero(b, centre):
        rows = b.emit("reduce_sum", (f.cast(b, x, Element.I32),))[0]
        if zx is not None and not _is_zero(b, zx):
            rows = f.binary(b, "sub", rows, f.mul(b, f.cast(b, zx, Element.I32), b.scalar(x.shape[-1], Element.I32)))
        columns = f.cast(b, centre, Element.I32)
        columns = columns if columns.type.size == 1 else f.reshape(b, columns, (columns.type.size,))
        term = f.mul(b, rows, f.reshape(b, columns, ()) if columns.type.size == 1 else columns)
        z = f.binary(b, "sub", z, f.reshape(b, term, z.shape) if term.type.size == z.type.size else term)
    if zx is not None and not _is_zero(b, zx):
        codes = b.array(weight)
        assert codes is not None
        sums = b.constant(codes.sum(axis=0, dtype=np.int32))
        z = f.binary(b, "sub", z, f.mul(b, f.cast(b, zx, Element.I32), sums))
    return z


def _matrix_zeros(c: Call, x: Value, zero: Value | None, axis: int) -> Value | None:
    """The zero points of a matmul operand: one, or one per row (axis -2) or column (axis -1)."""
    if zero is None:
        return None
    if zero.type.size == 1:
        return f.reshape(c.b, zero, ())
    if zero.rank == 1:
        if x.rank < 2 or zero.shape[0] != x.shape[axis]:
            raise Impossible(f"zero points {zero.type} for {x.type}")
        return f.reshape(c.b, zero, (zero.shape[0], 1) if axis == -2 else (1, zero.shape[0]))
    return zero


@spelling("MatMulInteger", note="constant weights on cores, zero points corrected; exact")
def mat_mul_integer(c: Call) -> Value:
    """An exact product of 8-bit codes less their zero points, in int32."""
    x, y = c.x(0), c.x(1)
    return integer_product(c, x, _matrix_zeros(c, x, c.opt(2), -2), y, _matrix_zeros(c, y, c.opt(3), -1))


def requantized(c: Call, sums: Value, factor: Value, zero: Value | None, element: Element) -> Value:
    """Integer sums times a scale, rounded and clipped to codes."""
    scaled = f.mul(c.b, f.cast(c.b, sums, Element.F32), factor)
    return saturated(c.b, f.unary(c.b, "round", scaled), zero, element)


def _scale(c: Call, v: Value, axis: int) -> Value:
    if v.type.size == 1:
        return f.cast(c.b, f.reshape(c.b, v, ()), Element.F32)
    v = f.cast(c.b, v, Element.F32)
    return v if v.rank != 1 or axis == -1 else f.unsqueeze(c.b, v, -1)


@spelling("QLinearMatMul")
def q_linear_mat_mul(c: Call) -> Value:
    """An exact product of codes, rescaled to codes."""
    b, x, y, zero = c.b, c.x(0), c.x(3), c.x(7)
    sums = integer_product(c, x, _matrix_zeros(c, x, c.x(2), -2), y, _matrix_zeros(c, y, c.x(5), -1))
    factor = f.mul(b, _scale(c, c.x(1), -2), _scale(c, c.x(4), -1))
    factor = f.binary(b, "div", factor, _scale(c, c.x(6), -2))
    return requantized(c, sums, factor, f.reshape(b, zero, ()) if zero.type.size == 1 else zero, zero.element)


@spelling("MatMulIntegerToFloat", domain="com.microsoft")
def mat_mul_integer_to_float(c: Call) -> Value:
    """An exact product of codes, as numbers."""
    x, y = c.x(0), c.x(1)
    sums = integer_product(c, x, _matrix_zeros(c, x, c.opt(4), -2), y, _matrix_zeros(c, y, c.opt(5), -1))
    factor = f.mul(c.b, _scale(c, c.x(2), -2), _scale(c, c.x(3), -1))
    return f.add(c.b, f.mul(c.b, f.cast(c.b, sums, Element.F32), factor), c.opt(6))


@spelling("DynamicQuantizeMatMul", domain="com.microsoft")
def dynamic_quantize_mat_mul(c: Call) -> Value:
    """The left operand quantised at run time, an exact product, as numbers."""
    b, y = c.b, c.x(1)
    codes, scale, zero = _dynamic(b, c.x(0))
    sums = integer_product(c, codes, zero, y, _matrix_zeros(c, y, c.opt(3), -1))
    numbers = f.mul(b, f.cast(b, sums, Element.F32), f.mul(b, scale, _scale(c, c.x(2), -1)))
    return f.add(b, numbers, c.opt(4))


@spelling("QGemm", domain="com.microsoft")
def q_gemm(c: Call) -> Value:
    """``alpha · A' · B' + C`` of codes; C is int32 in units of both scales; codes out if an output scale is given."""
    b, x, y, term = c.b, c.x(0), c.x(3), c.opt(6)
    x = f.swap(b, x, 0, 1) if c.int("transA", 0) else x
    y = f.swap(b, y, 0, 1) if c.int("transB", 0) else y
    sums = integer_product(c, x, _matrix_zeros(c, x, c.x(2), -2), y, _matrix_zeros(c, y, c.x(5), -1))
    sums = f.add(b, sums, term)
    factor = f.mul(b, _scale(c, c.x(1), -2), _scale(c, c.x(4), -1))
    factor = f.scaled(b, factor, c.float("alpha", 1.0))
    out, zero = c.opt(7), c.opt(8)
    if out is None:
        return f.mul(b, f.cast(b, sums, Element.F32), factor)
    factor = f.binary(b, "div", factor, f.reshape(b, out, ()))
    element = zero.element if zero is not None else Element.U8
    return requantized(c, sums, factor, None if zero is None else f.reshape(b, zero, ()), element)


def operand(c: Call, index: int) -> Value:
    """The quantised operand that starts at input ``index`` (codes, scale, zero point) as numbers; one scale."""
    scale, zero = c.x(index + 1), c.opt(index + 2)
    if scale.type.size != 1 or (zero is not None and zero.type.size != 1):
        raise NeedsHost("scales per axis")
    flat = None if zero is None else f.reshape(c.b, zero, ())
    return dequantized(c.b, c.x(index), f.reshape(c.b, scale, ()), flat)


def codes(c: Call, y: Value, index: int, like: Element) -> Value:
    """Numbers as codes with the scale and zero point at inputs ``index`` and ``index + 1``."""
    zero = c.opt(index + 1)
    flat = None if zero is None else f.reshape(c.b, zero, ())
    return quantized(c.b, y, f.reshape(c.b, c.x(index), ()), flat, zero.element if zero is not None else like)
