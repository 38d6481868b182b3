"""Integer products against onnxruntime: int32 sums bit for bit, requantised codes too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from tests.frontend.one_node import MS, both, ops

TYPES = {np.uint8: TensorProto.UINT8, np.int8: TensorProto.INT8}
KINDS = [(np.uint8, np.uint8), (np.uint8, np.int8), (np.int8, np.int8)]


def draw(seed: int, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    low = 0 if dtype is np.uint8 else -128
    return np.random.default_rng(seed).integers(low, low + 256, shape).astype(dtype)


def scalar(value: float, dtype: type[np.generic] = np.float32) -> np.ndarray:
    return np.array(value, dtype)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("zeros", ["none", "scalars", "columns"])
def test_mat_mul_integer(
    tmp_path: Path, kinds: tuple[type[np.generic], type[np.generic]], constant: bool, zeros: str
) -> None:
    x, w = draw(1, (2, 3, 8), kinds[0]), draw(2, (8, 5), kinds[1])
    points: tuple[np.ndarray | None, ...] = ()
    if zeros == "scalars":
        points = (scalar(7, kinds[0]), scalar(100, kinds[1]))
    if zeros == "columns":
        points = (scalar(7, kinds[0]), draw(3, (5,), kinds[1]))
    fixed = (1, 3) if constant else ()
    graph = both(
        tmp_path,
        "MatMulInteger",
        (x, w, *points),
        fixed=fixed[: 1 + (len(points) > 1)],
        outputs=(6,),
        domain="",
        atol=0,
        rtol=0,
    )
    assert ("mvm" in ops(graph)) == constant
    assert ("matmul" in ops(graph)) != constant


@pytest.mark.parametrize("shapes", [((8,), (8, 5)), ((3, 8), (8,)), ((1, 8), (1, 8, 5)), ((2, 3, 8), (2, 8, 5))])
@pytest.mark.parametrize("constant", [False, True])
def test_shapes(tmp_path: Path, shapes: tuple[tuple[int, ...], tuple[int, ...]], constant: bool) -> None:
    x, w = draw(1, shapes[0], np.uint8), draw(2, shapes[1], np.int8)
    points = (scalar(130, np.uint8), scalar(-3, np.int8))
    fixed = (1, 2, 3) if constant else ()
    both(tmp_path, "MatMulInteger", (x, w, *points), fixed=fixed, outputs=(6,), domain="", atol=0, rtol=0)


@pytest.mark.parametrize("kinds", KINDS)
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_q_linear_mat_mul(
    tmp_path: Path, kinds: tuple[type[np.generic], type[np.generic]], columns: bool, constant: bool
) -> None:
    x, w = draw(4, (3, 16), kinds[0]), draw(5, (16, 6), kinds[1])
    w_scale = np.linspace(0.01, 0.03, 6, dtype=np.float32) if columns else scalar(0.02)
    w_zero = np.full(6, 3, kinds[1]) if columns else scalar(3, kinds[1])
    inputs = (x, scalar(0.05), scalar(5, kinds[0]), w, w_scale, w_zero, scalar(2.0), scalar(9, kinds[0]))
    fixed = (1, 2, 3, 4, 5, 6, 7) if constant else (1, 2, 4, 5, 6, 7)
    both(tmp_path, "QLinearMatMul", inputs, fixed=fixed, outputs=(TYPES[kinds[0]],), domain="", atol=0, rtol=0)


@pytest.mark.parametrize("trans", [(0, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("codes", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_q_gemm(tmp_path: Path, trans: tuple[int, int], codes: bool, bias: bool) -> None:
    x, w = draw(6, (3, 16), np.uint8), draw(7, (16, 6), np.int8)
    x, w = (x.T.copy() if trans[0] else x), (w.T.copy() if trans[1] else w)
    term = np.arange(-3, 3, dtype=np.int32) * 1000 if bias else None
    scale = np.linspace(0.01, 0.03, 6, dtype=np.float32)
    inputs = [x, scalar(0.05), scalar(5, np.uint8), w, scale, np.zeros(6, np.int8), term]
    if codes:
        inputs += [scalar(0.7), scalar(100, np.uint8)]
    attrs = {"transA": trans[0], "transB": trans[1], "alpha": 1.5}
    outputs = (TensorProto.UINT8 if codes else TensorProto.FLOAT,)
    exact = 0 if codes else 1e-5
    fixed = tuple(i for i in range(1, len(inputs)))
    both(tmp_path, "QGemm", inputs, fixed=fixed, outputs=outputs, attrs=attrs, atol=0, rtol=exact)


@pytest.mark.parametrize("w_type", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [False, True])
def test_to_float(tmp_path: Path, w_type: type[np.generic], columns: bool) -> None:
    x, w = draw(8, (2, 3, 16), np.uint8), draw(9, (16, 6), w_type)
    scale = np.linspace(0.01, 0.03, 6, dtype=np.float32) if columns else scalar(0.02)
    zero = draw(10, (6,), w_type) if columns else scalar(2, w_type)
    bias = np.linspace(-1, 1, 6, dtype=np.float32)
    inputs = (x, w, scalar(0.1), scale, scalar(4, np.uint8), zero, bias)
    both(tmp_path, "MatMulIntegerToFloat", inputs, fixed=(1, 2, 3, 4, 5, 6), atol=1e-5, rtol=1e-5)
    numbers = np.random.default_rng(11).normal(size=(3, 16)).astype(np.float32)
    graph = both(
        tmp_path, "DynamicQuantizeMatMul", (numbers, w, scale, zero, bias), fixed=(1, 2, 3, 4), atol=1e-5, rtol=1e-5
    )
    assert "mvm" in ops(graph)


def test_conv_integer(tmp_path: Path) -> None:
    x, w = draw(12, (2, 4, 7, 6), np.uint8), draw(13, (6, 2, 3, 2), np.uint8)
    attrs = {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}
    inputs = (x, w, scalar(9, np.uint8), scalar(120, np.uint8))
    graph = both(tmp_path, "ConvInteger", inputs, fixed=(1, 2, 3), outputs=(6,), domain="", attrs=attrs, atol=0, rtol=0)
    assert "mvm" in ops(graph)


@pytest.mark.parametrize("auto", ["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("w_type", [np.int8, np.uint8])
@pytest.mark.parametrize("bias", [False, True])
def test_q_linear_conv(tmp_path: Path, auto: str, w_type: type[np.generic], bias: bool) -> None:
    x, w = draw(14, (1, 3, 8, 7), np.uint8), draw(15, (4, 3, 3, 2), w_type)
    signed = w_type is np.int8
    w_scale = np.linspace(0.01, 0.04, 4, dtype=np.float32) if signed else scalar(0.02)
    w_zero = np.zeros(4, np.int8) if signed else scalar(99, np.uint8)
    inputs = [x, scalar(0.05), scalar(5, np.uint8), w, w_scale, w_zero, scalar(0.9), scalar(128, np.uint8)]
    if bias:
        inputs.append(np.array([-500, 0, 20, 3000], np.int32))
    attrs: dict[str, object] = {"auto_pad": auto, "strides": [2, 2]}
    if auto == "NOTSET":
        attrs["pads"] = [1, 1, 0, 1]
    fixed = tuple(range(1, len(inputs)))
    both(tmp_path, "QLinearConv", inputs, fixed=fixed, outputs=(2,), domain="", attrs=attrs, atol=0, rtol=0)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("dtype", TYPES)
def test_pairs(tmp_path: Path, op: str, dtype: type[np.generic]) -> None:
    """onnxruntime may fuse the multiplications differently: where a result lies between two codes, either is right."""
    a, b = draw(16, (3, 4, 16), dtype), draw(17, (4, 16), dtype)
    inputs = (a, scalar(0.031), scalar(3, dtype), b, scalar(0.017), scalar(11, dtype), scalar(0.05), scalar(7, dtype))
    both(tmp_path, op, inputs, fixed=(1, 2, 4, 5, 6, 7), outputs=(TYPES[dtype],), domain=MS, atol=1, rtol=0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
def test_pairs_whose_results_lie_between_two_codes(tmp_path: Path, op: str, dtype: type[np.generic]) -> None:
    """Scales of which half the results are ties, and an odd zero point: they go to the even code."""
    a, b = draw(16, (9, 16), dtype), draw(17, (16,), dtype)
    out = 0.125 if op == "QLinearAdd" else 1.0
    inputs = (a, scalar(0.0625), scalar(3, dtype), b, scalar(0.125), scalar(8, dtype), scalar(out), scalar(7, dtype))
    both(tmp_path, op, inputs, fixed=(1, 2, 4, 5, 6, 7), outputs=(TYPES[dtype],), domain=MS, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearLeakyRelu"])
def test_functions(tmp_path: Path, op: str, dtype: type[np.generic]) -> None:
    x = np.arange(256).astype(np.uint8).view(dtype)
    low = 0 if dtype is np.uint8 else -128
    inputs = (x, scalar(0.05), scalar(low + 128, dtype), scalar(1 / 256), scalar(low, dtype))
    attrs = {"alpha": 0.1} if op == "QLinearLeakyRelu" else {}
    both(tmp_path, op, inputs, fixed=(1, 2, 3, 4), outputs=(TYPES[dtype],), attrs=attrs, atol=0, rtol=0)


@pytest.mark.parametrize(("axis", "opset"), [(-1, 13), (1, 13), (1, 12)])
def test_softmax(tmp_path: Path, axis: int, opset: int) -> None:
    x = draw(18, (2, 5, 7), np.uint8)
    inputs = (x, scalar(0.1), scalar(30, np.uint8), scalar(1 / 256), scalar(0, np.uint8))
    attrs = {"axis": axis, "opset": opset}
    both(tmp_path, "QLinearSoftmax", inputs, fixed=(1, 2, 3, 4), outputs=(2,), attrs=attrs, atol=0, rtol=0)


@pytest.mark.parametrize("last", [0, 1])
def test_pool_and_concat(tmp_path: Path, last: int) -> None:
    x = draw(19, (2, 3, 4, 5), np.uint8)
    inputs = (x, scalar(0.1), scalar(30, np.uint8), scalar(0.07), scalar(3, np.uint8))
    attrs = {"channels_last": last}
    both(tmp_path, "QLinearGlobalAveragePool", inputs, fixed=(1, 2, 3, 4), outputs=(2,), attrs=attrs, atol=0, rtol=0)
    parts = (x, scalar(0.1), scalar(30, np.uint8), x[:, :1], scalar(0.2), scalar(3, np.uint8))
    both(
        tmp_path,
        "QLinearConcat",
        (scalar(0.15), scalar(9, np.uint8), *parts),
        fixed=(0, 1, 3, 4, 6, 7),
        outputs=(2,),
        attrs={"axis": 1},
        atol=0,
        rtol=0,
    )
