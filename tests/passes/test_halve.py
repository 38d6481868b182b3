"""Values between products in 16 bits: which they are, and that each is rounded once, where it is computed."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from cimc.arch.load import load
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lower
from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate, evaluate_all
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ir.text import parse_graph, print_graph
from cimc.isa.kernels import symmetric_codes
from cimc.isa.operands import Element
from cimc.mapping.build import build
from cimc.ops import Arithmetic
from cimc.passes.halve import Halve
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize
from cimc.passes.split import Split
from cimc.pipeline import Watch, run_pipeline
from cimc.sim.interpreter import run
from tests.passes.graph_builder import Build, random

INTEGER = Arithmetic(exact=False)
DTYPES = {"f16": np.dtype(np.float16), "bf16": np.dtype(ml_dtypes.bfloat16)}
ELEMENTS = {"f16": Element.QF16, "bf16": Element.QBF16}
TOY = load("toy", ("tiles.all.cores=256", "tiles.all.local_bytes=262144")).spec


def block() -> Build:
    """Two products with bias, activation, residual and norm between them."""
    b = Build("canonical")
    x = b.input("x", "f32[5x16]")
    h = b("add", b("linear", x, b.const(random((16, 24), 1), "w"), out="h"), b.const(random((24,), 2), "bias"), out="b")
    y = b("linear", b("gelu", h, out="g"), b.const(random((24, 16), 3), "v"), out="p")
    r = b("add", y, x, out="r")
    n = b("mul", b("layer_norm", r, out="n", epsilon=1e-5), b.const(random((16,), 4), "gain"), out="m")
    b("linear", n, b.const(random((16, 8), 5), "u"), out="y")
    return b


def halved(b: Build, *outputs: str, to: str = "f16") -> tuple[Graph, Constants]:
    """The graph quantised, its values in 16 bits; lawful."""
    graph, constants = Quantize().run(b.graph(*outputs), b.constants)
    graph, constants = Halve(to).run(graph, constants)  # pyright: ignore[reportArgumentType]
    check(graph, constants, "after halve")
    return graph, constants


def small(graph: Graph) -> set[str]:
    """Values in 16 bits."""
    return {v for v, t in graph.types.items() if t.element.halved}


@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_what_other_ops_read_is_in_16_bits_and_prints(to: str) -> None:
    graph, _ = halved(block(), "y", to=to)
    assert small(graph) == {"b", "g", "p", "r", "m"}
    assert {graph.types[v].element for v in small(graph)} == {ELEMENTS[to]}
    assert graph.types["h"].element is graph.types["n"].element is graph.types["y"].element is Element.F32
    assert f'%b : q{to}[5x24] = add{{to="q{to}"}} %h, %bias' in print_graph(graph)
    assert parse_graph(print_graph(graph)) == graph


@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_each_value_is_rounded_once_as_it_is_written(to: str) -> None:
    """Against the block written out by hand."""
    graph, constants = halved(block(), "y", to=to)
    dtype, x = DTYPES[to], random((5, 16), 7)

    def rounded(value: np.ndarray) -> np.ndarray:
        return value.astype(dtype).astype(np.float32)

    def product(value: np.ndarray, name: str) -> np.ndarray:
        codes, scale = symmetric_codes(value, 8, -1)
        sums = codes.astype(np.int64) @ constants[f"{name}.q8"].astype(np.int64)
        return sums.astype(np.float32) * (scale * constants[f"{name}.q8.scale"])

    from scipy.special import erf

    b = rounded(product(x, "w") + constants["bias"])
    wide = b.astype(np.float64)
    g = (0.5 * wide * (1 + erf(wide * np.sqrt(0.5)))).astype(dtype).astype(np.float32)
    r = rounded(rounded(product(g, "v")) + x)
    centred = r.astype(np.float64) - r.astype(np.float64).mean(axis=-1, keepdims=True)
    n = (centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)).astype(np.float32)
    m = rounded(n * constants["gain"])
    wanted = {"b": b, "g": g, "r": r, "m": m, "y": product(m, "u")}
    found = evaluate_all(graph, constants, {"x": x}, INTEGER, keep=tuple(wanted))
    for name, value in wanted.items():
        assert found[name].dtype == (np.float32 if name == "y" else dtype)
        np.testing.assert_array_equal(found[name].astype(np.float32), value)


def test_float_numerics_round_nothing() -> None:
    b = block()
    graph, constants = halved(b, "y")
    plain, kept = Quantize().run(b.graph("y"), b.constants)
    inputs = {"x": random((5, 16), 7)}
    for name, value in evaluate(plain, kept, inputs, Arithmetic()).items():
        np.testing.assert_array_equal(evaluate(graph, constants, inputs, Arithmetic())[name], value)


@pytest.mark.parametrize("to", ["f16", "bf16"])
def test_the_program_computes_what_the_graph_means(to: str) -> None:
    graph, constants = Partition(8, 8).run(*halved(block(), "y", to=to))
    mapped, mapping = build(graph, TOY, "w8a8")
    program = lower(mapped, mapping, TOY)
    sent = {b.element for t in program.tiles for b in t.buffers}
    assert ELEMENTS[to] in sent
    inputs = {"x": random((5, 16), 8)}
    for exact in (False, True):
        want = evaluate(graph, constants, inputs, Arithmetic(exact=exact))["y"]
        numerics = "float" if exact else "integer"
        result = run(program, Contents(program, mapped, constants), TOY, inputs=inputs, numerics=numerics, timing=False)
        assert result.outputs is not None
        (got,) = result.outputs.values()
        if exact:
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("cores", [1, 3])
def test_products_in_pieces_give_the_same(cores: int) -> None:
    graph, constants = Partition(8, 8).run(*halved(block(), "y"))
    pieces, held = Split(cores).run(graph, constants)
    check(pieces, held, "after split")
    inputs = {"x": random((5, 16), 9)}
    np.testing.assert_array_equal(
        evaluate(pieces, held, inputs, INTEGER)["y"], evaluate(graph, constants, inputs, INTEGER)["y"]
    )


def test_moved_elements_are_halved_together_or_not_at_all() -> None:
    """What is joined with an input, or is an output, stays as it is; views and slices follow what they look at."""
    b = Build("canonical")
    x = b.input("x", "f32[4x8]")
    h = b("linear", x, b.const(random((8, 8), 1), "w"))
    g = b("relu", b("gelu", h, out="g"), out="r")
    b("transpose", g, out="t", perm=(1, 0))
    b("softmax", b("reshape", "t", out="s", shape=(4, 8)), out="z")
    b("concat", b("relu", h, out="k"), x, out="c", axis=0)
    b("relu", "c", out="d")
    graph, _ = halved(b, "z", "d")
    assert small(graph) == {"v0", "g", "r", "t", "s"}


def test_masks_scores_and_scales_stay() -> None:
    """Masks hold numbers beyond 65504, a softmax's scores stay in the unit that makes them, and a row has few scales."""
    b = Build("canonical")
    x, mask = b.input("x", "f32[1x4x8]"), b.input("mask", "f32[1x1x4]")
    q = b("linear", x, b.const(random((8, 8), 1), "w"), out="q")
    far = b("mul", mask, b.const(-3e38), out="far")
    scores = b("matmul", q, b("transpose", q, out="k", perm=(0, 2, 1)), out="scores")
    weights = b("softmax", b("add", scores, far, out="masked"), out="weights")
    y = b("matmul", weights, q, out="y")
    peak = b("reduce_max", y, out="peak")
    b("relu", b("sub", y, peak, out="less"), out="out")
    graph, constants = halved(b, "out")
    assert small(graph) == {"q", "k", "scores", "weights", "y", "less"}
    inputs = {"x": random((1, 4, 8)), "mask": np.array([[[0, 0, 1, 1]]], np.float32)}
    assert np.isfinite(evaluate(graph, constants, inputs, INTEGER)["out"]).all()


