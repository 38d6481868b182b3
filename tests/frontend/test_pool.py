"""Pooling in forms that ONNX's own node cases lack, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc.ir.graph import Array
from tests.frontend.one_node import by_cimc, by_onnxruntime, node_model


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(2, 3, 2), (3, 4, 2), (5, 2, 3), (1, 2, 2)])
def test_the_last_window_may_reach_over_the_edge(tmp_path: Path, op: str, size: int, kernel: int, stride: int) -> None:
    """With ceil_mode even the only one, as where a network shrinks a small image."""
    attrs = {"kernel_shape": [kernel, kernel], "strides": [stride, stride], "ceil_mode": 1}
    feeds: dict[str, Array] = {"x0": np.random.default_rng(2).standard_normal((1, 2, size, size)).astype(np.float32)}
    proto = node_model(op, [feeds["x0"]], domain="", opset=19, attrs=attrs)
    want = by_onnxruntime(proto, feeds)
    _, got = by_cimc(proto, feeds, tmp_path)
    np.testing.assert_allclose(got["y0"], want["y0"], rtol=1e-6)
