"""The kernels that program crossbars give the bits of their numpy definitions."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog.config import NoiseModel
from cimc.analog.crossbar import to_grid
from cimc.analog.curve import FRACTION, Curve, beside
from cimc.analog.kernels.jit import target
from cimc.analog.kernels.program import fast_moments, fast_spread, fast_steps
from cimc.analog.noise import models
from cimc.analog.rng import Draws
from cimc.analog.technology import Cell, Spread

pytestmark = pytest.mark.skipif(target() is None, reason="no kernels on this machine")
SPREADS = sorted(name for name, model in models().items() if isinstance(model.program, Spread))


@pytest.mark.parametrize("name", SPREADS)
def test_drawn_crossbars_are_the_models(name: str) -> None:
    """Enough cells that every branch of the normal numbers is taken."""
    model = models()[name]
    assert isinstance(model.program, Spread)
    levels = np.random.default_rng(1).integers(0, 4, (64, 160)).astype(np.int8)
    cell = Cell(0.0, model.gmax_us, 0.0, NoiseModel(name, (("sigma", 0.05),) if "sigma" in model.parameters else ()))
    targets = np.arange(4).astype(np.float32) * np.float32(model.gmax_us / 3)
    expected = np.maximum(model.program(targets[levels], cell, Draws((7, 9))), 0.0) * 0.5
    goals, sigmas, unit = model.program.parts(targets, cell)
    out = np.zeros(levels.shape, dtype=np.float32)
    spread = np.broadcast_to(np.asarray(sigmas, dtype=np.float32), goals.shape)
    assert fast_spread(levels, (goals, spread, unit, 0.5), model.program.relative, (7, 9), out)
    assert np.array_equal(out, expected.astype(np.float32))


def test_moments_are_the_curves() -> None:
    points = Curve.points(3.0)
    mean, var = Curve.of(3.0, np.sqrt(points + 0.01)), Curve.of(3.0, 0.1 / (1 + points))
    cells = np.abs(np.random.default_rng(2).normal(1.0, 1.5, (37, 64))).astype(np.float32)
    cells[0, :8] = 0.0
    expected, spreads = mean(cells), var(cells)
    variance = np.zeros(64, dtype=np.float32)
    assert fast_moments(cells, beside(mean, var), mean.lowest, FRACTION, variance)
    assert np.array_equal(cells, expected)
    assert np.array_equal(variance, spreads.sum(axis=0))


def test_steps_are_those_of_the_grid() -> None:
    levels = np.abs(np.random.default_rng(3).normal(1.0, 3.0, (16, 32))).astype(np.float32)
    levels[0] = np.arange(32) / 64  # ties
    out = np.zeros(levels.shape, dtype=np.int16)
    assert fast_steps(levels, 5, 2.0 * 3 * 32, out)
    assert np.array_equal(out, to_grid(levels[None], 5, (3,))[0] * 32)
