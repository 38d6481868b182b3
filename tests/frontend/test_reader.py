"""Files that are not what they say: each is refused with one clear message, never a traceback."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.external_data_helper import set_external_data

from cimc import errors
from cimc.frontend import importer
from cimc.frontend.importer import load
from cimc.mapped import is_mapped
from tests.frontend.onnx_models import INT64, agree, model, save, value

node = helper.make_node
W = np.arange(6, dtype=np.float32).reshape(2, 3)


def simple(**overrides: object) -> onnx.ModelProto:
    return model([node("MatMul", ["x", "w"], ["y"])], [value("x", [4, 2])], ["y"], {"w": W})


def refused(path: Path, code: str, *words: str) -> None:
    with pytest.raises(errors.CimcError) as caught:
        load(path)
    assert caught.value.code == code
    assert caught.value.exit == errors.Exit.USAGE
    for word in words:
        assert word in str(caught.value)


def external(folder: Path, **entries: object) -> Path:
    """The model with its weight in a data file, and the given entries changed."""
    proto = simple()
    tensor = proto.graph.initializer[0]
    (folder / "m.onnx.data").write_bytes(b"\0" * 16 + W.tobytes())
    set_external_data(tensor, location="m.onnx.data", offset=16, length=24)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for entry in list(tensor.external_data):
        if entry.key in entries:
            entry.value = str(entries[entry.key])
    return save(folder, proto)


def test_external_data_is_read_in_place(tmp_path: Path) -> None:
    imported = load(external(tmp_path))
    weight = imported.constants["w"]
    np.testing.assert_array_equal(weight, W)
    assert is_mapped(weight)


def test_the_hash_covers_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    before = load(path).model_hash
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 16 + (W + 1).tobytes())
    assert load(path).model_hash != before


def test_missing_external_data(tmp_path: Path) -> None:
    path = external(tmp_path)
    (tmp_path / "m.onnx.data").unlink()
    refused(path, "model-external-data", "'w'", "m.onnx.data", "missing")


@pytest.mark.parametrize("location", ["../m.onnx.data", "/etc/passwd", "a/../../x", "", "C:/x", "..\\x"])
def test_external_data_stays_in_the_folder(tmp_path: Path, location: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "m.onnx.data").write_bytes(b"\0" * 64)
    refused(external(inner, location=location), "model-external-data", "'w'")


def test_external_data_through_a_link_that_leaves(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(b"\0" * 64)
    path = external(inner)
    (inner / "m.onnx.data").unlink()
    (inner / "m.onnx.data").symlink_to(secret)
    refused(path, "model-external-data", "link")


@pytest.mark.parametrize(
    ("entries", "word"),
    [
        ({"offset": 17}, "ends at byte 40"),
        ({"offset": 1 << 40}, "ends at byte 40"),
        ({"length": 20}, "needs 24"),
        ({"offset": -1}, "no number of bytes"),
        ({"offset": "9" * 30}, "no number of bytes"),
    ],
)
def test_external_ranges(tmp_path: Path, entries: dict[str, object], word: str) -> None:
    refused(external(tmp_path, **entries), "model-external-data", word)


def test_a_folder_with_a_model(tmp_path: Path) -> None:
    save(tmp_path, simple(), "model.onnx")
    assert load(tmp_path).graph.outputs == ("y",)


def test_a_folder_without_one(tmp_path: Path) -> None:
    refused(tmp_path, "file-unreadable", "model.onnx")
    refused(tmp_path / "absent.onnx", "file-not-found")


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is text\n" * 20, b"\x00" * 100, b"version https://git-lfs.github.com/spec/v1\n"]
)
def test_files_that_are_no_models(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(data)
    refused(path, "model-not-onnx")


def test_a_truncated_model(tmp_path: Path) -> None:
    path = save(tmp_path, simple())
    data = path.read_bytes()
    for cut in range(1, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(errors.CimcError):
            load(path)


def test_damaged_models_never_crash(tmp_path: Path) -> None:
    """Bytes changed at random: whatever comes of it is a graph or a clear message."""
    draw = random.Random(11)
    data = simple().SerializeToString()
    path = tmp_path / "m.onnx"
    outcomes = {"read": 0, "refused": 0}
    for _ in range(400):
        damaged = bytearray(data)
        for _ in range(draw.randint(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            load(path)
            outcomes["read"] += 1
        except errors.CimcError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_a_file_too_large(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with path.open("wb") as f:
        f.truncate(1 << 31)
    refused(path, "model-too-large", "external data")


def change(edit: Callable[[onnx.GraphProto], object]) -> onnx.ModelProto:
    proto = simple()
    edit(proto.graph)
    return proto


def dims(values: list[int]) -> Callable[[onnx.GraphProto], object]:
    def edit(graph: onnx.GraphProto) -> None:
        del graph.initializer[0].dims[:]
        graph.initializer[0].dims.extend(values)

    return edit


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (dims([2, 4]), "claims 2x4"),
        (dims([1 << 20, 1 << 20]), "claims"),
        (dims([1 << 41]), "impossible shape"),
        (dims([-2, -3]), "impossible shape"),
        (dims([1] * 33), "33 dimensions"),
        (lambda g: g.node.append(node("Relu", ["x"], ["y"])), "'y' is produced by"),
        (lambda g: g.node.append(node("Relu", ["y"], ["x"])), "'x' is produced by"),
        (lambda g: g.initializer.append(g.initializer[0]), "two initializers are called 'w'"),
        (lambda g: g.input.append(value("x", [1])), "two inputs are called 'x'"),
        (lambda g: g.node.extend([node("Neg", ["b"], ["a"]), node("Neg", ["a"], ["b"])]), "cycle"),
        (lambda g: g.output.append(onnx.ValueInfoProto(name="nowhere")), "'nowhere'"),
        (lambda g: g.node.append(onnx.NodeProto(output=["z"])), "no op type"),
        (lambda g: g.input.append(value("n", [1 << 50])), "dimension of"),
        (lambda g: g.sparse_initializer.add(), "sparse"),
    ],
)
def test_models_that_contradict_themselves(
    tmp_path: Path, edit: Callable[[onnx.GraphProto], object], word: str
) -> None:
    refused(save(tmp_path, change(edit)), "model-malformed", word)


def test_a_name_that_nothing_produces(tmp_path: Path) -> None:
    proto = change(lambda g: g.node.append(node("Relu", ["ghost"], ["z"], name="r")))
    refused(save(tmp_path, proto), "model-node", "'r'", "'ghost'")


def test_opsets_out_of_range(tmp_path: Path) -> None:
    proto = simple()
    proto.opset_import[0].version = 99
    refused(save(tmp_path, proto), "model-malformed", "opset 99")


def test_old_opsets_are_read_where_they_say_the_same(tmp_path: Path) -> None:
    proto = simple()
    proto.opset_import[0].version = 6
    assert [n.op for n in load(save(tmp_path, proto)).graph.nodes] == ["matmul"]
    proto.graph.node[0].op_type = "Add"
    refused(save(tmp_path, proto), "model-malformed", "opset 6", "'Add'")


def test_functions_that_call_themselves(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    ping = helper.make_function("f", "Ping", ["a"], ["b"], [node("Pong", ["a"], ["b"], domain="f")], imports)
    pong = helper.make_function("f", "Pong", ["a"], ["b"], [node("Ping", ["a"], ["b"], domain="f")], imports)
    nodes = [node("Ping", ["x"], ["y"], domain="f", name="start")]
    proto = model(nodes, [value("x", [2])], ["y"], functions=[ping, pong], domains={"f": 1})
    refused(save(tmp_path, proto), "model-node", "calls itself")


def test_functions_that_multiply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty levels of a function that calls the next one twice are 2^30 nodes."""
    monkeypatch.setattr(importer, "MAX_INLINED", 2000)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    made = [helper.make_function("f", "F0", ["a"], ["b"], [node("Neg", ["a"], ["b"])], imports)]
    for i in range(1, 30):
        twice = [node(f"F{i - 1}", ["a"], ["m"], domain="f"), node(f"F{i - 1}", ["m"], ["b"], domain="f")]
        made.append(helper.make_function("f", f"F{i}", ["a"], ["b"], twice, imports))
    proto = model([node("F29", ["x"], ["y"], domain="f")], [value("x", [2])], ["y"], functions=made, domains={"f": 1})
    refused(save(tmp_path, proto), "model-too-large", "number of nodes")


