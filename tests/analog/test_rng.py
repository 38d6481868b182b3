"""Streams: a key decides everything; noise of conversions has the moments it says."""

from __future__ import annotations

import numpy as np

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


def test_fixed_quantile() -> None:
    rng = fixed_quantile(0.975)
    assert np.allclose(rng.standard_normal((2, 2)), 1.959964)
    assert np.allclose(rng.random((2, 2)), 0.975)
