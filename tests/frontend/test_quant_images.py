"""Quantised operators on images of either order, as onnxruntime's optimiser writes them, and others whose kernels round in
ways of their own: bit for bit, at scales and zero points drawn at random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.one_node import MS, both, ops

TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
Array = np.ndarray
Kind = type[np.generic]


class Drawn:
    """Codes, scales and zero points of one element type."""

    def __init__(self, seed: int, kind: Kind) -> None:
        self.rng = np.random.default_rng(seed)
        self.kind = kind

    def codes(self, *shape: int, kind: Kind | None = None) -> Array:
        return self.rng.integers(0, 256, shape).astype(np.uint8).view(kind or self.kind)

    def scale(self, low: float = 0.002, high: float = 0.2) -> Array:
        return np.asarray(np.exp(self.rng.uniform(np.log(low), np.log(high))), np.float32)

    def grid(self, low: float = 0.002, high: float = 0.2) -> tuple[Array, Array]:
        return self.scale(low, high), self.codes(1).reshape(())


def exact(
    folder: Path, op: str, inputs: tuple[Array, ...], runtime: tuple[int, ...], kind: Kind, **attrs: object
) -> None:
    """The same codes as onnxruntime's kernel, on tiles. ``runtime``: inputs that are not constant."""
    fixed = tuple(i for i in range(len(inputs)) if i not in runtime)
    graph = both(folder, op, inputs, fixed=fixed, outputs=(TYPES[kind],), domain=MS, attrs=attrs, atol=0, rtol=0)
    assert "host" not in ops(graph)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("seed", range(3))
def test_softmax_at_any_scale(tmp_path: Path, kind: Kind, seed: int) -> None:
    """The kernel takes a whole number for one over the result's scale."""
    d = Drawn(seed, kind)
    low = np.asarray(0 if kind is np.uint8 else -128, kind)
    inputs = (d.codes(4, 6, 17), *d.grid(), d.scale(1 / 255, 1 / 120), low)
    exact(tmp_path, "QLinearSoftmax", inputs, (0,), kind, axis=-1, opset=13)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_pools(tmp_path: Path, kind: Kind, last: int, seed: int) -> None:
    d = Drawn(seed, kind)
    inputs = (d.codes(2, 5, 7, 6), *d.grid(), *d.grid())
    exact(tmp_path, "QLinearGlobalAveragePool", inputs, (0,), kind, channels_last=last)
    window = {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [1, 0, 1, 1], "count_include_pad": seed % 2}
    exact(tmp_path, "QLinearAveragePool", inputs, (0,), kind, channels_last=last, **window)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(tmp_path: Path, kind: Kind, last: int, groups: int) -> None:
    d = Drawn(last, kind)
    x = d.codes(2, 5, 7, 6) if last else d.codes(2, 6, 5, 7)
    w = d.codes(4, 6 // groups, 3, 3, kind=np.int8)
    bias = d.rng.integers(-500, 500, 4).astype(np.int32)
    weights = (w, d.scale(0.001, 0.02), np.zeros((), np.int8))
    inputs = (x, *d.grid(), *weights, *d.grid(0.05, 2), bias)
    attrs = {"channels_last": last, "strides": [1, 2], "pads": [1, 1, 1, 0], "group": groups}
    exact(tmp_path, "QLinearConv", inputs, (0,), kind, **attrs)


@pytest.mark.parametrize("kind", TYPES)
def test_largest_of_windows_channels_last(tmp_path: Path, kind: Kind) -> None:
    x = Drawn(1, kind).codes(2, 5, 7, 6)
    exact(tmp_path, "NhwcMaxPool", (x,), (0,), kind, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1])


@pytest.mark.parametrize("kind", TYPES)
def test_where(tmp_path: Path, kind: Kind) -> None:
    d = Drawn(2, kind)
    condition = d.rng.integers(0, 2, (3, 5)).astype(bool)
    inputs = (condition, d.codes(4, 3, 5), *d.grid(), d.codes(4, 1, 5), *d.grid(), *d.grid())
    exact(tmp_path, "QLinearWhere", inputs, (0, 1, 4), kind)