def test_deeply_nested_subgraphs(tmp_path: Path) -> None:
    inner = helper.make_graph([node("Neg", ["x"], ["y0"])], "g0", [], [onnx.ValueInfoProto(name="y0")])
    for i in range(1, 28):
        choice = (
            node("If", ["c"], [f"y{i}"], then_branch=inner, else_branch=inner)
            if i < 3
            else node("If", ["c"], [f"y{i}"], then_branch=inner)
        )
        inner = helper.make_graph([choice], f"g{i}", [], [onnx.ValueInfoProto(name=f"y{i}")])
    proto = model(list(inner.node), [value("x", [2]), value("c", [], TensorProto.BOOL)], ["y27"])
    path = save(tmp_path, proto)
    with pytest.raises(errors.CimcError) as caught:
        load(path)
    assert caught.value.code in ("model-malformed", "model-not-onnx")


@pytest.mark.parametrize(
    ("info", "word"),
    [
        (value("x", [2], TensorProto.STRING), "STRING"),
        (value("x", [2], TensorProto.COMPLEX64), "COMPLEX64"),
        (helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [2]), "sequence"),
        (onnx.ValueInfoProto(name="x"), "not declared"),
        (value("x", None), "number of dimensions"),
        (value("x", [1 << 20, 1 << 20]), "more than the limit"),
    ],
)
def test_inputs_nothing_can_hold(tmp_path: Path, info: onnx.ValueInfoProto, word: str) -> None:
    refused(save(tmp_path, model([node("Identity", ["x"], ["y"])], [info], ["y"])), "model-input", "'x'", word)


