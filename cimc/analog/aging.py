"""What time does to the programmed cells of a crossbar, in float32: drift by a power law, and accumulated read noise.

The cell models' own definitions (``technology.PowerDrift``, ``technology.Flicker``) take powers and logarithms for every
cell. Here these are curves (curve.py) of the exponent and of the programmed conductance, so that numpy and the kernels of
kernels/aging.py compute the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.curve import FRACTION, Curve
from cimc.analog.kernels.aging import fast_drift, fast_flicker
from cimc.analog.rng import Draws
from cimc.analog.technology import Cell, Flicker, PowerDrift

Float = NDArray[np.float32]
MOST_EXPONENT = 1.0  # a curve reaches to twice that: no source has a drift exponent beyond
MOST_SIGMA = 6.5  # normal numbers end at 6.3


@dataclass(frozen=True, eq=False)
class Decay:
    """Drift of the cells of a crossbar: mean and spread of the exponent by level, (levels, 2), and what is left of a
    conductance as a curve of its exponent."""

    exponents: Float
    left: Curve

    @staticmethod
    def of(model: PowerDrift, goals: NDArray[Any], cell: Cell) -> Decay | None:
        """For levels that are to conduct ``goals`` (µS); None if an exponent may lie beyond the curve."""
        found = np.empty((len(goals), 2), dtype=np.float32)
        found[:, 0], found[:, 1] = model.exponents(goals, cell)
        if float(np.max(np.abs(found[:, 0]) + MOST_SIGMA * np.abs(found[:, 1]))) >= 2 * MOST_EXPONENT:
            return None
        return Decay(found, Curve.of(MOST_EXPONENT, model.left(Curve.points(MOST_EXPONENT), cell)))


def drifted(decay: Decay, cells: Float, levels: NDArray[np.int8], key: tuple[int, int]) -> None:
    """``cells`` (changed in place) after their time; ``key``: of the stream they draw from."""
    if fast_drift(levels, decay.exponents, _told(decay.left), key, cells):
        return
    drawn = Draws(key).standard_normal(cells.shape)
    mean, spread = decay.exponents[levels, 0], decay.exponents[levels, 1]
    cells *= decay.left(np.abs(mean + spread * drawn))


def flicker_curve(model: Flicker, cell: Cell) -> Curve:
    """The relative spread of what is read as a curve of what was programmed, µS."""
    return Curve.of(cell.gmax_us, model.spread(Curve.points(cell.gmax_us), cell))


def flickered(spread: Curve, cells: Float, programmed: Float, key: tuple[int, int], unit: float, out: Float) -> None:
    """``out`` (which may be ``cells``) becomes ``unit`` times the cells (µS) with read noise of a ``spread`` that follows
    what was ``programmed``, cut at 0."""
    if fast_flicker(cells, programmed, _told(spread), key, unit, out):
        return
    drawn = Draws(key).standard_normal(cells.shape)
    np.add(cells, cells * spread(programmed) * drawn, out=out)
    np.maximum(out, np.float32(0), out=out)
    out *= np.float32(unit)


@lru_cache(maxsize=128)
def _told(curve: Curve) -> tuple[Float, int, int]:
    """A curve for the kernels: values and rises side by side, the first point's bits, those within a segment."""
    return np.ascontiguousarray(np.stack([curve.values, curve.rises], axis=1)), curve.lowest, FRACTION
