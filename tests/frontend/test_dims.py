"""Symbolic dimensions: who binds them, arithmetic, contradictions, defaults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from cimc import errors
from cimc.frontend.dims import evaluate
from cimc.frontend.importer import Imported, load
from tests.frontend.onnx_models import INT64, agree, model, save, value

node = helper.make_node


def cached(tmp_path: Path) -> Path:
    """A decoder's inputs: tokens, mask over past and new, a cache."""
    nodes = [
        node("Concat", ["past", "new"], ["present"], axis=1),
        node("Identity", ["mask"], ["m"]),
    ]
    inputs = [
        value("new", ["batch", "seq", 4]),
        value("mask", ["batch", "past_seq + seq"], INT64),
        value("past", ["batch", "past_seq", 4]),
    ]
    return save(tmp_path, model(nodes, inputs, ["present", value("m", ["batch", "total"], INT64)]))


def bound(imported: Imported) -> dict[str, int]:
    return {b.name: b.value for b in imported.bindings}


def test_flags_bind_and_sums_follow(tmp_path: Path) -> None:
    imported = load(cached(tmp_path), dims={"batch": 2, "seq": 3, "past_seq": 5})
    assert bound(imported) == {"batch": 2, "seq": 3, "past_seq": 5, "past_seq + seq": 8}
    assert imported.graph.types["mask"].shape == (2, 8)
    assert imported.graph.types["present"].shape == (2, 8, 4)


def test_shapes_of_inputs_bind(tmp_path: Path) -> None:
    feeds = {"new": np.zeros((1, 2, 4), np.float32), "past": np.zeros((1, 7, 4), np.float32)}
    imported = load(cached(tmp_path), inputs=feeds)
    assert bound(imported)["past_seq + seq"] == 9
    sources = {b.name: b.source for b in imported.bindings}
    assert "input 'past', axis 1" in sources["past_seq"]


def test_defaults_are_said(tmp_path: Path) -> None:
    imported = load(cached(tmp_path))
    assert bound(imported) == {"batch": 1, "seq": 128, "past_seq": 0, "past_seq + seq": 128}
    assert all(b.default for b in imported.bindings if b.name != "past_seq + seq")


def test_a_total_length_without_arithmetic(tmp_path: Path) -> None:
    inputs = [
        value("ids", ["batch", "seq"], INT64),
        value("mask", ["batch", "total_seq"], INT64),
        value("past", ["batch", "past_seq"]),
    ]
    nodes = [node("Identity", [n], [f"{n}_"]) for n in ("ids", "mask", "past")]
    path = save(tmp_path, model(nodes, inputs, ["ids_", "mask_", "past_"]))
    assert bound(load(path, dims={"past_seq": 5, "seq": 2}))["total_seq"] == 7


def test_a_flag_against_an_input(tmp_path: Path) -> None:
    with pytest.raises(errors.CimcError) as caught:
        load(cached(tmp_path), dims={"seq": 3}, inputs={"new": np.zeros((1, 2, 4), np.float32)})
    assert caught.value.code == "model-dim-conflict"
    assert "--dim seq=3" in str(caught.value)
    assert "input 'new', axis 1" in str(caught.value)


def test_two_inputs_against_each_other(tmp_path: Path) -> None:
    feeds = {"new": np.zeros((1, 2, 4), np.float32), "mask": np.zeros((3, 2), np.int64)}
    with pytest.raises(errors.CimcError, match=r"'batch' is 1 by input 'new', axis 0 but 3 by input 'mask', axis 0"):
        load(cached(tmp_path), inputs=feeds)


def test_a_sum_that_does_not_add_up(tmp_path: Path) -> None:
    feeds = {
        "new": np.zeros((1, 2, 4), np.float32),
        "past": np.zeros((1, 7, 4), np.float32),
        "mask": np.zeros((1, 10), np.int64),
    }
    with pytest.raises(errors.CimcError) as caught:
        load(cached(tmp_path), inputs=feeds)
    assert caught.value.code == "model-dim-conflict"
    assert "past_seq + seq" in str(caught.value)


def test_an_unknown_flag_is_met_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(errors.CimcError) as caught:
        load(cached(tmp_path), dims={"bacth": 3})
    assert "did you mean 'batch'" in str(caught.value)


@pytest.mark.parametrize("number", [-1, 1 << 40])
def test_numbers_out_of_range(tmp_path: Path, number: int) -> None:
    with pytest.raises(errors.CimcError) as caught:
        load(cached(tmp_path), dims={"batch": number})
    assert caught.value.code == "model-dim-value"


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 5)])
def test_arrays_of_another_shape(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(errors.CimcError) as caught:
        load(cached(tmp_path), inputs={"new": np.zeros(shape, np.float32)})
    assert caught.value.code == "model-input"


def test_unnamed_dims_get_names(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("Relu", ["x"], ["y"])], [value("x", [None, 3])], ["y"]))
    assert load(path, dims={"x.0": 6}).graph.types["x"].shape == (6, 3)


