"""classify, quantize and partition: what they write, and that the answer stays."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Build, random

from cimc import errors
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.passes.classify import Classify
from cimc.passes.contract import Pass
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize

FLOAT, INTEGER = Arithmetic(exact=True), Arithmetic(exact=False)


def run(graph: Graph, constants: Constants, *passes: Pass) -> tuple[Graph, Constants]:
    for one in passes:
        check(graph, constants, f"before {one.name}")
        graph, constants = one.run(graph, constants)
        check(graph, constants, f"after {one.name}")
    return graph, constants


def ops(graph: Graph) -> list[str]:
    return [n.op for n in graph.nodes]


def same(before: tuple[Graph, Constants], after: tuple[Graph, Constants], numerics: Arithmetic = FLOAT) -> None:
    rng = np.random.default_rng(1)
    graph = before[0]
    inputs = {v: rng.standard_normal(graph.types[v].shape).astype(np.float32) for v in graph.inputs}
    inputs = {v: x.astype(graph.types[v].element.dtype(exact=True)) for v, x in inputs.items()}
    want, got = (evaluate(*g, inputs, numerics) for g in (before, after))
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("x", "w", "expected"),
    [
        ("f32[2x4]", (4, 3), ["linear"]),
        ("f32[5x2x4]", (4, 3), ["linear"]),
        ("f32[5x2x4]", (1, 4, 3), ["linear"]),
        ("f32[2x4]", (1, 1, 4, 3), ["linear", "reshape"]),
        ("f32[5x2x4]", (5, 4, 3), ["matmul"]),
        ("f32[2x1]", (1, 3), ["mul"]),
    ],
)
def test_a_constant_second_operand_is_weights(x: str, w: tuple[int, ...], expected: list[str]) -> None:
    b = Build()
    y = b("matmul", b.input("x", x), b.const(random(w), "w"), out="y")
    before = b.graph(y), b.constants
    after = run(*before, Classify())
    assert ops(after[0]) == expected
    same(before, after)


@pytest.mark.parametrize(
    ("w", "x", "expected"),
    [
        ((3, 4), "f32[4x2]", ["transpose", "linear", "transpose"]),
        ((3, 4), "f32[5x4x2]", ["transpose", "linear", "transpose"]),
        ((1, 3, 4), "f32[4x2]", ["transpose", "linear", "transpose", "reshape"]),
        ((1, 3, 1), "f32[1x1x2]", ["mul"]),
    ],
)
def test_a_constant_first_operand_is_weights_transposed(w: tuple[int, ...], x: str, expected: list[str]) -> None:
    b = Build()
    y = b("matmul", b.const(random(w), "w"), b.input("x", x), out="y")
    before = b.graph(y), b.constants
    after = run(*before, Classify())
    assert ops(after[0]) == expected
    same(before, after)


def test_the_scale_goes_into_the_weights() -> None:
    b = Build()
    y = b("matmul", b.input("x", "f32[2x4]"), b.const(random((4, 3)), "w"), out="y", scale=0.25)
    before = b.graph(y), b.constants
    graph, constants = run(*before, Classify())
    assert ops(graph) == ["linear"]
    assert np.array_equal(constants[graph.nodes[0].inputs[1]], b.constants["w"] * np.float32(0.25))
    same(before, (graph, constants))


def test_dynamic_and_integer_matmuls_stay() -> None:
    b = Build()
    a = b("matmul", b.input("x", "f32[2x4]"), b.input("z", "f32[4x3]"))
    c = b("matmul", b.input("i", "i32[2x4]"), b.const(np.ones((4, 3), np.int32)))
    graph, _ = run(b.graph(a, c), b.constants, Classify())
    assert ops(graph) == ["matmul", "matmul"]


def qkv() -> tuple[Graph, Constants]:
    """Two layers that read one value, one that reads another, weights shared by two."""
    b = Build("canonical")
    x = b.input("x", "f32[6x40]")
    w = b.const(random((40, 24), 1), "w")
    u = b.const(random((40, 40), 2), "u")
    q, k = b("linear", x, w, out="q"), b("linear", x, u, out="k")
    z = b("linear", b("tanh", k, out="t"), w, out="z")
    return b.graph(q, z), b.constants


def test_a_value_and_a_weight_are_quantised_once() -> None:
    graph, _ = run(*qkv(), Quantize())
    assert ops(graph) == [
        "quantize", "mvm", "dequantize", "mvm", "dequantize", "tanh", "quantize", "mvm", "dequantize",
    ]  # fmt: skip
    assert graph.constants == {"w.q8", "w.q8.scale", "u.q8", "u.q8.scale"}
    assert [n.origin.node for n in graph.nodes if n.op == "mvm"] == ["/q", "/k", "/z"]


def test_float_numerics_do_not_see_the_quantisation() -> None:
    before = qkv()
    same(before, run(*before, Quantize()))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_weight_codes_are_symmetric_per_output_channel(bits: int) -> None:
    graph, constants = qkv()
    weights = np.array(constants["w"])
    weights[:, 5] = 0
    graph, constants = run(graph, {**constants, "w": weights}, Quantize(weight_bits=bits))
    codes, scale = constants[f"w.q{bits}"], constants[f"w.q{bits}.scale"]
    top = 2 ** (bits - 1) - 1
    assert codes.dtype == np.int8
    for column in range(weights.shape[1]):
        peak = max(abs(float(v)) for v in weights[:, column])
        assert scale[column] == pytest.approx(peak / top if peak else 1.0, rel=1e-6)
        for row in range(weights.shape[0]):
            assert abs(int(codes[row, column])) <= top
            assert abs(codes[row, column] * scale[column] - weights[row, column]) <= scale[column] * 0.5001
    assert np.array_equal(constants[f"w.q{bits}.float"], weights)


def test_the_quantisation_error_is_small() -> None:
    before = qkv()
    after = run(*before, Quantize())
    x = {"x": random((6, 40), 9)}
    want, got = evaluate(*before, x, FLOAT), evaluate(*after, x, INTEGER)
    for name in want:
        noise = float(np.sum((got[name] - want[name]) ** 2))
        assert 10 * np.log10(float(np.sum(want[name] ** 2)) / noise) > 30  # dB


def test_partitioned_is_bit_exact_with_quantized() -> None:
    quantized = run(*qkv(), Quantize())
    for rows, cols in ((7, 5), (16, 64), (128, 128)):
        partitioned = run(*quantized, Partition(rows, cols))
        assert "mvm" not in ops(partitioned[0])
        x = {"x": random((6, 40), 9)}
        want, got = evaluate(*quantized, x, INTEGER), evaluate(*partitioned, x, INTEGER)
        assert all(np.array_equal(want[name], got[name]) for name in want)


def test_static_scales_come_from_calibration() -> None:
    before = qkv()
    samples = tuple({"x": random((6, 40), seed)} for seed in range(3))
    graph, constants = run(*before, Quantize(activations="static", calibration=samples))
    assert ops(graph).count("quantize_static") == 2
    peak = max(float(np.abs(s["x"]).max()) for s in samples)
    assert constants["x.scale"] == pytest.approx([peak / 127], rel=1e-6)
    same(before, (graph, constants))


def test_static_scales_need_calibration() -> None:
    with pytest.raises(errors.CimcError, match="no calibration inputs"):
        Quantize(activations="static").run(*qkv())
    bad = ({"x": np.full((6, 40), np.inf, np.float32)},)
    with pytest.raises(errors.CimcError, match="value x reaches inf"):
        Quantize(activations="static", calibration=bad).run(*qkv())


def test_weights_that_are_not_finite_name_their_layer() -> None:
    graph, constants = qkv()
    bad = np.array(constants["u"])
    bad[3, 4] = np.nan
    graph, constants = Quantize().run(graph, {**constants, "u": bad})
    with pytest.raises(errors.CimcError, match=r"weights u of layer /k hold 1 values"):
        _ = constants["u.q8"]


def test_half_precision_layers_come_back_to_half() -> None:
    b = Build("canonical")
    y = b("linear", b.input("x", "f16[2x4]"), b.const(random((4, 3)).astype(np.float16), "w"), out="y")
    graph, constants = run(b.graph(y), b.constants, Quantize())
    assert ops(graph) == ["quantize", "mvm", "dequantize", "cast"]
    same((b.graph(y), b.constants), (graph, constants))


@pytest.mark.parametrize(
    "make", [lambda: Quantize(weight_bits=9), lambda: Quantize(activations="often"), lambda: Partition(rows=0)]
)
def test_wrong_options_are_refused(make: object) -> None:
    with pytest.raises(errors.CimcError, match="pass-option"):
        make()  # type: ignore[operator]
