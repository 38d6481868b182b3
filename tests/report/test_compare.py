"""The comparison's figures against their definitions and closed forms, and every rule at its edge."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cimc.report.compare import SQNR_LIMIT_DB, Tolerance, compare

ANALOG = Tolerance("analog")
FINITE = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(-1e6, 1e6, width=32))


def test_figures_of_a_worked_example() -> None:
    want = np.array([[3.0, 4.0], [0.0, 12.0]], np.float32)
    got = np.array([[3.0, 4.5], [1.0, 12.0]], np.float32)
    a = compare("y", got, want)
    assert (a.shape, a.dtype, a.worst_index) == ((2, 2), "float32", (1, 0))
    assert a.max_abs_error == 1.0
    assert a.rms_error == pytest.approx(math.sqrt(1.25 / 4))
    assert a.cosine_similarity == pytest.approx((9 + 18 + 144) / (13 * math.sqrt(9 + 20.25 + 1 + 144)))
    assert a.sqnr_db == pytest.approx(10 * math.log10(169 / 1.25))
    assert a.argmax_agreement == 1.0
    assert (a.worst_got, a.worst_want) == (1.0, 0.0)
    assert a.needed_rtol == pytest.approx(1 / 12)
    assert not a.passed
    assert "above 0.012" in a.verdict.why


@given(FINITE, st.integers(0, 2**32 - 1))
def test_figures_agree_with_plain_python(want: np.ndarray, seed: int) -> None:
    got = want + np.random.default_rng(seed).normal(size=want.shape).astype(np.float32)
    a = compare("y", got, want)
    xs, ys = [float(v) for v in got.ravel()], [float(v) for v in want.ravel()]
    es = [x - y for x, y in zip(xs, ys, strict=True)]
    assert a.max_abs_error == max(map(abs, es))
    assert a.rms_error == pytest.approx(math.sqrt(math.fsum(e * e for e in es) / len(es)))
    if any(abs(y) > 1e-3 for y in ys):
        dot = math.fsum(x * y for x, y in zip(xs, ys, strict=True))
        cosine = dot / math.sqrt(math.fsum(x * x for x in xs)) / math.sqrt(math.fsum(y * y for y in ys))
        assert a.cosine_similarity == pytest.approx(cosine, abs=1e-9)
        noise = math.fsum(e * e for e in es)
        assert a.sqnr_db == pytest.approx(10 * math.log10(math.fsum(y * y for y in ys) / noise), abs=1e-6)


@given(FINITE)
def test_an_array_agrees_with_itself(x: np.ndarray) -> None:
    for tolerance in (Tolerance(), ANALOG):
        a = compare("y", x, x, tolerance)
        assert a.passed
        assert (a.max_abs_error, a.rms_error, a.sqnr_db, a.argmax_agreement) == (0, 0, SQNR_LIMIT_DB, 1)
        assert a.cosine_similarity == pytest.approx(1.0)
        assert a.worst_index is None


@pytest.mark.parametrize(("error", "passed"), [(0.0099, True), (0.0101, False)])
def test_float_limit_is_a_thousandth_of_the_largest(error: float, passed: bool) -> None:
    want = np.array([0.0, -10.0, 1.0])
    assert compare("y", want + np.array([error, 0, 0]), want).passed is passed


@pytest.mark.parametrize(("error", "passed"), [(0.9e-5, True), (1.1e-5, False)])
def test_float_limit_of_small_values_is_absolute(error: float, passed: bool) -> None:
    want = np.array([0.0, 1e-3])
    assert compare("y", want + np.array([error, 0]), want).passed is passed


def test_given_limits_replace_the_defaults() -> None:
    want, got = np.array([1.0, 2.0]), np.array([1.05, 2.0])
    assert compare("y", got, want, Tolerance(atol=0.051)).passed
    assert not compare("y", got, want, Tolerance(atol=0.049)).passed
    assert compare("y", got, want, Tolerance(rtol=0.026)).passed
    assert not compare("y", got, want, Tolerance("integer", atol=0.049)).passed
    assert compare("y", got, want, Tolerance("integer")).passed
    # The default of the limit that was not given does not widen the one that was.
    assert not compare("y", got, want, Tolerance("integer", rtol=0.02)).passed
    assert not compare("y", got, want, Tolerance("analog", atol=1e-9)).passed


@pytest.mark.parametrize(("limit", "passed"), [(0.79, True), (0.81, False)])
def test_cosine_limit(limit: float, passed: bool) -> None:
    a = compare("y", np.array([3.0, 4.0]), np.array([0.0, 7.0]), Tolerance("analog", min_cosine=limit))
    assert a.cosine_similarity == pytest.approx(0.8)
    assert a.passed is passed
    assert a.verdict.rule == "cosine_similarity"


def test_scale_does_not_overflow_or_vanish() -> None:
    want = np.array([3e-300, 4e-300])
    assert compare("y", 2 * want, want, ANALOG).cosine_similarity == pytest.approx(1.0)
    big = np.array([3e29, 4e29])
    assert compare("y", big, 1.1 * big, ANALOG).cosine_similarity == pytest.approx(1.0)
    assert compare("y", 1.1 * want, want, ANALOG).sqnr_db == pytest.approx(20.0)


def test_zero_vectors() -> None:
    zero, one = np.zeros(3), np.ones(3)
    assert compare("y", zero, zero, ANALOG).cosine_similarity == 1.0
    for got, want in ((zero, one), (one, zero)):
        a = compare("y", got, want, ANALOG)
        assert a.cosine_similarity == 0.0
        assert not a.passed
    assert compare("y", one, zero).sqnr_db == -SQNR_LIMIT_DB
    assert compare("y", one, zero).needed_rtol == math.inf


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 4)])
def test_empty_arrays_agree(shape: tuple[int, ...]) -> None:
    a = compare("y", np.zeros(shape), np.zeros(shape), ANALOG)
    assert a.passed
    assert (a.max_abs_error, a.rms_error, a.cosine_similarity, a.argmax_agreement) == (0, 0, 1, 1)


def test_scalars() -> None:
    a = compare("y", np.float32(2.5), np.float32(2.0))
    assert (a.shape, a.worst_index, a.max_abs_error, a.argmax_agreement) == ((), (), 0.5, 1.0)


def test_non_finite_values_that_match_do_not_count() -> None:
    want = np.array([np.nan, np.inf, -np.inf, np.finfo(np.float32).min, 1.0])
    got = np.array([np.nan, np.inf, np.finfo(np.float32).min, -np.inf, 1.0005])
    a = compare("y", got, want)
    assert a.passed
    assert a.max_abs_error == pytest.approx(0.0005)
    assert a.max_abs_want == 1.0


@pytest.mark.parametrize(("got", "want"), [(np.nan, 1.0), (1.0, np.nan), (np.inf, -np.inf), (np.inf, 1.0), (1.0, 1e38)])
def test_non_finite_values_that_do_not_match_fail(got: float, want: float) -> None:
    for tolerance in (Tolerance(atol=1e9), ANALOG):
        a = compare("y", np.array([[1.0, got]]), np.array([[1.0, want]]), tolerance)
        assert not a.passed
        assert (a.verdict.rule, a.worst_index, a.max_abs_error) == ("non-finite", (0, 1), math.inf)


def test_shape_and_kind_of_dtype() -> None:
    x = np.ones((2, 3), np.float32)
    assert compare("y", x.T, x).verdict.why == "shape [3, 2] instead of [2, 3]"
    assert compare("y", x.astype(np.int64), x).verdict.rule == "dtype"
    assert compare("y", x.astype(np.float64), x).passed


def test_integers_are_equal_or_not() -> None:
    want = np.arange(20)
    got = want.copy()
    got[:2] += 1
    assert not compare("ids", got, want).passed
    assert compare("ids", got, want, ANALOG).passed
    got[2] += 1
    a = compare("ids", got, want, ANALOG)
    assert (a.passed, a.verdict.rule, a.verdict.figure) == (False, "equal", 0.85)
    assert compare("mask", want > 3, want > 3).passed
    assert not compare("mask", want > 3, want > 4).passed
    # Beyond what float64 resolves.
    assert not compare("big", np.array([2**53 + 1]), np.array([2**53])).passed


def test_argmax_accepts_either_of_a_tie() -> None:
    want = np.array([[1.0, 1.0, 0.0], [0.0, 2.0, 1.0], [5.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    got = np.array([[0.9, 1.0, 0.0], [0.0, 2.0, 1.0], [1.0, 5.0, 0.0], [0.0, 0.0, 1.0]])
    assert compare("y", got, want).argmax_agreement == 0.75


def test_strain_orders_by_how_near_the_limit_is() -> None:
    want = np.array([1.0, 0.0])
    strains = [compare("y", want + np.array([0, e]), want).verdict.strain for e in (0.0, 1e-4, 9e-4, 1e-2)]
    assert strains == pytest.approx([0.0, 0.1, 0.9, 10.0])
    assert compare("y", np.array([np.nan]), np.array([1.0])).verdict.strain == math.inf
