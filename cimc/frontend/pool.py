"""Spellings of pooling: reductions over windows."""

from __future__ import annotations

import math

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value, room
from cimc.frontend.call import Call, NeedsHost, Translate, spelling
from cimc.frontend.spatial import Frame, channels_second, frame, windows
from cimc.isa.operands import Element

MS = "com.microsoft"
_LOWEST = {Element.I8: -128, Element.U8: 0, Element.I16: -32768, Element.U16: 0, Element.I32: -(2**31)}


def _frame(c: Call, x: Value) -> Frame:
    kernel = c.ints("kernel_shape")
    if kernel is None or x.rank < 3:
        raise Impossible(f"pooling of {x.type} with windows {kernel}")
    return frame(c, x.shape[2:], kernel)


def _rows(c: Call, seen: Value, fr: Frame) -> Value:
    """(n × out… × c × kernel…) as (n × out… × c × taps)."""
    return f.reshape(c.b, seen, (*seen.shape[: -len(fr.kernel)], fr.taps))


def _pooled(c: Call, op: str, seen: Value, fr: Frame) -> Value:
    y = c.b.emit(op, (_rows(c, seen, fr),))[0]
    return channels_second(c, f.reshape(c.b, y, y.shape[:-1]))


@spelling("MaxPool", note="indices are left to the host")
def max_pool(c: Call) -> Value:
    """The largest of each window; the border is smaller than anything."""
    return _maximum_of(c, c.x())


def _maximum_of(c: Call, x: Value) -> Value:
    if c.wants(1):
        raise NeedsHost("the indices of the largest elements")
    fr = _frame(c, x)
    if not x.floating and x.element not in _LOWEST:
        raise NeedsHost(f"pooling of {x.element.value}")
    lowest = -math.inf if x.floating else float(_LOWEST[x.element])
    return _pooled(c, "reduce_max", windows(c, x, fr, lowest), fr)


@spelling("NhwcMaxPool", domain=MS)
def channels_last_max_pool(c: Call) -> Value:
    """The same, channels last."""
    if c.x().rank < 3:
        raise Impossible(f"pooling of {c.x().type}")
    return f.move_axis(c.b, _maximum_of(c, f.move_axis(c.b, c.x(), -1, 1)), 1, -1)


@spelling("AveragePool")
def average_pool(c: Call) -> Value:
    """Sums of windows over the number of elements that count."""
    return average_of(c, c.x())


def average_of(c: Call, x: Value) -> Value:
    """The average pooling that a node asks for, of x (n × c × spatial…)."""
    fr = _frame(c, x)
    total = _pooled(c, "reduce_sum", windows(c, x, fr, 0.0), fr)
    room(x.shape[2:], 8)
    ones = c.b.constant(np.ones((1, 1, *x.shape[2:]), x.dtype))
    if c.int("count_include_pad", 0):
        # The border the node asks for counts, what rounding the extent up adds does not.
        ones = f.pad(c.b, ones, (0, 0, *fr.before), (0, 0, *fr.after), 1.0)
        none = (0,) * len(fr.kernel)
        fr = Frame(fr.kernel, fr.stride, fr.dilation, none, none, fr.excess)
    count = _pooled(c, "reduce_sum", windows(c, ones, fr, 0.0), fr)
    return f.binary(c.b, "div", total, count)


def _powered(c: Call, x: Value, p: int) -> Value:
    size = f.unary(c.b, "abs", x)
    return size if p == 1 else f.binary(c.b, "pow", size, c.b.scalar(p, x.element))


def _rooted(c: Call, x: Value, p: int) -> Value:
    return x if p == 1 else f.binary(c.b, "pow", x, c.b.scalar(1 / p, x.element))


@spelling("LpPool")
def lp_pool(c: Call) -> Value:
    """The p-norm of each window."""
    x, p = c.x(), c.int("p", 2)
    fr = _frame(c, x)
    return _rooted(c, _pooled(c, "reduce_sum", windows(c, _powered(c, x, p), fr, 0.0), fr), p)


@spelling("GlobalLpPool")
def global_lp_pool(c: Call) -> Value:
    """The p-norm over the spatial axes."""
    x, p = c.x(), c.int("p", 2)
    return _rooted(c, f.reduce(c.b, "reduce_sum", _powered(c, x, p), tuple(range(2, x.rank)), keep=True), p)


def _global(op: str) -> Translate:
    return lambda c: f.reduce(c.b, op, c.x(), tuple(range(2, c.x().rank)), keep=True)


global_average_pool, global_max_pool = _global("reduce_mean"), _global("reduce_max")
spelling("GlobalAveragePool")(global_average_pool)
spelling("GlobalMaxPool")(global_max_pool)
