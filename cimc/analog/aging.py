"""What time does to the programmed cells of a crossbar, in float32: drift by a power law, and accumulated read noise.

The cell models' own definitions (``technology.PowerDrift``, ``technology.Flicker``) take powers and logarithms for every
cell. Here these are curves (curve.py) of the exponent and of the programmed conductance, so that numpy and the kernels of
kernels/aging.py compute the same bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cimc.analog.curve import FRACTION, Curve
from cimc.analog.kernels.aging import fast_drift, fast_flicker
from cimc.analog.rng import Draws
from cimc.analog.technology import Cell, Flicker, PowerDrift

Float = NDArray[np.float32]
MOST_EXPONENT = 1.0  # a curve reaches to twice that: no source has a drift exponent beyond


def drifted(
    model: PowerDrift, cells: Float, levels: NDArray[np.int8], goals: Float, at: tuple[Cell, tuple[int, int]]
) -> None:
    """``cells`` (µS, changed in place) after their time: the exponents' mean and spread by level from ``goals``, what each
    level is to conduct. ``at``: the cell, and the key of the stream."""
    cell, key = at
    exponents, curve = _exponents(model, tuple(goals.tolist()), cell), _decay(model, cell)
    if fast_drift(levels, exponents, _told(curve), key, cells):
        return
    drawn = Draws(key).standard_normal(cells.shape)
    mean, spread = exponents[levels, 0], exponents[levels, 1]
    cells *= curve(np.abs(mean + spread * drawn))


@lru_cache(maxsize=64)
def within(model: PowerDrift, cell: Cell) -> bool:
    """Whether no exponent lies beyond the curve, at any conductance of the cell."""
    goals = np.linspace(0.0, cell.gmax_us, 65)
    mean, spread = (float(np.max(part)) for part in model.exponents(goals, cell))
    return mean + 7 * spread < 2 * MOST_EXPONENT  # normal numbers end at 6.3


def flickered(
    model: Flicker, cells: Float, programmed: Float, at: tuple[Cell, tuple[int, int]], unit: float, out: Float
) -> None:
    """``out`` (which may be ``cells``) becomes ``unit`` times the cells (µS) with read noise of a spread that follows what
    was ``programmed``, cut at 0."""
    cell, key = at
    curve = _spread(model, cell)
    if fast_flicker(cells, programmed, _told(curve), key, unit, out):
        return
    drawn = Draws(key).standard_normal(cells.shape)
    np.add(cells, cells * curve(programmed) * drawn, out=out)
    np.maximum(out, np.float32(0), out=out)
    out *= np.float32(unit)


@lru_cache(maxsize=64)
def _spread(model: Flicker, cell: Cell) -> Curve:
    points = Curve.points(cell.gmax_us)
    return Curve.of(cell.gmax_us, model.spread(points, cell))


@lru_cache(maxsize=64)
def _decay(model: PowerDrift, cell: Cell) -> Curve:
    """What is left of a conductance, by its drift exponent."""
    return Curve.of(MOST_EXPONENT, model.left(Curve.points(MOST_EXPONENT), cell))


@lru_cache(maxsize=256)
def _exponents(model: PowerDrift, goals: tuple[float, ...], cell: Cell) -> Float:
    found = np.empty((len(goals), 2), dtype=np.float32)
    found[:, 0], found[:, 1] = model.exponents(np.array(goals), cell)
    return found


@lru_cache(maxsize=128)
def _pairs(curve: Curve) -> Float:
    return np.ascontiguousarray(np.stack([curve.values, curve.rises], axis=1))


def _told(curve: Curve) -> tuple[Float, int, int]:
    return _pairs(curve), curve.lowest, FRACTION
