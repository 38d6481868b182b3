"""Spellings of operators that resample along axes: every output element is a weighted sum of a few input elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value, room
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.isa.operands import Element

Numbers = NDArray[np.float32]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class Axis:
    """An axis to resample. ``size``, ``out``: elements before and after; ``scale``: the ratio the node asks for."""

    number: int
    size: int
    out: int
    scale: np.float32


@dataclass(frozen=True)
class Tap:
    """One term of the sum along an axis: the element at ``places`` (out) times ``weights`` (out; None: 1)."""

    places: Places
    weights: Numbers | None = None


_NEAREST: dict[str, Callable[[Numbers], NDArray[np.floating]]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


@spelling("Resize", note="nearest, linear and cubic; antialias, tf_crop_and_resize and keep_aspect_ratio on the host")
def resize(c: Call) -> Value:
    """Nearest, linear or cubic resampling along axes, as onnxruntime computes coordinates: mostly in float32."""
    old = c.version < 11
    coordinates = "asymmetric" if old else c.text("coordinate_transformation_mode", "half_pixel")
    axes = _axes(c, None if old else 3, 1 if old else 2)
    _leave_to_host(c, coordinates, axes)
    return resampled(c, axes, coordinates, "floor" if old else c.text("nearest_mode", "round_prefer_floor"))


@spelling("Upsample", note="nearest and linear")
def upsample(c: Call) -> Value:
    """Resize as it was before opset 10: coordinates divided by the scale, rounded down."""
    if c.version < 9:
        scales = c.floats("scales")
        if scales is None:
            raise NeedsHost("scales are missing")
        axes = scaled_axes(c.x(), range(c.x().rank), scales)
    else:
        axes = _axes(c, None, 1)
    if c.text("mode", "nearest") not in ("nearest", "linear") or any(a.scale < 1 for a in axes):
        raise NeedsHost("a mode other than nearest and linear, or a scale below 1")
    return resampled(c, axes, "asymmetric", "floor")


def _axes(c: Call, sizes_at: int | None, scales_at: int) -> list[Axis]:
    """The axes that change, from the operand with sizes if there is one, else from that with scales."""
    x = c.x()
    numbers = c.axes(c.ints("axes") or range(x.rank), x.rank)
    sizes = None if sizes_at is None else c.known_ints(sizes_at, "the sizes")
    if sizes:
        if len(sizes) != len(numbers) or min(sizes) < 0:
            raise Impossible(f"sizes {sizes} for {len(numbers)} axes")
        if c.text("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise NeedsHost("a kept aspect ratio")
        found = [
            Axis(a, x.shape[a], n, np.float32(n) / np.float32(max(x.shape[a], 1)))
            for a, n in zip(numbers, sizes, strict=True)
        ]
        return [a for a in found if a.size != a.out]
    scales = c.known(scales_at, "the scales")
    if scales is None or scales.size != len(numbers):
        raise Impossible(f"{0 if scales is None else scales.size} scales for {len(numbers)} axes")
    return scaled_axes(x, numbers, tuple(float(s) for s in scales.reshape(-1).tolist()))


def scaled_axes(x: Value, numbers: tuple[int, ...] | range, scales: tuple[float, ...]) -> list[Axis]:
    """The axes among ``numbers`` whose scale is not 1. Raises Impossible if there is not one scale above 0 for each."""
    if len(scales) != len(numbers) or not all(0 < s < 1 << 31 for s in scales):
        raise Impossible(f"scales {scales} for {len(numbers)} axes")
    pairs = zip(numbers, scales, strict=True)
    return [Axis(a, x.shape[a], math.floor(x.shape[a] * np.float32(s)), np.float32(s)) for a, s in pairs if s != 1]


def _leave_to_host(c: Call, coordinates: str, axes: list[Axis]) -> None:
    """Raises NeedsHost for what tiles are not given: the exotic modes."""
    uneven = any(abs(a.size * float(a.scale) - a.out) > 1e-3 for a in axes)
    if coordinates == "align_corners" and uneven:
        why = "align_corners to sizes that are not whole, where onnxruntime departs from the standard"
        raise NeedsHost(why, standard=True)
    if coordinates not in _SOURCES or c.int("antialias", 0):
        raise NeedsHost("antialiasing" if coordinates in _SOURCES else f"coordinates by {coordinates}")
    mode = c.text("mode", "nearest")
    if mode not in ("nearest", "linear", "cubic") or c.text("nearest_mode", "floor") not in _NEAREST:
        raise NeedsHost(f"resampling by {mode}")
    if c.version < 11 and any(a.scale < 1 for a in axes):
        raise NeedsHost("Resize of opset 10 with a scale below 1")
    if mode != "nearest" and not c.x().floating:
        raise NeedsHost(f"{mode} resampling of {c.x().element.value}")


def _half_pixel(a: Axis, at: Numbers) -> Numbers:
    return (at + np.float32(0.5)) / a.scale - np.float32(0.5)


def _symmetric(a: Axis, at: Numbers) -> Numbers:
    missing = np.float32(a.size / 2) * (np.float32(1) - np.float32(a.out) / (a.scale * np.float32(a.size)))
    return (missing + (at.astype(np.float64) + 0.5) / a.scale - 0.5).astype(np.float32)


_SOURCES: dict[str, Callable[[Axis, Numbers], Numbers]] = {
    "half_pixel": _half_pixel,
    "pytorch_half_pixel": lambda a, at: _half_pixel(a, at) if a.out > 1 else at * 0,
    "half_pixel_symmetric": _symmetric,
    "asymmetric": lambda a, at: at / a.scale,
    "align_corners": lambda a, at: at * np.float32(a.size - 1) / np.float32(max(a.out - 1, 1)),
}
"""Where in the input, in elements, an output element lies, by ``coordinate_transformation_mode`` (ONNX, Resize)."""


def resampled(c: Call, axes: list[Axis], coordinates: str, nearest: str) -> Value:
    """Input 0 with these axes resampled by ``mode``; ``coordinates`` and ``nearest`` as in Resize."""
    b, x, mode = c.b, c.x(), c.text("mode", "nearest")
    element, shape = x.element, list(x.shape)
    for a in axes:
        shape[a.number] = a.out
    room(shape, 8)
    if 0 in shape or 0 in x.shape:
        raise NeedsHost("a tensor without elements")
    if mode != "nearest" and element in (Element.F16, Element.BF16):
        x = f.cast(b, x, Element.F32)
    for a in sorted(axes, key=lambda a: a.out / a.size):  # what shrinks first: less to do for the others
        source = _SOURCES[coordinates](a, np.arange(a.out, dtype=np.float32))
        if mode == "nearest" and (coordinates, nearest) == ("asymmetric", "round_prefer_ceil"):
            _clear(source)
        if mode == "nearest":
            x = _picked(c, x, a, _inside(_NEAREST[nearest](source), a))
        else:
            x = _sum(c, x, a, _linear(a, source) if mode == "linear" else _cubic(c, a, source))
    return f.cast(b, x, element)


def _inside(places: NDArray[np.floating], a: Axis) -> Places:
    return np.clip(places, 0, a.size - 1).astype(np.int64)


def _clear(source: Numbers) -> None:
    """Raises NeedsHost for a place so near the middle of two that onnxruntime's rounding of the scale decides."""
    if np.any(np.floor(source + 0.5 - 1e-4) != np.floor(source + 0.5 + 1e-4)):
        raise NeedsHost("a place in the middle of two elements")


