"""Calibration of columns by known inputs: what it finds by construction, and what it is worth under drift."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.analog import AnalogMatrix, drift_factor, measure_columns
from cimc.analog.calibrate import known_inputs
from cimc.analog.reference import reference_mvm
from cimc.errors import CimcError

BASE: dict[str, object] = {"cell_bits": 2, "rows": 64, "input_encoding": "twos_complement", "grid": "fine"}


def matrices() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    codes = np.clip(rng.normal(0, 40, (128, 6)), -127, 127).astype(int)
    return codes, np.clip(rng.normal(10, 40, (60, 128)), -127, 127).astype(int)


def error(core: AnalogMatrix, codes: np.ndarray, x: np.ndarray) -> float:
    return float(np.sqrt(np.mean((core.values(x) - x @ codes) ** 2)))


@pytest.mark.parametrize("encoding", ["offset", "differential"])
@pytest.mark.parametrize("more", [{}, {"Gmin_norm": 0.2}])
def test_ideal_columns_need_nothing(encoding: str, more: dict[str, object]) -> None:
    codes, _ = matrices()
    core = AnalogMatrix(codes, BASE | more | {"weight_encoding": encoding})
    found = measure_columns(core, codes, 16)
    assert found.gain == pytest.approx(1.0, abs=1e-9)
    assert found.bias[0] == pytest.approx(0.0, abs=1e-4)
    assert found.bias[1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("subtraction", ["digital", "unit_column"])
def test_a_unit_column_is_corrected_as_well(subtraction: str) -> None:
    codes, x = matrices()
    core = AnalogMatrix(codes, BASE | {"offset_subtraction": subtraction, "technology": "pcm", "seconds": 1e6})
    before = error(core, codes, x)
    found = measure_columns(core, codes, 64)
    core.gain, core.bias = found.gain, found.bias
    assert found.gain.shape == (6 if subtraction == "digital" else 7,)
    assert error(core, codes, x) < 0.7 * before


def test_a_converters_gain_and_offset_are_found() -> None:
    """24 bits lose nothing. Every conversion is multiplied by 1.25 and shifted by a code of 2^-10 levels: the sums grow by
    1.25, and a constant is added once per block, slice and plane, by their weights."""
    codes, x = matrices()
    adc: dict[str, object] = {"bits": 24, "lsb_units": 2.0**-10, "gain": 1.25, "offset_lsb": 512.0}
    core = AnalogMatrix(codes, BASE | {"adc": adc})
    found = measure_columns(core, codes, 32)
    assert found.gain == pytest.approx(1 / 1.25, rel=1e-5)
    shifted = 512.0 * 2.0**-10 * 2 * sum(4.0**s for s in range(4)) * (sum(2.0**k for k in range(7)) - 2.0**7)
    assert found.bias[0] == pytest.approx(-shifted / 1.25, rel=1e-3)
    core.gain, core.bias = found.gain, found.bias
    assert error(core, codes, x) < 0.5


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_calibration_beats_a_factor_a_column_under_drift(encoding: str) -> None:
    codes, x = matrices()
    config = BASE | {"weight_encoding": encoding, "technology": "pcm", "seconds": 3e7}
    errors: list[list[float]] = []
    for seed in range(3):
        plain, column, calibrated = (AnalogMatrix(codes, config, seed=seed) for _ in range(3))
        column.gain = drift_factor(codes, plain.config, seed, per="column")
        found = measure_columns(calibrated, codes, 64)
        calibrated.gain, calibrated.bias = found.gain, found.bias
        errors.append([error(core, codes, x) for core in (plain, column, calibrated)])
    plain_error, column_error, calibrated_error = np.mean(errors, axis=0)
    assert calibrated_error < column_error < 0.5 * plain_error


def test_both_cores_agree_on_a_corrected_core() -> None:
    """The correction is digital: what it corrects are the reference's sums."""
    codes, x = matrices()
    config = BASE | {"grid": "fast", "technology": "pcm", "seconds": 1e5, "adc": {"bits": 7}}
    core = AnalogMatrix(codes, config, seed=2)
    found = measure_columns(core, codes, 16)
    sums = core.sums(x[:5])
    x_sums = x[:5].sum(axis=1)[:, None]
    want, _ = reference_mvm(x[:5], core.cells, core.config, core.streams, 16)
    assert np.array_equal(sums - 128 * x_sums, want)
    core.gain, core.bias = found.gain, found.bias
    corrected = sums * found.gain + found.bias[0] + found.bias[1] * x_sums - 128 * x_sums
    assert np.array_equal(core.values(x[:5]), corrected)


def test_known_inputs_fit_every_stream_and_are_the_same_every_time() -> None:
    codes, _ = matrices()
    for kind, bits in (("unsigned", 8), ("twos_complement", 8), ("sign_magnitude", 4), ("split", 2), ("unsigned", 1)):
        core = AnalogMatrix(codes, BASE | {"input_encoding": kind, "input_bits": bits})
        x = known_inputs(core, 9)
        assert x.min() >= core.config.inputs.low
        assert x.max() <= core.config.inputs.high
        assert np.array_equal(x, known_inputs(core, 9))
        core.values(x)


def test_a_column_of_dead_cells_keeps_its_gain() -> None:
    codes = np.zeros((128, 2), int)
    core = AnalogMatrix(codes, BASE | {"weight_encoding": "differential"})
    found = measure_columns(core, codes, 8)
    assert found.gain.tolist() == [1.0, 1.0]
    assert not found.bias.any()


def test_too_few_vectors_are_refused() -> None:
    codes, _ = matrices()
    with pytest.raises(CimcError, match="vectors"):
        measure_columns(AnalogMatrix(codes, BASE), codes, 3)
