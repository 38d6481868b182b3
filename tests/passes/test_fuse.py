"""fuse: the spellings that exporters write become one op; near misses stay; the answers stay."""

from __future__ import annotations

import math

import numpy as np
import pytest
from graph_builder import Build
from rewriting import body, numbers, ops, rewritten, same_answers

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.passes.fold import Fold
from cimc.passes.fuse import Fuse


def fused(b: Build, *outputs: str, tolerance: float = 1e-5) -> Graph:
    return with_constants(b, *outputs, tolerance=tolerance)[0]


def with_constants(b: Build, *outputs: str, tolerance: float = 1e-5) -> tuple[Graph, Constants]:
    before = b.graph(*outputs)
    check(before, b.constants)
    graph, constants = before, b.constants
    for one in (Fold(), Fuse(), Fold()):
        graph, constants = one.run(graph, constants)
        check(graph, constants, one.name)
    same_answers(before, graph, b.constants, constants, tolerance)
    return graph, constants


def layer_norm(b: Build, x: str, square: str = "pow", root: str = "div", eps: float = 1e-5) -> str:
    d = b("sub", x, b("reduce_mean", x))
    squares = b("pow", d, b.const(2.0)) if square == "pow" else b("mul", d, d)
    moment = b("add", b("reduce_mean", squares), b.const(eps))
    return normalised(b, d, moment, root)


def normalised(b: Build, d: str, moment: str, root: str) -> str:
    if root == "div":
        return b("div", d, b("sqrt", moment))
    if root == "rsqrt":
        return b("mul", d, b("rsqrt", moment))
    if root == "recip":
        return b("mul", b("recip", b("sqrt", moment)), d)
    return b("mul", d, b("div", b.const(1.0), b("sqrt", moment)))


@pytest.mark.parametrize("square", ["pow", "mul"])
@pytest.mark.parametrize("root", ["div", "rsqrt", "recip", "one-over"])
def test_layer_norm(square: str, root: str) -> None:
    b = Build()
    y = layer_norm(b, b.input("x", "f32[3x8]"), square, root)
    graph = fused(b, y)
    assert ops(graph) == ["layer_norm"]
    assert graph.nodes[0].attr("epsilon") == pytest.approx(1e-5)


@pytest.mark.parametrize("root", ["div", "rsqrt", "recip", "one-over"])
def test_rms_norm_in_half_precision_models(root: str) -> None:
    b = Build()
    wide = b("cast", b.input("x", "f16[3x8]"), to="f32")
    moment = b("add", b("reduce_mean", b("pow", wide, b.const(2.0))), b.const(1e-6))
    y = b("cast", normalised(b, wide, moment, root), to="f16")
    assert ops(fused(b, y, tolerance=1e-3)) == ["cast", "rms_norm", "cast"]


def test_a_norm_of_something_else_is_no_norm() -> None:
    b = Build()
    x, z = b.input("x", "f32[3x8]"), b.input("z", "f32[3x8]")
    moment = b("add", b("reduce_mean", b("mul", z, z)), b.const(1e-5))
    assert "rms_norm" not in ops(fused(b, b("div", x, b("sqrt", moment))))


def test_softmax() -> None:
    b = Build()
    x = b.input("x", "f32[3x8]")
    e = b("exp", b("sub", x, b("reduce_max", x)))
    assert ops(fused(b, b("div", e, b("reduce_sum", e)))) == ["softmax"]


def erf_of(b: Build, x: str, how: str) -> str:
    if how == "div":
        return b("erf", b("div", x, b.const(math.sqrt(2))))
    return b("erf", b("mul", x, b.const(1 / math.sqrt(2))))


@pytest.mark.parametrize("how", ["div", "mul"])
@pytest.mark.parametrize("order", ["x(1+e)h", "hx(1+e)", "x(h(1+e))", "(1+e)(hx)", "x/2(1+e)", "x(he+h)"])
def test_gelu(how: str, order: str) -> None:
    b = Build()
    x = b.input("x", "f32[3x8]")
    e, half, one = erf_of(b, x, how), b.const(0.5), b.const(1.0)
    if order == "x(he+h)":
        y = b("mul", x, b("add", b("mul", e, half), half))
    else:
        g = b("add", one, e) if order == "(1+e)(hx)" else b("add", e, one)
        y = {
            "x(1+e)h": lambda: b("mul", b("mul", x, g), half),
            "hx(1+e)": lambda: b("mul", b("mul", half, x), g),
            "x(h(1+e))": lambda: b("mul", x, b("mul", g, half)),
            "(1+e)(hx)": lambda: b("mul", g, b("mul", x, half)),
            "x/2(1+e)": lambda: b("mul", b("div", x, b.const(2.0)), g),
        }[order]()
    assert ops(fused(b, y)) == ["gelu"]


