"""Products of dequantised values on the model's own integers: the same numbers, and nothing quantised again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cimc.frontend.importer import load
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.passes.classify import Classify
from cimc.passes.dce import Dce
from cimc.passes.fold import Fold
from cimc.passes.integers import Integers
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize
from tests.frontend.one_node import node_model

RNG = np.random.default_rng(3)


def tensor(name: str, value: np.ndarray) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.asarray(value), name)


def model(
    tmp_path: Path,
    x: np.ndarray,
    zeros: tuple[np.ndarray, np.ndarray],
    w: np.ndarray,
    scale: np.ndarray,
    last: onnx.NodeProto,
    *,
    axis: int = 1,
) -> Path:
    """Quantise and dequantise x, dequantise w, then ``last`` of ``xd`` and ``wd``."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=axis),
        last,
    ]
    given = [("xs", np.array(0.02, np.float32)), ("xz", zeros[0]), ("w", w), ("ws", scale), ("wz", zeros[1])]
    graph = helper.make_graph(
        nodes,
        "qdq",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [tensor(n, v) for n, v in given],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def codes(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    low = 0 if dtype is np.uint8 else -128
    return RNG.integers(low, low + 256, shape).astype(dtype)


def compare(path: Path, x: np.ndarray) -> Graph:
    """The rewritten graph; its answer is the old one's up to float32 rounding, and the same in integer numerics."""
    imported = load(path, inputs={"x": x})
    before = evaluate(imported.graph, imported.constants, {"x": x}, Arithmetic())
    graph, constants = Integers().run(imported.graph, imported.constants)
    check(graph, constants)
    after = evaluate(graph, constants, {"x": x}, Arithmetic())
    whole = evaluate(graph, constants, {"x": x}, Arithmetic(exact=False))
    for a, b, c in zip(before.values(), after.values(), whole.values(), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(b, c)
    for one in (Fold(), Classify(), Dce(), Quantize(), Partition(128, 128)):
        graph, constants = one.run(graph, constants)
        check(graph, constants)
    np.testing.assert_array_equal(
        next(iter(evaluate(graph, constants, {"x": x}, Arithmetic(exact=False)).values())), next(iter(whole.values()))
    )
    return graph


@pytest.mark.parametrize("x_type", [np.uint8, np.int8])
@pytest.mark.parametrize("w_type", [np.uint8, np.int8])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("zero", [False, True])
def test_matmul(tmp_path: Path, x_type: type[np.generic], w_type: type[np.generic], columns: bool, zero: bool) -> None:
    x = RNG.normal(size=(2, 3, 16)).astype(np.float32)
    w = codes((16, 5), w_type)
    scale = np.linspace(0.01, 0.02, 5, dtype=np.float32) if columns else np.array(0.01, np.float32)
    points = np.arange(5).astype(w_type) if columns else np.array(7, w_type)
    zeros = (np.array(9 if zero else 0, x_type), points if zero else np.zeros_like(points))
    last = helper.make_node("MatMul", ["xd", "wd"], ["y"])
    graph = compare(model(tmp_path, x, zeros, w, scale, last), x)
    names = [n.op for n in graph.nodes]
    assert "blocked_mvm" in names
    assert "quantize" not in names


def test_gemm_of_rows(tmp_path: Path) -> None:
    """Weights outputs × inputs, a scale per output: the transpose is taken along."""
    x = RNG.normal(size=(3, 16)).astype(np.float32)
    scale = np.linspace(0.01, 0.02, 5, dtype=np.float32)
    zeros = (np.array(3, np.uint8), np.zeros(5, np.int8))
    last = helper.make_node("Gemm", ["xd", "wd"], ["y"], transB=1, alpha=0.5)
    graph = compare(model(tmp_path, x, zeros, codes((5, 16), np.int8), scale, last, axis=0), x)
    assert "quantize" not in [n.op for n in graph.nodes]


def test_convolution(tmp_path: Path) -> None:
    """The border of zeros becomes a border of the zero point."""
    x = RNG.normal(size=(1, 3, 6, 6)).astype(np.float32)
    scale = np.linspace(0.01, 0.02, 4, dtype=np.float32)
    zeros = (np.array(77, np.uint8), np.zeros(4, np.int8))
    last = helper.make_node("Conv", ["xd", "wd"], ["y"], pads=[1, 1, 1, 1])
    graph = compare(model(tmp_path, x, zeros, codes((4, 3, 3, 3), np.int8), scale, last, axis=0), x)
    assert "quantize" not in [n.op for n in graph.nodes]


@pytest.mark.parametrize("zero", [0, 120])
def test_dynamic(tmp_path: Path, zero: int) -> None:
    """Scores of dequantised activations with themselves."""
    x = RNG.normal(size=(2, 6, 16)).astype(np.float32)
    zeros = (np.array(zero, np.uint8), np.array(0, np.int8))
    nodes = model(
        tmp_path, x, zeros, codes((2, 2), np.int8), np.array(1, np.float32), helper.make_node("Identity", ["xd"], ["y"])
    )
    made = onnx.load(nodes)
    del made.graph.node[:]
    made.graph.node.extend(
        [
            helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
            helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
            helper.make_node("Transpose", ["xd"], ["xt"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["xd", "xt"], ["y"]),
        ]
    )
    onnx.save(made, nodes)
    graph = compare(nodes, x)
    (product,) = (n for n in graph.nodes if n.op == "matmul")
    assert graph.types[product.outputs[0]].element.value == "i32"


def test_scales_along_the_inputs_stay_as_they_are(tmp_path: Path) -> None:
    """A scale per input cannot be taken out of the sum: the weights are quantised by cimc, as any float weights."""
    x = RNG.normal(size=(3, 16)).astype(np.float32)
    scale = np.linspace(0.01, 0.02, 16, dtype=np.float32)
    zeros = (np.array(3, np.uint8), np.zeros(16, np.int8))
    path = model(
        tmp_path, x, zeros, codes((16, 5), np.int8), scale, helper.make_node("MatMul", ["xd", "wd"], ["y"]), axis=0
    )
    imported = load(path, inputs={"x": x})
    graph, _ = Integers().run(imported.graph, imported.constants)
    assert [n.op for n in graph.nodes if n.op in ("mvm", "matmul")] == ["matmul"]


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("spelled", ["DequantizeLinear", "Cast"])
def test_weights_alone_keep_their_codes(tmp_path: Path, kind: type[np.generic], spelled: str) -> None:
    """Activations are cimc's to quantise; the weights' codes and scales stay those of the model."""
    x, w = RNG.normal(size=(3, 16)).astype(np.float32), codes((16, 5), kind)
    scale = np.linspace(0.01, 0.02, 5, dtype=np.float32)
    nodes = [helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1)]
    if spelled == "Cast":
        w = w.view(np.int8)
        nodes = [helper.make_node("Cast", ["w"], ["wf"], to=1), helper.make_node("Mul", ["wf", "ws"], ["wd"])]
    nodes.append(helper.make_node("MatMul", ["x", "wd"], ["y"]))
    zero = np.full(5, 128 if w.dtype == np.uint8 else 0).astype(w.dtype)
    given = [tensor("w", w), tensor("ws", scale), tensor("wz", zero)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [3, 16]), ("y", None))]
    made = helper.make_model(
        helper.make_graph(nodes, "alone", ends[:1], ends[1:], given),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.save(made, tmp_path / "m.onnx")
    imported = load(tmp_path / "m.onnx")
    graph, constants = imported.graph, imported.constants
    for one in (Integers(), Fold(), Classify(), Dce(), Quantize()):
        graph, constants = one.run(graph, constants)
        check(graph, constants)
    (product,) = (n for n in graph.nodes if n.op == "mvm")
    signed = w.astype(np.int32) - (128 if w.dtype == np.uint8 else 0)
    np.testing.assert_array_equal(constants[product.inputs[1]], signed)
    (back,) = (n for n in graph.nodes if n.op == "dequantize")
    np.testing.assert_array_equal(constants[back.inputs[2]], scale)
    y = next(iter(evaluate(graph, constants, {"x": x}, Arithmetic()).values()))
    np.testing.assert_allclose(y, x @ (signed * scale), rtol=5e-6, atol=1e-6)


@pytest.mark.parametrize(("bits", "zeros"), [(4, False), (4, True), (8, False), (8, True)])
@pytest.mark.parametrize("keep", [True, False])
def test_blocks_of_inputs_keep_their_codes(tmp_path: Path, bits: int, zeros: bool, keep: bool) -> None:
    """A product per block on the model's codes; bytes with zero points of their own do not fit a cell's code."""
    n, k, block = 6, 64, 16
    blocks = k // block
    x = RNG.normal(size=(3, k)).astype(np.float32)
    packed = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = (RNG.random((n, blocks)) * 0.1 + 0.01).astype(np.float32)
    points = RNG.integers(0, 256, (n, blocks * bits // 8)).astype(np.uint8)
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block}
    inputs = (x, packed, scales, points) if zeros else (x, packed, scales)
    fixed = tuple(range(1, len(inputs)))
    onnx.save(node_model("MatMulNBits", inputs, fixed=fixed, attrs=attrs), tmp_path / "m.onnx")
    imported = load(tmp_path / "m.onnx")
    graph, constants = imported.graph, imported.constants
    for one in (Integers(), Fold(), Classify(), Dce(), Quantize(keep_blocks=keep), Partition(128, 128)):
        graph, constants = one.run(graph, constants)
        check(graph, constants)
    products = [node for node in graph.nodes if node.op == "blocked_mvm"]
    kept = keep and not (bits == 8 and zeros)
    assert len(products) == (blocks if kept else 1)

    def codes_of(data: np.ndarray) -> np.ndarray:
        return data if bits == 8 else np.stack((data & 15, data >> 4), axis=-1).reshape(*data.shape[:-1], -1)

    centre = codes_of(points)[:, :, None].astype(int) if zeros else 1 << (bits - 1)
    signed = codes_of(packed).astype(int) - centre
    if kept:
        for i, node in enumerate(products):
            np.testing.assert_array_equal(constants[node.inputs[1]], signed[:, i].T)
    dense = (signed * scales[:, :, None]).reshape(n, k).T
    y = next(iter(evaluate(graph, constants, {"x0": x}, Arithmetic()).values()))
    np.testing.assert_allclose(y, x @ dense, rtol=1e-5, atol=1e-5)
    whole = next(iter(evaluate(graph, constants, {"x0": x}, Arithmetic(exact=False)).values()))
    step = np.abs(x).max(axis=1, keepdims=True) / 127
    error = step * np.abs(dense).sum(axis=0) / 2
    if kept:  # only the activations are rounded, each by half a step at most
        assert np.all(np.abs(whole - x @ dense) <= error * 1.001)
