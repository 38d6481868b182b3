"""The values engine against NumPy, and what it says about programs that cannot run."""

from __future__ import annotations

import gc
import itertools

import numpy as np
import pytest

from cimc.errors import CimcError
from cimc.isa.operands import Affine, Element
from cimc.isa.program import GlobalBuffer, Param
from cimc.sim.values import run_values
from tests.sim.chips import buffers, chip, do, matrix, program, repeat, tile, view

F32, Q8, Q32, I32 = Element.F32, Element.Q8, Element.Q32, Element.I32
I = Affine(0, (("i", 1),))


def linear(rows: int = 4, inputs: int = 20, outputs: int = 12):
    """y = dequantize(quantize(x) · W), one row at a time."""
    x, y = GlobalBuffer("x", F32, (rows, inputs)), GlobalBuffer("y", F32, (rows, outputs))
    local = buffers(
        ("xl", F32, (1, inputs)), ("xq", Q8, (1, inputs)), ("s", F32, (1, 1)), ("acc", Q32, (1, outputs)),
        ("ws", F32, (1, outputs)), ("yl", F32, (1, outputs)),
    )  # fmt: skip
    body = (
        do("load", view("xl", 1, inputs), view("x", 1, inputs, offset=I * inputs)),
        do("quantize", view("xq", 1, inputs), view("s", 1, 1), view("xl", 1, inputs), origin="/layer"),
        do("mvm", view("acc", 1, outputs), "W", view("xq", 1, inputs), accumulate=0),
        do("dequantize", view("yl", 1, outputs), view("acc", 1, outputs), view("s", 1, 1), view("ws", 1, outputs)),
        do("store", view("y", 1, outputs, offset=I * outputs), view("yl", 1, outputs)),
    )
    steps = (do("fill", view("ws", 1, outputs), value=0.5), repeat("i", rows, *body))
    t = tile(0, *steps, buffers=local, matrices=[matrix("W", inputs, outputs)])
    return program(t, globals=[x, y], inputs=["x"], outputs=["y"])


def weights(inputs: int = 20, outputs: int = 12):
    rng = np.random.default_rng(1)
    codes = rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)
    return {"w": codes, "w.float": (codes * 0.5 + 0.1).astype(np.float32)}


def test_float_numerics_use_the_unrounded_weights():
    x = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    w = weights()
    got, _ = run_values(linear(), w, {"x": x}, chip())
    # Sums of 20 products in any order, twice: which one BLAS takes is the processor's matter (Higham 2002, section 3.1).
    bound = 2 * 20 * np.finfo(np.float32).eps / 2 * (np.abs(x) @ np.abs(w["w.float"]))
    assert (np.abs(got["y"] - x @ w["w.float"]) <= bound).all()
    assert (np.abs(x @ (w["w"] * np.float32(0.5)) - x @ w["w.float"]) > bound).mean() > 0.9, (
        "rounded ones are told apart"
    )


def test_integer_numerics_round_rows_and_sum_exactly():
    x = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    w = weights()
    got, _ = run_values(linear(), w, {"x": x}, chip(), numerics="integer")
    scale = (np.abs(x).max(-1, keepdims=True) / np.float32(127)).astype(np.float32)
    codes = np.rint(x / scale).astype(np.int64)
    want = (codes @ w["w"].astype(np.int64)).astype(np.float32) * (scale * np.float32(0.5))
    np.testing.assert_array_equal(got["y"], want)


