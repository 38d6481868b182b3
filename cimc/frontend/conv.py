"""Spellings of convolutions: windows as rows of a matrix, times the kernels as columns."""

from __future__ import annotations

import math
from collections.abc import Callable

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.spatial import Frame, channels_second, frame, windows

MAX_GROUP_PRODUCTS = 32
"""Up to this many groups become products of their own, with weights in crossbars; more are one batched product."""

Product = Callable[[Value, Value], Value]
"""A product of rows (… × k) and columns (k × m)."""


def _checked(c: Call, x: Value, w: Value, groups: int, inside: int) -> Frame:
    if x.rank < 3 or w.rank != x.rank or groups < 1 or x.shape[1] != inside * groups or w.shape[0] % groups:
        raise Impossible(f"convolution of {x.type} with {w.type} in {groups} groups")
    kernel = c.ints("kernel_shape") or w.shape[2:]
    if kernel != w.shape[2:]:
        raise Impossible(f"kernel_shape {kernel} of weights {w.type}")
    return frame(c, x.shape[2:], kernel)


def convolved(c: Call, x: Value, w: Value, fr: Frame, groups: int, product: Product, value: float = 0.0) -> Value:
    """x (n × c × spatial…) with kernels (m × c/groups × kernel…) as (n × out… × m)."""
    b = c.b
    seen = _pixels(c, x) if fr.taps == 1 and max(fr.stride) == 1 and not fr.padded else windows(c, x, fr, value)
    lead = seen.shape[: 1 + len(fr.kernel)]
    each, out = x.shape[1] // groups, w.shape[0] // groups
    if groups == 1:
        return product(_rows(c, seen, lead), _columns(c, w))
    if each == 1 and x.floating:
        return _depthwise(c, seen, w, lead, out)
    if groups <= MAX_GROUP_PRODUCTS:
        axis = len(lead)
        parts = [
            product(_rows(c, f.part(b, seen, axis, g * each, each), lead), _columns(c, f.part(b, w, 0, g * out, out)))
            for g in range(groups)
        ]
        return f.concat(b, parts, -1)
    rows = f.reshape(b, seen, (math.prod(lead), groups, each * fr.taps))
    columns = f.reshape(b, w, (groups, out, each * fr.taps))
    y = product(f.transpose(b, rows, (1, 0, 2)), f.transpose(b, columns, (0, 2, 1)))
    return f.reshape(b, f.transpose(b, y, (1, 0, 2)), (*lead, groups * out))


def _pixels(c: Call, x: Value) -> Value:
    """The windows of a kernel of one element, where they do not skip any: rows of x, which stay with what makes them."""
    last = f.move_axis(c.b, x, 1, -1)
    return f.reshape(c.b, last, (*last.shape, *(1,) * (x.rank - 2)))


def _rows(c: Call, seen: Value, lead: tuple[int, ...]) -> Value:
    """Windows (lead… × c × kernel…) as rows: the kernel's elements in order, of each all channels, because maps between
    convolutions are stored channels last."""
    last = f.move_axis(c.b, seen, len(lead), -1)
    return f.reshape(c.b, last, (*lead, math.prod(seen.shape[len(lead) :])))


def _columns(c: Call, w: Value) -> Value:
    """Kernels (m × c × kernel…) as columns, in the order of :func:`_rows`."""
    last = f.move_axis(c.b, f.move_axis(c.b, w, 1, -1), 0, -1)
    return f.reshape(c.b, last, (math.prod(w.shape[1:]), w.shape[0]))


def _depthwise(c: Call, seen: Value, w: Value, lead: tuple[int, ...], out: int) -> Value:
    """One input channel a group: too thin for a crossbar, so multiplied and summed in the vector unit."""
    b, taps = c.b, math.prod(w.shape[2:])
    channels = w.shape[0] // out
    x = f.reshape(b, seen, (*lead, channels, 1, taps))
    y = b.emit("reduce_sum", (f.mul(b, x, f.reshape(b, w, (channels, out, taps))),))[0]
    return f.reshape(b, y, (*lead, channels * out))


def _product(c: Call) -> Product:
    return lambda x, w: f.matmul(c.b, x, w)


