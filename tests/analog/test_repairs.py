"""IR drop in a core, ADC calibration, drift compensation: each with what it is worth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cimc import errors
from cimc.analog import AnalogConfig, AnalogMatrix, calibrate_range, drift_factor
from cimc.analog.adc import transfers
from cimc.analog.calibrate import partial_sums
from cimc.analog.config_keys import read_config
from cimc.analog.irdrop import attenuation
from cimc.analog.network import Wires, column_currents


@pytest.mark.parametrize("ohm", [1.0, 10.0, 50.0])
def test_fast_ir_drop_against_the_exact_network(ohm: float) -> None:
    """25 µS cells, 64 x 48, random binary inputs: unbiased, and within 1 % of the drop for any single input."""
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 4, (64, 48)) / 3
    row, col = ohm * 25e-6, 1.5 * ohm * 25e-6
    scale = attenuation(cells, row, col)
    assert np.all((scale > 0) & (scale < 1))
    x = (rng.random((64, 30)) < 0.5).astype(float)
    exact = column_currents(cells.T, None, x, Wires(row, col))
    ideal, fast = cells.T @ x, (cells * scale).T @ x
    effect = np.abs(exact - ideal).mean()
    assert np.abs(fast - exact).mean() < 0.01 * effect
    ones = np.ones((64, 1))
    everything = column_currents(cells.T, None, ones, Wires(row, col))
    assert (cells * scale).T @ ones == pytest.approx(everything, rel=1e-6)


def test_wires_lower_what_a_core_reads() -> None:
    codes, x = np.full((64, 8), 100), np.full((2, 64), 255)
    config = {"cell_bits": 2, "rows": 64, "gmax_us": 25.0, "weight_encoding": "differential", "grid": "fine"}
    ideal = AnalogMatrix(codes, config).mvm(x)
    dropped = AnalogMatrix(codes, {**config, "Rp_row_ohm": 2.0, "Rp_col_ohm": 2.0}).mvm(x)
    assert np.all(dropped < ideal)
    assert np.all(dropped > 0.8 * ideal)
    assert np.all(np.diff(dropped[0]) < 0), "columns further from the drivers read less"


def setup() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    codes = np.clip(rng.normal(0, 25, (256, 12)), -127, 127).astype(int)
    return codes, np.clip(np.abs(rng.normal(0, 60, (40, 256))), 0, 255).astype(int)


def error(config: AnalogConfig, codes: np.ndarray, x: np.ndarray, **more: object) -> float:
    core = AnalogMatrix(codes, config, seed=1)
    for name, value in more.items():
        setattr(core, name, value)
    return float(np.sqrt(np.mean((core.mvm(x) - x @ codes) ** 2)))


@pytest.mark.parametrize("per", ["core", "slice"])
def test_a_calibrated_range_clips_nothing_and_errs_less(per: str) -> None:
    codes, x = setup()
    config = read_config({"cell_bits": 2, "adc": {"bits": 6, "lsb_units": 6}})
    fitted = calibrate_range(codes, config, x, per=per)
    core = AnalogMatrix(codes, fitted)
    core.mvm(x)
    assert core.counts.saturated == 0
    assert error(fitted, codes, x) < error(config, codes, x)
    tighter = calibrate_range(codes, config, x, coverage=0.9, per=per)
    clipping = AnalogMatrix(codes, tighter)
    clipping.mvm(x)
    assert 0 < clipping.counts.saturated <= 0.1 * clipping.counts.conversions * (1 if per == "core" else 4)
    table = transfers(fitted, 256)
    assert table is not None
    for s, sums in enumerate(partial_sums(core, x)):
        assert sums.max() <= (table[0][s].low + table[0][s].top + 0.5) * table[0][s].step


def test_calibration_refuses_what_it_cannot_do() -> None:
    codes, x = setup()
    with pytest.raises(errors.CimcError, match="adc"):
        calibrate_range(codes, AnalogConfig(), x)
    config = read_config({"adc": {"bits": 6}})
    with pytest.raises(errors.CimcError, match="samples"):
        calibrate_range(codes, config, x[:0])
    with pytest.raises(errors.CimcError, match="coverage"):
        calibrate_range(codes, config, x, coverage=0.0)


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_drift_compensation_repairs_most_of_a_month(encoding: str) -> None:
    codes, x = setup()
    config = read_config({"cell_bits": 4, "weight_encoding": encoding, "technology": "pcm", "seconds": 2.6e6})
    fresh = replace(config, device=replace(config.device, seconds=0.0))
    plain = error(config, codes, x)
    whole = error(config, codes, x, gain=drift_factor(codes, config, seed=1))
    column = error(config, codes, x, gain=drift_factor(codes, config, seed=1, per="column"))
    assert error(fresh, codes, x) < whole < 0.7 * plain
    assert column < 0.7 * plain


def test_without_drift_the_factor_is_one() -> None:
    codes, _ = setup()
    config = read_config({"cell_bits": 2, "technology": "pcm", "seconds": 0.0})
    assert drift_factor(codes, config) == pytest.approx(1.0)