@pytest.mark.parametrize("inputs", [1023, 1024, 3000])
def test_integer_sums_are_exact_at_full_scale(inputs: int):
    w = {"w": np.full((inputs, 8), -128, np.int8)}
    x = GlobalBuffer("x", Q8, (1, inputs))
    y = GlobalBuffer("y", Q32, (1, 8))
    local = buffers(("xq", Q8, (1, inputs)), ("acc", Q32, (1, 8)))
    t = tile(
        0,
        do("load", view("xq", 1, inputs), view("x", 1, inputs)),
        do("mvm", view("acc", 1, 8), "W", view("xq", 1, inputs)),
        do("mvm", view("acc", 1, 8), "W", view("xq", 1, inputs), accumulate=1),
        do("store", view("y", 1, 8), view("acc", 1, 8)),
        buffers=local,
        matrices=[matrix("W", inputs, 8)],
    )
    data = np.full((1, inputs), -127, np.int8)
    data[0, -1] = 1
    p = program(t, globals=[x, y], inputs=["x"], outputs=["y"])
    got, _ = run_values(p, w, {"x": data}, chip(), numerics="integer")
    want = 2 * (127 * 128 * (inputs - 1) - 128)
    assert got["y"].dtype == np.int32
    assert got["y"].tolist() == [[want] * 8]


def ring(tiles: int):
    """Every tile adds 1 to what comes from the one before it; tile 0 starts with the input and ends with the output."""
    local = buffers(("v", F32, (4,)), ("one", F32, (4,)))
    v, one = view("v", 4), view("one", 4)
    step = (do("fill", one, value=1.0), do("add", v, v, one))
    first = tile(
        0,
        do("load", v, view("x", 4)),
        *step,
        do("send", v, to=(1,), tag=7),
        do("recv", v, source=tiles - 1, tag=7),
        do("store", view("y", 4), v),
        buffers=local,
    )
    rest = [
        tile(n, do("recv", v, source=n - 1, tag=7), *step, do("send", v, to=((n + 1) % tiles,), tag=7), buffers=local)
        for n in range(1, tiles)
    ]
    return program(
        first, *rest, globals=[GlobalBuffer("x", F32, (4,)), GlobalBuffer("y", F32, (4,))], inputs=["x"], outputs=["y"]
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5])
def test_the_result_does_not_depend_on_the_order_of_visits(order: tuple[int, ...]):
    x = np.arange(4, dtype=np.float32)
    got, _ = run_values(ring(4), {}, {"x": x}, chip(), order=order)
    assert got["y"].tolist() == [4, 5, 6, 7]


def test_tokens_and_data_of_one_tag_do_not_mix():
    local = buffers(("v", F32, (1,)))
    v = view("v", 1)
    a = tile(0, do("fill", v, value=3.0), do("signal", to=(1,), tag=5), do("send", v, to=(1,), tag=5), buffers=local)
    b = tile(
        1, do("recv", v, source=0, tag=5), do("wait", source=0, tag=5), do("store", view("y", 1), v), buffers=local
    )
    got, _ = run_values(program(a, b, globals=[GlobalBuffer("y", F32, (1,))], outputs=["y"]), {}, {}, chip())
    assert got["y"].tolist() == [3]


def test_nested_repeats_and_parameters():
    n = Affine(1, (("pos", 1),))
    at = Affine(0, (("i", 4), ("j", 1)))
    t = tile(
        0,
        do("fill", view("one", 1), value=1.0),
        repeat("i", n, repeat("j", 4, do("add", view("v", 1, offset=at), view("v", 1, offset=at), view("one", 1)))),
        do("store", view("y", 12), view("v", 12)),
        buffers=buffers(("v", F32, (12,)), ("one", F32, (1,))),
    )
    p = program(t, globals=[GlobalBuffer("y", F32, (12,))], outputs=["y"], params=[Param("pos", 0, 2)])
    for pos in range(3):
        got, _ = run_values(p, {}, {}, chip(), param_values={"pos": pos})
        assert got["y"].tolist() == [1.0] * 4 * (pos + 1) + [0.0] * (8 - 4 * pos)


def test_a_deadlock_says_who_waits_for_whom():
    local = buffers(("v", F32, (4,)))
    a = tile(0, do("recv", view("v", 4), source=1, tag=2), buffers=local)
    b = tile(1, do("wait", source=0), buffers=local)
    with pytest.raises(CimcError) as caught:
        run_values(program(a, b, tile(2)), {}, {}, chip())
    assert caught.value.exit == 4
    assert "2 of 3 tiles" in caught.value.message
    assert "tile 0, instruction 1: recv" in caught.value.message
    assert "from tile 1 with tag 2" in caught.value.message
    assert "tile 1, instruction 1: wait" in caught.value.message


