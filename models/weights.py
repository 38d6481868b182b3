"""Where a recipe's weights come from: drawn from a seed, or read from a file."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Init:
    """A normal distribution, for recipes with random weights."""

    mean: float
    std: float


def fan_in(inputs: int, gain: float = 1.0) -> Init:
    """Keeps the scale of activations through a layer that sums ``inputs`` products: std = gain / sqrt(inputs)."""
    return Init(0.0, gain / float(np.sqrt(inputs)))


SCORE_GAIN = 1.5
"""For queries and keys: attention scores of about N(0, 2), so that heads tell tokens apart."""


def branch_gain(layers: int) -> float:
    """For layers that end a residual branch, 1 / sqrt(2 * layers) (Radford et al. 2019, section 2.3).

    Without it random layers add the same to every token until nothing is left of what a token was.
    """
    return float((2 * layers) ** -0.5)


BIAS = Init(0.0, 0.02)
NORM_SCALE = Init(1.0, 0.1)


class Weights(Protocol):
    """Gives the weight of a name; ``init`` says how to draw it where it is drawn."""

    def array(self, name: str, shape: tuple[int, ...], init: Init) -> Array: ...


class RandomWeights:
    """Weights drawn from (seed, name): a weight does not depend on which others a recipe has, or on their order."""

    def __init__(self, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"seed {seed} is negative")
        self._seed = seed

    def array(self, name: str, shape: tuple[int, ...], init: Init) -> Array:
        """A float32 array of ``shape``, N(init.mean, init.std)."""
        rng = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        drawn = rng.standard_normal(shape, dtype=np.float32)
        drawn *= np.float32(init.std)
        drawn += np.float32(init.mean)
        return drawn


class StoredWeights:
    """Weights that were read from a file."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays

    def array(self, name: str, shape: tuple[int, ...], init: Init) -> Array:
        """The float32 array of that name; ValueError when it is missing or is not a float32 array of ``shape``."""
        del init
        found = self.arrays.get(name)
        if found is None:
            raise ValueError(f"weight {name!r} is missing from the file")
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(f"weight {name!r} is {found.dtype} {found.shape}, expected float32 {shape}")
        return found
