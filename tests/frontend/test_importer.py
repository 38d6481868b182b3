"""Whole small graphs, as exporters write them, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cimc import errors
from cimc.frontend.importer import load
from cimc.origin import Origin
from tests.frontend.onnx_models import FLOAT, INT64, agree, model, ops, reference, run, save, value

RNG = np.random.default_rng(7)
node = helper.make_node


def weights(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def block(opset: int) -> onnx.ModelProto:
    """Embedding, one attention head group and a classifier with the shape arithmetic that tracing exporters write."""
    since = opset >= 13
    axes = {"ax0": np.array([0], np.int64), "ax1": np.array([1], np.int64)}

    def unsqueeze(x: str, y: str, axis: int) -> onnx.NodeProto:
        if since:
            return node("Unsqueeze", [x, f"ax{axis}"], [y])
        return node("Unsqueeze", [x], [y], axes=[axis])

    nodes = [
        node("Gather", ["table", "ids"], ["emb"], name="/emb/Gather"),
        node("Shape", ["ids"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"], axis=0),
        node("Gather", ["shape", "one"], ["seq"], axis=0),
        node("Range", ["zero", "seq", "one"], ["steps"]),
        node("Gather", ["places", "steps"], ["pos"]),
        node("Add", ["emb", "pos"], ["x"]),
        node("MatMul", ["x", "wq"], ["q0"], name="/q/MatMul"),
        node("MatMul", ["x", "wk"], ["k0"]),
        unsqueeze("batch", "batch1", 0),
        unsqueeze("seq", "seq1", 0),
        node("Concat", ["batch1", "seq1", "heads", "minus"], ["split"], axis=0),
        node("Reshape", ["q0", "split"], ["q1"]),
        node("Reshape", ["k0", "split"], ["k1"]),
        node("Transpose", ["q1"], ["q"], perm=[0, 2, 1, 3]),
        node("Transpose", ["k1"], ["k"], perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["s0"]),
        node("Div", ["s0", "root"], ["s1"]),
        node("Cast", ["mask"], ["m0"], to=FLOAT),
        node("Sub", ["onef", "m0"], ["m1"]),
        node("Mul", ["m1", "big"], ["m2"]),
        unsqueeze("m2", "m3", 1),
        unsqueeze("m3", "m4", 1),
        node("Add", ["s1", "m4"], ["s2"]),
        node("Softmax", ["s2"], ["p"], axis=3 if not since else -1),
        node("MatMul", ["p", "q"], ["o0"]),
        node("Transpose", ["o0"], ["o1"], perm=[0, 2, 1, 3]),
        node("Reshape", ["o1", "merge"], ["o2"]),
        node("MatMul", ["o2", "wo"], ["o3"]),
        node("Add", ["x", "o3"], ["y"]),
    ]
    tensors = {
        "table": weights(20, 8), "places": weights(16, 8), "wq": weights(8, 8), "wk": weights(8, 8),
        "wo": weights(8, 8), "zero": np.array(0, np.int64), "one": np.array(1, np.int64),
        "heads": np.array([2], np.int64), "minus": np.array([-1], np.int64),
        "root": np.array(2.0, np.float32), "onef": np.array(1.0, np.float32), "big": np.array(-1e4, np.float32),
        "merge": np.array([0, -1, 8], np.int64), **(axes if since else {}),
    }  # fmt: skip
    inputs = [value("ids", ["batch", "seq"], INT64), value("mask", ["batch", "seq"], INT64)]
    return model(nodes, inputs, [value("y", ["batch", "seq", 8])], tensors, opset=opset)


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 21])
def test_a_traced_attention_block_agrees_and_its_shape_arithmetic_is_gone(tmp_path: Path, opset: int) -> None:
    feeds = {"ids": RNG.integers(0, 20, (2, 5)), "mask": np.array([[1] * 5, [1, 1, 1, 0, 0]])}
    imported = agree(tmp_path, block(opset), feeds)
    assert ops(imported).count("matmul") == 5
    assert not {"concat", "host", "expand"} & set(ops(imported))
    assert ops(imported).count("gather") == 1, "the positions are constants: only the tokens are looked up"
    assert {n.origin for n in imported.graph.nodes if n.op == "gather"} == {Origin("/emb/Gather", "Gather")}


def test_values_keep_the_names_of_the_model(tmp_path: Path) -> None:
    path = save(tmp_path, block(17))
    imported = load(path, dims={"batch": 1, "seq": 4})
    assert {"q", "k", "s0", "p", "y"} <= imported.graph.types.keys()
    assert {"table", "wq", "wk", "wo"} <= imported.constants.keys()
    assert imported.graph.outputs == ("y",)
    assert imported.graph.level == "imported"


def test_the_hash_covers_the_file(tmp_path: Path) -> None:
    a, b = save(tmp_path, block(17), "a.onnx"), save(tmp_path, block(18), "b.onnx")
    assert load(a).model_hash == load(a).model_hash
    assert load(a).model_hash != load(b).model_hash


def test_importing_twice_gives_the_same_graph(tmp_path: Path) -> None:
    path = save(tmp_path, block(17))
    assert load(path).graph == load(path).graph


def test_inputs_that_are_outputs_and_outputs_given_twice(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"]), node("Identity", ["y"], ["z"]), node("Identity", ["x"], ["w"])]
    agree(tmp_path, model(nodes, [value("x", [2, 3])], ["y", "z", "w"]), {"x": weights(2, 3)})


def test_a_constant_output(tmp_path: Path) -> None:
    nodes = [node("Shape", ["x"], ["s"]), node("Relu", ["x"], ["y"])]
    agree(tmp_path, model(nodes, [value("x", [2, 3])], [value("s", [2], INT64), "y"]), {"x": weights(2, 3)})


def test_initializers_that_are_inputs_are_defaults(tmp_path: Path) -> None:
    proto = model([node("Mul", ["x", "w"], ["y"])], [value("x", [2]), value("w", [2])], ["y"], {"w": weights(2)})
    assert load(save(tmp_path, proto)).graph.inputs == ("x",)


def test_nodes_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    nodes = [node("Neg", ["a"], ["y"]), node("Relu", ["x"], ["a"])]
    path = save(tmp_path, model(nodes, [value("x", [3])], ["y"]))
    x = weights(3)
    np.testing.assert_array_equal(run(load(path), {"x": x})[0], -np.maximum(x, 0))


def passed_on(name: str) -> onnx.AttributeProto:
    """An attribute that takes the value of the calling function's attribute ``slope``."""
    return onnx.AttributeProto(name=name, ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)


