"""Numbers of 2 and 4 bits and 8-bit floats at run time, against ONNX's reference implementation (onnxruntime takes few of
them), bit for bit and on tiles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cimc.ir.graph import Array
from tests.frontend.one_node import by_cimc, by_onnxruntime, node_model, ops

WHOLE = (ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2)
EIGHT = (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz)
FLOATS = (*EIGHT, ml_dtypes.float4_e2m1fn)
NUMBERS = np.concatenate(
    (
        np.array([0, -0.0, 1, -1, 5e4, -5e4, 7e4, 449, 464, 465, 240, 248, np.inf, -np.inf, np.nan], np.float32),
        np.geomspace(1e-9, 6e4, 400, dtype=np.float32),
        -np.geomspace(2e-8, 6e4, 401, dtype=np.float32),
        (np.arange(64, dtype=np.float32) + 0.5) / 32,
    )
)
"""Ties, subnormals and what is beyond every range."""


def every(dtype: type) -> Array:
    """All values of a type."""
    bits = {ml_dtypes.float4_e2m1fn: 4, ml_dtypes.int4: 4, ml_dtypes.uint4: 4, ml_dtypes.int2: 2, ml_dtypes.uint2: 2}
    return np.arange(1 << bits.get(dtype, 8), dtype=np.uint8).view(dtype)


def code(dtype: object) -> int:
    return onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))  # pyright: ignore[reportArgumentType]


def agree(folder: Path, op: str, inputs: tuple[Array, ...], result: object, attrs: Mapping[str, object] = {}) -> None:
    """The node on tiles gives what the standard's reference gives."""
    model = node_model(op, inputs, outputs=(code(result),), domain="", opset=25, attrs=attrs)
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    with np.errstate(all="ignore"):
        (expected,) = ReferenceEvaluator(model).run(None, feeds)
    graph, found = by_cimc(model, feeds, folder)
    assert "host" not in ops(graph)
    assert found["y0"].dtype == expected.dtype == np.dtype(result)  # pyright: ignore[reportArgumentType]
    wide = np.int64 if expected.dtype.kind in "iu" else np.float64
    np.testing.assert_array_equal(found["y0"].astype(wide), expected.astype(wide))


@pytest.mark.parametrize("source", [*WHOLE, *FLOATS])
@pytest.mark.parametrize("target", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_every_value_is_read(tmp_path: Path, source: type, target: type) -> None:
    agree(tmp_path, "Cast", (every(source),), target, {"to": code(target)})


def test_powers_of_two_are_read(tmp_path: Path) -> None:
    agree(tmp_path, "Cast", (every(ml_dtypes.float8_e8m0fnu),), np.float32, {"to": code(np.float32)})


@pytest.mark.parametrize("target", FLOATS)
@pytest.mark.parametrize("source", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("saturate", [0, 1])
def test_numbers_become_small_floats(tmp_path: Path, source: type, target: type, saturate: int) -> None:
    with np.errstate(over="ignore"):
        numbers = NUMBERS.astype(source)
    if target is ml_dtypes.float4_e2m1fn:
        numbers = numbers[np.isfinite(numbers)]
    agree(tmp_path, "Cast", (numbers,), target, {"to": code(target), "saturate": saturate})


@pytest.mark.parametrize("target", EIGHT)
def test_small_floats_are_onnxruntimes_too(tmp_path: Path, target: type) -> None:
    numbers = NUMBERS[np.isfinite(NUMBERS)]
    model = node_model("Cast", (numbers,), outputs=(TensorProto.FLOAT,), domain="", attrs={"to": code(target)})
    # onnxruntime gives NumPy few of these types.
    model.graph.node[0].output[0] = "narrow"
    model.graph.node.append(helper.make_node("Cast", ["narrow"], ["y0"], to=TensorProto.FLOAT))
    (expected,) = by_onnxruntime(model, {"x0": numbers}).values()
    graph, found = by_cimc(model, {"x0": numbers}, tmp_path)
    assert np.array_equal(found["y0"], expected)
    assert "host" not in ops(graph)


@pytest.mark.parametrize("target", WHOLE)
@pytest.mark.parametrize("source", [np.float32, np.int8, np.uint8, np.int64])
def test_numbers_become_small_integers(tmp_path: Path, source: type, target: type) -> None:
    info = ml_dtypes.iinfo(target)
    low = 0 if source is np.uint8 else info.min
    numbers = np.arange(low, info.max + 1).astype(source)
    if source is np.float32:
        numbers = np.concatenate((numbers, np.linspace(low, info.max, 31, dtype=np.float32)))
    agree(tmp_path, "Cast", (numbers,), target, {"to": code(target)})


@pytest.mark.parametrize("dtype", [*WHOLE, *FLOATS])
@pytest.mark.parametrize("shape", [(), (3,), (3, 4)])
def test_quantised_and_dequantised(tmp_path: Path, dtype: type, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    x = (rng.standard_normal((3, 8)) * 2).astype(np.float32)
    scale = rng.uniform(0.3, 0.9, shape).astype(np.float32)
    zero = np.ones(shape, np.float32).astype(dtype) if dtype in WHOLE else np.zeros(shape, np.float32).astype(dtype)
    attrs = {"axis": 1 if len(shape) == 2 else 0, "block_size": 2 if len(shape) == 2 else 0}
    agree(tmp_path, "QuantizeLinear", (x, scale, zero), dtype, attrs)
    codes = rng.choice(every(dtype)[1:], (3, 8))
    agree(tmp_path, "DequantizeLinear", (codes, scale, zero), np.float32, attrs)


@pytest.mark.parametrize("dtype", [*WHOLE, *FLOATS])
def test_moved_as_they_are(tmp_path: Path, dtype: type) -> None:
    x = np.resize(every(dtype), (3, 4))
    agree(tmp_path, "Transpose", (x,), dtype, {"perm": [1, 0]})
    agree(tmp_path, "Flatten", (x,), dtype)
