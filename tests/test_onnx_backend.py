"""The ONNX backend's entry points."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import helper

from cimc import errors
from cimc.onnx_backend import CimcBackend, prepare, run_node, supports_device
from tests.frontend.onnx_models import model, value

X = np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)


def relu() -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"])], [value("x", ["n", 2])], [value("y", ["n", 2])])


def test_prepare_and_run() -> None:
    session = prepare(relu())
    outputs = session.run([X])
    np.testing.assert_array_equal(outputs.y, np.maximum(X, 0))
    np.testing.assert_array_equal(session.run({"x": X[:1]})[0], np.maximum(X[:1], 0))
    np.testing.assert_array_equal(session.run(X)[0], np.maximum(X, 0))


def test_run_model() -> None:
    np.testing.assert_array_equal(CimcBackend.run_model(relu(), [X])[0], np.maximum(X, 0))


def test_run_node() -> None:
    node = helper.make_node("Gemm", ["a", "b", ""], ["c"], transB=1)
    np.testing.assert_allclose(run_node(node, [X, X])[0], X @ X.T, rtol=1e-6)


def test_sequences_in_and_out() -> None:
    insert = helper.make_node("SequenceInsert", ["s", "x"], ["t"])
    sequence = helper.make_tensor_sequence_value_info("s", onnx.TensorProto.FLOAT, None)
    result = helper.make_tensor_sequence_value_info("t", onnx.TensorProto.FLOAT, None)
    proto = model([insert], [sequence, value("x", [2, 2])], [result])
    found = CimcBackend.run_model(proto, [[X[0], X], 2 * X])[0]
    assert [v.tolist() for v in found] == [X[0].tolist(), X.tolist(), (2 * X).tolist()]


def test_narrow_elements_in_and_out() -> None:
    codes = np.arange(-8, 8).astype(np.int8).astype(ml_dtypes.int4)
    node = helper.make_node("DequantizeLinear", ["a", "b"], ["c"])
    np.testing.assert_array_equal(run_node(node, [codes, np.array(0.5, np.float32)])[0], np.arange(-8, 8) / 2)
    cast = helper.make_node("Cast", ["a"], ["c"], to=onnx.TensorProto.INT4)
    assert np.array_equal(run_node(cast, [np.arange(-8, 8, dtype=np.int32)])[0], codes)


def test_devices() -> None:
    assert supports_device("CPU")
    assert not supports_device("CUDA:0")
    with pytest.raises(ValueError, match="CUDA"):
        prepare(relu(), "CUDA")


def test_what_is_not_supported_is_said() -> None:
    with pytest.raises(errors.CimcError, match="RandomNormalLike"):
        run_node(helper.make_node("RandomNormalLike", ["x"], ["y"]), [X])
