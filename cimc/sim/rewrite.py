"""Weights of which a ``program`` replaces rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Strips = tuple[tuple[int, int], ...]
"""(first, number) of neighbouring rows; none: all rows of a matrix."""


def rewritten(old: Array, codes: Array, strips: Strips) -> Array:
    """Weights with rows replaced, in memory of their own unless they are of one type with ``codes`` and had it before."""
    if not strips or (len(strips) == 1 and strips[0] == (0, len(old))):
        return np.array(codes)
    own = old.dtype == codes.dtype and old.flags.owndata and old.flags.writeable
    fresh = old if own else old.astype(np.result_type(old, codes))
    done = 0
    for first, count in strips:
        fresh[first : first + count] = codes[done : done + count]
        done += count
    return fresh