def _linear(a: Axis, source: Numbers) -> list[Tap]:
    source = np.clip(source, 0, a.size - 1)
    low = _inside(np.floor(source), a)
    share = source - low.astype(np.float32)
    return [Tap(low, np.float32(1) - share), Tap(np.minimum(low + 1, a.size - 1), share)]


def _cubic(c: Call, a: Axis, source: Numbers) -> list[Tap]:
    """Keys, "Cubic Convolution Interpolation for Digital Image Processing", 1981: four neighbours."""
    k = c.float("cubic_coeff_a", -0.75)
    base = np.floor(source)
    t = (source - base).astype(np.float64)
    far, near = [
        lambda d: ((k * d - 5 * k) * d + 8 * k) * d - 4 * k,
        lambda d: ((k + 2) * d - (k + 3)) * d * d + 1,
    ]
    weights = np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
    places = np.stack([base + d for d in (-1, 0, 1, 2)])
    if c.int("exclude_outside", 0):
        weights = np.where((places < 0) | (places >= a.size), 0, weights)
        weights = weights / weights.sum(0)
    return [Tap(_inside(p, a), w.astype(np.float32)) for p, w in zip(places, weights, strict=True)]


def _picked(c: Call, x: Value, a: Axis, places: Places) -> Value:
    """Elements at places: repeated by broadcasting where each is wanted equally often, else looked up."""
    times = a.out // a.size
    if np.array_equal(places, np.repeat(np.arange(a.size), times)):
        apart = f.unsqueeze(c.b, x, a.number + 1)
        wide = f.expand(c.b, apart, (*x.shape[: a.number + 1], times, *x.shape[a.number + 1 :]))
        return f.reshape(c.b, wide, (*x.shape[: a.number], a.out, *x.shape[a.number + 1 :]))
    step = a.size // a.out
    if step and np.array_equal(places, places[0] + np.arange(a.out) * step):
        return f.part(c.b, x, a.number, int(places[0]), a.out, step)
    return _sum(c, x, a, [Tap(places)])


def _sum(c: Call, x: Value, a: Axis, taps: list[Tap]) -> Value:
    """The sum over taps; the axis is moved first, so that each looks up whole rows of a table."""
    b = c.b
    table = f.move_axis(b, x, a.number, 0)
    rows = f.reshape(b, table, (a.size, table.type.size // a.size))
    total: Value | None = None
    for tap in taps:
        if tap.weights is not None and not tap.weights.any():
            continue
        term = b.emit("gather", (rows, b.constant(tap.places.reshape(-1, 1))))[0]
        if tap.weights is not None:
            term = f.mul(b, term, b.constant(tap.weights.reshape(-1, 1).astype(x.dtype)))
        total = term if total is None else f.add(b, total, term)
    if total is None:
        raise Impossible("a resampling in which nothing has weight")
    return f.move_axis(b, f.reshape(b, total, (a.out, *table.shape[1:])), 0, a.number)
