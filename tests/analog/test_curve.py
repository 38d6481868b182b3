"""Curves beside the function they stand for; moments of a read beside drawn reads."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import curve
from cimc.analog.config import NoiseModel
from cimc.analog.curve import Curve
from cimc.analog.noise import find_model
from cimc.analog.physics import moment_curves
from cimc.analog.rng import Streams
from cimc.analog.technology import Cell


def _square_root(top: float) -> Curve:
    return Curve.of(top, np.sqrt(Curve.points(top)))


@pytest.mark.parametrize("top", [1.0, 3.0, 15.0, 255.0])
def test_a_curve_follows_its_function(top: float) -> None:
    cells = np.concatenate([np.geomspace(2e-4 * top, 2 * top, 999), [2 * top]]).astype(np.float32)
    assert np.allclose(_square_root(top)(cells), np.sqrt(cells), rtol=2e-4)


def test_below_the_first_point_it_is_the_value_at_zero() -> None:
    assert np.array_equal(_square_root(3.0)(np.array([0.0, 1e-9, 1e-5], dtype=np.float32)), np.zeros(3))


def test_with_and_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = np.abs(Streams(2).draws("inputs").standard_normal((64, 16)))
    cells[0, :3] = 0
    fast = _square_root(3.0)(cells)
    monkeypatch.setattr(curve, "fast_curve", lambda *_: None)
    assert np.array_equal(_square_root(3.0)(cells), fast)


@pytest.mark.parametrize("level", [0.0, 0.02, 0.1, 1.0, 2.5])
def test_moments_are_those_of_drawn_reads(level: float) -> None:
    """Cells near 0 are cut there: their mean rises and their variance falls."""
    model, cell = find_model("read_noise", "NormalIndependent"), Cell(0.0, 1.0, 0.0, NoiseModel("", (("sigma", 0.03),)))
    mean, var = moment_curves(model, cell, 3)
    assert model.read is not None
    g = np.full(200_000, level / 3)
    drawn = model.read(g, g, cell, Streams(3).generator("read")) * 3
    at = np.array([level], dtype=np.float32)
    assert mean(at)[0] == pytest.approx(drawn.mean(), abs=1e-3)
    assert np.sqrt(var(at)[0]) == pytest.approx(drawn.std(), rel=0.02)
