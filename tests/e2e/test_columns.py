"""Work on the columns of a product where its tile lacks a unit, or where only some of its columns are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.checker import CheckOptions, check_model
from cimc.compiler import Options


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
