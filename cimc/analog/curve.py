"""A smooth function of a conductance as a table: what models average over draws need not be averaged for every cell.

Points lie 32 to an octave, from 2**-14 of the highest level to ``HEADROOM`` times it and beyond, straight lines between
them; a cell's place is read off the bits of its float32. Below the first point the function is taken at 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cimc.analog.kernels.draw import fast_curve

FRACTION = 18  # bits of a float32 that lie within a segment: 5 of the 23 choose it
OCTAVES_BELOW = 14


@dataclass(frozen=True, eq=False)
class Curve:
    """``values`` at the segments' starts, ``rises`` over them; ``lowest`` are the bits of the first point."""

    values: NDArray[np.float32]
    rises: NDArray[np.float32]
    lowest: int

    @staticmethod
    def points(top: float) -> NDArray[np.float64]:
        """0, then where a function of levels up to ``top`` must be known, in order."""
        first, last = _ends(top)
        bits = np.arange(_bits(first), _bits(last) + 1, 1 << FRACTION, dtype=np.int64).astype(np.int32)
        return np.concatenate([[0.0], bits.view(np.float32).astype(np.float64)])

    @staticmethod
    def of(top: float, values: NDArray[np.floating]) -> Curve:
        """From a function's values at ``points(top)``."""
        at = np.asarray(values, dtype=np.float64)
        starts, rises = at[1:-1].copy(), np.diff(at[1:])
        # The segment before the first point: everything from 0 on.
        starts = np.concatenate([[at[0]], starts])
        rises = np.concatenate([[0.0], rises])
        first = _bits(_ends(top)[0]) - (1 << FRACTION)
        return Curve(starts.astype(np.float32), rises.astype(np.float32), first)

    def __call__(self, cells: NDArray[np.float32]) -> NDArray[np.float32]:
        """The function of every cell (levels, 0 or more)."""
        most = (len(self.values) << FRACTION) - 1
        found = fast_curve(cells, self.values, self.rises, self.lowest, most, FRACTION)
        if found is not None:
            return found
        bits: NDArray[np.int32] = np.clip(cells.view(np.int32).astype(np.int64) - self.lowest, 0, most).astype(np.int32)
        index = bits >> np.int32(FRACTION)
        part = (bits & np.int32((1 << FRACTION) - 1)).astype(np.float32) * np.float32(2.0**-FRACTION)
        return (self.values[index] + self.rises[index] * part).astype(np.float32, copy=False)


@lru_cache(maxsize=256)
def beside(one: Curve, two: Curve) -> NDArray[np.float32]:
    """Two curves over the same points for the kernel that reads both: (segments, 4), value and rise of each."""
    return np.ascontiguousarray(np.stack([one.values, one.rises, two.values, two.rises], axis=1))


def _ends(top: float) -> tuple[float, float]:
    return 2.0 ** (math.floor(math.log2(top)) - OCTAVES_BELOW), 2.0 ** (math.ceil(math.log2(top)) + 1)


def _bits(value: float) -> int:
    return int(np.float32(value).view(np.int32))
