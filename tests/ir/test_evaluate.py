"""Graphs run by the ops' references: against NumPy written out by hand, and onnxruntime for host nodes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import pytest

from cimc import errors
from cimc.ir.evaluate import evaluate, evaluate_all
from cimc.ir.graph import Graph, Node, Type
from cimc.isa.operands import Element
from cimc.ops import Arithmetic

F32 = Element.F32


def small() -> tuple[Graph, dict[str, np.ndarray]]:
    nodes = (
        Node("mul", ("x", "c"), ("a",)),
        Node("neg", ("a",), ("b",)),
        Node("add", ("b", "x"), ("y",)),
    )
    t = Type(F32, (2, 3))
    types = {"x": t, "a": t, "b": t, "y": t, "c": Type(F32, ())}
    graph = Graph("small", "imported", ("x",), ("y",), nodes, types, frozenset({"c"}))
    return graph, {"c": np.array(3, np.float32)}


def test_outputs_are_computed_in_order() -> None:
    graph, constants = small()
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(evaluate(graph, constants, {"x": x}, Arithmetic())["y"], x - 3 * x)


def test_intermediates_are_watched_and_kept() -> None:
    graph, constants = small()
    x = np.ones((2, 3), np.float32)
    seen: list[str] = []
    found = evaluate_all(
        graph,
        constants,
        {"x": x},
        Arithmetic(),
        keep=("a", "x", "c"),
        watch=lambda node, name, value: seen.append(name),
    )
    assert seen == ["a", "b", "y"]
    assert found.keys() == {"a", "x", "c"}
    assert np.array_equal(found["a"], 3 * x)


def test_scalars_stay_scalars() -> None:
    t = Type(F32, ())
    graph = Graph("s", "imported", ("x",), ("y",), (Node("neg", ("x",), ("y",)),), {"x": t, "y": t})
    y = evaluate(graph, {}, {"x": np.array(2, np.float32)}, Arithmetic())["y"]
    assert y.shape == ()
    assert y == -2


@pytest.mark.parametrize("bad", [{}, {"x": np.ones((3, 2), np.float32)}, {"x": np.ones((2, 3), np.float64)}])
def test_wrong_inputs_are_refused(bad: dict[str, np.ndarray]) -> None:
    graph, constants = small()
    with pytest.raises(errors.CimcError, match=r"graph-input.*input 'x' of small"):
        evaluate(graph, constants, bad, Arithmetic())


def test_a_type_that_does_not_hold_is_a_bug() -> None:
    graph, constants = small()
    wrong = Graph("w", "imported", ("x",), ("y",), graph.nodes, {**graph.types, "b": Type(F32, (3, 2))})
    with pytest.raises(AssertionError, match="value b of neg"):
        evaluate(wrong, constants, {"x": np.ones((2, 3), np.float32)}, Arithmetic())


def mvm() -> tuple[Graph, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    w = rng.standard_normal((4, 5)).astype(np.float32)
    scale = np.abs(w).max(axis=0) / np.float32(127)
    nodes = (
        Node("quantize", ("x",), ("xq", "xs")),
        Node("mvm", ("xq", "w.q8"), ("acc",)),
        Node("dequantize", ("acc", "xs", "w.scale"), ("y",)),
    )
    types = {
        "x": Type(F32, (3, 4)),
        "xq": Type(Element.Q8, (3, 4)),
        "xs": Type(F32, (3, 1)),
        "w.q8": Type(Element.Q8, (4, 5)),
        "acc": Type(Element.Q32, (3, 5)),
        "w.scale": Type(F32, (5,)),
        "y": Type(F32, (3, 5)),
    }
    graph = Graph("m", "quantized", ("x",), ("y",), nodes, types, frozenset({"w.q8", "w.scale"}))
    codes = np.rint(w / scale).astype(np.int8)
    constants = {"w.q8": codes, "w.q8.float": w, "w.scale": scale}
    return graph, constants, rng.standard_normal((3, 4)).astype(np.float32), w


def test_float_numerics_use_the_float_companion() -> None:
    graph, constants, x, w = mvm()
    assert np.array_equal(evaluate(graph, constants, {"x": x}, Arithmetic(exact=True))["y"], x @ w)


def test_integer_numerics_use_the_codes() -> None:
    graph, constants, x, _ = mvm()
    scale = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    codes = np.rint(x / scale).astype(np.int64)
    want = (codes @ constants["w.q8"].astype(np.int64)).astype(np.float32) * (scale * constants["w.scale"])
    assert np.array_equal(evaluate(graph, constants, {"x": x}, Arithmetic(exact=False))["y"], want)


def host(op: onnx.NodeProto, inputs: list[onnx.ValueInfoProto]) -> np.ndarray:
    outputs = [oh.make_empty_tensor_value_info(o) for o in op.output]
    model = oh.make_model(oh.make_graph([op], "g", inputs, outputs), opset_imports=[oh.make_opsetid("", 17)])
    model.ir_version = 8
    return np.frombuffer(model.SerializeToString(), np.uint8)


def test_host_nodes_run_by_onnxruntime() -> None:
    call = host(
        oh.make_node("Trilu", ["x", "k"], ["y"], upper=0),
        [oh.make_tensor_value_info("x", 1, [3, 3]), oh.make_tensor_value_info("k", 7, [])],
    )
    attrs = (("op_type", "Trilu"), ("call", "c"), ("types", ("f32[3x3]",)), ("reason", "no unit"))
    types = {"x": Type(F32, (3, 3)), "k": Type(Element.I64, ()), "y": Type(F32, (3, 3))}
    graph = Graph("h", "imported", ("x",), ("y",), (Node("host", ("x", "k"), ("y",), attrs),), types, frozenset({"k"}))
    x = np.arange(9, dtype=np.float32).reshape(3, 3)
    y = evaluate(graph, {"c": call, "k": np.array(0, np.int64)}, {"x": x}, Arithmetic())["y"]
    assert np.array_equal(y, np.tril(x))


def test_a_host_node_that_cannot_run_is_told_in_one_message() -> None:
    attrs = (("op_type", "Nope"), ("call", "c"), ("types", ("f32[1]",)), ("reason", "no unit"))
    types = {"x": Type(F32, (1,)), "y": Type(F32, (1,))}
    graph = Graph("h", "imported", ("x",), ("y",), (Node("host", ("x",), ("y",), attrs),), types)
    with pytest.raises(errors.CimcError, match="host-node"):
        evaluate(graph, {"c": np.zeros(4, np.uint8)}, {"x": np.ones(1, np.float32)}, Arithmetic())
