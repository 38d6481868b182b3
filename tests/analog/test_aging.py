"""Drift and accumulated read noise on the fast grid: the kernels' bits, and the models' statistics."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import aging
from cimc.analog.config import NoiseModel
from cimc.analog.kernels.aging import fast_wide
from cimc.analog.kernels.jit import target
from cimc.analog.noise import models
from cimc.analog.rng import Draws
from cimc.analog.technology import Cell, Flicker, PowerDrift, Spread

DAY = 86400.0
KEY = (7, 9)
DRIFTS = sorted(name for name, model in models().items() if isinstance(model.drift, PowerDrift))
FLICKERS = sorted(name for name, model in models().items() if isinstance(model.read, Flicker))
kernels = pytest.mark.skipif(target() is None, reason="no kernels on this machine")


def crossbar(name: str) -> tuple[Cell, np.ndarray, np.ndarray, np.ndarray]:
    """The cell, levels, what each level conducts, and programmed cells: enough for every branch of the numbers."""
    gmax = models()[name].gmax_us
    rng = np.random.default_rng(1)
    levels = rng.integers(0, 128, (64, 160)).astype(np.int8)
    goals = (np.arange(128) * gmax / 127).astype(np.float32)
    cells = np.maximum(goals[levels] + rng.normal(0, 0.03 * gmax, levels.shape), 0.0).astype(np.float32)
    return Cell(0.0, gmax, DAY, NoiseModel(name)), levels, goals, cells


@kernels
@pytest.mark.parametrize("name", DRIFTS)
def test_drifted_crossbars_are_numpys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, levels, goals, cells = crossbar(name)
    model = models()[name].drift
    assert isinstance(model, PowerDrift)
    decay = aging.Decay.of(model, goals, cell)
    assert decay is not None
    fast, plain = cells.copy(), cells.copy()
    aging.drifted(decay, fast, levels, KEY)
    monkeypatch.setattr(aging, "fast_drift", lambda *_: False)
    aging.drifted(decay, plain, levels, KEY)
    assert np.array_equal(fast, plain)


@kernels
@pytest.mark.parametrize("name", FLICKERS)
def test_noisy_crossbars_are_numpys(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, _, _, cells = crossbar(name)
    model = models()[name].read
    assert isinstance(model, Flicker)
    curve, fast, plain = aging.flicker_curve(model, cell), np.empty_like(cells), cells.copy()
    aging.flickered(curve, cells * np.float32(0.9), cells, KEY, 0.25, fast)
    monkeypatch.setattr(aging, "fast_flicker", lambda *_: False)
    aging.flickered(curve, cells * np.float32(0.9), cells, KEY, 0.25, plain)
    assert np.array_equal(fast, plain)


@pytest.mark.parametrize("name", DRIFTS)
def test_drift_by_curves_is_the_models(name: str) -> None:
    """The same draws through the model's own powers, in float64."""
    cell, levels, goals, cells = crossbar(name)
    model = models()[name].drift
    assert isinstance(model, PowerDrift)
    decay = aging.Decay.of(model, goals, cell)
    assert decay is not None
    want = model(cells.astype(np.float64), goals[levels].astype(np.float64), cell, Draws(KEY))  # pyright: ignore[reportArgumentType]
    aging.drifted(decay, cells, levels, KEY)
    assert cells == pytest.approx(want, rel=1e-3, abs=1e-6 * cell.gmax_us)


@pytest.mark.parametrize("name", FLICKERS)
def test_noise_by_curves_is_the_models(name: str) -> None:
    cell, _, _, cells = crossbar(name)
    model = models()[name].read
    assert isinstance(model, Flicker)
    wide = cells.astype(np.float64)
    want = model(wide, wide, cell, Draws(KEY))  # pyright: ignore[reportArgumentType]
    got = np.empty_like(cells)
    aging.flickered(aging.flicker_curve(model, cell), cells, cells, KEY, 1.0, got)
    assert got == pytest.approx(want, abs=5e-4 * cell.gmax_us)


def test_exponents_beyond_the_curve_are_left_to_the_model() -> None:
    model = models()["PowerLaw"].drift
    assert isinstance(model, PowerDrift)
    steep = Cell(0.0, 1.0, DAY, NoiseModel("PowerLaw", (("nu_mean", 1.9), ("nu_std", 0.1))))
    assert aging.Decay.of(model, np.array([1.0]), steep) is None


@kernels
@pytest.mark.parametrize("relative", [False, True])
def test_cells_of_many_levels_are_the_models(relative: bool) -> None:
    _, levels, goals, _ = crossbar("PCMLike")
    sigmas = (0.5 + goals / 50).astype(np.float32)
    model = Spread(lambda target, cell: sigmas[levels], relative)
    cell = Cell(0.0, 25.0, 0.0, NoiseModel("PCMLike"))
    want = model(goals[levels], cell, Draws(KEY)) * np.float32(0.5)  # pyright: ignore[reportArgumentType]
    out = np.empty(levels.shape, dtype=np.float32)
    assert fast_wide(levels, (goals, sigmas, 1.0, 0.5), relative, KEY, out)
    assert np.array_equal(out, want.astype(np.float32))
