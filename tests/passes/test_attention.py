"""The ways to treat products of activations: what each pass leaves of the answer, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import pytest

from cimc import errors
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.pipeline import run_pipeline
from tests.passes.graph_builder import Build, random

HEADS, TOKENS, WIDTH = 2, 40, 8
EACH = WIDTH // HEADS


def heads(b: Build, x: str, perm: tuple[int, ...], heads: int = HEADS) -> str:
    return b("transpose", b("reshape", x, shape=(1, TOKENS, heads, b.types[x].shape[-1] // heads)), perm=perm)


def layer(*, between: str = "", fused: bool = False, mask: bool = True) -> tuple[Graph, dict[str, np.ndarray]]:
    """Multi-head attention on canonical level; ``between``: an op on the keys; ``fused``: one projection for all three."""
    b = Build("canonical")
    x = b.input("x", f"f32[1x{TOKENS}x{WIDTH}]")
    if fused:
        w = b.const(random((WIDTH, 3 * WIDTH), 1), "w")
        whole = b("add", b("linear", x, w), b.const(random((3 * WIDTH,), 2)))
        q, k, v = (
            b("slice", whole, start=(0, 0, i * WIDTH), size=(1, TOKENS, WIDTH), step=(1, 1, 1)) for i in range(3)
        )
    else:
        q, k, v = (
            b("add", b.const(random((WIDTH,), 9 + i)), b("linear", x, b.const(random((WIDTH, WIDTH), i), f"w{i}")))
            for i in range(3)
        )
    if between:
        k = b(between, k)
    operands = [heads(b, q, (0, 2, 1, 3)), heads(b, k, (0, 2, 3, 1)), heads(b, v, (0, 2, 1, 3))]
    if mask:
        operands.append(b.input("mask", f"f32[1x1x{TOKENS}x{TOKENS}]"))
    y = b("attention", *operands, scale=0.5)
    feeds = {"x": random((1, TOKENS, WIDTH), 5)}
    if mask:
        causal = np.triu(np.full((TOKENS, TOKENS), -np.inf, np.float32), 1)
        feeds["mask"] = causal[None, None]
    graph = b.graph(y)
    check(graph, b.constants)
    return graph, {**b.constants, **feeds}


def answers(graph: Graph, arrays: dict[str, np.ndarray], passes: str) -> tuple[Graph, dict[bool, np.ndarray]]:
    """The graph after passes and its answer, by whether it is computed exactly."""
    constants = {name: a for name, a in arrays.items() if name in graph.constants}
    done = run_pipeline(graph, constants, passes)
    check(done.graph, done.constants)
    feeds = {name: arrays[name] for name in graph.inputs}
    found = {e: evaluate(done.graph, done.constants, feeds, Arithmetic(exact=e)) for e in (True, False)}
    return done.graph, {e: next(iter(got.values())) for e, got in found.items()}


def plain(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The layer of three projections, written out in float64, one head after the other."""
    x = arrays["x"][0].astype(np.float64)
    biases = [random((WIDTH,), 9 + i) for i in range(3)]
    q, k, v = (x @ arrays[f"w{i}"] + biases[i] for i in range(3))
    found = []
    for h in range(HEADS):
        mine = slice(h * EACH, (h + 1) * EACH)
        scores = 0.5 * q[:, mine] @ k[:, mine].T + arrays["mask"][0, 0]
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        found.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, mine])
    return np.stack(found)[None]


@pytest.mark.parametrize("passes", ["decompose", "online{bytes=64}", "quantize,written", "decompose,quantize,written"])
def test_float_answers_are_those_of_the_definition(passes: str) -> None:
    graph, arrays = layer()
    after, found = answers(graph, arrays, passes)
    np.testing.assert_allclose(found[True], plain(arrays), rtol=2e-5, atol=2e-6)
    assert {n.op for n in after.nodes} != {n.op for n in graph.nodes}


def test_written_operands_give_the_bits_of_a_matmul_unit_of_8_bits() -> None:
    graph, arrays = layer()
    _, digital = answers(graph, arrays, "quantize")
    after, written = answers(graph, arrays, "quantize,written{cells=sram, rows=4, cols=4}")
    np.testing.assert_array_equal(written[False], digital[False])
    products = [n for n in after.nodes if n.op == "written_matmul"]
    assert [n.attr("product") for n in products] == ["qk", "pv"]
    assert {n.attr("cells") for n in products} == {"sram"}
    assert not any(n.op == "attention" for n in after.nodes)