def test_constants_that_would_not_fit(tmp_path: Path) -> None:
    nodes = [node("ConstantOfShape", ["s"], ["big"], name="fill"), node("Add", ["big", "x"], ["y"])]
    proto = model(nodes, [value("x", [1])], ["y"], {"s": np.array([1 << 20, 1 << 20], np.int64)})
    refused(save(tmp_path, proto), "model-unsupported", "fill", "limit")


def test_values_that_would_not_fit(tmp_path: Path) -> None:
    nodes = [node("Expand", ["x", "s"], ["y"], name="wide")]
    proto = model(nodes, [value("x", [1])], ["y"], {"s": np.array([1 << 20, 1 << 20], np.int64)})
    refused(save(tmp_path, proto), "model-unsupported", "wide", "limit")


@pytest.mark.parametrize(
    "huge",
    [
        node("OneHot", ["i", "depth", "x"], ["y"]),
        node("Pad", ["x", "wide"], ["y"], mode="edge"),
        node("Pad", ["x", "wide"], ["y"]),
        node("Tile", ["x", "times"], ["y"]),
        node("Range", ["zero", "depth", "one"], ["y"]),
        node("Split", ["x"], ["y"], num_outputs=1 << 40),
        node("Resize", ["pixels", "", "", "sizes"], ["y"]),
        node("Upsample", ["pixels", "scales"], ["y"]),
    ],
    ids=lambda n: n.op_type,
)
def test_nodes_that_would_make_something_huge(tmp_path: Path, huge: onnx.NodeProto) -> None:
    """Refused before anything of that size is made."""
    tensors = {
        "i": np.array([1], np.int64),
        "depth": np.array(1 << 40, np.int64),
        "wide": np.array([0, 1 << 40], np.int64),
        "times": np.array([1 << 40], np.int64),
        "zero": np.array(0, np.int64),
        "one": np.array(1, np.int64),
        "pixels": np.ones((1, 1, 2, 2), np.float32),
        "sizes": np.array([1, 1, 1 << 20, 1 << 20], np.int64),
        "scales": np.array([1, 1, 1 << 19, 1 << 19], np.float32),
    }
    opset = 9 if huge.op_type == "Upsample" else 18
    used = {n: a for n, a in tensors.items() if n in huge.input}
    proto = model([huge, node("Neg", ["x"], ["z"])], [value("x", [2])], ["y", "z"], used, opset=opset)
    with pytest.raises(errors.CimcError) as caught:
        load(save(tmp_path, proto))
    assert caught.value.code in ("model-unsupported", "model-node")


