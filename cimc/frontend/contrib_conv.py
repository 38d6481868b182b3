"""Spellings of onnxruntime's fused convolutions, and of what it saves at its highest level of optimisation: channels in
blocks (domain com.microsoft.nchwc)."""

from __future__ import annotations

from cimc.frontend import compose as f
from cimc.frontend import ort
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib import activated
from cimc.frontend.conv import conv_of
from cimc.frontend.pool import average_pool, global_average_pool, global_max_pool, max_pool
from cimc.frontend.quant import MS
from cimc.frontend.resize import resampled, scaled_axes

NCHWC = "com.microsoft.nchwc"
SAVED = "its weights are in the order of the processor that saved the model"


def _fused(c: Call, w: Value) -> Value:
    """Convolution with weights (m × c/groups × kernel…), plus input 3, then ``activation``."""
    y = f.add(c.b, conv_of(c, c.x(0), w, c.opt(2)), c.opt(3))
    return activated(c.b, y, c.text("activation", ""), c.floats("activation_params") or ())


@spelling("FusedConv", domain=MS, note="with the activations onnxruntime fuses")
def fused_conv(c: Call) -> Value:
    """Convolution, a sum and an activation."""
    return _fused(c, c.x(1))


def _block() -> int:
    size = ort.channel_block()
    if not size:
        raise Unsupported(f"{SAVED}, and onnxruntime knows no such order on this one")
    return size


@spelling("ReorderInput", domain=NCHWC, runs="view")
def reorder_input(c: Call) -> Value:
    """Channels filled up with zeros to whole blocks. What lies between the two reorderings is kept in the usual order:
    blocks are a matter of onnxruntime's memory."""
    x = f.move_axis(c.b, c.x(), -1, 1) if c.int("channels_last", 0) else c.x()
    if x.rank < 3:
        raise Impossible(f"channels of {x.type}")
    return f.pad(c.b, x, (0,) * x.rank, (0, -x.shape[1] % _block(), *(0,) * (x.rank - 2)))


@spelling("ReorderOutput", domain=NCHWC, runs="view")
def reorder_output(c: Call) -> Value:
    """The channels there are, without those that fill blocks."""
    x, channels = c.x(), c.int("channels")
    if x.rank < 3 or not 0 < channels <= x.shape[1]:
        raise Impossible(f"{channels} channels of {x.type}")
    y = f.part(c.b, x, 1, 0, channels)
    return f.move_axis(c.b, y, 1, -1) if c.int("channels_last", 0) else y


@spelling("Conv", domain=NCHWC, note="weights in blocks of this processor's onnxruntime, as it runs them itself")
def blocked_conv(c: Call) -> Value:
    """Convolution, a sum and an activation."""
    return _fused(c, _plain_weights(c, c.x(1)))


def _plain_weights(c: Call, w: Value) -> Value:
    """Kernels (m × c/groups × kernel…) from memory where blocks of outputs are the innermost axis and, unless an input that
    is not blocked or a single channel is read, blocks of inputs the one before (onnxruntime, MlasReorderFilterOIHWBiBo and
    MlasReorderFilterOIHWBo)."""
    b, size, groups = c.b, _block(), c.int("group", 1)
    if w.rank < 3 or w.shape[0] % size:
        raise Unsupported(f"{SAVED}: {w.type} are no blocks of {size}")
    out, inside, kernel = w.shape[0] // size, w.shape[1], w.shape[2:]
    n = len(kernel)
    spatial = tuple(range(2, 2 + n))
    if (groups == 1 and inside < size) or (inside == 1 and groups == w.shape[0]):
        blocks = f.reshape(b, w, (out, inside, *kernel, size))
        return f.reshape(b, f.transpose(b, blocks, (0, 2 + n, 1, *spatial)), w.shape)
    if inside % size:
        raise Unsupported(f"{SAVED}: {w.type} are no blocks of {size}")
    blocks = f.reshape(b, w, (out, inside // size, *kernel, size, size))
    return f.reshape(b, f.transpose(b, blocks, (0, 3 + n, 1, 2 + n, *spatial)), w.shape)


@spelling("Upsample", domain=NCHWC, note="nearest and linear")
def blocked_upsample(c: Call) -> Value:
    """Resampling by whole factors."""
    factors = tuple(float(v) for v in c.ints("scales") or ())
    coordinates = c.text("coordinate_transformation_mode", "asymmetric")
    if c.text("mode", "nearest") not in ("nearest", "linear"):
        raise Impossible(f"resampling by {c.text('mode')}")
    return resampled(c, scaled_axes(c.x(), range(c.x().rank), factors), coordinates, "floor")


spelling("MaxPool", domain=NCHWC)(max_pool)
spelling("AveragePool", domain=NCHWC)(average_pool)
spelling("GlobalAveragePool", domain=NCHWC)(global_average_pool)
spelling("GlobalMaxPool", domain=NCHWC)(global_max_pool)
