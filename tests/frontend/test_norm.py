"""Normalisations in forms that ONNX's own node cases lack, against their definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from tests.frontend.one_node import by_cimc, node_model, ops


def test_batch_normalization_in_training_mode_standardises_weights(tmp_path: Path) -> None:
    """As exporters write a convolution with standardised weights: of constants, one sample, a channel per filter."""
    rng = np.random.default_rng(5)
    w = rng.standard_normal((1, 6, 18)).astype(np.float32)
    gain, zero, one = (v.astype(np.float32) for v in (rng.standard_normal(6), np.zeros(6), np.ones(6)))
    attrs = {"training_mode": 1, "epsilon": 1e-6, "momentum": 0.75}
    given, kinds = [w, gain, zero, zero, one], [TensorProto.FLOAT] * 3
    proto = node_model("BatchNormalization", given, fixed=range(5), outputs=kinds, domain="", opset=17, attrs=attrs)
    proto.graph.node.append(onnx.helper.make_node("Add", ["y0", "x"], ["z"]))
    proto.graph.input.append(onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    graph, got = by_cimc(proto, {"x": np.zeros(1, np.float32)}, tmp_path)
    wide = w.astype(np.float64)
    mean, variance = wide.mean((0, 2)), wide.var((0, 2))
    want = (wide - mean[:, None]) / np.sqrt(variance + 1e-6)[:, None] * gain[:, None]
    np.testing.assert_allclose(got["z"], want, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["y1"], 0.25 * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got["y2"], 0.75 + 0.25 * variance, rtol=1e-5)
    assert ops(graph).count("add") == 1
