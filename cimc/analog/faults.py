"""Stuck-at maps of whole cores: drawn from a seed at given rates, or measured ones read from a file.

A map is an int8 array (sides, crossbars, columns, rows): 0 healthy, 1 stuck at level 0, 2 stuck at the highest level.
Sides: 1, or 2 for differential pairs. Crossbars: the slices, least significant first, then the redundant copies of the
top ones, copy by copy. Columns: the core's, then its spare ones.

A file is an .npz of such arrays (or without the first axis, for one side), named after the core they belong to:
``tile7.core2``; ``default`` is every core that has none of its own, and without it those are healthy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc import npz
from cimc.analog.config import refuse
from cimc.analog.rng import Streams

Map = NDArray[np.int8]
KEY = "device.stuck_map"
NAME = re.compile(r"tile(0|[1-9]\d{0,5})\.core(0|[1-9]\d{0,5})")
DEFAULT = "default"
MOST_BYTES = 2**31  # unpacked


@dataclass(frozen=True)
class CoreShape:
    """The cells of one core: ``sides`` of a pair, ``slices``, of which the ``top`` ones have ``copies`` crossbars each,
    ``cols`` columns, ``spare`` more, and ``rows``."""

    sides: int
    slices: int
    top: int
    copies: int
    cols: int
    spare: int
    rows: int

    @property
    def map(self) -> tuple[int, int, int, int]:
        """The shape of a map."""
        return (self.sides, self.slices + self.top * (self.copies - 1), self.cols + self.spare, self.rows)


def drawn(shape: CoreShape, off: float, on: float, seed: int, tile: int, core: int) -> Map:
    """A core's faults, every cell stuck at level 0 with probability ``off``, at the highest level with ``on``.

    The cells of the core itself, of its spare columns and of each copy have streams of their own: spare columns and
    copies leave the faults of the others as they are."""
    found = np.zeros(shape.map, np.int8)
    for number in range(shape.copies):
        own = Streams(seed, tile, core, number)
        first = shape.slices + shape.top * (number - 1) if number else 0
        count = shape.top if number else shape.slices
        part = found[:, first : first + count]
        part[:, :, : shape.cols] = _draw(own, 0, (shape.sides, count, shape.cols, shape.rows), off, on)
        if shape.spare:
            part[:, :, shape.cols :] = _draw(own, 1, (shape.sides, count, shape.spare, shape.rows), off, on)
    return found


def _draw(streams: Streams, crossbar: int, shape: tuple[int, ...], off: float, on: float) -> Map:
    draw = streams.generator("stuck", crossbar).random(shape)
    return np.where(draw < off, 1, np.where(draw >= 1.0 - on, 2, 0)).astype(np.int8)


@dataclass(frozen=True, eq=False)
class StuckMaps:
    """The maps of a file by core; ``default`` for those not named."""

    path: str
    cores: Mapping[tuple[int, int], Map]
    default: Map | None

    def of(self, shape: CoreShape, tile: int, core: int) -> Map:
        """The map of a core. Raises ANALOG_CONFIG if its shape is another."""
        found = self.cores.get((tile, core), self.default)
        if found is None:
            return np.zeros(shape.map, np.int8)
        whole = found[None] if found.ndim == 3 else found
        if whole.shape != shape.map:
            name = f"tile{tile}.core{core}" if (tile, core) in self.cores else DEFAULT
            want = f"give {shape.map}: sides, crossbars, columns (spare ones last), rows"
            raise refuse(KEY, f"{self.path}: the shape of '{name}' is {found.shape}", want)
        return whole


@lru_cache(maxsize=4)
def _read(path: str, size: int, changed: int) -> StuckMaps:
    """The file as it was at a size and time of change."""
    cores: dict[tuple[int, int], Map] = {}
    default: Map | None = None
    arrays = npz.read(
        Path(path),
        MOST_BYTES,
        lambda why: refuse(KEY, f"{path} cannot be read: {why}", "give an .npz of integer arrays"),
    )
    for name, array in arrays.items():
        named = NAME.fullmatch(name)
        if named is None and name != DEFAULT:
            raise refuse(KEY, f"{path}: '{name}' names no core", f"name arrays tile7.core2, or '{DEFAULT}'")
        if array.ndim not in (3, 4) or array.dtype.kind not in "iu":
            why = f"{path}: '{name}' is {array.dtype} of shape {array.shape}"
            raise refuse(KEY, why, "give integers: sides (may be left out), crossbars, columns, rows")
        if array.size and (array.min() < 0 or array.max() > 2):
            raise refuse(KEY, f"{path}: '{name}' has a value outside 0, 1, 2", "0 healthy, 1 stuck low, 2 stuck high")
        if named is None:
            default = array.astype(np.int8)
        else:
            cores[int(named[1]), int(named[2])] = array.astype(np.int8)
    if not arrays:
        raise refuse(KEY, f"{path} has no arrays", f"name arrays tile7.core2, or '{DEFAULT}'")
    return StuckMaps(path, cores, default)


def read_maps(path: str) -> StuckMaps:
    """The maps of a file. Raises ANALOG_CONFIG naming what is wrong with it."""
    try:
        about = Path(path).stat()
    except OSError as e:
        raise refuse(KEY, f"{path} cannot be read: {e.strerror}", "give the path of an .npz") from None
    return _read(path, about.st_size, about.st_mtime_ns)
