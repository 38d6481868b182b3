"""Work on the columns of a product where its tile lacks a unit, or where only some of its columns are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.checker import CheckOptions, check_model
from cimc.mapping.choices import Choices
from cimc.options import Options


def _saved(path: Path, nodes: list[onnx.NodeProto], **shapes: tuple[int, int]) -> str:
    draw = np.random.default_rng(0)
    weights = [numpy_helper.from_array(draw.normal(0, 0.3, s).astype(np.float32), n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.array([24, 24]), "halves"))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 32])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, None])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


@pytest.mark.parametrize("hardware", ["xformer", "retransformer", "hybrid", "isaac"])
def test_a_unit_that_cores_lack_is_found_beside_them(hardware: str, tmp_path: Path) -> None:
    """X-Former's digital tiles have cores too: its columns must not go beside on a tile that lacks the unit as well."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["s"]),
        helper.make_node("Tanh", ["s"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    model = _saved(tmp_path / "m.onnx", nodes, a=(32, 32), b=(32, 16))
    assert check_model(model, Options(hardware=hardware), CheckOptions("float")).report.passed


@pytest.mark.parametrize("hardware", ["isaac", "hybrid"])
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_the_first_half_of_a_product_alone(hardware: str, activation: str, tmp_path: Path) -> None:
    """A gated unit: what works on half of a product's columns is not the work of all of them."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["s"]),
        helper.make_node("Split", ["s", "halves"], ["p", "q"], axis=1),
        helper.make_node(activation, ["p"], ["r"]),
        helper.make_node("Mul", ["r", "q"], ["t"]),
        helper.make_node("MatMul", ["t", "b"], ["y"]),
    ]
    model = _saved(tmp_path / "m.onnx", nodes, a=(32, 48), b=(24, 16))
    assert check_model(model, Options(hardware=hardware), CheckOptions("float")).report.passed


def _routed(k: int) -> list[onnx.NodeProto]:
    """A layer whose rows are all routed twice, as a mixture of experts that takes every expert does."""
    return [
        helper.make_node("MatMul", [f"h{k}", f"a{k}"], [f"p{k}"]),
        helper.make_node("Relu", [f"p{k}"], [f"r{k}"]),
        helper.make_node("Softmax", [f"r{k}"], [f"n{k}"], axis=-1),
        helper.make_node("Reshape", [f"n{k}", "flat"], [f"f{k}"]),
        helper.make_node("Concat", [f"f{k}", f"f{k}"], [f"c{k}"], axis=0),
        helper.make_node("MatMul", [f"c{k}", f"b{k}"], [f"u{k}"]),
        helper.make_node("Softmax", [f"u{k}"], [f"s{k}"], axis=-1),
        helper.make_node("MatMul", [f"s{k}", f"d{k}"], [f"v{k}"]),
        helper.make_node("Split", [f"v{k}", "halves"], [f"x{k}", f"y{k}"], axis=0),
        helper.make_node("Add", [f"x{k}", f"y{k}"], [f"z{k}"]),
        helper.make_node("Reshape", [f"z{k}", "deep"], [f"h{k + 1}"]),
    ]


def test_a_batch_streams_only_through_what_is_there(tmp_path: Path) -> None:
    """What lies in the buffer of a concatenation is not made by it: experts of the second layer, whose rows are as many,
    must not run with those of the first."""
    draw = np.random.default_rng(0)
    shapes = {f"{n}{k}": (s, t) for k in range(2) for n, s, t in (("a", 16, 16), ("b", 16, 32), ("d", 32, 16))}
    weights = [numpy_helper.from_array(draw.normal(0, 1, s).astype(np.float32), n) for n, s in shapes.items()]
    for name, value in (("flat", [-1, 16]), ("deep", [4, -1, 16]), ("halves", [32, 32])):
        weights.append(numpy_helper.from_array(np.array(value), name))
    x = helper.make_tensor_value_info("h0", TensorProto.FLOAT, [4, 8, 16])
    y = helper.make_tensor_value_info("h2", TensorProto.FLOAT, [4, 8, 16])
    graph = helper.make_graph([*_routed(0), *_routed(1)], "g", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    options = Options(choices=Choices(optimize="throughput"))
    assert check_model(str(tmp_path / "m.onnx"), options, CheckOptions("float")).report.passed