def test_attributes_of_the_wrong_kind(tmp_path: Path) -> None:
    nodes = [node("Concat", ["x", "x"], ["y"], axis="rows", name="c")]
    refused(save(tmp_path, model(nodes, [value("x", [2])], ["y"])), "model-node", "'axis'")


@pytest.mark.parametrize(
    "bad",
    [
        node("Transpose", ["x"], ["y"], perm=[0, 0]),
        node("Transpose", ["x"], ["y"], perm=[0, 5]),
        node("Softmax", ["x"], ["y"], axis=9),
        node("Reshape", ["x", "neg"], ["y"]),
        node("Gather", ["x", "far"], ["y"]),
        node("Slice", ["x", "one", "one", "one", "zero"], ["y"]),
        node("Split", ["x", "neg"], ["y"]),
        node("Conv", ["x", "x"], ["y"]),
        node("Einsum", ["x"], ["y"], equation="abc->a"),
        node("Flatten", ["x"], ["y"], axis=-7),
        node("Range", ["s", "s", "s0"], ["y"]),
        node("Add", ["x"], ["y"]),
        node("Add", ["x", "one"], ["y"]),
        node("BatchNormalization", ["x", "one", "one", "one", "one"], ["y"]),
        node("LayerNormalization", ["x", "w3"], ["y"]),
        node("Attention", ["x", "x", "x"], ["y"], domain="com.microsoft", num_heads=7),
        node("MatMulNBits", ["x", "u8", "w3"], ["y"], domain="com.microsoft", K=3, N=5, bits=4, block_size=16),
        node("DepthToSpace", ["x"], ["y"], blocksize=0),
        node("Tile", ["x", "neg"], ["y"]),
        node("TopK", ["x", "many"], ["y", "z"]),
    ],
    ids=lambda n: n.op_type,
)
def test_nodes_that_cannot_be(tmp_path: Path, bad: onnx.NodeProto) -> None:
    tensors = {
        "neg": np.array([-3, -3], np.int64),
        "far": np.array([99], np.int64),
        "one": np.array([1], np.int64),
        "zero": np.array([0], np.int64),
        "s": np.array(1, np.int64),
        "s0": np.array(0, np.int64),
        "w3": np.ones(5, np.float32),
        "u8": np.ones((3, 1, 8), np.uint8),
        "many": np.array([99], np.int64),
    }
    path = save(tmp_path, model([bad], [value("x", [2, 3])], ["y"], tensors, opset=18))
    with pytest.raises(errors.CimcError) as caught:
        load(path)
    assert caught.value.code in ("model-node", "model-unsupported")
    assert f"({'com.microsoft::' if bad.domain else ''}{bad.op_type})" in str(caught.value)


def test_tensors_in_every_encoding(tmp_path: Path) -> None:
    """Typed fields and raw data give the same numbers."""
    wide = {
        "f32": np.float32,
        "f64": np.float64,
        "i32": np.int32,
        "i8": np.int8,
        "u8": np.uint8,
        "u64": np.uint64,
        "b": np.bool_,
        "f16": np.float16,
        "i64": np.int64,
    }
    nodes, tensors = [], []
    for name, dtype in wide.items():
        array = np.array([0, 1, 1], dtype)
        code = helper.np_dtype_to_tensor_dtype(array.dtype)
        tensors.append(helper.make_tensor(name, code, [3], array.tolist()))
        nodes += [node("Cast", [name], [f"c{name}"], to=TensorProto.FLOAT)]
    nodes.append(node("Sum", ["x", *(f"c{n}" for n in wide)], ["y"]))
    proto = model(nodes, [value("x", [3])], ["y"])
    proto.graph.initializer.extend(tensors)
    agree(tmp_path, proto, {"x": np.ones(3, np.float32)})


def test_declared_shapes_of_intermediates_are_not_believed(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Shape", ["a"], ["y"])]
    proto = model(nodes, [value("x", ["n"])], [value("y", [1], INT64)])
    proto.graph.value_info.append(value("a", [9]))
    imported = load(save(tmp_path, proto), dims={"n": 4})
    np.testing.assert_array_equal(imported.constants[imported.graph.outputs[0]], [4])