def test_parts_of_one_onnx_node_stay_inside_it() -> None:
    b = Build("canonical")
    h = b("linear", b.input("x", "f32[4x8]"), b.const(random((8, 8), 1), "w"), out="h")
    b("relu", b("exp", b("gelu", h, out="a"), out="e"), out="y")
    graph = b.graph("y")
    one = [
        n if n.op != "exp" else type(n)(n.op, n.inputs, n.outputs, n.attrs, graph.nodes[1].origins) for n in graph.nodes
    ]
    graph, _ = Halve().run(*Quantize().run(graph.with_nodes(tuple(one)), b.constants))
    assert small(graph) == {"h", "e"}


def test_too_large_for_f16_is_infinite_and_not_for_bf16() -> None:
    b = Build("canonical")
    h = b("linear", b.input("x", "f32[1x8]"), b.const(np.full((8, 8), 1e4, np.float32), "w"), out="h")
    b("relu", h, out="y")
    for to, found in (("f16", np.inf), ("bf16", 79872.0)):
        graph, constants = halved(b, "y", to=to)
        y = evaluate(graph, constants, {"x": np.ones((1, 8), np.float32)}, INTEGER)["y"]
        np.testing.assert_array_equal(y, np.full((1, 8), found, np.float32))


def test_the_watch_knows_that_values_are_rounded() -> None:
    b = block()
    run_pipeline(b.graph("y"), b.constants, "quantize,halve{to=bf16},partition", Watch(verify=2))


def test_options_are_checked() -> None:
    with pytest.raises(CimcError, match="there is no 'f8'"):
        Halve("f8")  # pyright: ignore[reportArgumentType]
