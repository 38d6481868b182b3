"""Spellings of quantisation with scales and zero points that the model brings: its integers stay its integers, in every
numerics."""

from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.elementwise import target_element
from cimc.frontend.narrow import LARGEST, converted
from cimc.frontend.record import MS
from cimc.isa.operands import Element

_BITS = {Element.U2: 2, Element.I2: 2, Element.U4: 4, Element.I4: 4} | {
    Element.U8: 8, Element.I8: 8, Element.U16: 16, Element.I16: 16
}  # fmt: skip
_SIGNED = (Element.I2, Element.I4, Element.I8, Element.I16)


@dataclass(frozen=True)
class Grid:
    """The numbers a quantised value can take: ``scale · (code - zero)`` for the codes of ``element``, integers or small
    floats (``saturate``: codes of those stay in their range). Scale and zero point: scalars, vectors along ``axis``, or
    one per ``block`` elements along it; ``shaped`` if they broadcast as they are."""

    scale: Value
    zero: Value | None
    element: Element
    axis: int = 1
    block: int = 0
    shaped: bool = False
    saturate: bool = True

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest code of integers."""
        top = 1 << _BITS[self.element]
        return (-(top // 2), top // 2 - 1) if self.element in _SIGNED else (0, top - 1)


def dequantize(b: Builder, x: Value, grid: Grid, element: Element | None = None) -> Value:
    """``(x - zero) · scale``, computed in float32 as onnxruntime does, in the scale's element type or ``element``. Of
    weights: when they are needed, so that their integers stay visible and can go into cells as they are."""
    if _even(x, grid):
        return f.reshape(b, dequantize(b, *_split(b, x, grid), element), x.shape)
    scale, zero = spread(b, grid.scale, x, grid), spread(b, grid.zero, x, grid)
    assert scale is not None
    scale, x = f.cast(b, b.wide(scale), Element.F32), b.wide(x)
    zero = None if zero is None else b.wide(zero)
    zero = None if zero is None or is_zero(b, zero) else f.cast(b, zero, Element.F32)
    with deferred(b, when=b.array(x) is not None and x.rank >= 2):
        wide = f.cast(b, x, Element.F32)
        centred = wide if zero is None else f.binary(b, "sub", wide, zero)
        return f.cast(b, f.mul(b, centred, scale), element or grid.scale.element)


def quantize(b: Builder, x: Value, grid: Grid) -> Value:
    """``clip(round(x / scale) + zero)``: ties to even, codes clipped to their range, all in float32."""
    if _even(x, grid):
        return f.reshape(b, quantize(b, *_split(b, x, grid)), x.shape)
    scale, zero = spread(b, grid.scale, x, grid), spread(b, grid.zero, x, grid)
    assert scale is not None
    ratio = f.binary(b, "div", f.cast(b, x, Element.F32), f.cast(b, b.wide(scale), Element.F32))
    return codes(b, ratio, zero, grid)


def codes(b: Builder, ratio: Value, zero: Value | None, grid: Grid) -> Value:
    """Numbers already divided by the scale (float32), as codes of the grid."""
    whole = grid.element in _BITS
    y = f.unary(b, "round", ratio) if whole else ratio
    if zero is not None and not is_zero(b, zero):
        y = f.add(b, y, f.cast(b, b.wide(zero), Element.F32))
    if not whole:
        return converted(b, y, grid.element, saturate=grid.saturate)
    low, high = grid.range
    y = f.binary(b, "max", y, b.scalar(low, Element.F32))
    y = f.binary(b, "min", y, b.scalar(high, Element.F32))
    if grid.element.narrow:
        held = f.cast(b, y, Element.I8 if grid.element in _SIGNED else Element.U8)
        return b.narrowed(held, grid.element)
    return f.cast(b, y, grid.element)


def is_zero(b: Builder, value: Value) -> bool:
    """Whether a value is known to be all zeros."""
    array = b.array(value)
    return array is not None and not np.any(array)


def spread(b: Builder, value: Value | None, x: Value, grid: Grid) -> Value | None:
    """A scale or zero point of the grid, shaped to broadcast against x. Raises Impossible if it does not fit."""
    if value is not None and grid.shaped:
        return value
    if value is None or value.type.size == 1:
        return None if value is None else f.reshape(b, value, ())
    axis = grid.axis
    if not -x.rank <= axis < x.rank:
        raise Impossible(f"axis {axis} of {x.type}")
    axis %= x.rank
    if grid.block:
        return _blocks(b, value, x, axis, grid.block)
    if value.rank != 1 or value.shape[0] != x.shape[axis]:
        raise Impossible(f"scales or zero points {value.type} along axis {axis} of {x.type}")
    return f.reshape(b, value, (value.shape[0], *(1,) * (x.rank - axis - 1)))


def _even(x: Value, grid: Grid) -> bool:
    """Whether the grid is by blocks that are all full."""
    inside = grid.block > 0 and -x.rank <= grid.axis < x.rank
    return inside and grid.scale.rank == x.rank and x.shape[grid.axis] == grid.block * grid.scale.shape[grid.axis]


def _split(b: Builder, x: Value, grid: Grid) -> tuple[Value, Grid]:
    """x with its blocks as an axis of their own, and the grid that fits it: nothing is repeated in memory."""
    axis = grid.axis % x.rank
    _fitting(grid.scale, x, axis, grid.block)
    zero = None
    if grid.zero is not None:
        _fitting(grid.zero, x, axis, grid.block)
        zero = f.unsqueeze(b, grid.zero, axis + 1)
    blocks = (*x.shape[:axis], grid.scale.shape[axis], grid.block, *x.shape[axis + 1 :])
    scale = f.unsqueeze(b, grid.scale, axis + 1)
    return f.reshape(b, x, blocks), replace(grid, scale=scale, zero=zero, block=0, shaped=True)


def _fitting(value: Value, x: Value, axis: int, block: int) -> None:
    fits = value.rank == x.rank and all(
        n == (-(-m // block) if a == axis else m) for a, (n, m) in enumerate(zip(value.shape, x.shape, strict=True))
    )
    if not fits:
        raise Impossible(f"scales or zero points {value.type} for blocks of {block} along axis {axis} of {x.type}")


def _blocks(b: Builder, value: Value, x: Value, axis: int, block: int) -> Value:
    _fitting(value, x, axis, block)
    return repeated(b, value, axis, block, x.shape[axis])


def repeated(b: Builder, value: Value, axis: int, times: int, size: int) -> Value:
    """Every element ``times`` times along an axis, the first ``size`` of them."""
    wide = f.unsqueeze(b, value, axis + 1)
    wide = f.expand(b, wide, (*value.shape[: axis + 1], times, *value.shape[axis + 1 :]))
    whole = f.reshape(b, wide, (*value.shape[:axis], value.shape[axis] * times, *value.shape[axis + 1 :]))
    return f.part(b, whole, axis, 0, size)


@contextmanager
def deferred(b: Builder, *, when: bool = True) -> Generator[None]:
    """Nodes on constants stay nodes while this is open: the weights' integers stay visible, and nothing is computed
    from them before it is needed."""
    before, b.deferred = b.deferred, when or b.deferred
    try:
        yield
    finally:
        b.deferred = before


def _axis_of(c: Call, x: Value) -> int:
    # Before opset 13 there is no axis; per-tensor scales do not look at it.
    return c.int("axis", 1) if x.rank != 1 else 0


@spelling("QuantizeLinear", note="to integers of 2 to 16 bits, float8, float4; per tensor, per axis, by blocks")
def quantize_linear(c: Call) -> Value:
    """``clip(round(x / scale) + zero)``."""
    x, scale, zero = c.x(0), c.x(1), c.opt(2)
    saturate = bool(c.int("saturate", 1))
    return quantize(
        c.b, x, Grid(scale, zero, _target(c, zero), _axis_of(c, x), c.int("block_size", 0), saturate=saturate)
    )


def _target(c: Call, zero: Value | None) -> Element:
    element = target_element(c, c.int("output_dtype", 0) or 2) if zero is None else zero.element
    if element not in _BITS and element not in LARGEST:
        raise Unsupported(f"quantisation to {element.value}")
    return element


@spelling("DequantizeLinear", note="from integers of 2 to 32 bits, float8, float4; per tensor, per axis, by blocks")
def dequantize_linear(c: Call) -> Value:
    """``(x - zero) · scale``. Of weights: computed when needed, so that the integers can go into cells as they are."""
    x, scale, zero = c.x(0), c.x(1), c.opt(2)
    grid = Grid(scale, zero, x.element, _axis_of(c, x), c.int("block_size", 0))
    element = target_element(c, c.int("output_dtype")) if c.int("output_dtype", 0) else None
    return dequantize(c.b, x, grid, element)


spelling("QuantizeLinear", domain=MS)(quantize_linear)
spelling("DequantizeLinear", domain=MS)(dequantize_linear)


def extremum(b: Builder, op: str, x: Value) -> Value:
    """The largest or smallest element of a tensor, as a scalar: along rows first, then over the rows' results."""
    if x.rank == 0:
        return x
    rows = b.emit(op, (x,))[0]
    if rows.type.size > 1:
        rows = b.emit(op, (f.reshape(b, rows, (1, rows.type.size)),))[0]
    return f.reshape(b, rows, ())


def dynamic(b: Builder, x: Value) -> tuple[Value, Value, Value]:
    """uint8 codes of x with the scale and zero point of its range, which includes 0 (ONNX DynamicQuantizeLinear)."""
    if not math.prod(x.shape):
        raise Impossible(f"the range of {x.type}, which has no elements")
    zero = b.scalar(0, Element.F32)
    low = f.binary(b, "min", extremum(b, "reduce_min", x), zero)
    high = f.binary(b, "max", extremum(b, "reduce_max", x), zero)
    flat = f.binary(b, "eq", high, low)
    scale = f.binary(b, "div", f.binary(b, "sub", high, low), b.scalar(255, Element.F32))
    scale = f.select(b, flat, b.scalar(1, Element.F32), scale)
    start = f.unary(b, "neg", f.binary(b, "div", low, scale))
    grid = Grid(scale, None, Element.U8)
    point = codes(b, start, None, grid)
    return quantize(b, x, replace(grid, zero=point)), scale, point


@spelling("DynamicQuantizeLinear")
def dynamic_quantize_linear(c: Call) -> tuple[Value, ...]:
    """Codes, scale and zero point of the range that the input turns out to have."""
    return dynamic(c.b, c.x())