def test_functions_are_inlined_with_their_attributes(tmp_path: Path) -> None:
    leaky = node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.append(passed_on("alpha"))
    inner = helper.make_function("f", "Inner", ["a"], ["b"], [leaky], [helper.make_opsetid("", 17)], ["slope"])
    call = node("Inner", ["c"], ["d"], domain="f")
    call.attribute.append(passed_on("slope"))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    outer = helper.make_function("f", "Outer", ["c"], ["e"], [call, node("Neg", ["d"], ["e"])], imports, ["slope"])
    nodes = [
        node("Outer", ["x"], ["y"], domain="f", slope=0.25, name="first"),
        node("Outer", ["y"], ["z"], domain="f", slope=0.75, name="second"),
    ]
    proto = model(nodes, [value("x", [4])], [value("z", [4])], functions=[inner, outer], domains={"f": 1})
    imported = agree(tmp_path, proto, {"x": weights(4)})
    assert imported.graph.nodes[0].origin.node.startswith("first/Inner_0/LeakyRelu")


def branches(then: onnx.GraphProto, other: onnx.GraphProto) -> onnx.NodeProto:
    return node("If", ["c"], ["y"], then_branch=then, else_branch=other)


def graph(
    nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], inputs: list[onnx.ValueInfoProto] | None = None
) -> onnx.GraphProto:
    return helper.make_graph(nodes, "sub", inputs or [], outputs)


@pytest.mark.parametrize("condition", [False, True])
def test_an_if_decided_at_run_time_selects(tmp_path: Path, condition: bool) -> None:
    then = graph([node("MatMul", ["x", "w"], ["t"])], [value("t", [2, 3])])
    other = graph([node("Neg", ["v"], ["e"])], [value("e", [2, 3])])
    nodes = [node("Relu", ["x"], ["v"]), branches(then, other)]
    inputs = [value("x", [2, 3]), value("c", [], TensorProto.BOOL)]
    proto = model(nodes, inputs, [value("y", [2, 3])], {"w": weights(3, 3)})
    imported = agree(tmp_path, proto, {"x": weights(2, 3), "c": np.array(condition)})
    assert ops(imported).count("select") == 1


