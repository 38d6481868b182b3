"""Ranges evened out between activations and weights: products stay to the bit in float, and lose less when quantised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from graph_builder import Build, random

from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.passes.partition import Partition
from cimc.passes.pipeline_text import parse_pipeline, print_pipeline
from cimc.passes.quantize import Quantize
from cimc.passes.smooth import Smooth, chosen_scales

Made = tuple[Graph, Constants]
K = 48


def loud(shape: tuple[int, ...] = (64, K), seed: int = 0, channel: int = 5) -> np.ndarray:
    """Rows with one channel forty times as large as the others."""
    rows = random(shape, seed)
    rows[:, channel] *= 40
    return rows


def gains(k: int = K) -> np.ndarray:
    """A norm's gamma with an outlier."""
    gamma = 1 + 0.1 * random((k,), 3)
    gamma[5] = 40
    return gamma.astype(np.float32)


def normed(b: Build) -> str:
    """A norm with gamma and beta."""
    n = b("layer_norm", b.input("x", f"f32[64x{K}]"), out="n", epsilon=1e-5)
    scaled = b("mul", n, b.const(gains(), "gamma"), out="s")
    return b("add", scaled, b.const(random((K,), 4), "beta"), out="h")


def before_norm() -> Made:
    """Two products that alone read what a norm makes."""
    b = Build("canonical")
    h = normed(b)
    q = b("linear", h, b.const(random((K, 24), 1), "wq"), out="q")
    k = b("linear", h, b.const(random((K, 16), 2), "wk"), out="k")
    return b.graph(q, k), b.constants


def after_norm() -> Made:
    """A product and a residual that read what a norm makes."""
    b = Build("canonical")
    h = normed(b)
    y = b("linear", h, b.const(random((K, K), 1), "w"), out="p")
    return b.graph(b("add", h, y, out="y")), b.constants


def last() -> np.ndarray:
    """Weights that make little of the loud channel, as those of trained models do."""
    w = random((K, 8), 3)
    w[7] /= 20
    return w


def gated() -> Made:
    """A gated unit of two products, and the one that reads it."""
    b = Build("canonical")
    x, up = b.input("x", f"f32[64x{K}]"), random((K, K), 2)
    up[:, 7] *= 40
    gate = b("silu", b("linear", x, b.const(random((K, K), 1), "wg"), out="g"), out="a")
    h = b("mul", gate, b("linear", x, b.const(up, "wu"), out="u"), out="h")
    return b.graph(b("linear", h, b.const(last(), "wd"), out="y")), b.constants


def rectified(op: str) -> Made:
    """A product, an activation, a product."""
    b = Build("canonical")
    first = random((K, K), 1)
    first[:, 7] *= 40
    x = b.input("x", f"f32[64x{K}]")
    a = b("add", b("linear", x, b.const(first, "w1"), out="f"), b.const(random((K,), 5), "b1"), out="fb")
    h = b("reshape", b(op, a, out="act"), out="h", shape=(8, 8, K))
    return b.graph(b("linear", h, b.const(last(), "w2"), out="y")), b.constants


def smoothed(made: Made, *, where: str = "anywhere", seed: int = 10) -> Made:
    graph, constants = made
    samples = ({"x": random((64, K), seed)},)
    found = Smooth(where=where, calibration=samples).run(graph, constants)  # pyright: ignore[reportArgumentType]
    check(*found, "after smooth")
    return found


def errors(made: Made) -> dict[str, float]:
    """Relative errors of the quantised outputs on inputs that nothing was measured on."""
    x = {"x": random((64, K), 11)}
    want = evaluate(*made, x, Arithmetic())
    got = evaluate(*Quantize().run(*made), x, Arithmetic(exact=False))
    return {n: float(np.linalg.norm(np.subtract(got[n], want[n])) / np.linalg.norm(want[n])) for n in want}


@pytest.mark.parametrize(
    ("make", "extra"),
    [
        (before_norm, 0),
        (after_norm, 1),
        (gated, 0),
        (lambda: rectified("relu"), 0),
        (lambda: rectified("gelu"), 1),
    ],
    ids=["pre-norm", "post-norm", "gated", "relu", "gelu"],
)
def test_float_keeps_every_bit_and_integers_lose_less(make: Callable[[], Made], extra: int) -> None:
    before = make()
    after = smoothed(before)
    x = {"x": random((64, K), 11)}
    want, got = evaluate(*before, x, Arithmetic()), evaluate(*after, x, Arithmetic())
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)
    products = [{n.outputs[0] for n in made[0].nodes if n.op == "mul"} for made in (before, after)]
    # What the norms and first products read is of even range, but a little may be gained there too.
    assert products[1] - products[0] - {"x.smooth"} == ({"h.smooth"} if extra else set())
    assert {n.op for n in after[0].nodes} <= {n.op for n in before[0].nodes} | {"mul"}
    plain, even = errors(before), errors(after)
    assert all(even[name] < 0.6 * plain[name] for name in plain)


def test_where_it_would_cost_an_operation_it_can_be_left_out() -> None:
    before = after_norm()
    assert smoothed(before, where="free")[0].nodes == before[0].nodes
    assert smoothed(before_norm(), where="free")[0].nodes != before_norm()[0].nodes


def test_products_without_outliers_stay() -> None:
    b = Build("canonical")
    y = b("linear", b.input("x", f"f32[64x{K}]"), b.const(random((K, 8), 1), "w"), out="y")
    made = b.graph(y), b.constants
    assert smoothed(made)[0].nodes == made[0].nodes


def test_a_value_that_is_an_output_is_multiplied_beside_it() -> None:
    graph, constants = before_norm()
    wide = replace(graph, outputs=(*graph.outputs, "h"))
    after, held = smoothed((wide, constants))
    x = {"x": random((64, K), 11)}
    want, got = evaluate(wide, constants, x, Arithmetic()), evaluate(after, held, x, Arithmetic())
    for name in ("q", "k", "h"):
        np.testing.assert_array_equal(got[name], want[name])
    assert len(after.nodes) == len(graph.nodes) + 1


def test_the_ladder_stays_exact() -> None:
    quantized = Quantize().run(*smoothed(after_norm()))
    blocks = Partition(16, 16).run(*quantized)
    x = {"x": random((64, K), 11)}
    want, got = (evaluate(*made, x, Arithmetic(exact=False)) for made in (quantized, blocks))
    np.testing.assert_array_equal(got["y"], want["y"])


def test_scales_are_powers_of_two_that_shrink_the_loud_channel() -> None:
    scales = chosen_scales(loud(), [random((K, 24), 1)], 8)
    assert scales is not None
    np.testing.assert_array_equal(np.exp2(np.rint(np.log2(scales))), scales)
    assert np.argmax(scales) == 5
    assert scales[5] >= 4 * np.median(scales)


def test_options_and_text() -> None:
    with pytest.raises(CimcError, match="there is no 'often'"):
        Smooth(where="often")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CimcError, match="9 bits"):
        Smooth(weight_bits=9)
    with pytest.raises(CimcError, match="no calibration inputs"):
        Smooth().run(*before_norm())
    with pytest.raises(CimcError, match="value h reaches nan"):
        Smooth(calibration=({"x": np.full((64, K), np.nan, np.float32)},)).run(*before_norm())
    text = "smooth{where=free, weight_bits=4}"
    assert print_pipeline(parse_pipeline(text)) == text
