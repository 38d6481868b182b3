"""Spellings of reductions, arg-extrema and softmax."""

from __future__ import annotations

import math

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value
from cimc.frontend.call import Call, NeedsHost, Translate, spelling
from cimc.isa.operands import Element


def reduced_axes(c: Call, x: Value, since: int) -> tuple[int, ...]:
    """The axes of a reduction: an attribute before opset ``since``, an input from then on; all if none are named."""
    axes = c.ints("axes") if c.version < since else c.known_ints(1, "axes")
    if not axes:
        return () if c.int("noop_with_empty_axes", 0) else tuple(range(x.rank))
    return c.axes(axes, x.rank)


def _reduction(op: str, since: int) -> Translate:
    def translate(c: Call) -> Value:
        x = c.x()
        boolean = x.element == Element.B8
        axes = reduced_axes(c, x, since)
        work = f.cast(c.b, x, Element.U8) if boolean else x
        empty = math.prod(x.shape[a] for a in axes) == 0
        if empty and op in ("reduce_max", "reduce_min", "reduce_mean"):
            # onnxruntime has none of booleans.
            raise NeedsHost("a reduction over no elements", standard=boolean)
        y = f.reduce(c.b, op, work, axes, keep=bool(c.int("keepdims", 1)))
        return f.cast(c.b, y, Element.B8) if boolean else y

    return translate


for _name, _op, _since in (
    ("ReduceSum", "reduce_sum", 13),
    ("ReduceMean", "reduce_mean", 18),
    ("ReduceMax", "reduce_max", 18),
    ("ReduceMin", "reduce_min", 18),
    ("ReduceProd", "reduce_prod", 18),
):
    spelling(_name)(_reduction(_op, _since))


def _sum(c: Call, x: Value) -> Value:
    return f.reduce(c.b, "reduce_sum", x, reduced_axes(c, c.x(), 18), keep=bool(c.int("keepdims", 1)))


@spelling("ReduceL1")
def reduce_l1(c: Call) -> Value:
    """Sum of absolute values."""
    return _sum(c, f.unary(c.b, "abs", c.x()))


@spelling("ReduceSumSquare")
def reduce_sum_square(c: Call) -> Value:
    """Sum of squares."""
    return _sum(c, f.mul(c.b, c.x(), c.x()))


@spelling("ReduceL2")
def reduce_l2(c: Call) -> Value:
    """Root of the sum of squares."""
    return f.unary(c.b, "sqrt", _sum(c, f.mul(c.b, c.x(), c.x())))


@spelling("ReduceLogSum")
def reduce_log_sum(c: Call) -> Value:
    """Logarithm of the sum."""
    return f.unary(c.b, "log", _sum(c, c.x()))


@spelling("ReduceLogSumExp")
def reduce_log_sum_exp(c: Call) -> Value:
    """Logarithm of the sum of exponentials, taken relative to the largest so that it does not overflow."""
    x, axes = c.x(), reduced_axes(c, c.x(), 18)
    if not axes:
        return x
    if x.type.size == 0:
        raise NeedsHost("a reduction over no elements")
    peak = f.reduce(c.b, "reduce_max", x, axes, keep=True)
    shifted = f.unary(c.b, "exp", f.binary(c.b, "sub", x, peak))
    total = f.unary(c.b, "log", f.reduce(c.b, "reduce_sum", shifted, axes, keep=True))
    y = f.add(c.b, total, peak)
    return y if c.int("keepdims", 1) else f.squeeze(c.b, y, axes)


def _arg(op: str) -> Translate:
    def translate(c: Call) -> Value:
        x = c.x()
        axis = c.axis(c.int("axis", 0), x.rank)
        if c.int("select_last_index", 0):
            raise NeedsHost("select_last_index: the vector unit finds the first of equals")
        return f.reduce(c.b, op, x, (axis,), keep=bool(c.int("keepdims", 1)))

    return translate


spelling("ArgMax")(_arg("reduce_argmax"))
spelling("ArgMin")(_arg("reduce_argmin"))


def _softmax(op: str) -> Translate:
    def translate(c: Call) -> Value:
        x = c.x()
        if c.version >= 13:
            axis = c.axis(c.int("axis", -1), x.rank)
            return f.on_last(c.b, x, axis, lambda v: c.b.emit(op, (v,))[0])
        # Before opset 13 the axes from `axis` on are one: the rows of a matrix.
        axis = c.axis(c.int("axis", 1), x.rank)
        flat = f.reshape(c.b, x, (*x.shape[:axis], math.prod(x.shape[axis:])))
        return f.reshape(c.b, c.b.emit(op, (flat,))[0], x.shape)

    return translate


spelling("Softmax", note="before opset 13 the axes from `axis` on are taken as one, as the standard says")(
    _softmax("softmax")
)
spelling("LogSoftmax")(_softmax("log_softmax"))


@spelling("Hardmax")
def hardmax(c: Call) -> Value:
    """1 at the first largest along an axis, 0 elsewhere."""
    x = c.x()
    axis = c.axis(c.int("axis", -1 if c.version >= 13 else 1), x.rank)
    if c.version < 13 and axis != x.rank - 1:
        raise NeedsHost("Hardmax over several axes at once")

    def one_hot(v: Value) -> Value:
        count = c.b.constant(np.arange(v.shape[-1], dtype=np.int64))
        hit = f.binary(c.b, "eq", c.b.emit("reduce_argmax", (v,))[0], count)
        return f.cast(c.b, hit, v.element)

    return f.on_last(c.b, x, axis, one_hot)


@spelling("CumSum", note="up to 4096 elements; as masked sums, n² additions")
def cum_sum(c: Call) -> Value:
    """Running sums along an axis: every output sums a masked copy of the row."""
    x, axes = c.x(), c.known_ints(1, "axis")
    if not axes:
        raise Impossible("the axis is missing")
    axis = c.axis(axes[0], x.rank)
    n = x.shape[axis]
    if n > 4096:
        raise NeedsHost(f"a running sum of {n} elements")
    keep = np.tri(n, k=-1 if c.int("exclusive", 0) else 0, dtype=np.bool_)
    mask = c.b.constant(keep.T.copy() if c.int("reverse", 0) else keep)

    def sums(v: Value) -> Value:
        kept = f.select(c.b, mask, f.unsqueeze(c.b, v, -2), c.b.scalar(0, v.element))
        return f.squeeze(c.b, c.b.emit("reduce_sum", (kept,))[0], (v.rank,))

    return f.on_last(c.b, x, axis, sums)
