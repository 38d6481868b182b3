"""Files mapped into memory: arrays that are pages of a file, and giving those pages back.

Pages that were read count as memory of the process until the system needs them elsewhere. Who has read a large array for
the last time (for now) says so by :func:`release`; read again, its pages come back from the file.
"""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class MappedFile:
    """A file, mapped once, read-only. Raises OSError if it cannot be opened, ValueError if it is empty."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self.pages = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def array(self, offset: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]) -> Array:
        """Bytes from ``offset`` on as an array; what asks has checked that they are there."""
        count = math.prod(shape)
        if count == 0:
            return np.zeros(shape, dtype)
        return np.frombuffer(self.pages, dtype, count, offset).reshape(shape)


def release(array: Array) -> None:
    """Give back the memory of an array's pages, if it lies (whole, as a view) in a mapped file. Its values stay readable."""
    pages = _pages(array)
    if pages is None or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = np.frombuffer(pages, np.uint8).ctypes.data
    low, high = np.lib.array_utils.byte_bounds(array)
    first = (low - start) // mmap.PAGESIZE * mmap.PAGESIZE
    pages.madvise(mmap.MADV_DONTNEED, first, high - start - first)


def is_mapped(array: Array) -> bool:
    """Whether an array is a view of a mapped file."""
    return _pages(array) is not None


def _pages(array: Array) -> mmap.mmap | None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = cast(object, owner.base)
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, mmap.mmap) else None