def test_an_access_outside_a_buffer_names_the_instruction():
    at = Affine(0, (("i", 4),))
    t = tile(
        0,
        repeat("i", 4, do("fill", view("v", 4, offset=at), value=0.0, origin="/enc/x")),
        buffers=buffers(("v", F32, (12,))),
    )
    with pytest.raises(CimcError) as caught:
        run_values(program(t), {}, {}, chip())
    assert (caught.value.code, caught.value.exit) == ("instruction-failed", 4)
    assert "tile 0, instruction 1" in caught.value.message
    assert "/enc/x" in caught.value.hint


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_activations_that_are_not_finite_are_found_where_they_are_quantised(value: float, word: str):
    x = np.ones((4, 20), np.float32)
    x[2, 3] = value
    with pytest.raises(CimcError, match="quantise") as caught:
        run_values(linear(), weights(), {"x": x}, chip(), numerics="integer")
    assert word in caught.value.message
    assert "/layer" in caught.value.hint
    run_values(linear(), weights(), {"x": x}, chip(), numerics="float")


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({}, "'x' is missing"),
        ({"x": np.ones((4, 20))}, "float64 4x20"),
        ({"x": np.ones((3, 20), np.float32)}, "float32 3x20"),
        ({"x": np.ones((4, 20), np.float32), "xx": np.ones(1)}, "no input 'xx'"),
    ],
)
def test_inputs_are_checked(inputs: dict[str, np.ndarray], words: str):
    with pytest.raises(CimcError) as caught:
        run_values(linear(), weights(), inputs, chip())
    assert caught.value.exit == 2
    assert words in caught.value.message


def test_weights_are_checked():
    x = np.ones((4, 20), np.float32)
    with pytest.raises(CimcError, match="no 'w'"):
        run_values(linear(), {}, {"x": x}, chip())
    with pytest.raises(CimcError, match="int8 of at least 20x12"):
        run_values(linear(), {"w": np.zeros((19, 12), np.int8)}, {"x": x}, chip())


def test_state_survives_and_starts_as_zeros():
    v, one, s = view("v", 2), view("one", 2), view("s", 2)
    t = tile(
        0, do("load", v, s), do("fill", one, value=1.0), do("add", v, v, one), do("store", s, v),
        buffers=buffers(("v", F32, (2,)), ("one", F32, (2,))),
    )  # fmt: skip
    p = program(t, globals=[GlobalBuffer("s", F32, (2,), state=True)], outputs=["s"])
    state: dict[str, np.ndarray] = {}
    for run in range(3):
        got, _ = run_values(p, {}, {}, chip(), state=state)
        assert got["s"].tolist() == [run + 1.0] * 2


def test_weights_in_global_memory_are_not_copied_or_written():
    table = np.arange(8, dtype=np.float32)
    v = view("v", 8)
    t = tile(0, do("load", v, view("c", 8)), do("store", view("c", 8), v), buffers=buffers(("v", F32, (8,))))
    with pytest.raises(CimcError, match="read-only"):
        run_values(program(t, globals=[GlobalBuffer("c", F32, (8,), key="k")]), {"k": table}, {}, chip())
    assert table.tolist() == list(range(8))


