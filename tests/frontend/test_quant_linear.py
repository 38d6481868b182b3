"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear against onnxruntime, bit for bit."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.frontend.one_node import MS, both, by_cimc, node_model

X = np.linspace(-3.3, 4.1, 48, dtype=np.float32).reshape(2, 4, 6)
TYPES = {
    np.uint8: TensorProto.UINT8,
    np.int8: TensorProto.INT8,
    np.uint16: TensorProto.UINT16,
    np.int16: TensorProto.INT16,
}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("axis", [None, 1, -1])
@pytest.mark.parametrize("element", [np.float32, np.float16])
def test_quantize(tmp_path: Path, dtype: type[np.generic], axis: int | None, element: type[np.generic]) -> None:
    n = 1 if axis is None else X.shape[axis]
    scale = np.linspace(0.02, 0.03, n, dtype=np.float32).astype(element)
    zero = np.arange(n).astype(dtype) + np.array(3, dtype)
    if axis is None:
        scale, zero = scale[0], zero[0]
    attrs = {} if axis is None else {"axis": axis}
    inputs = (X.astype(element), np.asarray(scale), np.asarray(zero))
    both(
        tmp_path,
        "QuantizeLinear",
        inputs,
        fixed=(1, 2),
        outputs=(TYPES[dtype],),
        domain="",
        attrs=attrs,
        atol=0,
        rtol=0,
    )


def test_quantize_blocks(tmp_path: Path) -> None:
    scale = np.linspace(0.02, 0.05, 2 * 2 * 6, dtype=np.float32).reshape(2, 2, 6)
    zero = np.arange(24).reshape(2, 2, 6).astype(np.int8)
    attrs = {"axis": 1, "block_size": 3}
    both(
        tmp_path, "QuantizeLinear", (X, scale, zero), fixed=(1, 2), outputs=(3,), domain="", attrs=attrs, atol=0, rtol=0
    )


def test_quantize_without_zero_point(tmp_path: Path) -> None:
    both(tmp_path, "QuantizeLinear", (X, np.array(0.05, np.float32)), outputs=(2,), domain="", atol=0, rtol=0)
    attrs = {"output_dtype": TensorProto.INT16}
    scale = np.array(0.001, np.float32)
    both(tmp_path, "QuantizeLinear", (X, scale), outputs=(5,), domain="", attrs=attrs, atol=0, rtol=0)


def test_quantize_of_microsoft(tmp_path: Path) -> None:
    inputs = (X, np.array(0.001, np.float32), np.array(30000, np.uint16))
    both(tmp_path, "QuantizeLinear", inputs, outputs=(4,), domain=MS, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [*TYPES, np.int32])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("element", [np.float32, np.float16])
def test_dequantize(tmp_path: Path, dtype: type[np.generic], constant: bool, element: type[np.generic]) -> None:
    codes = np.random.default_rng(1).integers(0, 100, (3, 8)).astype(dtype)
    scale = np.linspace(0.5, 3, 8).astype(element)
    zero = (np.zeros(8) if dtype is np.int32 else np.arange(8)).astype(dtype)
    out = TensorProto.FLOAT if element is np.float32 else TensorProto.FLOAT16
    fixed = (0, 1, 2) if constant else (1, 2)
    both(tmp_path, "DequantizeLinear", (codes, scale, zero), fixed=fixed, outputs=(out,), domain="", atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4])
@pytest.mark.parametrize("block", [0, 4, 3])
def test_dequantize_of_four_bits(tmp_path: Path, dtype: type[np.generic], block: int) -> None:
    low = -8 if dtype is ml_dtypes.int4 else 0
    codes = np.random.default_rng(2).integers(low, low + 16, (6, 8)).astype(np.int8).astype(dtype)
    shape = (6, -(-8 // block)) if block else (8,)
    scale = np.linspace(0.1, 0.9, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    zero = np.full(shape, low + 5, np.int8).astype(dtype)
    attrs = {"axis": 1, "block_size": block} if block else {"axis": 1}
    inputs = (codes, scale, zero)
    both(tmp_path, "DequantizeLinear", inputs, fixed=(0, 1, 2), domain="", attrs=attrs, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2])
def test_dequantize_of_float8(tmp_path: Path, dtype: type[np.generic]) -> None:
    codes = np.linspace(-4, 4, 24).reshape(4, 6).astype(dtype)
    inputs = (codes, np.array(0.25, np.float32))
    both(tmp_path, "DequantizeLinear", inputs, fixed=(0, 1), domain="", atol=0, rtol=0)


def test_dequantize_of_bfloat16_scale(tmp_path: Path) -> None:
    """onnxruntime has no kernel for it: the standard's definition is the reference."""
    codes = np.arange(12, dtype=np.int8).reshape(3, 4)
    scale = np.array(0.3, ml_dtypes.bfloat16)
    model = node_model(
        "DequantizeLinear", (codes, scale), fixed=(1,), outputs=(TensorProto.BFLOAT16,), domain="", opset=23
    )
    _, found = by_cimc(model, {"x0": codes}, tmp_path)
    expected = (codes.astype(np.float32) * np.float32(scale)).astype(ml_dtypes.bfloat16)
    assert found["y0"].dtype == expected.dtype
    np.testing.assert_array_equal(found["y0"].astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("x", [X, X + 9, X - 9, np.zeros((2, 3), np.float32), np.array([2.5], np.float32)])
def test_dynamic(tmp_path: Path, x: np.ndarray) -> None:
    outputs = (TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8)
    both(tmp_path, "DynamicQuantizeLinear", (x,), outputs=outputs, domain="", atol=0, rtol=0)


def test_a_weight_stays_integer_until_it_is_needed(tmp_path: Path) -> None:
    """Nothing is computed from a dequantised matrix while the model is read: ``fold`` sees its integers."""
    from cimc.frontend.importer import load

    codes = np.arange(12, dtype=np.int8).reshape(3, 4)
    model = node_model("DequantizeLinear", (codes, np.array(0.3, np.float32)), fixed=(0, 1), domain="")
    onnx.save(model, tmp_path / "m.onnx")
    graph = load(tmp_path / "m.onnx").graph
    assert [n.op for n in graph.nodes] == ["cast", "mul"]


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16])
def test_not_a_number_becomes_the_lowest_code(tmp_path: Path, kind: type) -> None:
    """As in onnxruntime: rows that a quantised mask hides whole are NaN after the softmax, in models really exported."""
    x = np.array([[np.nan, 0.5, -0.5, np.inf, -np.inf]], np.float32)
    given = [x, np.array(0.01, np.float32), np.array(3, kind)]
    element = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    proto = node_model("QuantizeLinear", given, fixed=[1, 2], outputs=[element], domain="", opset=21)
    _, got = by_cimc(proto, {"x0": x}, tmp_path)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    assert got["y0"].tolist() == [[low, 53, max(-47, low), high, low]]
