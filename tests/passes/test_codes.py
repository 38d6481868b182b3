"""Queries and keys as codes where they are made: the same bits, and what stays as it is."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from cimc import errors
from cimc.ir.graph import Graph
from cimc.ir.levels import check
from cimc.isa.operands import Element
from cimc.passes.codes import Codes, uncoded
from cimc.pipeline import run_pipeline
from tests.passes.graph_builder import Build, random
from tests.passes.test_attention import EACH, HEADS, TOKENS, WIDTH, answers, heads, layer


def coded(graph: Graph) -> list[str]:
    """The products whose operands come as codes."""
    return [
        n.op for n in graph.nodes if n.op in ("attention", "matmul") and graph.type(n.inputs[0]).element is Element.Q8
    ]


def groups(graph: Graph) -> list[object]:
    """The groups of each `quantize` in heads."""
    return [n.attr("groups") for n in graph.nodes if n.op == "quantize" and n.get("groups", 1) != 1]


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("before", ["", "online{bytes=64},"])
def test_codes_give_the_same_bits(fused: bool, mask: bool, before: str) -> None:
    graph, arrays = layer(fused=fused, mask=mask)
    _, want = answers(graph, arrays, f"{before}quantize")
    after, got = answers(graph, arrays, f"{before}quantize,codes{{cols=8}}")
    for exact in (False, True):
        np.testing.assert_array_equal(got[exact], want[exact])
    assert groups(after) == [HEADS, HEADS]
    assert set(coded(after)) == {"matmul" if before else "attention"}


def test_rows_of_heads_are_quantised_as_they_are() -> None:
    """Rotary embeddings and the like are made head by head; heads share keys."""
    b = Build("canonical")
    x = b.input("x", f"f32[1x{TOKENS}x{WIDTH}]")
    q, k = (b("linear", x, b.const(random((WIDTH, n), n))) for n in (WIDTH, EACH))
    rows = b("mul", heads(b, q, (0, 2, 1, 3)), b.const(random((TOKENS, EACH), 3)))
    keys = b("mul", heads(b, k, (0, 2, 1, 3), heads=1), b.const(random((TOKENS, EACH), 4)))
    wide = b("expand", keys, shape=(1, HEADS, TOKENS, EACH))
    y = b("attention", rows, b("transpose", wide, perm=(0, 1, 3, 2)), wide, scale=0.5)
    z = b("attention", rows, b("transpose", keys, perm=(0, 1, 3, 2)), heads(b, x, (0, 2, 1, 3)), scale=0.5)
    both, one = b.graph(y, z), b.graph(z)
    arrays = {**b.constants, "x": random((1, TOKENS, WIDTH), 5)}
    _, want = answers(one, arrays, "quantize")
    after, got = answers(one, arrays, "quantize,codes")
    np.testing.assert_array_equal(got[False], want[False])
    assert groups(after) == []
    assert Counter(n.op for n in after.nodes)["quantize"] == 3  # x, rows and keys
    # Keys that are multiplied as values too stay, and so do all operands of products that take them.
    assert coded(answers(both, arrays, "quantize,codes")[0]) == []


def product(keys: str, out: str = "", cols: int = 8) -> list[str]:
    """What becomes of a product of queries and ``keys`` that are made, an input, or joined to earlier ones."""
    b = Build("quantized")
    q = b("relu", b.input("q", f"f32[1x{TOKENS}x{WIDTH}]"))
    k = b.input("k", f"f32[1x{TOKENS}x{WIDTH}]")
    if keys != "input":
        k = b("relu", k, out="made")
    if keys == "cache":
        past = b.input("past", f"f32[1x4x{WIDTH}]")
        k = b("concat", past, k, axis=1, out="joined")
    each = b.types[k].shape[1]
    k = b("transpose", b("reshape", k, shape=(1, each, HEADS, EACH)), perm=(0, 2, 3, 1))
    y = b("matmul", heads(b, q, (0, 2, 1, 3)), k)
    graph, constants = Codes(cols).run(b.graph(y, *([out] if out else [])), {})
    check(graph, constants)
    return coded(graph)


def test_what_is_no_rows_or_is_read_otherwise_stays() -> None:
    assert product("made") == ["matmul"]
    assert product("input") == []
    assert product("cache") == []
    assert product("made", out="made") == []
    assert product("made", cols=6) == []  # tiles would have parts of heads


def test_uncoded_is_what_it_was() -> None:
    graph, arrays = layer(fused=True)
    constants = {name: a for name, a in arrays.items() if name in graph.constants}
    plain, done = (run_pipeline(graph, constants, f"quantize{more}") for more in ("", ",codes{cols=4}"))
    found = uncoded(done.graph)
    check(found, done.constants)
    assert coded(done.graph)
    assert coded(found) == []
    assert [n.op for n in found.nodes if n.op not in ("reshape", "transpose", "slice")] == [
        n.op for n in plain.graph.nodes if n.op not in ("reshape", "transpose", "slice")
    ]
    assert uncoded(plain.graph) is plain.graph


def test_uncoded_keeps_16_bits() -> None:
    graph, arrays = layer(fused=True)
    constants = {name: a for name, a in arrays.items() if name in graph.constants}
    done = run_pipeline(graph, constants, "quantize,codes{cols=4},halve")
    found = uncoded(done.graph)
    check(found, done.constants)
    assert coded(done.graph)
    assert coded(found) == []
    products = [n for n in found.nodes if n.op in ("attention", "matmul") and n.inputs[0] not in found.constants]
    assert {found.type(v).element for n in products for v in n.inputs[:2]} == {Element.QF16}


def test_options_are_checked() -> None:
    with pytest.raises(errors.CimcError, match="0 is below 1"):
        Codes(0)
