"""Spellings of normalisations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.isa.operands import Element


def normalized(b: Builder, op: str, x: Value, epsilon: float, count: int) -> Value:
    """``layer_norm`` or ``rms_norm`` over the last ``count`` axes, taken as one row."""
    lead = x.shape[: x.rank - count]
    flat = f.reshape(b, x, (*lead, math.prod(x.shape[x.rank - count :])))
    return f.reshape(b, b.emit(op, (flat,), epsilon=float(epsilon))[0], x.shape)


@spelling("LayerNormalization", note="optional outputs mean and 1/deviation included; stash_type float only")
def layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Over the axes from ``axis`` on, gain and bias, with the optional mean and reciprocal deviation."""
    return layer_norm_of(c, c.x(0), c.x(1), c.opt(2), c.float("epsilon", 1e-5), c.int("axis", -1))


def layer_norm_of(
    c: Call, x: Value, gain: Value, bias: Value | None, epsilon: float, at: int
) -> tuple[Value | None, ...]:
    """The node's three outputs for these operands."""
    if not x.rank:
        raise Impossible(f"layer normalization of {x.type}")
    axis = c.axis(at, x.rank)
    y = normalized(c.b, "layer_norm", x, epsilon, x.rank - axis)
    y = f.add(c.b, f.mul(c.b, y, gain), bias)
    if not c.wants(1) and not c.wants(2):
        return (y,)
    axes = tuple(range(axis, x.rank))
    wide = f.cast(c.b, x, Element.F32)
    mean = f.reduce(c.b, "reduce_mean", wide, axes, keep=True)
    centred = f.binary(c.b, "sub", wide, mean)
    variance = f.reduce(c.b, "reduce_mean", f.mul(c.b, centred, centred), axes, keep=True)
    return (y, mean, f.unary(c.b, "rsqrt", f.shifted(c.b, variance, epsilon)))


@spelling("RMSNormalization")
def rms_normalization(c: Call) -> Value:
    """Over the axes from ``axis`` on, with gain."""
    x, gain = c.x(0), c.x(1)
    axis = c.axis(c.int("axis", -1), x.rank)
    y = normalized(c.b, "rms_norm", x, c.float("epsilon", 1e-5), x.rank - axis)
    if gain.element != y.element:
        # The standard lets the gain decide the output's type.
        y = f.cast(c.b, y, gain.element)
    return f.mul(c.b, y, gain)


@spelling("SimplifiedLayerNormalization")
def simplified_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """onnxruntime's name for root-mean-square normalisation, in the standard domain."""
    return rms_norm_of(c, c.x(0), c.x(1), c.float("epsilon", 1e-5), c.int("axis", -1))


def rms_norm_of(c: Call, x: Value, gain: Value, epsilon: float, at: int) -> tuple[Value | None, ...]:
    """The normalised value and, if the node lists it, the reciprocal root-mean-square."""
    axis = c.axis(at, x.rank)
    y = f.mul(c.b, normalized(c.b, "rms_norm", x, epsilon, x.rank - axis), gain)
    if not c.wants(1):
        return (y,)
    wide = f.cast(c.b, x, Element.F32)
    mean = f.reduce(c.b, "reduce_mean", f.mul(c.b, wide, wide), tuple(range(axis, x.rank)), keep=True)
    return (y, f.unary(c.b, "rsqrt", f.shifted(c.b, mean, epsilon)))


def per_channel(b: Builder, v: Value, rank: int) -> Value:
    """A vector of channels, shaped to broadcast over axis 1."""
    return f.reshape(b, v, (v.type.size, *(1,) * (rank - 2)))


@spelling("BatchNormalization", note="training mode since opset 14")
def batch_normalization(c: Call) -> Value | tuple[Value, ...]:
    """With given mean and variance, or in training mode those of the batch; the running moments are then outputs."""
    x, scale, bias, mean, variance = (c.x(i) for i in range(5))
    if x.rank < 2 or any(v.shape != (x.shape[1],) for v in (scale, bias, mean, variance)):
        raise Impossible(f"batch normalization of {x.type} with gain {scale.type} and mean {mean.type}")
    if c.int("training_mode", 0):
        fresh = _moments(c.b, x, variance.element)
        running = (_running(c, old, new) for old, new in zip((mean, variance), fresh, strict=True))
        return (_by_moments(c, x, scale, bias, *fresh), *running)[: max(1, c.outputs)]
    if c.outputs > 1:
        raise Unsupported("training mode before opset 14")
    return _by_moments(c, x, scale, bias, mean, variance)


def _running(c: Call, old: Value, new: Value) -> Value:
    """A moment carried on from batch to batch."""
    momentum = c.float("momentum", 0.9)
    return f.add(c.b, f.scaled(c.b, old, momentum), f.scaled(c.b, f.cast(c.b, new, old.element), 1 - momentum))


