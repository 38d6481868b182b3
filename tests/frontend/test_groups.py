"""Sequences and optionals among a model's inputs and outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cimc import errors
from cimc.frontend import groups
from cimc.frontend.importer import load
from tests.frontend.onnx_models import INT64, model, run, save, value

A, B = np.array([1.0, 2.0], np.float32), np.array([3.0], np.float32)
SEQUENCE = helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, None)
node = helper.make_node


def optional(name: str, kind: onnx.TypeProto) -> onnx.ValueInfoProto:
    return helper.make_value_info(name, helper.make_optional_type_proto(kind))


def test_elements_are_tensors_of_their_own(tmp_path: Path) -> None:
    nodes = [
        node("SequenceAt", ["x", "one"], ["b"]),
        node("SequenceInsert", ["x", "b"], ["y"]),
        node("SequenceLength", ["x"], ["n"]),
    ]
    outputs = [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None), value("n", [], INT64)]
    proto = model(nodes, [SEQUENCE], outputs, {"one": np.array(1)})
    given = {"x.0": A, "x.1": B}
    imported = load(save(tmp_path, proto), inputs=given)
    assert imported.graph.inputs == ("x.0", "x.1")
    assert imported.graph.output_names == ("y.0", "y.1", "y.2", "n")
    found = groups.gathered(["y", "n"], dict(zip(imported.graph.output_names, run(imported, given), strict=True)))
    want = ReferenceEvaluator(proto).run(None, {"x": [A, B]})
    assert [v.tolist() for v in found["y"]] == [v.tolist() for v in want[0]]
    assert found["n"] == want[1]


def test_a_sequence_needs_inputs(tmp_path: Path) -> None:
    proto = model([node("SequenceAt", ["x", "zero"], ["y"])], [SEQUENCE], ["y"], {"zero": np.array(0)})
    with pytest.raises(errors.CimcError, match="it is a sequence") as caught:
        load(save(tmp_path, proto))
    assert caught.value.code == "model-input"


def test_a_position_beyond_the_given_elements(tmp_path: Path) -> None:
    proto = model([node("SequenceAt", ["x", "two"], ["y"])], [SEQUENCE], ["y"], {"two": np.array(2)})
    with pytest.raises(errors.CimcError, match="a sequence of 2"):
        load(save(tmp_path, proto), inputs={"x.0": A, "x.1": B})


@pytest.mark.parametrize("given", [{"x": A}, {}], ids=["there", "absent"])
def test_an_optional_tensor(tmp_path: Path, given: dict[str, np.ndarray]) -> None:
    kind = helper.make_tensor_type_proto(TensorProto.FLOAT, [2])
    proto = model(
        [node("OptionalHasElement", ["x"], ["y"])], [optional("x", kind)], [value("y", [], TensorProto.BOOL)], opset=18
    )
    imported = load(save(tmp_path, proto), inputs=given)
    assert run(imported, given)[0] == bool(given)


def test_an_optional_sequence(tmp_path: Path) -> None:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    nodes = [node("OptionalGetElement", ["x"], ["s"]), node("ConcatFromSequence", ["s"], ["y"], axis=0)]
    imported = load(save(tmp_path, model(nodes, [optional("x", kind)], ["y"])), inputs={"x.0": A, "x.1": B})
    np.testing.assert_array_equal(run(imported, {"x.0": A, "x.1": B})[0], np.concatenate((A, B)))


def test_branches_with_sequences_are_selected_element_by_element(tmp_path: Path) -> None:
    def branch(name: str, first: str, second: str) -> onnx.GraphProto:
        end = helper.make_tensor_sequence_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([node("SequenceConstruct", [first, second], [name])], name, [], [end])

    choice = node("If", ["c"], ["s"], then_branch=branch("t", "a", "b"), else_branch=branch("e", "b", "a"))
    nodes = [choice, node("SequenceAt", ["s", "zero"], ["y"])]
    inputs = [value("c", [], TensorProto.BOOL), value("a", [2]), value("b", [2])]
    proto = model(nodes, inputs, [value("y", [2])], {"zero": np.array(0)})
    for c in (True, False):
        feeds = {"c": np.array(c), "a": A, "b": -A}
        imported = load(save(tmp_path, proto), inputs=feeds)
        np.testing.assert_array_equal(run(imported, feeds)[0], A if c else -A)
