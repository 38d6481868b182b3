"""Random numbers, all of them: counter-based streams keyed by (seed, tile, core, purpose, crossbar, read).

A stream depends on its key alone, never on what was drawn before or in which order tiles are visited; so the same seed
gives the same cells, and the fast core the same numbers as the reference. What is drawn for every cell comes from
``Draws``, noise of single conversions, of which there are billions, from ``conversion_noise``: both hash a counter.
Everything else draws from numpy's Philox.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import cast

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse
from cimc.analog.kernels.draw import fast_normals
from cimc.analog.normal import STEP, hashed, mix, normal_of

Generator = np.random.Generator
PURPOSES = ("programming", "drift", "read", "stuck", "conversion", "calibration", "inputs", "search", "exchange")

# Sum of eight uniform bytes: mean 8 * 255 / 2, variance 8 * (256**2 - 1) / 12.
BYTES_MEAN = 1020.0
MASK = (1 << 64) - 1
BYTES_STD = (8 * (256**2 - 1) / 12) ** 0.5


@dataclass(frozen=True)
class Streams:
    """The streams of one core of one tile. ``copy``: of a redundant copy of its top slices; 0 is the core itself.
    ``device``: of the devices side by side in each cell; what is drawn for cells and conversions is the first's, 0."""

    seed: int
    tile: int = 0
    core: int = 0
    copy: int = 0
    device: int = 0

    def __post_init__(self) -> None:
        if min(self.seed, self.tile, self.core) < 0:
            raise refuse("seed", f"({self.seed}, {self.tile}, {self.core}) has a negative number", "give 0 or more")

    def generator(self, purpose: str, crossbar: int = 0, read: int = 0) -> Generator:
        """The stream of one purpose of one crossbar (a row block's slice) at one read."""
        return Generator(np.random.Philox(self._sequence(purpose, crossbar, read)))

    def draws(self, purpose: str, crossbar: int = 0, read: int = 0) -> Generator:
        """As ``generator``, for the two kinds of draw of cell models, several times as fast and in float32."""
        return cast("Generator", Draws(self.key(purpose, crossbar, read)))

    def key(self, purpose: str, crossbar: int = 0, read: int = 0) -> tuple[int, int]:
        """Two 32-bit words that key ``Draws`` and ``conversion_noise``."""
        state = 0
        for word in self._words(purpose, crossbar, read):
            state = _scrambled(state ^ word)
        return state >> 32, state & 0xFFFFFFFF

    def _sequence(self, purpose: str, crossbar: int, read: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self._words(purpose, crossbar, read))

    def _words(self, purpose: str, crossbar: int, read: int) -> list[int]:
        words = [self.seed, self.tile, self.core, PURPOSES.index(purpose), crossbar, read]
        if self.device:
            return [*words, self.copy, self.device]
        return words if self.copy == 0 else [*words, self.copy]


def _scrambled(word: int) -> int:
    """The next word of the SplitMix64 generator whose state is ``word`` (Steele et al., OOPSLA 2014)."""
    word = (word + 0x9E3779B97F4A7C15) & MASK
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


class Draws:
    """One stream of numbers for cells: each hashes its place in the stream."""

    def __init__(self, key: tuple[int, int]) -> None:
        self._key = key
        self._drawn = 0

    def standard_normal(self, size: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """Normal numbers, mean 0 and standard deviation 1."""
        first, count = self._advance(size)
        found = fast_normals(self._key, first, count)
        return (normal_of(hashed(self._key, first, count)) if found is None else found).reshape(size)

    def random(self, size: tuple[int, ...] = ()) -> NDArray[np.float32]:
        """Uniform numbers in 0 .. 1, 1 excluded."""
        words = hashed(self._key, *self._advance(size)) >> np.uint32(8)
        return (words.astype(np.float32) * np.float32(2.0**-24)).reshape(size)

    def _advance(self, size: tuple[int, ...]) -> tuple[int, int]:
        first, count = self._drawn, math.prod(size)
        self._drawn += count
        return first, count


def conversion_noise(key: tuple[int, int], first: int, count: int) -> NDArray[np.float32]:
    """Nearly Gaussian numbers, mean 0 and standard deviation 1, for conversions ``first .. first+count-1``.

    Each is the sum of the eight bytes of two hashed words (Irwin-Hall of order 8: excess kurtosis -0.15, nothing beyond
    4.9 standard deviations). The kernels compute the same words; the product is rounded once, so they agree bit for
    bit.
    """
    one = hashed(key, first, count)
    two = mix(one + np.uint32(STEP))
    total = _bytes(one) + _bytes(two)
    return (total.astype(np.float32) - np.float32(BYTES_MEAN)) * np.float32(1.0 / BYTES_STD)


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
