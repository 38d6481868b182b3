"""Lists whose length is known only at run time, as exporters write a mixture of experts, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc import errors
from cimc.frontend.importer import load
from cimc.ir.graph import Array
from tests.frontend.one_node import by_cimc, by_onnxruntime, ops

TOKENS, WIDTH, EXPERTS, CHOSEN = 6, 8, 4, 2


def constant(name: str, value: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def model(nodes: list[onnx.NodeProto], outputs: list[str], constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [TOKENS, WIDTH])
    ends = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    graph = helper.make_graph(nodes, "g", [x], ends, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def experts(add: bool) -> onnx.ModelProto:
    """The graph torch's TorchScript exporter writes for a loop over experts: for each the tokens that chose it (a
    NonZero), gathered, multiplied, weighted by the router, and added back by a ScatterElements: into zeros that are
    then added, or with reduction ``add``."""
    rng = np.random.default_rng(3)
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "router"], ["scores"]),
        node("Softmax", ["scores"], ["chances"], axis=-1),
        node("TopK", ["chances", "k"], ["weight", "which"], axis=-1),
        node("OneHot", ["which", "experts", "off_on"], ["hot"], axis=-1),
        node("Transpose", ["hot"], ["mask"], perm=[2, 1, 0]),
        node("Mul", ["x", "nought"], ["y0"]),
        node("Unsqueeze", ["weight", "two"], ["weight3"]),
        node("Flatten", ["weight3"], ["flat"], axis=2),
    ]
    constants = [
        constant("router", rng.standard_normal((WIDTH, EXPERTS)), np.float32),
        constant("k", [CHOSEN]),
        constant("experts", EXPERTS),
        constant("off_on", [0, 1]),
        constant("nought", 0.0, np.float32),
        constant("two", [2]),
        constant("one", [1]),
        constant("zero", [0]),
        constant("halves", [1, 1]),
        constant("rows", [-1, WIDTH]),
        constant("chosen", CHOSEN),
    ]
    for e in range(EXPERTS):
        constants += [
            constant(f"number{e}", e),
            constant(f"w{e}", rng.standard_normal((WIDTH, WIDTH)), np.float32),
        ]
        nodes += [
            node("Gather", ["mask", f"number{e}"], [f"mine{e}"], axis=0),
            node("NonZero", [f"mine{e}"], [f"at{e}"]),
            node("Transpose", [f"at{e}"], [f"places{e}"], perm=[1, 0]),
            node("Split", [f"places{e}", "halves"], [f"i{e}", f"t{e}"], axis=1),
            node("Squeeze", [f"i{e}", "one"], [f"choice{e}"]),
            node("Squeeze", [f"t{e}", "one"], [f"token{e}"]),
            node("Unsqueeze", ["x", "zero"], [f"x{e}"]),
            node("Gather", [f"x{e}", f"token{e}"], [f"taken{e}"], axis=1),
            node("Reshape", [f"taken{e}", "rows"], [f"state{e}"]),
            node("MatMul", [f"state{e}", f"w{e}"], [f"h{e}"]),
            node("Relu", [f"h{e}"], [f"r{e}"]),
            node("Mul", [f"token{e}", "chosen"], [f"from{e}"]),
            node("Add", [f"choice{e}", f"from{e}"], [f"place{e}"]),
            node("Gather", ["flat", f"place{e}"], [f"share{e}"], axis=0),
            node("Mul", [f"r{e}", f"share{e}"], [f"part{e}"]),
            node("Unsqueeze", [f"token{e}", "one"], [f"column{e}"]),
            node("Shape", [f"part{e}"], [f"size{e}"]),
            node("Expand", [f"column{e}", f"size{e}"], [f"index{e}"]),
        ]
        if add:
            scatter = node(
                "ScatterElements", [f"y{e}", f"index{e}", f"part{e}"], [f"y{e + 1}"], axis=0, reduction="add"
            )
            nodes.append(scatter)
        else:
            nodes += [
                node("Mul", ["x", "nought"], [f"clean{e}"]),
                node("ScatterElements", [f"clean{e}", f"index{e}", f"part{e}"], [f"new{e}"], axis=0),
                node("Add", [f"y{e}", f"new{e}"], [f"y{e + 1}"]),
            ]
    return model(nodes, [f"y{EXPERTS}"], constants)


@pytest.mark.parametrize("add", [False, True])
def test_a_mixture_of_experts_by_lists_of_tokens(tmp_path: Path, add: bool) -> None:
    proto = experts(add)
    feeds: dict[str, Array] = {"x": np.random.default_rng(0).standard_normal((TOKENS, WIDTH)).astype(np.float32)}
    want = by_onnxruntime(proto, feeds)
    graph, got = by_cimc(proto, feeds, tmp_path)
    np.testing.assert_allclose(got[f"y{EXPERTS}"], want[f"y{EXPERTS}"], rtol=1e-5, atol=1e-6)
    assert "host" not in ops(graph)


@pytest.mark.parametrize("kept", [[0, 2, 5], [], list(range(TOKENS))])
def test_rows_of_a_list_written_by_tuples(tmp_path: Path, kept: list[int]) -> None:
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "one"], ["column"]),
        helper.make_node("Squeeze", ["column", "one"], ["flags"]),
        helper.make_node("NonZero", ["flags"], ["at"]),
        helper.make_node("Transpose", ["at"], ["tuples"]),
        helper.make_node("GatherND", ["x", "tuples"], ["rows"]),
        helper.make_node("Exp", ["rows"], ["new"]),
        helper.make_node("ScatterND", ["x", "tuples", "new"], ["y"]),
    ]
    constants = [constant("start", [0]), constant("end", [1]), constant("one", [1])]
    x = np.random.default_rng(1).standard_normal((TOKENS, WIDTH)).astype(np.float32)
    x[[t for t in range(TOKENS) if t not in kept], 0] = 0
    proto = model(nodes, ["y"], constants)
    want = by_onnxruntime(proto, {"x": x})
    _, got = by_cimc(proto, {"x": x}, tmp_path)
    np.testing.assert_allclose(got["y"], want["y"], rtol=1e-6)


REFUSALS = {
    "the list itself": [helper.make_node("Cast", ["at"], ["y"], to=TensorProto.FLOAT)],
    "a sum over it": [
        helper.make_node("Cast", ["at"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["f", "one"], ["y"], keepdims=0),
    ],
    "its length": [
        helper.make_node("Shape", ["at"], ["n"]),
        helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT),
    ],
    "as much of something else": [
        helper.make_node("Shape", ["at"], ["n"]),
        helper.make_node("ConstantOfShape", ["n"], ["y"]),
    ],
    "its rows in another shape": [
        helper.make_node("Cast", ["at"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "all"], ["y"]),
    ],
    "two lists": [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Relu", ["minus"], ["other"]),
        helper.make_node("NonZero", ["other"], ["there"]),
        helper.make_node("Add", ["at", "there"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ],
}


@pytest.mark.parametrize("nodes", REFUSALS.values(), ids=REFUSALS.keys())
def test_what_depends_on_the_length_is_refused(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    start = [helper.make_node("Relu", ["x"], ["positive"]), helper.make_node("NonZero", ["positive"], ["at"])]
    proto = model([*start, *nodes], ["y"], [constant("one", [1]), constant("all", [-1])])
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(errors.CimcError, match="only at run time") as caught:
        load(tmp_path / "model.onnx")
    assert caught.value.code == "model-unsupported"
