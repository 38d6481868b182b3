"""Resize as vision models have it, on tiles, against onnxruntime; what stays on the host."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cimc.ir.graph import Array
from tests.frontend.one_node import by_cimc, by_onnxruntime, node_model, ops

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
ROUNDED = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
SIZES = ((10, 14), (5, 7), (7, 9), (3, 4), (1, 21))


def image(seed: int = 3, kind: type[np.generic] = np.float32) -> Array:
    """One of 2 channels of 5 × 7."""
    return (100 * np.random.default_rng(seed).standard_normal((1, 2, 5, 7))).astype(kind)


def compared(folder: Path, x: Array, attrs: Mapping[str, object], tolerance: float = 1e-5, **by: Array) -> list[str]:
    """Both results agree; the ops of cimc's graph. ``by``: ``scales`` or ``sizes``."""
    given = [x, None, by.get("scales"), by.get("sizes")][: 4 if "sizes" in by else 3]
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    proto = node_model("Resize", given, fixed=(2, 3), outputs=(kind,), domain="", opset=19, attrs=attrs)
    want = by_onnxruntime(proto, {"x0": x})["y0"]
    graph, got = by_cimc(proto, {"x0": x}, folder)
    scale = float(np.abs(want).max())
    np.testing.assert_allclose(got["y0"].astype(np.float64), want.astype(np.float64), rtol=0, atol=tolerance * scale)
    assert got["y0"].dtype == want.dtype
    return ops(graph)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize("size", SIZES)
def test_linear(tmp_path: Path, coordinates: str, size: tuple[int, int]) -> None:
    attrs = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    found = compared(tmp_path, image(), attrs, sizes=np.array([1, 2, *size], np.int64))
    assert "host" not in found


@pytest.mark.parametrize("coordinates", COORDINATES)
def test_nearest_is_exact(tmp_path: Path, coordinates: str) -> None:
    for rounded, size in itertools.product(ROUNDED, SIZES):
        attrs = {"mode": "nearest", "coordinate_transformation_mode": coordinates, "nearest_mode": rounded}
        found = compared(tmp_path, image(), attrs, 0, sizes=np.array([1, 2, *size], np.int64))
        assert "host" not in found or (coordinates, rounded) == ("asymmetric", "round_prefer_ceil")


@pytest.mark.parametrize("outside", [0, 1])
@pytest.mark.parametrize("size", SIZES)
def test_cubic(tmp_path: Path, outside: int, size: tuple[int, int]) -> None:
    attrs = {"mode": "cubic", "exclude_outside": outside, "cubic_coeff_a": -0.6}
    assert "host" not in compared(tmp_path, image(), attrs, sizes=np.array([1, 2, *size], np.int64))


@pytest.mark.parametrize("scales", [(2.0, 2.0), (1.7, 0.6), (0.5, 0.3)])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_scales(tmp_path: Path, mode: str, scales: tuple[float, float]) -> None:
    attrs = {"mode": mode}
    assert "host" not in compared(tmp_path, image(), attrs, scales=np.array([1, 1, *scales], np.float32))


def test_twice_as_large_is_a_copy(tmp_path: Path) -> None:
    """The usual upsampling of a feature pyramid: no lookup."""
    attrs = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    found = compared(tmp_path, image(), attrs, 0, scales=np.array([1, 1, 2, 2], np.float32))
    assert set(found) <= {"reshape", "expand"}


def test_types(tmp_path: Path) -> None:
    scales = np.array([1, 1, 2, 3], np.float32)
    assert "host" not in compared(tmp_path, image(kind=np.float16), {"mode": "linear"}, 1e-3, scales=scales)
    assert "host" not in compared(tmp_path, image(kind=np.uint8), {"mode": "nearest"}, 0, scales=scales)


def test_the_host_keeps_what_is_exotic(tmp_path: Path) -> None:
    sizes = np.array([1, 2, 3, 4], np.int64)
    assert "host" in compared(tmp_path, image(), {"mode": "linear", "antialias": 1}, sizes=sizes)
    assert "host" in compared(tmp_path, image(), {"keep_aspect_ratio_policy": "not_larger"}, 0, sizes=sizes)
