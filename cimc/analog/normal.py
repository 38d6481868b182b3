"""Hashed words, and a normal number from each: the definition, in numpy. kernels/lanes.py computes the same bits faster.

The word's top bit is the sign, the others a probability ``t`` in (0, 1/2); the number is the normal quantile of ``t``,
by M. Giles' single-precision polynomials ("Approximating the erfinv function", GPU Computing Gems, 2011). All
arithmetic is in float32, one rounding per operation, so that a kernel agrees to the bit. The largest number is 6.3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIX = (0x21F0AAAD, 0x735A2D97)
STEP = 0x9E3779B9
SIGN = 0x80000000
# Cephes logf: ln(1 + f) = f - f²/2 + f³ P(f) for 1 + f between sqrt(1/2) and sqrt(2); highest power first.
LOG = (
    7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1, -1.6668057665e-1,
    2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1,
)  # fmt: skip
ROOT_HALF = 0x3F3504F3  # the bits of sqrt(1/2)
LN2 = 0.69314718
# Giles, table 4: for w - 2.5 where w < 5, and for sqrt(w) - 3 beyond; times sqrt(2). Highest power first.
ROOT_TWO = 2.0**0.5
CENTRE = tuple(
    c * ROOT_TWO
    for c in (
        2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087, -0.00125372503, -0.00417768164,
        0.246640727, 1.50140941,
    )
)  # fmt: skip
TAIL = tuple(
    c * ROOT_TWO
    for c in (
        -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613, 0.00943887047,
        1.00167406, 2.83297682,
    )
)  # fmt: skip


def mix(word: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A full avalanche of 32 bits: two multiplications and three shifts (C. Wellons, "Hash Function Prospector")."""
    word = word ^ (word >> np.uint32(16))
    word = word * np.uint32(MIX[0])
    word = word ^ (word >> np.uint32(15))
    word = word * np.uint32(MIX[1])
    return word ^ (word >> np.uint32(15))


def hashed(key: tuple[int, int], first: int, count: int) -> NDArray[np.uint32]:
    """Words for the numbers ``first .. first+count-1`` of a stream (32 bits: they repeat after 2**32)."""
    counter = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32)
    # Keyed twice: with one key, two streams would be the same sequence shifted.
    return mix(mix(counter * np.uint32(STEP) + np.uint32(key[0])) ^ np.uint32(key[1]))


def normal_of(words: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Normal numbers, mean 0 and standard deviation 1, from words that are uniform."""
    one, two, half = np.float32(1), np.float32(2), np.float32(0.5)
    t = (words & np.uint32(SIGN - 1)).astype(np.int32).astype(np.float32)
    t = ((t + half) * np.float32(2.0**-32)).astype(np.float32, copy=False)
    w = -_log((np.float32(4) * t * (one - t)).astype(np.float32, copy=False))
    centre = _horner(CENTRE, w - np.float32(2.5))
    tail = _horner(TAIL, np.sqrt(np.maximum(w, np.float32(0))) - np.float32(3))
    size = np.where(w < np.float32(5), centre, tail) * (one - two * t)
    return (size.view(np.uint32) ^ (words & np.uint32(SIGN))).view(np.float32)


def _horner(coefficients: tuple[float, ...], x: NDArray[np.float32]) -> NDArray[np.float32]:
    total = np.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + np.float32(coefficient)
    return total


def _log(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Natural logarithm of positive numbers."""
    bits = x.view(np.int32) - np.int32(ROOT_HALF)
    exponent = (bits >> np.int32(23)).astype(np.float32)
    f = ((bits & np.int32(0x007FFFFF)) + np.int32(ROOT_HALF)).view(np.float32) - np.float32(1)
    square = f * f
    rest = _horner(LOG, f) * f * square - np.float32(0.5) * square
    return (exponent * np.float32(LN2) + (f + rest)).astype(np.float32, copy=False)