def test_a_symbol_may_be_any_text(tmp_path: Path) -> None:
    path = save(tmp_path, model([node("Relu", ["x"], ["y"])], [value("x", ["1", "__import__('os').getcwd()"])], ["y"]))
    imported = load(path, dims={"1": 4, "__import__('os').getcwd()": 2})
    assert imported.graph.types["x"].shape == (4, 2)


def test_a_default_length_that_the_model_cannot_take_is_shortened(tmp_path: Path) -> None:
    nodes = [
        node("Shape", ["ids"], ["s"], start=1),
        node("Squeeze", ["s"], ["n"]),
        node("Range", ["zero", "n", "one"], ["steps"]),
        node("Gather", ["places", "steps"], ["y"], name="positions"),
    ]
    tensors = {"zero": np.array(0, np.int64), "one": np.array(1, np.int64), "places": np.ones((40, 2), np.float32)}
    path = save(tmp_path, model(nodes, [value("ids", ["batch", "seq"], INT64)], ["y"], tensors))
    imported = load(path)
    assert bound(imported)["seq"] == 32
    assert any("shortened" in n for n in imported.notes)
    with pytest.raises(errors.CimcError, match="positions"):
        load(path, dims={"seq": 41})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("a + b", 7), ("a*b", 10), ("(a + b) * 2", 14), ("b - a", 3), ("a - b", None), ("b // a", 2), ("b / 0", None),
        ("a", None), ("7", None), ("a + c", None), ("a +", None), ("a ** b", None), ("f(a)", None),
        ("(" * 40 + "a" + ")" * 40, None), ("a" + "+a" * 300, None), ("-a + b", 3),
    ],
)  # fmt: skip
def test_the_arithmetic(text: str, result: int | None) -> None:
    assert evaluate(text, {"a": 2, "b": 5}) == result


@pytest.mark.parametrize("nameless", [-1, "?", "*", "None", " ? "])
def test_what_exporters_write_for_no_name_is_none(tmp_path: Path, nameless: int | str) -> None:
    """Two such dimensions are two sizes, as onnxruntime takes them (Paddle, keras2onnx)."""
    image = value("x", [nameless, 2, nameless])
    proto = model([node("Softmax", ["x"], ["y"], axis=-1)], [image], ["y"])
    assert bound(load(save(tmp_path, proto), dims={"x.2": 7})) == {"x.0": 1, "x.2": 7}
    feeds = {"x": np.random.default_rng(0).standard_normal((3, 2, 5)).astype(np.float32)}
    agree(tmp_path, proto, feeds)


def test_a_total_length_where_the_model_says_how_many_tokens(tmp_path: Path) -> None:
    """A step exported for one token: nothing of the model is called its sequence."""
    inputs = [
        value("x", [1, 1, 4]),
        value("mask", [1, "total_seq"], INT64),
        value("past", [1, 2, "past_seq", 4]),
    ]
    nodes = [node("Identity", [n], [f"{n}_"]) for n in ("x", "mask", "past")]
    path = save(tmp_path, model(nodes, inputs, ["x_", "mask_", "past_"]))
    assert bound(load(path, dims={"past_seq": 7}))["total_seq"] == 8


def test_a_model_exported_for_one_token_gets_one(tmp_path: Path) -> None:
    """Its axis has a name, and a reshape has its size: no other length will do."""
    nodes = [node("Reshape", ["x", "shape"], ["y"], name="heads")]
    path = save(tmp_path, model(nodes, [value("x", [1, "seq", 4])], ["y"], {"shape": np.array([1, 1, 2, 2])}))
    imported = load(path)
    assert bound(imported)["seq"] == 1
    assert any("shortened" in note for note in imported.notes)


def test_what_cannot_be_names_the_sizes_that_nobody_gave(tmp_path: Path) -> None:
    nodes = [node("Reshape", ["x", "shape"], ["y"], name="heads")]
    inputs = [value("x", ["samples", "n", 4])]
    path = save(tmp_path, model(nodes, inputs, ["y"], {"shape": np.array([1, 7, 2, 2])}))
    with pytest.raises(errors.CimcError, match="heads") as caught:
        load(path, dims={"n": 3})
    assert "--dim NAME=INT" in caught.value.hint
    assert "n = 3, samples = 1 (default)" in caught.value.hint