@spelling("Conv", note="any number of spatial axes, groups, strides, dilations")
def conv(c: Call) -> Value:
    """Convolution."""
    return conv_of(c, c.x(0), c.x(1), c.opt(2))


def conv_of(c: Call, x: Value, w: Value, bias: Value | None) -> Value:
    """x (n × c × spatial…) with kernels (m × c/groups × kernel…) and a bias (m), by the node's attributes: (n × m × out…)."""
    groups = c.int("group", 1)
    fr = _checked(c, x, w, groups, w.shape[1] if w.rank > 1 else 0)
    y = convolved(c, x, w, fr, groups, _product(c))
    return channels_second(c, f.add(c.b, y, bias))


@spelling("ConvTranspose", note="as a convolution of the input with zeros put between its elements")
def conv_transpose(c: Call) -> Value:
    """Transposed convolution: kernels (c × m/groups × kernel…)."""
    b, x, w, bias, groups = c.b, c.x(0), c.x(1), c.opt(2), c.int("group", 1)
    n = x.rank - 2
    if n < 1 or w.rank != x.rank or groups < 1 or x.shape[1] != w.shape[0] or w.shape[0] % groups:
        raise Impossible(f"transposed convolution of {x.type} with {w.type} in {groups} groups")
    stride, dilation = c.ints("strides") or (1,) * n, c.ints("dilations") or (1,) * n
    before, after = _transposed_pads(c, x.shape[2:], w.shape[2:], stride, dilation)
    for i, s in enumerate(stride):
        x = _spread(c, x, 2 + i, s)
    x = f.pad(b, x, (0, 0, *before), (0, 0, *after))
    inside, out = w.shape[0] // groups, w.shape[1]
    kernels = f.reshape(b, w, (groups, inside, out, *w.shape[2:]))
    kernels = f.reshape(b, f.swap(b, kernels, 1, 2), (groups * out, inside, *w.shape[2:]))
    for axis in range(2, kernels.rank):
        kernels = f.part(b, kernels, axis, kernels.shape[axis] - 1, kernels.shape[axis], -1)
    zeros = (0,) * n
    fr = Frame(w.shape[2:], (1,) * n, dilation, zeros, zeros, zeros)
    y = convolved(c, x, kernels, fr, groups, _product(c))
    return channels_second(c, f.add(b, y, bias))


def _spread(c: Call, x: Value, axis: int, stride: int) -> Value:
    """Zeros between the elements of an axis: ``(n - 1) · stride + 1`` of them in all."""
    if stride == 1:
        return x
    b, n = c.b, x.shape[axis]
    apart = f.unsqueeze(b, x, axis + 1)
    apart = f.pad(b, apart, (0,) * apart.rank, [stride - 1 if a == axis + 1 else 0 for a in range(apart.rank)])
    merged = f.reshape(b, apart, (*x.shape[:axis], n * stride, *x.shape[axis + 1 :]))
    return f.part(b, merged, axis, 0, (n - 1) * stride + 1)


def _transposed_pads(
    c: Call, spatial: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """Borders of the spread input, negative where the result is cropped."""
    n = len(spatial)
    extra = c.ints("output_padding") or (0,) * n
    pads, auto, wanted = c.ints("pads") or (0,) * (2 * n), c.text("auto_pad", "NOTSET"), c.ints("output_shape")
    if not len(stride) == len(dilation) == len(extra) == n or len(pads) != 2 * n or min((*stride, *dilation)) < 1:
        raise Impossible(f"strides {stride}, dilations {dilation}, pads {pads}, output_padding {extra} over {spatial}")
    reach = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    low, high = list(pads[:n]), list(pads[n:])
    if wanted is not None or auto.startswith("SAME"):
        target = wanted[-n:] if wanted is not None else [x * s for x, s in zip(spatial, stride, strict=True)]
        for i in range(n):
            total = stride[i] * (spatial[i] - 1) + extra[i] + reach[i] - target[i]
            if total < 0:
                # More is wanted than there is: zeros behind.
                low[i], high[i] = 0, total
                continue
            small = total // 2
            low[i], high[i] = (small, total - small) if auto != "SAME_LOWER" else (total - small, small)
    before = [r - 1 - p for r, p in zip(reach, low, strict=True)]
    return before, [r - 1 - p + e for r, p, e in zip(reach, high, extra, strict=True)]
