"""Which outputs are casts of half-precision values, whose rounding the limit of ``check`` allows for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.checker import half_precision
from cimc.frontend.importer import load


def test_an_output_cast_from_float16_counts_as_float16(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [
        node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        node("Mul", ["h", "w"], ["p"]),
        node("Cast", ["p"], ["wide"], to=TensorProto.FLOAT),
        node("Reshape", ["wide", "flat"], ["moved"]),
        node("Exp", ["wide"], ["computed"]),
        node("Relu", ["x"], ["other"]),
        node("Identity", ["p"], ["narrow"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])]
    kinds = {"moved": 1, "computed": 1, "other": 1, "narrow": 10}
    outputs = [helper.make_tensor_value_info(n, t, None) for n, t in kinds.items()]
    constants = [
        numpy_helper.from_array(np.full(3, 0.5, np.float16), "w"),
        numpy_helper.from_array(np.array([6]), "flat"),
    ]
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, tmp_path / "model.onnx")
    eps = 2.0**-10
    assert half_precision(load(tmp_path / "model.onnx").graph) == pytest.approx((eps, 0.0, 0.0, eps))