@pytest.mark.parametrize("cached", [False, True])
def test_an_if_whose_branches_differ_in_shape_is_decided_by_the_inputs_given(tmp_path: Path, cached: bool) -> None:
    """As optimum merges a decoder with and one without a cache."""
    then = graph([node("Concat", ["past", "x"], ["t"], axis=0)], [value("t", None)])
    other = graph([node("Relu", ["x"], ["e"])], [value("e", None)])
    inputs = [value("x", [2, 3]), value("past", ["p", 3]), value("c", [1], TensorProto.BOOL)]
    path = save(tmp_path, model([branches(then, other)], inputs, [value("y", None)]))
    feeds = {"x": weights(2, 3), "past": weights(4, 3), "c": np.array([cached])}
    with pytest.raises(errors.CimcError, match="--inputs"):
        load(path, inputs=feeds)
    imported = load(path, inputs=feeds, specialize=True)
    assert imported.fixed == {"c"}
    y = imported.graph.outputs[0]
    assert imported.graph.types[y].shape == ((6, 3) if cached else (2, 3))


def test_an_if_decided_by_a_shape_leaves_one_branch(tmp_path: Path) -> None:
    then = graph([node("Neg", ["x"], ["t"])], [value("t", None)])
    other = graph([node("Unsqueeze", ["x", "ax"], ["e"])], [value("e", None)])
    nodes = [node("Size", ["x"], ["n"]), node("Less", ["n", "ten"], ["c"]), branches(then, other)]
    tensors = {"ax": np.array([0], np.int64), "ten": np.array(10, np.int64)}
    imported = agree(tmp_path, model(nodes, [value("x", ["n"])], [value("y", None)], tensors), {"x": weights(4)})
    assert ops(imported) == ["neg"]


def test_branches_of_different_shapes_are_refused(tmp_path: Path) -> None:
    then = graph([node("Neg", ["x"], ["t"])], [value("t", [3])])
    other = graph([node("Concat", ["x", "x"], ["e"], axis=0)], [value("e", [6])])
    proto = model([branches(then, other)], [value("x", [3]), value("c", [], TensorProto.BOOL)], [value("y", None)])
    with pytest.raises(errors.CimcError, match=r"its branches give f32\[3\] and f32\[6\]"):
        load(save(tmp_path, proto))


def loop_body() -> onnx.GraphProto:
    nodes = [
        node("Mul", ["s", "w"], ["s1"]),
        node("Cast", ["i"], ["fi"], to=FLOAT),
        node("Add", ["s1", "fi"], ["s2"]),
        node("Identity", ["c"], ["c2"]),
        node("ReduceSum", ["s2"], ["sum"], keepdims=0),
    ]
    inputs = [value("i", [], INT64), value("c", [], TensorProto.BOOL), value("s", [3])]
    return graph(nodes, [value("c2", [], TensorProto.BOOL), value("s2", [3]), value("sum", [])], inputs)


def test_a_loop_with_a_known_count_is_unrolled(tmp_path: Path) -> None:
    nodes = [node("Loop", ["n", "", "x"], ["y", "sums"], body=loop_body())]
    proto = model(nodes, [value("x", [3])], ["y", "sums"], {"n": np.array(4, np.int64), "w": weights(3)})
    imported = agree(tmp_path, proto, {"x": weights(3)})
    assert ops(imported).count("mul") == 4


