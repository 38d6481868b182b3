"""Streams: a key decides everything; noise of conversions has the moments it says."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from cimc.analog.kernels.draw import fast_normals
from cimc.analog.kernels.jit import target
from cimc.analog.normal import hashed, normal_of
from cimc.analog.rng import BYTES_STD, Streams, conversion_noise, fixed_quantile


def test_a_key_decides_everything() -> None:
    streams = Streams(5, 2, 1)
    first = streams.generator("read", 3, 7).random(4)
    streams.generator("read", 3, 8).random(100)
    assert np.array_equal(first, Streams(5, 2, 1).generator("read", 3, 7).random(4))
    others = [Streams(6, 2, 1), Streams(5, 1, 1), Streams(5, 2, 0)]
    draws = [other.generator("read", 3, 7).random(4) for other in others]
    draws += [streams.generator("drift", 3, 7).random(4), streams.generator("read", 4, 7).random(4)]
    assert not any(np.array_equal(first, draw) for draw in draws)


def test_conversion_noise_is_nearly_gaussian() -> None:
    draw = conversion_noise((123, 456), 0, 1_000_000).astype(np.float64)
    assert abs(draw.mean()) < 4e-3
    assert abs(draw.std() - 1) < 3e-3
    assert abs((draw**3).mean()) < 0.01
    assert abs((draw**4).mean() - 3 + 0.15) < 0.02  # the sum of eight uniforms
    assert abs(np.sqrt(8 * (256**2 - 1) / 12) - BYTES_STD) < 1e-6


def test_conversion_noise_is_uncorrelated() -> None:
    draw = conversion_noise((1, 2), 0, 200_000).astype(np.float64)
    for lag in (1, 2, 3, 768, 6144):
        assert abs((draw[lag:] * draw[:-lag]).mean()) < 0.012
    for key in ((1, 3), (3, 2), (1 + 0x9E3779B9, 3)):  # the last is the first's counter, one ahead
        other = conversion_noise(key, 0, 200_000)
        assert abs((draw * other).mean()) < 0.012
        assert abs((draw[1:] * other[:-1]).mean()) < 0.012


def test_conversions_are_numbered() -> None:
    whole = conversion_noise((9, 9), 0, 50)
    assert np.array_equal(whole[10:20], conversion_noise((9, 9), 10, 10))
    wrapped = conversion_noise((9, 9), 2**32 - 5, 10)
    assert np.array_equal(wrapped[5:], whole[:5])


def test_draws_are_normal() -> None:
    draw = Streams(1).draws("programming").standard_normal((1000, 1000)).astype(np.float64)
    assert abs(draw.mean()) < 4e-3
    assert abs(draw.std() - 1) < 3e-3
    assert abs((draw**3).mean()) < 0.01
    assert abs((draw**4).mean() - 3) < 0.03
    # How many lie beyond 1 to 4 sigma, within four standard deviations of a count.
    for bound in (1, 2, 3, 4):
        expected = 2e6 * (1 - NormalDist().cdf(bound))
        assert abs(np.count_nonzero(np.abs(draw) > bound) - expected) < 4 * np.sqrt(expected)
    for lag in (1, 2, 1000):
        flat = draw.ravel()
        assert abs((flat[lag:] * flat[:-lag]).mean()) < 4e-3


def test_normal_of_is_the_quantile() -> None:
    words = np.concatenate([np.arange(1, 50), np.geomspace(50, 2**31 - 1, 500)]).astype(np.uint32)
    exact = np.array([-NormalDist().inv_cdf((int(word) + 0.5) / 2**32) for word in words])
    assert np.allclose(normal_of(words), exact, atol=3e-3)
    assert np.allclose(normal_of(words[60:]), exact[60:], atol=2e-5)
    assert np.array_equal(normal_of(words | np.uint32(1 << 31)), -normal_of(words))


@pytest.mark.skipif(target() is None, reason="no compiler for this machine")
def test_draws_with_and_without_a_compiler() -> None:
    key, count = (2**32 - 1, 77), 100_001
    fast = fast_normals(key, 2**32 - 50, count)
    assert fast is not None
    assert np.array_equal(fast, normal_of(hashed(key, 2**32 - 50, count)))


def test_draws_are_numbered() -> None:
    streams = Streams(4)
    rng, again = streams.draws("read"), streams.draws("read")
    parts = np.concatenate([rng.standard_normal((7,)), rng.standard_normal((3, 5)).ravel()])
    assert np.array_equal(parts, again.standard_normal((22,)))
    assert not np.array_equal(parts, streams.draws("drift").standard_normal((22,)))
    uniform = streams.draws("read").random((100_000,))
    assert 0 <= uniform.min() < 1e-4 < 1 - 1e-4 < uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 4e-3


def test_fixed_quantile() -> None:
    rng = fixed_quantile(0.975)
    assert np.allclose(rng.standard_normal((2, 2)), 1.959964)
    assert np.allclose(rng.random((2, 2)), 0.975)