def _by_moments(c: Call, x: Value, scale: Value, bias: Value, mean: Value, variance: Value) -> Value:
    """Moments and gain become one factor and one term per channel."""
    wide = variance.element
    factor = f.mul(
        c.b, f.cast(c.b, scale, wide), f.unary(c.b, "rsqrt", f.shifted(c.b, variance, c.float("epsilon", 1e-5)))
    )
    term = f.binary(c.b, "sub", f.cast(c.b, bias, wide), f.mul(c.b, f.cast(c.b, mean, wide), factor))
    factor, term = (f.cast(c.b, v, x.element) for v in (factor, term))
    return f.add(c.b, f.mul(c.b, x, per_channel(c.b, factor, x.rank)), per_channel(c.b, term, x.rank))


def _moments(b: Builder, x: Value, wide: Element) -> tuple[Value, Value]:
    """Mean and variance (of the population) per channel over the batch."""
    rows = f.cast(b, f.move_axis(b, x, 1, 0), wide)
    rows = f.reshape(b, rows, (x.shape[1], x.type.size // max(x.shape[1], 1)))
    mean = f.reduce(b, "reduce_mean", rows, (1,), keep=True)
    apart = f.binary(b, "sub", rows, mean)
    variance = f.reduce(b, "reduce_mean", f.mul(b, apart, apart), (1,), keep=False)
    return f.reshape(b, mean, (x.shape[1],)), variance


@spelling("InstanceNormalization")
def instance_normalization(c: Call) -> Value:
    """Every channel of every sample by itself."""
    x, scale, bias = c.x(0), c.x(1), c.x(2)
    if x.rank < 3:
        raise Impossible(f"instance normalization of {x.type}")
    y = normalized(c.b, "layer_norm", x, c.float("epsilon", 1e-5), x.rank - 2)
    return f.add(c.b, f.mul(c.b, y, per_channel(c.b, scale, x.rank)), per_channel(c.b, bias, x.rank))


@spelling("GroupNormalization")
def group_normalization(c: Call) -> Value:
    """Groups of channels; gain and bias per group before opset 21, per channel since."""
    x, scale, bias, groups = c.x(0), c.x(1), c.x(2), c.int("num_groups")
    if x.rank < 2 or groups < 1 or x.shape[1] % groups:
        raise Impossible(f"{groups} groups of {x.type}")
    n, channels, *rest = x.shape
    grouped = (n, groups, channels // groups * math.prod(rest))
    y = normalized(c.b, "layer_norm", f.reshape(c.b, x, grouped), c.float("epsilon", 1e-5), 1)
    if c.version < 21 and scale.type.size == groups:
        y = f.add(c.b, f.mul(c.b, y, f.reshape(c.b, scale, (groups, 1))), f.reshape(c.b, bias, (groups, 1)))
        return f.reshape(c.b, y, x.shape)
    y = f.reshape(c.b, y, x.shape)
    return f.add(c.b, f.mul(c.b, y, per_channel(c.b, scale, x.rank)), per_channel(c.b, bias, x.rank))


@spelling("LpNormalization")
def lp_normalization(c: Call) -> Value:
    """Divided by the 1-norm or 2-norm along an axis; vectors of norm zero stay zero."""
    x, p = c.x(), c.int("p", 2)
    axis = c.axis(c.int("axis", -1), x.rank)
    if p not in (1, 2):
        raise Impossible(f"p = {p}")
    size = f.unary(c.b, "abs", x) if p == 1 else f.mul(c.b, x, x)
    norm = f.reduce(c.b, "reduce_sum", size, (axis,), keep=True)
    norm = norm if p == 1 else f.unary(c.b, "sqrt", norm)
    zero = f.binary(c.b, "eq", norm, c.b.scalar(0, x.element))
    return f.binary(c.b, "div", x, f.select(c.b, zero, c.b.scalar(1, x.element), norm))


@spelling("MeanVarianceNormalization")
def mean_variance_normalization(c: Call) -> Value:
    """``(x - mean) / (deviation + 1e-9)`` over the axes, as the standard's function says."""
    x = c.x()
    axes = c.axes(c.ints("axes") or (0, 2, 3), x.rank)
    return _standardized(c, x, axes)


def _standardized(c: Call, x: Value, axes: Sequence[int]) -> Value:
    mean = f.reduce(c.b, "reduce_mean", x, axes, keep=True)
    centred = f.binary(c.b, "sub", x, mean)
    variance = f.reduce(c.b, "reduce_mean", f.mul(c.b, centred, centred), axes, keep=True)
    return f.binary(c.b, "div", centred, f.shifted(c.b, f.unary(c.b, "sqrt", variance), 1e-9))


@spelling("LRN", runs="host")
def lrn(c: Call) -> Value:
    """Local response normalisation: no transformer has it."""
    raise NeedsHost("local response normalisation has no tile instruction")
