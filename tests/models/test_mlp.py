"""The MLP recipe against its formula, by onnxruntime."""

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper

from models.mlp import MlpConfig
from models.small import build, mlp


def test_mlp_is_its_formula():
    model = mlp(seed=3)
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    x = np.random.default_rng(1).normal(size=(2, 256)).astype(np.float32)
    wanted = x.astype(np.float64)
    for layer in range(4):
        wanted = 1 / (1 + np.exp(-wanted @ w[f"layers.{layer}.weight.T"]))
    assert [a.shape for a in w.values()] == [(256, 256), (256, 256), (256, 256), (256, 10)]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (got,) = session.run(["y"], {"x": x})
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="at least 1"):
        build(MlpConfig(layers=0))
