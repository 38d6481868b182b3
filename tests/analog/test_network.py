"""The exact wire network against closed forms and against a relaxation that shares no code with it."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import mvm
from cimc.analog.network import TOPOLOGIES, Wires, column_currents


def test_one_cell_is_three_resistors_in_series() -> None:
    wires = Wires(row=0.1, col=0.2, row_terminal=0.05, col_terminal=0.03)
    current = column_currents(np.array([[0.5]]), None, np.array([[0.8]]), wires)
    assert current[0, 0] == pytest.approx(0.8 / (1 / 0.5 + 0.1 + 0.2 + 0.05 + 0.03))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_without_resistance_it_is_a_product(topology: str) -> None:
    rng = np.random.default_rng(1)
    w, x = rng.uniform(-1, 1, (4, 6)), rng.uniform(0, 1, (6, 3))
    config = {"Rmin": 1e4, "Rmax": 1e6, "Rp_row_ohm": 0.0, "Rp_col_ohm": 0.0, "topology": topology}
    assert mvm(w, x, config) == pytest.approx(w @ x)


@pytest.mark.parametrize(("row", "col"), [(0.0, 3.0), (2.0, 0.0)])
def test_one_sided_wires_are_limits_of_thin_ones(row: float, col: float) -> None:
    rng = np.random.default_rng(2)
    w, x = rng.uniform(-1, 1, (5, 7)), rng.uniform(0, 1, (7, 2))
    exact = mvm(w, x, {"Rp_row_ohm": row, "Rp_col_ohm": col})
    nearly = mvm(w, x, {"Rp_row_ohm": row or 1e-7, "Rp_col_ohm": col or 1e-7})
    assert exact == pytest.approx(nearly, rel=1e-6)


def relaxed(plus: np.ndarray, minus: np.ndarray, x: np.ndarray, row: float, col: float, from_input: bool) -> np.ndarray:
    """Voltages across the cells by damped iteration of Kirchhoff's laws on an interleaved array."""
    start = np.tile(x, (len(plus), 1))
    if not from_input:
        plus, minus = plus * (start != 0), minus * (start != 0)
    across = [start.copy(), -start]
    for _ in range(3000):
        currents = [plus * across[0], minus * across[1]]
        down = np.cumsum(sum(currents), axis=1)
        column_drop = np.cumsum((col * down)[:, ::-1], axis=1)[:, ::-1]
        for side, sign in ((0, 1), (1, -1)):
            i = currents[side]
            if from_input:
                other = np.cumsum(row * np.cumsum(i[::-1], axis=0)[::-1], axis=0)
            else:
                other = np.cumsum(row * np.cumsum(i[:, ::-1], axis=1)[:, ::-1], axis=1)
            across[side] = across[side] + 0.3 * (sign * start - column_drop - other - across[side])
    return (plus * across[0] + minus * across[1]).sum(axis=1)


@pytest.mark.parametrize("from_input", [True, False])
@pytest.mark.parametrize("interleaved", [True, False])
def test_against_relaxation(from_input: bool, interleaved: bool) -> None:
    rng = np.random.default_rng(3)
    w, x = rng.uniform(-1, 1, (9, 12)), rng.integers(0, 2, 12).astype(float)
    config = {"Rmin": 1e4, "Rmax": 1e6, "Rp_row_ohm": 20.0, "Rp_col_ohm": 30.0, "interleaved": interleaved,
              "current_from_input": from_input}  # fmt: skip
    y = mvm(w, x[:, None], config)[:, 0]
    plus, minus = 0.01 + 0.99 * np.maximum(w, 0), 0.01 + 0.99 * np.maximum(-w, 0)
    if interleaved:
        expected = relaxed(plus, minus, x, 2e-3, 3e-3, from_input)
    else:
        none = np.zeros_like(plus)
        one = relaxed(plus, none, x, 2e-3, 3e-3, from_input)
        expected = one - relaxed(minus, none, x, 2e-3, 3e-3, from_input)
    assert y == pytest.approx(expected / 0.99, rel=1e-9)
    assert np.abs(y - w @ x).max() > 1e-3, "the wires must matter in this test"