def test_a_loop_counted_by_an_input_is_refused_or_specialised(tmp_path: Path) -> None:
    nodes = [node("Loop", ["n", "", "x"], ["y", "sums"], body=loop_body())]
    proto = model(nodes, [value("x", [3]), value("n", [], INT64)], ["y", "sums"], {"w": weights(3)})
    path = save(tmp_path, proto)
    feeds = {"x": weights(3), "n": np.array(3)}
    with pytest.raises(errors.CimcError, match="trip count"):
        load(path, inputs=feeds)
    imported = load(path, inputs=feeds, specialize=True)
    assert imported.graph.inputs == ("x",)
    assert any("'n'" in note for note in imported.notes)
    for got, want in zip(run(imported, feeds), reference(path, feeds), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_a_scan_is_unrolled(tmp_path: Path) -> None:
    body = graph(
        [node("Add", ["s", "v"], ["s2"]), node("Identity", ["s2"], ["o"])],
        [value("s2", [2]), value("o", [2])],
        [value("s", [2]), value("v", [2])],
    )
    nodes = [node("Scan", ["s0", "x"], ["s1", "all"], body=body, num_scan_inputs=1, scan_input_directions=[1])]
    agree(
        tmp_path,
        model(nodes, [value("s0", [2]), value("x", [5, 2])], ["s1", "all"]),
        {"s0": weights(2), "x": weights(5, 2)},
    )


def test_what_tiles_cannot_do_becomes_a_host_call(tmp_path: Path) -> None:
    nodes = [
        node("GridSample", ["x", "g"], ["a"], name="sample"),
        node("Relu", ["a"], ["y"]),
    ]
    proto = model(nodes, [value("x", [1, 1, 4, 4]), value("g", [1, 3, 3, 2])], ["y"])
    imported = agree(tmp_path, proto, {"x": weights(1, 1, 4, 4), "g": weights(1, 3, 3, 2).clip(-1, 1)})
    host = imported.graph.nodes[0]
    assert (host.op, host.attr("op_type"), host.attr("types")) == ("host", "GridSample", ("f32[1x1x3x3]",))
    assert host.attr("reason")


def test_everything_unsupported_is_reported_at_once(tmp_path: Path) -> None:
    nodes = [
        node("RandomNormalLike", ["x"], ["a"], name="noise"),
        node("Unique", ["x"], ["b"], name="where"),
        node("Strange", ["x"], ["d"], domain="com.example", name="odd"),
        node("Relu", ["b"], ["y"], name="after"),
    ]
    path = save(tmp_path, model(nodes, [value("x", [3])], ["a", "y", "d"], domains={"com.example": 1}))
    with pytest.raises(errors.CimcErrors) as caught:
        load(path)
    assert [e.code for e in caught.value.errors] == ["model-unsupported"] * 3
    message = str(caught.value)
    assert all(name in message for name in ("'noise'", "'where'", "'odd'"))
    assert "'after'" not in message


def test_a_contradiction_names_the_node_and_the_dims(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="proj")]
    path = save(tmp_path, model(nodes, [value("x", ["n", "m"])], ["y"], {"w": weights(4, 4)}))
    with pytest.raises(errors.CimcError) as caught:
        load(path, dims={"n": 2, "m": 3})
    assert caught.value.code == "model-node"
    assert "proj" in str(caught.value)
    assert "m = 3" in str(caught.value)


def test_products_of_numbers_of_different_kinds_are_refused_as_a_node(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="proj")]
    whole = weights(4, 4).astype(np.int32)
    with pytest.raises(errors.CimcError, match=r"'proj'.*f32\[2x4\] and i32\[4x4\]") as caught:
        load(save(tmp_path, model(nodes, [value("x", [2, 4])], ["y"], {"w": whole})))
    assert caught.value.code == "model-node"


def test_sequences_inside_the_model(tmp_path: Path) -> None:
    nodes = [
        node("SplitToSequence", ["x", "two"], ["parts"], axis=0),
        node("SequenceAt", ["parts", "one"], ["p"]),
        node("SequenceInsert", ["parts", "p"], ["more"]),
        node("ConcatFromSequence", ["more"], ["y"], axis=0),
        node("SequenceLength", ["more"], ["n"]),
    ]
    tensors = {"two": np.array(2, np.int64), "one": np.array(1, np.int64)}
    proto = model(nodes, [value("x", [5, 2])], [value("y", None), value("n", [], INT64)], tensors)
    agree(tmp_path, proto, {"x": weights(5, 2)})


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_top_k_finds_every_place_once(tmp_path: Path, largest: int, dtype: type) -> None:
    """Also where the rows hold the very value that stands in for elements already found."""
    x = np.array([[1, 5, 5, 2], [0, 0, 0, 0]], dtype)
    worst = np.iinfo(dtype).min if dtype is np.int64 else -np.inf
    x = np.vstack([x, np.full((1, 4), worst, dtype)])
    nodes = [node("TopK", ["x", "k"], ["y", "i"], largest=largest)]
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    proto = model(nodes, [value("x", [3, 4], code)], ["y", "i"], {"k": np.array([3], np.int64)})
    assert "host" not in ops(agree(tmp_path, proto, {"x": x}))