@pytest.mark.parametrize("cube", ["pow", "xxx", "x(xx)", "1+cx2"])
def test_gelu_tanh(cube: str) -> None:
    b = Build()
    x, c, top = b.input("x", "f32[3x8]"), b.const(0.044715), b.const(math.sqrt(2 / math.pi))
    one, half = b.const(1.0), b.const(0.5)
    if cube == "1+cx2":
        inner = b("mul", b("mul", x, top), b("add", one, b("mul", b("mul", x, c), x)))
    else:
        power = {
            "pow": lambda: b("pow", x, b.const(3.0)),
            "xxx": lambda: b("mul", b("mul", x, x), x),
            "x(xx)": lambda: b("mul", x, b("mul", x, x)),
        }[cube]()
        inner = b("mul", b("add", x, b("mul", power, c)), top)
    y = b("mul", b("mul", x, half), b("add", b("tanh", inner), one))
    assert ops(fused(b, y)) == ["gelu_tanh"]


@pytest.mark.parametrize(("half", "root"), [(0.25, math.sqrt(2)), (0.5, 1.5), (0.5, 2.0)])
def test_other_numbers_are_no_gelu(half: float, root: float) -> None:
    b = Build()
    x = b.input("x", "f32[3x8]")
    g = b("add", b("erf", b("div", x, b.const(root))), b.const(1.0))
    assert "gelu" not in ops(fused(b, b("mul", b("mul", x, g), b.const(half))))


def test_silu_and_what_is_not() -> None:
    b = Build()
    x, z = b.input("x", "f32[3x8]"), b.input("z", "f32[3x8]")
    graph = fused(b, b("mul", b("sigmoid", x), x), b("mul", z, b("sigmoid", x)))
    assert sorted(ops(graph)) == ["mul", "sigmoid", "silu"]


ATTENTION = """\
graph test : imported
input %q : f32[2x4x6x8]
input %k : f32[2x4x8x6]
input %v : f32[2x4x6x5]
input %mask : f32[2x1x1x6]
const %scale : f32[]
%s : f32[2x4x6x6] = matmul %q, %k from /qk MatMul
%t : f32[2x4x6x6] = div %s, %scale
%u : f32[2x4x6x6] = add %t, %mask
%p : f32[2x4x6x6] = softmax %u from /p Softmax
%y : f32[2x4x6x5] = matmul %p, %v from /pv MatMul
output %y
"""
FUSED = """\
input %q : f32[2x4x6x8]
input %k : f32[2x4x8x6]
input %v : f32[2x4x6x5]
input %mask : f32[2x1x1x6]
%y : f32[2x4x6x5] = attention{scale=0.25} %q, %k, %v, %mask from /pv MatMul, /p Softmax, /qk MatMul
output %y
"""


def test_attention_golden() -> None:
    assert body(rewritten(ATTENTION, {"scale": np.array(4, np.float32)}, Fold(), Fuse())[0]) == FUSED


class Heads:
    """Operands of an attention, and its parts."""

    def __init__(self, lead: str = "2x4x", element: str = "f32") -> None:
        self.b = Build()
        self.q = self.b.input("q", f"{element}[{lead}6x8]")
        self.k = self.b.input("k", f"{element}[{lead}8x6]")
        self.v = self.b.input("v", f"{element}[{lead}6x5]")

    def done(self, scores: str) -> str:
        return self.b("matmul", self.b("softmax", scores), self.v, out="y")


@pytest.mark.parametrize("place", ["scores", "q", "k", "split", "attr", "none"])
def test_the_scale_may_stand_anywhere(place: str) -> None:
    h = Heads()
    b, q, k = h.b, h.q, h.k
    c = b.const(0.25 if place != "split" else 0.5)
    q = b("mul", q, c) if place in ("q", "split") else q
    k = b("mul", c, k) if place in ("k", "split") else k
    s = b("matmul", q, k, **({"scale": 0.25} if place == "attr" else {}))
    s = b("mul", s, c) if place == "scores" else s
    graph = fused(b, h.done(s))
    assert ops(graph) == ["attention"]
    assert graph.nodes[0].attr("scale") == (1.0 if place == "none" else 0.25)


@pytest.mark.parametrize(("low", "fuses"), [(-np.inf, True), (float(np.finfo(np.float32).min), True), (-1e4, False)])
@pytest.mark.parametrize("keep", [True, False])
def test_a_selected_mask_is_added_only_if_that_is_the_same(low: float, fuses: bool, keep: bool) -> None:
    h = Heads()
    causal = np.tril(np.ones((6, 6), bool))
    condition = h.b.const(causal if keep else ~causal)
    s, number = h.b("matmul", h.q, h.k), h.b.const(low)
    s = h.b("select", condition, *((s, number) if keep else (number, s)))
    assert (ops(fused(h.b, h.done(s))) == ["attention"]) == fuses