def test_host_calls_run_one_onnx_node():
    from onnx import TensorProto, helper

    node = helper.make_node("TopK", ["a", "k"], ["v", "i"])
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "g",
        [info("a", TensorProto.FLOAT, [5]), info("k", TensorProto.INT64, [1])],
        [info("v", TensorProto.FLOAT, [2]), info("i", TensorProto.INT64, [2])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    h = np.frombuffer(model.SerializeToString(), np.uint8)
    i64 = Element.I64
    g = [
        GlobalBuffer("a", F32, (5,)), GlobalBuffer("k", i64, (1,), key="k"),
        GlobalBuffer("v", F32, (2,)), GlobalBuffer("i", i64, (2,)),
    ]  # fmt: skip
    t = tile(0, do("host", view("v", 2), view("i", 2), view("a", 5), view("k", 1), call="h", outputs=2))
    p = program(t, globals=g, inputs=["a"], outputs=["v", "i"])
    a = np.array([1, 5, 2, 4, 3], np.float32)
    got, _ = run_values(p, {"h": h, "k": np.array([2])}, {"a": a}, chip())
    assert got["v"].tolist() == [5, 4]
    assert got["i"].tolist() == [1, 3]
    with pytest.raises(CimcError) as caught:
        run_values(p, {"h": h[:20], "k": np.array([2])}, {"a": a}, chip())
    assert caught.value.exit == 2


@pytest.mark.parametrize("adc_bits", [0, None])
def test_perfect_analog_cores_equal_integer_arithmetic(adc_bits: int | None):
    x = np.random.default_rng(3).normal(size=(4, 20)).astype(np.float32)
    machine = chip(adc_bits=adc_bits)
    want, _ = run_values(linear(), weights(), {"x": x}, machine, numerics="integer")
    got, counts = run_values(linear(), weights(), {"x": x}, machine, numerics="analog", seed=5)
    np.testing.assert_array_equal(got["y"], want["y"])
    assert counts.get("saturated", 0) == 0


def test_ternary_inputs_stream_their_magnitude_with_the_sign():
    """Lossless, it is the same product; the conversions are one plane fewer than in two's complement."""
    x = np.random.default_rng(3).normal(size=(4, 20)).astype(np.float32)
    machine = chip()
    tiles = {
        name: t.model_copy(update={"core": t.core.model_copy(update={"input_sign": "ternary"})}) if t.core else t
        for name, t in machine.tiles.items()
    }
    ternary = machine.model_copy(update={"tiles": tiles})
    want, all_planes = run_values(linear(), weights(), {"x": x}, machine, numerics="analog")
    got, magnitude = run_values(linear(), weights(), {"x": x}, ternary, numerics="analog")
    np.testing.assert_array_equal(got["y"], want["y"])
    assert magnitude["conversions"] * 8 == all_planes["conversions"] * 7


def test_a_coarse_converter_errs_and_noise_follows_the_seed():
    x = np.random.default_rng(3).normal(size=(4, 20)).astype(np.float32)
    exact, _ = run_values(linear(), weights(), {"x": x}, chip(), numerics="integer")
    coarse, counts = run_values(linear(), weights(), {"x": x}, chip(adc_bits=2), numerics="analog")
    assert np.abs(coarse["y"] - exact["y"]).max() > 0
    assert counts["conversions"] > 0
    noisy = chip(technology="reram")
    runs = [run_values(linear(), weights(), {"x": x}, noisy, numerics="analog", seed=s)[0]["y"] for s in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0


def unaligned(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]):
    """The same values at an odd address, as a file may have them."""
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return np.frombuffer(raw.data, array.dtype, array.size, 1).reshape(array.shape)


def test_weights_at_odd_addresses_give_the_same_bits():
    x = np.random.default_rng(2).normal(size=(4, 20)).astype(np.float32)
    w = weights()
    odd = {key: unaligned(array) for key, array in w.items()}
    assert not odd["w.float"].flags.aligned
    got, _ = run_values(linear(), odd, {"x": x}, chip())
    want, _ = run_values(linear(), w, {"x": x}, chip())
    np.testing.assert_array_equal(got["y"], want["y"])


def test_the_collector_is_as_it_was_after_a_run_that_fails():
    assert gc.isenabled()
    with pytest.raises(CimcError):
        run_values(linear(), {}, {"x": np.zeros((4, 20), np.float32)}, chip())
    assert gc.isenabled()