@pytest.mark.parametrize("fused", [False, True])
def test_decomposed_scores_need_no_keys(fused: bool) -> None:
    graph, arrays = layer(fused=fused)
    after, found = answers(graph, arrays, "decompose")
    _, before = answers(graph, arrays, "dce")
    np.testing.assert_allclose(found[True], before[True], rtol=2e-5, atol=2e-6)
    (node,) = (n for n in after.nodes if n.op == "attention")
    q, k = (after.type(v).shape for v in node.inputs[:2])
    assert q == (1, HEADS, TOKENS, WIDTH)
    assert k == (1, 1, WIDTH, TOKENS)  # one xᵀ for all heads
    if not fused:
        assert not any("w1" in n.inputs for n in after.nodes)  # the keys' projection is gone
    assert sum(n.op == "linear" for n in after.nodes) == (1 if fused else 2) + HEADS


def test_the_input_of_the_projections_is_quantised_once() -> None:
    graph, arrays = layer()
    after, _ = answers(graph, arrays, "decompose,quantize,written")
    assert sum(n.op == "quantize" and n.inputs == ("x",) for n in after.nodes) == 1
    (scores,) = (n for n in after.nodes if n.op == "written_matmul" and n.attr("product") == "qk")
    assert len(scores.inputs) == 4  # codes of x with their scales


def test_what_stands_between_the_projection_and_the_scores_is_named() -> None:
    graph, arrays = layer(between="tanh")
    with pytest.raises(errors.CimcError, match=r"tanh .* stands between the projection of the keys and the scores"):
        answers(graph, arrays, "decompose")


def test_of_two_layers_the_one_that_cannot_be_decomposed_says_why() -> None:
    b = Build("canonical")
    x = b.input("x", f"f32[1x{TOKENS}x{WIDTH}]")
    q, k = (b("linear", x, b.const(random((WIDTH, WIDTH), i), f"w{i}")) for i in range(2))
    v = heads(b, x, (0, 2, 1, 3))
    rows, keys = heads(b, q, (0, 2, 1, 3)), heads(b, k, (0, 2, 3, 1))
    shared = heads(b, x, (0, 2, 3, 1), heads=1)
    y = b("attention", rows, keys, v, scale=0.5)
    first = b("slice", shared, start=(0, 0, 0, 0), size=(1, 1, EACH, TOKENS), step=(1, 1, 1, 1))
    z = b("attention", rows, first, v, scale=0.5)
    after, _ = answers(b.graph(y, z), {**b.constants, "x": random((1, TOKENS, WIDTH))}, "decompose")
    assert [n.get("kept", "") for n in after.nodes if n.op == "attention"] == ["", "several heads share their keys"]


def test_softmax_in_blocks_survives_blocks_that_are_masked() -> None:
    graph, arrays = layer()
    after, found = answers(graph, arrays, "online{bytes=64}")
    assert np.isfinite(found[False]).all()
    assert sum(n.op == "matmul" for n in after.nodes) == 2 * 3  # 40 keys in blocks of at most 16
    assert not any(n.op in ("softmax", "attention") for n in after.nodes)


def test_softmax_in_blocks_is_left_alone_where_there_is_room() -> None:
    graph, arrays = layer()
    after, _ = answers(graph, arrays, "online{bytes=1000000}")
    assert [n.op for n in after.nodes] == [n.op for n in graph.nodes]


def test_a_row_without_any_key_is_no_number_either_way() -> None:
    graph, arrays = layer()
    arrays["mask"][0, 0, 2, :] = -np.inf
    _, whole = answers(graph, arrays, "dce")
    _, blocks = answers(graph, arrays, "online{bytes=64}")
    np.testing.assert_array_equal(np.isnan(whole[True]), np.isnan(blocks[True]))
    assert np.isnan(blocks[True][0, :, 2]).all()


@pytest.mark.parametrize("passes", ["written{cells=pcm}", "written{rows=0}", "online{bytes=0}"])
def test_options_out_of_range_are_refused(passes: str) -> None:
    with pytest.raises(errors.CimcError, match="option"):
        run_pipeline(*layer()[:1], {}, f"quantize,{passes}" if passes.startswith("written") else passes)