def test_masks_add_up() -> None:
    h = Heads()
    b = h.b
    s = b("select", b.const(np.tril(np.ones((6, 6), bool))), b("matmul", h.q, h.k), b.const(-np.inf))
    s = b("add", b("add", s, b.input("m", "f32[2x1x1x6]")), b.input("bias", "f32[4x6x6]"))
    assert ops(fused(b, h.done(s))) == ["add", "add", "attention"]


def test_a_scale_after_the_mask_is_not_mistaken() -> None:
    h = Heads()
    s = h.b("mul", h.b("add", h.b("matmul", h.q, h.k), h.b.input("m", "f32[6x6]")), h.b.const(0.5))
    assert "attention" not in ops(fused(h.b, h.done(s)))


def test_weights_that_are_read_elsewhere_are_kept() -> None:
    h = Heads()
    p = h.b("softmax", h.b("matmul", h.q, h.k))
    y = h.b("matmul", p, h.v)
    assert ops(fused(h.b, y, p)) == ["matmul", "softmax", "matmul"]


def guarded(h: Heads, mask: str) -> str:
    b = h.b
    p = b("softmax", b("add", b("matmul", h.q, h.k), mask))
    return b("matmul", b("select", b("isnan", p), b.const(0.0), p), h.v, out="y")


def test_a_guard_is_dropped_where_no_row_is_masked_altogether() -> None:
    h = Heads()
    mask = h.b.const(np.where(np.tril(np.ones((6, 6), bool)), np.float32(0), np.float32(-np.inf)))
    assert ops(fused(h.b, guarded(h, mask))) == ["attention"]


def test_a_guard_moves_to_the_result_otherwise() -> None:
    h = Heads()
    y = guarded(h, h.b.input("m", "f32[2x1x6x6]"))
    before = h.b.graph(y)
    graph, constants = with_constants(h.b, y)
    assert ops(graph) == ["attention", "isnan", "select"]
    inputs = numbers(before)
    inputs["m"][:, :, 2] = -np.inf  # a row that is masked altogether
    want = evaluate(before, h.b.constants, inputs, Arithmetic())["y"]
    assert not want[:, :, 2].any()
    np.testing.assert_allclose(evaluate(graph, constants, inputs, Arithmetic())["y"], want, rtol=1e-5, atol=1e-5)


def test_heads_folded_into_the_batch() -> None:
    """Three-dimensional matmuls, the mask added in four dimensions (BART, nn.MultiheadAttention)."""
    h = Heads("8x")
    b = h.b
    s = b("reshape", b("matmul", h.q, h.k), shape=(2, 4, 6, 6))
    s = b("reshape", b("add", s, b.input("m", "f32[2x1x6x6]")), shape=(8, 6, 6))
    graph = fused(b, h.done(s))
    assert ops(graph) == ["reshape", "reshape", "reshape", "attention", "reshape"]
    assert graph.types["y"].shape == (8, 6, 5)


@pytest.mark.parametrize("spelled", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_heads_are_not_repeated(masked: bool, spelled: bool) -> None:
    """LLaMA's repeat_kv: unsqueeze, expand, reshape."""
    b = Build()
    q, k, v = b.input("q", "f32[2x4x6x8]"), b.input("k", "f32[2x2x6x8]"), b.input("v", "f32[2x2x6x8]")

    def repeated(x: str) -> str:
        wide = b("expand", b("reshape", x, shape=(2, 2, 1, 6, 8)), shape=(2, 2, 2, 6, 8))
        return b("reshape", wide, shape=(2, 4, 6, 8))

    turned = b("transpose", repeated(k), perm=(0, 1, 3, 2))
    masks = (b.input("m", "f32[2x1x6x6]"),) if masked else ()
    if spelled:
        s = b("matmul", q, turned)
        y = b("matmul", b("softmax", b("add", s, *masks) if masked else s), repeated(v))
    else:
        y = b("attention", q, turned, repeated(v), *masks, scale=0.5)
    graph = fused(b, y)
    assert "expand" not in ops(graph)
    (node,) = [n for n in graph.nodes if n.op == "attention"]
    shapes = [graph.types[x].shape for x in node.inputs]
    assert shapes[:3] == [(2, 2, 2, 6, 8), (2, 2, 1, 8, 6), (2, 2, 1, 6, 8)]


def test_half_precision_with_a_softmax_in_single() -> None:
    h = Heads(element="f16")
    b = h.b
    p = b("softmax", b("cast", b("mul", b("matmul", h.q, h.k), b.const(0.25, dtype=np.float16)), to="f32"))
    y = b("matmul", b("cast", p, to="f16"), h.v)
    assert ops(fused(b, y, tolerance=2e-3)) == ["attention"]


def test_integer_matmuls_are_no_attention() -> None:
    b = Build()
    s = b("matmul", b.input("q", "i8[6x8]"), b.input("k", "i8[8x6]"))
    y = b("matmul", b("softmax", b("cast", s, to="f32")), b.input("v", "f32[6x5]"))
    assert ops(fused(b, y)) == ["matmul", "cast", "softmax", "matmul"]
