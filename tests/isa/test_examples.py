"""The examples parse, obey the law on the toy chip, print canonically, and compute what NumPy says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.arch.load import load
from cimc.errors import CimcError
from cimc.isa import Program, assemble, parse_program, print_program
from cimc.isa.grammar import grammar_path, read_program
from cimc.sim.memory import State
from cimc.sim.values import run_values
from tests.golden import Golden

FOLDER = Path(__file__).parents[2] / "isa" / "examples"
EXAMPLES = sorted(FOLDER.glob("*.cim"))
Arrays = dict[str, NDArray[np.generic]]

rng = np.random.default_rng(7)


def _example(name: str) -> Program:
    return assemble(FOLDER / f"{name}.cim", load("toy").spec, {})


def _run(name: str, inputs: Arrays, numerics: str = "integer", state: State | None = None, **params: int) -> Arrays:
    outputs, _ = run_values(
        _example(name), {}, inputs, load("toy").spec, numerics=numerics, param_values=params, state=state
    )
    return outputs


def _floats(*shape: int) -> NDArray[np.float32]:
    return rng.standard_normal(shape).astype(np.float32)


def _codes(*shape: int) -> NDArray[np.int8]:
    return rng.integers(-127, 128, shape).astype(np.int8)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.stem)
def test_an_example_is_read_by_the_grammar_and_prints_canonically(path: Path, golden: Golden) -> None:
    text = path.read_text()
    program = assemble(path, load("toy").spec, {})
    assert read_program(text)
    assert program.header, "an example starts with what it shows"
    printed = print_program(program)
    assert parse_program(printed) == program
    golden.check(f"isa/golden/{path.stem}.printed", printed)


def test_there_is_one_grammar() -> None:
    assert grammar_path() == FOLDER.parent / "cim.lark"


def test_vector_add() -> None:
    x, y = _floats(32), _floats(32)
    np.testing.assert_array_equal(_run("vector_add", {"x": x, "y": y})["z"], x + y)


def test_mvm_rows() -> None:
    w, x = _codes(8, 16), _codes(4, 8)
    y = _run("mvm_rows", {"weights": w, "x": x})["y"]
    np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64))


def test_overlap() -> None:
    x = _floats(6, 16)
    np.testing.assert_array_equal(_run("overlap", {"x": x})["y"], x * x + x * x)


def test_two_tiles() -> None:
    x = _floats(4, 16)
    e = np.exp(x.astype(np.float64))
    y = _run("two_tiles", {"x": x})["y"]
    np.testing.assert_allclose(y, e / e.sum(-1, keepdims=True), rtol=1e-5)


def test_reload() -> None:
    one, two, x = _codes(8, 8), _codes(8, 8), _codes(4, 8)
    y = _run("reload", {"first": one, "second": two, "x": x})["y"]
    np.testing.assert_array_equal(y, x.astype(np.int64) @ (one.astype(np.int64) + two))


def test_partial_sums() -> None:
    w, x = _codes(32, 8), _codes(2, 32)
    y = _run("partial_sums", {"weights": w, "x": x})["y"]
    np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64))


def test_sums() -> None:
    w, x = _codes(32, 8), _codes(2, 32)
    y = _run("sums", {"weights": w, "x": x})["y"]
    np.testing.assert_array_equal(y, x.astype(np.int64) @ w.astype(np.int64))


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_quantized_layer() -> None:
    w, x, ws = _codes(8, 8), _floats(4, 8), np.full((1, 8), 1 / 128, np.float32)
    y = _run("quantized_layer", {"codes": w, "x": x, "weight_scale": ws})["y"]
    scale = np.abs(x.astype(np.float64)).max(-1, keepdims=True) / 127
    due = _softmax((np.rint(x / scale) @ w.astype(np.float64)) * scale * ws)
    np.testing.assert_allclose(y, due, rtol=1e-6)


def test_kv_cache() -> None:
    state: State = {}
    q, k, v = _floats(5, 8), _floats(5, 8), _floats(5, 8)
    for pos in range(5):
        row = slice(pos, pos + 1)
        inputs: Arrays = {"query": q[row], "key": k[row], "value": v[row]}
        context = _run("kv_cache", inputs, "float", state, pos=pos)["context"]
        scores = q[row].astype(np.float64) @ k[: pos + 1].T.astype(np.float64) / np.sqrt(8)
        np.testing.assert_allclose(context, _softmax(scores) @ v[: pos + 1], rtol=1e-5, atol=1e-6)


def test_shared_memory() -> None:
    x = _floats(4, 8)
    np.testing.assert_array_equal(_run("shared_memory", {"x": x})["y"], (x * x + x).T)


def test_resident() -> None:
    x = _floats(4, 8)
    np.testing.assert_array_equal(_run("resident", {"x": x})["y"], (x * x + x).T)


def test_held() -> None:
    past, new, query = _floats(2, 3, 4), _floats(2, 4), _floats(2, 4)
    found = _run("held", {"past": past, "new": new, "query": query}, "float")
    present = np.concatenate((past, new[:, None]), axis=1)
    np.testing.assert_array_equal(found["present"], present)
    np.testing.assert_allclose(found["scores"], np.einsum("hd,htd->ht", query, present), rtol=1e-5)


def test_lengths() -> None:
    """Step by step with what the run before left, and at any length with what is given: the same."""
    keys, query, state = _floats(2, 8, 4), _floats(2, 4), State()
    for pos in range(8):
        inputs = {"new": keys[:, pos], "query": query}
        stepped = _run("lengths", inputs, "float", state, pos=pos)
        given = _run("lengths", {**inputs, "past": keys[:, :pos]}, "float", pos=pos)
        for found in (stepped, given):
            np.testing.assert_array_equal(found["present"], keys[:, : pos + 1])
            np.testing.assert_allclose(found["scores"], np.einsum("hd,htd->ht", query, found["present"]), rtol=1e-5)


def test_an_input_has_the_extents_of_its_corner() -> None:
    with pytest.raises(CimcError, match="float32 2x2x4, the program takes float32 2x3x4") as caught:
        _run("lengths", {"past": _floats(2, 2, 4), "new": _floats(2, 4), "query": _floats(2, 4)}, pos=3)
    assert caught.value.code == "input-mismatch"
