"""Large tensors located in the file against the same file parsed whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.errors import CimcError
from cimc.frontend import blobs, onnx_reader
from cimc.frontend.record import OnnxGraph, OnnxModel
from cimc.mapped import MappedFile, is_mapped
from models import small
from tests.frontend.onnx_models import INT64, model, save, value

node = helper.make_node
BIG = np.random.default_rng(0).standard_normal((96, 64)).astype(np.float32)
assert BIG.nbytes > blobs.LARGE


def tensors(graph: OnnxGraph) -> dict[str, object]:
    """Every array of a graph: initializers, attributes, those of subgraphs."""
    found: dict[str, object] = dict(graph.initializers)
    for n in graph.nodes:
        for key, v in n.attributes.items():
            if isinstance(v, OnnxGraph):
                found.update({f"{n.name}.{key}.{k}": a for k, a in tensors(v).items()})
            elif isinstance(v, np.ndarray):
                found[f"{n.name}.{key}"] = v
    return found


def both(path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[OnnxModel, OnnxModel]:
    """The model with large tensors located, and parsed whole; they are equal."""
    ours = onnx_reader.read(path)
    with monkeypatch.context() as m:
        m.setattr(onnx_reader, "skeleton", lambda *_: None)
        whole = onnx_reader.read(path)
    assert ours.sha256 == whole.sha256
    mine, theirs = tensors(ours.graph), tensors(whole.graph)
    assert mine.keys() == theirs.keys()
    for name, want in theirs.items():
        have = mine[name]
        assert isinstance(have, np.ndarray)
        assert isinstance(want, np.ndarray)
        assert (have.dtype, have.shape, have.tobytes()) == (want.dtype, want.shape, want.tobytes())
    return ours, whole


def one(tensor: onnx.TensorProto, folder: Path) -> Path:
    """A model whose one initializer is the tensor."""
    made = model([node("Identity", ["w"], ["y"])], [], ["y"])
    made.graph.initializer.append(tensor)
    return save(folder, made)


def packed(data_type: int, values: Sequence[float]) -> onnx.TensorProto:
    return helper.make_tensor("w", data_type, [len(values)], values)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as protobuf writes it: a tag, the length seven bits at a time, the content."""
    length, digits = len(content), bytearray()
    while length >= 128:
        digits.append(length % 128 + 128)
        length //= 128
    return bytes([number * 8 + 2, *digits, length]) + content


def located(found: OnnxModel, name: str = "w") -> bool:
    array = found.graph.initializers[name]
    assert isinstance(array, np.ndarray)
    return is_mapped(array)


def test_raw_data_stays_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, whole = both(one(numpy_helper.from_array(BIG, "w"), tmp_path), monkeypatch)
    assert located(ours)
    assert not located(whole)


@pytest.mark.parametrize("data_type", [TensorProto.FLOAT, TensorProto.DOUBLE])
def test_packed_floats_stay_in_the_file(data_type: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both(one(packed(data_type, BIG.reshape(-1).tolist()), tmp_path), monkeypatch)
    assert located(ours)


def test_packed_integers_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = both(one(packed(INT64, list(range(40000))), tmp_path), monkeypatch)
    assert not located(ours)


def test_narrow_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nibbles = helper.make_tensor("w", TensorProto.INT4, [40001], bytes(range(256)) * 78 + bytes(33), raw=True)
    both(one(nibbles, tmp_path), monkeypatch)


def test_every_place_a_tensor_can_stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = numpy_helper.from_array(BIG, "big")
    inner = helper.make_graph(
        [node("Constant", [], ["k"], value=big), node("Add", ["k", "big"], ["t"])],
        "then",
        [],
        [value("t", None)],
        [big],
    )
    made = model(
        [node("Constant", [], ["c"], value=big), node("If", ["flag"], ["y"], then_branch=inner, else_branch=inner)],
        [value("flag", [], TensorProto.BOOL)],
        ["y"],
        {"w": BIG, "small": BIG[:2]},
    )
    ours, _ = both(save(tmp_path, made), monkeypatch)
    assert located(ours)
    assert not located(ours, "small")
    arrays = [a for a in tensors(ours.graph).values() if isinstance(a, np.ndarray)]
    assert sum(is_mapped(a) for a in arrays) == 6


def test_a_model_of_many_tensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "LARGE", 64)
    ours, _ = both(save(tmp_path, small.gpt2(layers=2, hidden=24, heads=2, ffn=40, vocab=50)), monkeypatch)
    assert any(isinstance(a, np.ndarray) and is_mapped(a) for a in ours.graph.initializers.values())


def test_a_token_of_another_file_is_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that look like a token are one only with this file's own hash."""
    forged = hashlib.sha256(b"another").digest() + (0).to_bytes(8, "little") + (48).to_bytes(8, "little")
    made = model([node("Identity", ["f"], ["y"])], [], ["y"], {"f": np.frombuffer(forged, np.uint8), "w": BIG})
    ours, _ = both(save(tmp_path, made), monkeypatch)
    found = ours.graph.initializers["f"]
    assert isinstance(found, np.ndarray)
    assert found.tobytes() == forged


def test_a_shape_that_claims_more_than_there_is(tmp_path: Path) -> None:
    tensor = numpy_helper.from_array(BIG, "w")
    tensor.dims[0] = 1 << 39
    with pytest.raises(CimcError, match=f"its data holds {BIG.nbytes}"):
        onnx_reader.read(one(tensor, tmp_path))


def pieces(data: bytes, folder: Path) -> bytes | None:
    path = folder / "odd"
    path.write_bytes(data)
    return blobs.skeleton(MappedFile(path).pages, b"d" * 32)


def test_files_that_are_not_plainly_written_are_parsed_whole(tmp_path: Path) -> None:
    good = one(numpy_helper.from_array(BIG, "w"), tmp_path).read_bytes()
    made = pieces(good, tmp_path)
    assert made is not None
    assert len(made) < 1000
    assert onnx.ModelProto.FromString(made).graph.initializer[0].raw_data.startswith(b"d" * 32)
    assert pieces(good[:-1], tmp_path) is None  # cut short
    assert pieces(good + b"\x0b", tmp_path) is None  # a group begins
    assert pieces(good + b"\xff" * 12, tmp_path) is None  # a number without end
    assert pieces(b"\x3a\x80\x80\x08" + good, tmp_path) is None  # a length that does not fit


def test_data_written_twice_is_parsed_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a field that stands twice the last counts: such a tensor is left as it is."""
    path = save(tmp_path, model([node("Identity", ["w"], ["y"])], [], ["y"]))
    first = numpy_helper.from_array(BIG, "w").SerializeToString()
    again = onnx.TensorProto(raw_data=BIG.T.tobytes()).SerializeToString()
    # Graphs that stand twice are one: the second brings the tensor.
    path.write_bytes(path.read_bytes() + field(7, field(5, first + again)))
    ours, _ = both(path, monkeypatch)
    assert not located(ours)
