"""Half precision rounds where the model rounds: a node that becomes several ops rounds once."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.one_node import by_cimc, node_model, ops

RNG = np.random.default_rng(5)
KINDS = [(np.float16, TensorProto.FLOAT16), (ml_dtypes.bfloat16, TensorProto.BFLOAT16)]


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_gemm_rounds_once(tmp_path: Path, dtype: type[np.generic], kind: int) -> None:
    x, w, b = (RNG.normal(size=s).astype(dtype) for s in ((3, 64), (64, 5), (5,)))
    model = node_model("Gemm", (x, w, b), fixed=(1, 2), outputs=(kind,), domain="", attrs={"alpha": 0.3})
    graph, found = by_cimc(model, {"x0": x}, tmp_path)
    expected = 0.3 * (x.astype(np.float64) @ w.astype(np.float64)) + b.astype(np.float64)
    assert found["y0"].dtype == dtype
    close = np.spacing(np.abs(expected).astype(np.float16)).astype(np.float64) * (1 if dtype is np.float16 else 8)
    assert np.all(np.abs(found["y0"].astype(np.float64) - expected) <= 0.5001 * close)
    assert ops(graph).count("cast") == 2


@pytest.mark.parametrize(("dtype", "kind"), KINDS)
def test_layer_norm_rounds_once(tmp_path: Path, dtype: type[np.generic], kind: int) -> None:
    x, gain, bias = (RNG.normal(size=s).astype(dtype) for s in ((3, 64), (64,), (64,)))
    model = node_model("LayerNormalization", (x, gain, bias), fixed=(1, 2), outputs=(kind,), domain="")
    _, found = by_cimc(model, {"x0": x}, tmp_path)
    wide = x.astype(np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt(np.mean(centred**2, -1, keepdims=True) + 1e-5)
    expected = (expected * gain.astype(np.float64) + bias.astype(np.float64)).astype(dtype)
    # float32 in between may fall on the other side of a tie: rarely, and by one step
    differ = found["y0"].astype(np.float64) != expected.astype(np.float64)
    assert differ.mean() < 0.02


def test_a_single_op_stays_narrow(tmp_path: Path) -> None:
    x, w = RNG.normal(size=(3, 64)).astype(np.float16), RNG.normal(size=(64, 5)).astype(np.float16)
    model = node_model("MatMul", (x, w), fixed=(1,), outputs=(TensorProto.FLOAT16,), domain="")
    graph, found = by_cimc(model, {"x0": x}, tmp_path)
    assert ops(graph) == ["matmul"]
    np.testing.assert_array_equal(found["y0"], (x.astype(np.float64) @ w.astype(np.float64)).astype(np.float16))
