"""What cells hold, read back as integers: the other direction of cimc.analog.encoding, from its definition."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import WeightEncoding


def merge(levels: NDArray[np.int32], encoding: WeightEncoding) -> NDArray[np.int64]:
    """The integers whose slices these levels are: (slices, ...) → (...), each slice worth its shift."""
    total = np.zeros(levels.shape[1:], dtype=np.int64)
    for part, shift in zip(levels, encoding.shifts, strict=True):
        total += part.astype(np.int64) << shift
    return total
