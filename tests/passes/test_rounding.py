"""Weights rounded for measured inputs: never off by more than the errors they make good for, and better together."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Build, random
from rewriting import ops

from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.isa.kernels import codes_by, symmetric_scales
from cimc.ops import Arithmetic
from cimc.passes.quantize import Quantize
from cimc.passes.rounding import DAMPING, Moments, fitted


def alike(rows: int, k: int, seed: int) -> np.ndarray:
    """Rows of which all channels follow a few, as activations do."""
    return (random((rows, 6), seed) @ random((6, k), 1) + 0.1 * random((rows, k), seed + 1)).astype(np.float32)


def column_by_column(w: np.ndarray, steps: np.ndarray, bits: int, x: np.ndarray) -> np.ndarray:
    """GPTQ as it is derived (Optimal Brain Quantization in a fixed order): after each input the inverse of the moments of
    the inputs that are left is found anew."""
    h = x.astype(np.float64).T @ x.astype(np.float64)
    h += np.eye(len(h)) * DAMPING * np.mean(np.diag(h))
    rest, codes = w.astype(np.float64), np.empty_like(w)
    for i in range(len(w)):
        codes[i] = codes_by(rest[i].astype(np.float32), steps, bits)
        inverse = np.linalg.inv(h[i:, i:])
        error = (rest[i] - codes[i].astype(np.float64) * steps) / inverse[0, 0]
        rest[i:] -= np.outer(inverse[:, 0], error)
    return codes


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("k", [40, 200])
def test_codes_are_those_of_the_definition(bits: int, k: int) -> None:
    x, w = alike(256, k, 3), random((k, 24), 2)
    steps = symmetric_scales(np.max(np.abs(w), axis=0), bits)
    found = fitted(w, steps, bits, Moments({"x": x}), "x")
    slow, nearest = column_by_column(w, steps, bits, x[::2]), codes_by(w, steps, bits)
    kept = np.all(found == nearest, axis=0)
    assert kept.sum() < 6
    np.testing.assert_array_equal(found[:, ~kept], slow[:, ~kept])


def test_products_on_other_inputs_are_nearer() -> None:
    w = random((64, 24), 2)
    steps = symmetric_scales(np.max(np.abs(w), axis=0), 4)
    found = fitted(w, steps, 4, Moments({"x": alike(256, 64, 3)}), "x")
    other = alike(256, 64, 50)
    before, after = (np.linalg.norm(other @ (c * steps - w)) for c in (codes_by(w, steps, 4), found))
    assert after < 0.5 * before
    assert np.max(np.abs(found)) <= 7


def test_inputs_without_a_pattern_leave_the_nearest_codes() -> None:
    w = random((64, 24), 2)
    steps = symmetric_scales(np.max(np.abs(w), axis=0), 8)
    for rows in (random((4000, 64), 3), random((1, 64), 3), np.zeros((40, 64), np.float32)):
        found = fitted(w, steps, 8, Moments({"x": rows}), "x")
        np.testing.assert_array_equal(found, codes_by(w, steps, 8))


def layers() -> tuple[Graph, Constants]:
    b = Build("canonical")
    x = b.input("x", "f32[128x40]")
    a = b("linear", x, b.const(random((40, 24), 2), "w"), out="a")
    c = b("linear", x, b.const(random((40, 16), 3), "v"), out="c")
    return b.graph(a, c), b.constants


def test_quantize_takes_fitted_codes_with_the_same_steps() -> None:
    graph, constants = layers()
    samples = ({"x": alike(128, 40, 5)}, {"x": alike(128, 40, 7)})
    plain = Quantize(weight_bits=4).run(graph, constants)
    made = Quantize(weight_bits=4, rounding="fitted", calibration=samples).run(graph, constants)
    check(*made, "after quantize")
    assert ops(made[0]) == ops(plain[0])
    for name in ("w.q4.scale", "v.q4.scale", "w.q4.float"):
        np.testing.assert_array_equal(made[1][name], plain[1][name])
    inputs = {"x": alike(128, 40, 9)}
    want = evaluate(graph, constants, inputs, Arithmetic())
    for name, exact in want.items():
        got = (evaluate(*m, inputs, Arithmetic(exact=False))[name] for m in (made, plain))
        near, far = (float(np.linalg.norm(np.subtract(y, exact))) for y in got)
        assert near < 0.7 * far


def test_refusals() -> None:
    with pytest.raises(CimcError, match="use nearest or fitted"):
        Quantize(rounding="up")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CimcError, match="no calibration inputs"):
        Quantize(rounding="fitted").run(*layers())
    bad = ({"x": np.full((128, 40), np.inf, np.float32)},)
    with pytest.raises(CimcError, match="value x reaches inf"):
        Quantize(rounding="fitted", calibration=bad).run(*layers())
