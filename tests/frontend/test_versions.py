"""Operators whose form changed between opsets, in their old forms and odd corners, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.frontend.onnx_models import agree, model, ops, value

node = helper.make_node
X = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float32)
INTS = {
    "i0": [0],
    "i1": [1],
    "i12": [1, 2],
    "m1": [-1],
    "m9": [-9],
    "i3": [3],
    "i2": [2],
    "far": [2**62],
    "sizes": [1, 3],
}

OLD = [
    (7, node("Softmax", ["x"], ["y"])),
    (12, node("Softmax", ["x"], ["y"], axis=2)),
    (11, node("Softmax", ["x"], ["y"], axis=-1)),
    (11, node("LogSoftmax", ["x"], ["y"], axis=1)),
    (13, node("Softmax", ["x"], ["y"], axis=1)),
    (10, node("Clip", ["x"], ["y"], min=-0.5, max=0.5)),
    (10, node("Clip", ["x"], ["y"], max=0.5)),
    (9, node("Slice", ["x"], ["y"], starts=[1, -9], ends=[9, 2], axes=[2, 3])),
    (8, node("Slice", ["x"], ["y"], starts=[0, 1], ends=[1, 2])),
    (13, node("Slice", ["x", "m1", "m9", "i3", "m1"], ["y"])),
    (13, node("Slice", ["x", "i1", "far", "i2"], ["y"])),
    (13, node("Slice", ["x", "i3", "i1", "i3", "m1"], ["y"])),
    (10, node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 1, 0], value=1.5)),
    (10, node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 1, 4], mode="reflect")),
    (10, node("Pad", ["x"], ["y"], pads=[0, 0, 1, 2, 0, 0, 1, 7], mode="edge")),
    (10, node("Pad", ["x"], ["y"], pads=[0, 0, -1, 2, 0, 0, 1, -2])),
    (9, node("TopK", ["x"], ["y", "i"], k=2, axis=2)),
    (11, node("Squeeze", ["u"], ["y"], axes=[0, -2])),
    (11, node("Squeeze", ["u"], ["y"])),
    (13, node("Squeeze", ["u", "i0"], ["y"])),
    (11, node("Unsqueeze", ["x"], ["y"], axes=[0, 5])),
    (13, node("Unsqueeze", ["x", "m1"], ["y"])),
    (11, node("Split", ["x"], ["y", "z"], axis=1, split=[1, 2])),
    (11, node("Split", ["x"], ["y", "z"], axis=2)),
    (13, node("Split", ["x"], ["y", "z"], axis=2)),
    (18, node("Split", ["x"], ["y", "z", "w"], axis=3, num_outputs=3)),
    (11, node("ReduceSum", ["x"], ["y"], axes=[1, -1], keepdims=0)),
    (13, node("ReduceSum", ["x", "i12"], ["y"])),
    (13, node("ReduceSum", ["x"], ["y"], noop_with_empty_axes=1)),
    (17, node("ReduceMean", ["x"], ["y"], axes=[0, 2])),
    (18, node("ReduceMean", ["x", "i12"], ["y"], keepdims=0)),
    (18, node("ReduceL2", ["x", "i12"], ["y"])),
    (17, node("ReduceLogSumExp", ["x"], ["y"], axes=[1])),
    (17, node("ReduceProd", ["x"], ["y"], axes=[3])),
    (11, node("ArgMax", ["x"], ["y"], axis=2, keepdims=0)),
    (13, node("ArgMin", ["x"], ["y"], axis=-1)),
    (11, node("Hardmax", ["x"], ["y"], axis=3)),
    (13, node("Hardmax", ["x"], ["y"], axis=1)),
    (7, node("Dropout", ["x"], ["y"], ratio=0.5)),
    (12, node("Dropout", ["x"], ["y"])),
    (9, node("Flatten", ["x"], ["y"], axis=3)),
    (11, node("Flatten", ["x"], ["y"], axis=-3)),
    (13, node("Reshape", ["x", "r"], ["y"])),
    (8, node("Expand", ["u", "e"], ["y"])),
    (13, node("Tile", ["u", "e"], ["y"])),
    (11, node("CumSum", ["x", "axis"], ["y"], exclusive=1, reverse=1)),
    (14, node("CumSum", ["x", "axis"], ["y"])),
    (14, node("Trilu", ["x", "k"], ["y"], upper=0)),
    (14, node("Trilu", ["x"], ["y"])),
    (9, node("BatchNormalization", ["x", "g", "b", "b", "v"], ["y"], epsilon=1e-3)),
    (15, node("BatchNormalization", ["x", "g", "b", "b", "v"], ["y"])),
    (9, node("InstanceNormalization", ["x", "g", "b"], ["y"])),
    (17, node("LayerNormalization", ["x", "row", "row"], ["y", "mean", "dev"], axis=-1)),
    (17, node("LayerNormalization", ["x", "plane"], ["y"], axis=2)),
    (13, node("GatherElements", ["x", "ge"], ["y"], axis=-1)),
    (12, node("GatherND", ["x", "gn"], ["y"], batch_dims=1)),
    (11, node("OneHot", ["ge", "five", "off_on"], ["y"], axis=1)),
    (11, node("ScatterElements", ["x", "ge", "gv"], ["y"], axis=3)),
    (16, node("ScatterElements", ["x", "ge", "gv"], ["y"], axis=3, reduction="add")),
    (11, node("ScatterND", ["x", "sn", "sv"], ["y"])),
    (12, node("Einsum", ["x", "x"], ["y"], equation="bhid,bhjd->bhij")),
    (12, node("Einsum", ["x", "plane"], ["y"], equation="...ij,ij->...i")),
    (12, node("Einsum", ["x"], ["y"], equation="abcd->db")),
    (12, node("Einsum", ["row", "row"], ["y"], equation="i,j")),
    (7, node("MatMul", ["x", "row"], ["y"])),
    (7, node("MatMul", ["row", "wide"], ["y"])),
    (7, node("Gemm", ["wide", "wide", "row6"], ["y"], transA=1, alpha=0.5, beta=2.0)),
    (11, node("Gemm", ["wide", "wide"], ["y"], transB=1)),
    (9, node("MaxPool", ["x"], ["y"], kernel_shape=[2, 3], strides=[1, 2], pads=[1, 1, 0, 1])),
    (10, node("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)),
    (10, node("AveragePool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1, pads=[1, 1, 1, 1])),
    (10, node("AveragePool", ["x"], ["y"], kernel_shape=[2, 2], auto_pad="SAME_UPPER", count_include_pad=1)),
    (7, node("GlobalAveragePool", ["x"], ["y"])),
    (11, node("Conv", ["x", "kernel", "c6"], ["y"], group=3, pads=[1, 0, 1, 2], strides=[2, 1], dilations=[1, 2])),
    (11, node("Conv", ["x", "full"], ["y"], auto_pad="SAME_LOWER")),
    (11, node("ConvTranspose", ["x", "full_t"], ["y"], strides=[2, 3], pads=[1, 0, 0, 1], output_padding=[1, 0])),
    (11, node("ConvTranspose", ["x", "kernel_t"], ["y"], group=3, dilations=[2, 1])),
    (11, node("DepthToSpace", ["deep"], ["y"], blocksize=2, mode="CRD")),
    (13, node("SpaceToDepth", ["deep"], ["y"], blocksize=2)),
    (14, node("HardSwish", ["x"], ["y"])),
    (18, node("Mish", ["x"], ["y"])),
    (20, node("Gelu", ["x"], ["y"], approximate="tanh")),
    (9, node("PRelu", ["x", "row"], ["y"])),
    (12, node("Celu", ["x"], ["y"], alpha=0.7)),
    (10, node("ThresholdedRelu", ["x"], ["y"], alpha=0.3)),
    (9, node("Shrink", ["x"], ["y"], lambd=0.4, bias=0.1)),
    (18, node("GroupNormalization", ["deep", "two", "two"], ["y"], num_groups=2)),
    (21, node("GroupNormalization", ["deep", "four", "four"], ["y"], num_groups=2)),
    (7, node("LpNormalization", ["x"], ["y"], axis=1, p=1)),
    (13, node("MeanVarianceNormalization", ["x"], ["y"])),
    (13, node("SpaceToDepth", ["deep"], ["y"], blocksize=4)),
    (13, node("Mean", ["x", "row", "plane"], ["y"])),
    (15, node("Shape", ["x"], ["y"], start=-3, end=-1)),
    (9, node("EyeLike", ["wide"], ["y"], k=1)),
]  # fmt: skip


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype(np.float32)


FIXED: dict[str, np.ndarray] = {
    **{n: np.array(v, np.int64) for n, v in INTS.items()},
    "r": np.array([0, -1, 5], np.int64), "e": np.array([2, 3, 4, 1], np.int64), "k": np.array(1, np.int64),
    "axis": np.array(2, np.int64), "five": np.array(5, np.int64), "off_on": np.array([-1.0, 2.0], np.float32),
    "g": draw(3), "b": draw(3), "v": np.abs(draw(3)), "row": draw(5), "row6": draw(6), "plane": draw(4, 5),
    "wide": draw(5, 6), "kernel": draw(6, 1, 2, 2), "c6": draw(6), "full": draw(6, 3, 3, 2),
    "full_t": draw(3, 2, 3, 2), "kernel_t": draw(3, 2, 2, 2), "two": draw(2), "four": draw(4),
    "gn": np.array([[[0, 1], [2, -1]], [[1, 1], [0, 0]]], np.int64),
    "sn": np.array([[0, 1], [1, -1]], np.int64), "sv": draw(2, 4, 5),
}  # fmt: skip
FEEDS: dict[str, np.ndarray] = {
    "x": X, "u": draw(1, 3, 1, 5), "deep": draw(1, 4, 4, 8), "gv": draw(2, 3, 4, 2),
    "ge": np.random.default_rng(2).permuted(np.tile(np.arange(-5, 0), (2, 3, 4, 1)), axis=3)[..., :2].copy(),
}  # fmt: skip


@pytest.mark.parametrize(("opset", "op"), OLD, ids=[f"{op.op_type}-{opset}-{i}" for i, (opset, op) in enumerate(OLD)])
def test_in_its_opset(tmp_path: Path, opset: int, op: onnx.NodeProto) -> None:
    feeds = {n: FEEDS[n] for n in op.input if n in FEEDS}
    if not feeds:
        feeds = {n: FIXED[n] for n in list(op.input)[:1]}
    fixed = {n: a for n, a in FIXED.items() if n in op.input and n not in feeds}
    code = helper.np_dtype_to_tensor_dtype
    inputs = [value(n, a.shape, code(a.dtype)) for n, a in feeds.items()]
    imported = agree(tmp_path, model([op], inputs, list(op.output), fixed, opset=opset), feeds, rtol=1e-4, atol=1e-5)
    assert "host" not in ops(imported)


@pytest.mark.parametrize("source", [np.float32, np.int32, np.uint8, np.bool_, np.float64, np.float16])
@pytest.mark.parametrize("target", ["FLOAT", "INT32", "UINT8", "BOOL", "DOUBLE", "FLOAT16", "INT64"])
def test_casts(tmp_path: Path, source: type, target: str) -> None:
    x = np.array([0, 1, 2, 100], source)
    op = node("Cast", ["x"], ["y"], to=TensorProto.DataType.Value(target))
    inputs = [value("x", [4], helper.np_dtype_to_tensor_dtype(x.dtype))]
    agree(tmp_path, model([op], inputs, ["y"]), {"x": x}, rtol=0, atol=0)
