"""Random numbers, all of them: counter-based streams keyed by (seed, tile, core, purpose, crossbar, read).

A stream depends on its key alone, never on what was drawn before or in which order tiles are visited; so the same seed
gives the same cells, and the fast core the same numbers as the reference. Cells draw from numpy's Philox. Noise of
single conversions, of which there are billions, comes from ``conversion_noise``: a hash of the conversion's number.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse

Generator = np.random.Generator
PURPOSES = ("programming", "drift", "read", "stuck", "conversion", "calibration", "inputs")

# Sum of eight uniform bytes: mean 8 * 255 / 2, variance 8 * (256**2 - 1) / 12.
BYTES_MEAN = 1020.0
BYTES_STD = (8 * (256**2 - 1) / 12) ** 0.5
MIX = (0x21F0AAAD, 0x735A2D97)
STEP = 0x9E3779B9


@dataclass(frozen=True)
class Streams:
    """The streams of one core of one tile. ``copy``: of a redundant copy of its top slices; 0 is the core itself."""

    seed: int
    tile: int = 0
    core: int = 0
    copy: int = 0

    def __post_init__(self) -> None:
        if min(self.seed, self.tile, self.core) < 0:
            raise refuse("seed", f"({self.seed}, {self.tile}, {self.core}) has a negative number", "give 0 or more")

    def generator(self, purpose: str, crossbar: int = 0, read: int = 0) -> Generator:
        """The stream of one purpose of one crossbar (a row block's slice) at one read."""
        return Generator(np.random.Philox(self._sequence(purpose, crossbar, read)))

    def key(self, purpose: str, crossbar: int = 0, read: int = 0) -> tuple[int, int]:
        """Two 32-bit words that key ``conversion_noise``."""
        first, second = self._sequence(purpose, crossbar, read).generate_state(2)
        return int(first), int(second)

    def _sequence(self, purpose: str, crossbar: int, read: int) -> np.random.SeedSequence:
        words = [self.seed, self.tile, self.core, PURPOSES.index(purpose), crossbar, read]
        return np.random.SeedSequence(words if self.copy == 0 else [*words, self.copy])


def conversion_noise(key: tuple[int, int], first: int, count: int) -> NDArray[np.float32]:
    """Nearly Gaussian numbers, mean 0 and standard deviation 1, for conversions ``first .. first+count-1``.

    Each is the sum of the eight bytes of two hashed words (Irwin-Hall of order 8: excess kurtosis -0.15, nothing beyond
    4.9 standard deviations). The kernels compute the same words; the product is rounded once, so they agree bit for
    bit.
    """
    counter = np.arange(first, first + count, dtype=np.uint64).astype(np.uint32)
    # Keyed twice: with one key, two streams would be the same sequence shifted.
    one = mix(mix(counter * np.uint32(STEP) + np.uint32(key[0])) ^ np.uint32(key[1]))
    two = mix(one + np.uint32(STEP))
    total = _bytes(one) + _bytes(two)
    return (total.astype(np.float32) - np.float32(BYTES_MEAN)) * np.float32(1.0 / BYTES_STD)


def mix(word: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """A full avalanche of 32 bits: two multiplications and three shifts (C. Wellons, "Hash Function Prospector")."""
    word = word ^ (word >> np.uint32(16))
    word = word * np.uint32(MIX[0])
    word = word ^ (word >> np.uint32(15))
    word = word * np.uint32(MIX[1])
    return word ^ (word >> np.uint32(15))


def _bytes(word: NDArray[np.uint32]) -> NDArray[np.uint32]:
    pairs = (word & np.uint32(0x00FF00FF)) + ((word >> np.uint32(8)) & np.uint32(0x00FF00FF))
    return (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))


class _FixedQuantile:
    """Answers the models' two kinds of draw with one quantile everywhere."""

    def __init__(self, quantile: float) -> None:
        self._uniform = quantile
        self._normal = NormalDist().inv_cdf(quantile)

    def standard_normal(self, size: tuple[int, ...] = ()) -> NDArray[np.float64]:
        return np.full(size, self._normal)

    def random(self, size: tuple[int, ...] = ()) -> NDArray[np.float64]:
        return np.full(size, self._uniform)


def fixed_quantile(quantile: float) -> Generator:
    """A generator that turns a sampling model into its transfer at one quantile."""
    return cast("Generator", _FixedQuantile(quantile))
