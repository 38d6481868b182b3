"""Spellings of integer convolutions: windows of the image are rows, kernels are columns of a product."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.quant import MS
from cimc.frontend.quant_matmul import integer_product, output_grid, requantized
from cimc.isa.operands import Element


def image_rows(c: Call, x: Value, kernel: Sequence[int], zero: int | Value) -> Value:
    """Windows of x (n × c × spatial…) as (n × out… × c × kernel…), the border filled with the zero point."""
    strides, dilations = c.ints("strides") or (1,) * len(kernel), c.ints("dilations") or (1,) * len(kernel)
    fits = len(strides) == len(dilations) == len(kernel) == x.rank - 2
    if not fits or min((*strides, *dilations, *kernel), default=0) < 1:
        raise Impossible(f"a convolution of {x.type}: kernel {tuple(kernel)}, strides {strides}, dilations {dilations}")
    before, after = borders(c, x.shape[2:], kernel, strides, dilations)
    wide = _bordered(c.b, x, (0, 0, *before), (0, 0, *after), zero)
    attrs = {"kernel": tuple(kernel), "stride": strides, "dilation": dilations}
    return c.b.emit("window", (wide,), **attrs)[0]


def _bordered(b: Builder, x: Value, before: Sequence[int], after: Sequence[int], zero: int | Value) -> Value:
    """x with a border of the zero point; of one that is known only at run time, put where a mask says."""
    if isinstance(zero, int):
        return f.pad(b, x, before, after, zero)
    if not any((*before, *after)):
        return x
    inside = f.pad(b, f.expand(b, b.scalar(True, Element.B8), x.shape), before, after)
    return f.select(b, inside, f.pad(b, x, before, after), f.reshape(b, zero, ()))


def borders(
    c: Call, extents: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Padding before and after each spatial axis, from ``pads`` or ``auto_pad``."""
    auto, n = c.text("auto_pad", "NOTSET"), len(kernel)
    if auto in ("NOTSET", ""):
        pads = c.ints("pads") or (0,) * (2 * n)
        if len(pads) != 2 * n or min(pads) < 0:
            raise Impossible(f"pads {pads}")
        return pads[:n], pads[n:]
    if auto == "VALID":
        return (0,) * n, (0,) * n
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise Impossible(f"auto_pad {auto!r}")
    spans = zip(extents, kernel, strides, dilations, strict=True)
    total = [max((-(-e // s) - 1) * s + (k - 1) * d + 1 - e, 0) for e, k, s, d in spans]
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return (small, large) if auto == "SAME_UPPER" else (large, small)


def integer_conv(c: Call, x: Value, w: Value, x_zero: Value | None, w_zero: Value | None) -> Value:
    """int32 sums (n × out… × channels), exact. Raises Impossible if the operands do not fit."""
    b, groups = c.b, c.int("group", 1)
    if x.rank < 3 or w.rank != x.rank or groups < 1 or w.shape[0] % groups or x.shape[1] != groups * w.shape[1]:
        raise Impossible(f"a convolution of {x.type} with {w.type} in {groups} groups")
    patches = image_rows(c, x, w.shape[2:], _fill(b, x_zero))
    channels, each = w.shape[0] // groups, w.shape[1]
    axis = x.rank - 1
    parts: list[Value] = []
    for g in range(groups):
        taps = f.part(b, patches, axis, g * each, each)
        flat = f.reshape(b, taps, (*taps.shape[:axis], math.prod(taps.shape[axis:])))
        kernels = f.part(b, w, 0, g * channels, channels)
        matrix = f.swap(b, f.reshape(b, kernels, (channels, flat.shape[-1])), 0, 1)
        point = w_zero
        if w_zero is not None and w_zero.type.size > 1:
            point = f.part(b, f.reshape(b, w_zero, (w.shape[0],)), 0, g * channels, channels)
        parts.append(integer_product(b, flat, matrix, x_zero, point))
    return f.concat(b, parts, parts[0].rank - 1)


def _fill(b: Builder, zero: Value | None) -> int | Value:
    """The code that means zero, the border's value: a number if it is known when the model is compiled."""
    if zero is None:
        return 0
    array = b.array(zero)
    return zero if array is None else int(array.reshape(-1)[0])


def _checked(zero: Value | None) -> Value | None:
    if zero is not None and zero.type.size != 1:
        raise Impossible("the input's zero point fills the border, but is not one number")
    return zero


def _channels_second(b: Builder, y: Value) -> Value:
    return f.move_axis(b, y, -1, 1)


@spelling("ConvInteger", note="constant weights: their own codes in cells")
def conv_integer(c: Call) -> Value:
    """int32 sums of 8-bit integers less their zero points."""
    return _channels_second(c.b, integer_conv(c, c.x(0), c.x(1), _checked(c.opt(2)), c.opt(3)))


@spelling("QLinearConv", note="constant weights: their own codes in cells")
def q_linear_conv(c: Call) -> Value:
    """8-bit integers with scales in, 8-bit integers out; bias in the sums' scale."""
    return _channels_second(c.b, _linear(c, c.x(0)))


@spelling("QLinearConv", domain=MS, note="constant weights: their own codes in cells")
def channels_last_conv(c: Call) -> Value:
    """The same on an image of either order (``channels_last``), as onnxruntime's optimiser writes it."""
    if c.int("channels_last", 0):
        return _linear(c, _channels_second(c.b, c.x(0)))
    return _channels_second(c.b, _linear(c, c.x(0)))


def _linear(c: Call, x: Value) -> Value:
    """The convolution of x (n × c × spatial…), channels last."""
    b = c.b
    acc = integer_conv(c, x, c.x(3), _checked(c.x(2)), c.x(5))
    acc = f.add(b, acc, c.opt(8))
    w_scale = c.x(4)
    w_scale = f.reshape(b, w_scale, ()) if w_scale.type.size == 1 else w_scale
    scales = [f.reshape(b, c.x(1), ()), w_scale]
    return requantized(b, f.cast(b, acc, Element.I32), scales, output_grid(c.x(6), c.x(7)))
