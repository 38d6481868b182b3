"""Elementwise work gives every element the same bits however elements are cut into rows, blocks and strides: the compiler
cuts them otherwise than the graph's evaluation does, and both must agree bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray

from cimc.isa.kernels import BINARY, REDUCE, UNARY

FLOAT_TYPES = (np.float16, np.float32, np.float64)
ONE_FOR_ALL = (0.5, 2.0, 3.0, -1.0, 0.0, 1.0)  # NumPy has shortcuts for some of these exponents

Array = NDArray[np.generic]


def drawn(dtype: type[np.floating]) -> Array:
    """Of both signs, zeros and infinities among them."""
    found = np.random.default_rng(7).standard_normal((24, 33)) * 3
    found[0, :4] = 0.0, -0.0, np.inf, -np.inf
    return found.astype(dtype)


def alone(function: Callable[..., Array], *operands: Array) -> Array:
    """The function of one element at a time."""
    ones = [function(*(o.reshape(1, 1) for o in each)) for each in zip(*(o.ravel() for o in operands), strict=True)]
    return np.concatenate(ones).reshape(operands[0].shape)


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_of_one_operand(name: str, dtype: type[np.floating]) -> None:
    function, x = UNARY[name][1], drawn(dtype)
    if name == "bitnot":
        x = x.astype(np.float64).clip(-9, 9).astype(np.int32)
    with np.errstate(all="ignore"):
        want = np.asarray(function(x))
        np.testing.assert_array_equal(want, alone(function, x))
        np.testing.assert_array_equal(want, function(np.repeat(x, 2, axis=1)[:, ::2]))
        np.testing.assert_array_equal(want, function(np.asfortranarray(x)))


@pytest.mark.parametrize("one", ONE_FOR_ALL)
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "mod", "fmod", "pow", "min", "max"])
def test_of_two_operands(name: str, dtype: type[np.floating], one: float) -> None:
    function, x = BINARY[name][1], drawn(dtype)
    every = np.full(x.shape, one, dtype)
    with np.errstate(all="ignore"):
        want = alone(function, x, every)
        for operand in (every, every[:1, :1], every[0, 0].reshape(()), every[:1], every[:, :1]):
            np.testing.assert_array_equal(function(x, operand), want)
            np.testing.assert_array_equal(function(np.repeat(x, 2, axis=1)[:, ::2], operand), want)


def test_a_power_is_the_exact_one_rounded_once() -> None:
    x = np.abs(drawn(np.float32)[1:]) + np.float32(0.1)
    for exponent in (0.5, 1.7, 2.0, 3.0, -1.0):
        want = [[np.float32(math.pow(float(v), float(np.float32(exponent)))) for v in row] for row in x]
        got = BINARY["pow"][1](x, np.full((1, 1), exponent, np.float32))
        assert np.array_equal(got, np.array(want))
        assert got.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves_are_computed_in_single_precision(dtype: type) -> None:
    """Operands of 16 bits, also beside others of 32, give what they give as float32."""
    x = np.random.default_rng(3).standard_normal((6, 9)).astype(np.float32)
    half, one = x.astype(dtype), np.float32(1.5) * np.ones((6, 9), np.float32)
    wide = half.astype(np.float32)
    with np.errstate(all="ignore"):
        for name in sorted(UNARY.keys() - {"bitnot"}):
            np.testing.assert_array_equal(UNARY[name][1](half), UNARY[name][1](wide))
        for name in ("add", "sub", "mul", "div", "pow", "min", "max", "lt"):
            function = BINARY[name][1]
            np.testing.assert_array_equal(function(half, one), function(wide, one))
            np.testing.assert_array_equal(function(one, half), function(one, wide))
            np.testing.assert_array_equal(function(half, half), function(wide, wide))
        for name, (_, function, _) in REDUCE.items():
            np.testing.assert_array_equal(function(half), function(wide), err_msg=name)
    assert BINARY["add"][1](half, half).dtype == np.float32


@pytest.mark.parametrize("name", sorted(BINARY))
def test_scalars_stay_scalars(name: str) -> None:
    """Exporters compute sizes of them: a square root as a power, then one of several numbers of a shape."""
    x = np.array(2, np.int64) if name.startswith(("bit", "sh")) else np.array(2.0, np.float32)
    assert BINARY[name][1](x, x).shape == ()
