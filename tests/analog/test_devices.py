"""Several devices side by side in a cell: drawn apart, counted apart, read as one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from cimc.analog import AnalogMatrix
from cimc.analog.config_keys import read_config
from cimc.analog.crossbar import program, to_grid
from cimc.analog.noise import conductances, find_model
from cimc.analog.reference import reference_mvm
from cimc.analog.rng import Streams
from cimc.errors import CimcError

BASE: dict[str, object] = {"cell_bits": 2, "rows": 16, "input_encoding": "twos_complement", "adc": {"bits": 8}}
CELLS: dict[str, dict[str, object]] = {
    "programming": {"programming_error": {"model": "NormalIndependent", "sigma": 0.05}},
    "pcm": {"technology": "pcm", "seconds": 3600.0, "weight_encoding": "differential"},
    "verified": {"technology": "pcm_hermes_1dev", "write_verify": 3},
    "read": {"technology": "fefet"},
    "every read": {"technology": "mram", "read_mode": "cell"},
    "wires": {"technology": "reram_milo", "Rp_row_ohm": 1.0, "Rp_col_ohm": 1.0},
    "faults": {"technology": "pcm", "stuck_off_rate": 0.05, "stuck_on_rate": 0.05},
}


def matrices(inputs: int = 20, outputs: int = 16) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.integers(-127, 128, (inputs, outputs)), rng.integers(-127, 128, (3, inputs))


@pytest.mark.parametrize("devices", [2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_the_fast_core_is_the_reference(cell: str, devices: int) -> None:
    codes, x = matrices()
    config = read_config(BASE | CELLS[cell] | {"devices": devices})
    core = AnalogMatrix(codes, config, 7, (3, 5))
    want, clipped = reference_mvm(x, core.cells, config, Streams(7, 3, 5))
    assert np.array_equal(core.values(x), want)
    assert core.counts.saturated == clipped


@pytest.mark.parametrize("cell", ["programming", "pcm", "verified"])
def test_a_cell_is_the_mean_of_devices_programmed_apart(cell: str) -> None:
    """The first device draws what a cell of one device does, the others have streams of their own."""
    codes, _ = matrices()
    fine: dict[str, object] = {"grid": "fine"}
    one = read_config(BASE | CELLS[cell] | fine)
    three = read_config(BASE | CELLS[cell] | fine | {"devices": 3})
    alone = [program(codes, one, Streams(7, 3, 5, device=d)).plus for d in range(3)]
    assert not np.array_equal(alone[0], alone[1])
    found = program(codes, three, Streams(7, 3, 5))
    mean = to_grid(sum(alone) / 3, found.grid_bits, one.weights.max_levels)
    assert np.abs(found.plus - mean).max() <= 2.0**-found.grid_bits


def spread(config: Mapping[str, object]) -> float:
    """Mean square of what cells are off, in levels."""
    codes = np.full((64, 64), 85 - 128)  # every slice of it is level 1
    ideal = AnalogMatrix(codes, BASE).cells.net
    noisy = [AnalogMatrix(codes, BASE | dict(config) | {"grid": "fine"}, seed=s).cells.net for s in range(4)]
    return float(np.square(np.array(noisy) - ideal).mean())


@pytest.mark.parametrize("devices", [2, 4, 16])
def test_independent_errors_shrink_with_the_root(devices: int) -> None:
    noise = {"programming_error": {"model": "NormalIndependent", "sigma": 0.05}}
    assert spread(noise) / spread(noise | {"devices": devices}) == pytest.approx(devices, rel=0.05)


def test_read_noise_of_a_conversion_is_that_of_all_devices() -> None:
    """Both ways of drawing it, and one against four devices: a quarter of the variance."""
    codes = np.full((64, 8), 85 - 128)
    x = np.full((400, 64), 1)
    reading: dict[str, object] = {"read_noise": {"model": "NormalIndependent", "sigma": 0.02}, "grid": "fine"}
    config = {k: v for k, v in BASE.items() if k != "adc"} | reading | {"rows": 64}
    found = {
        (mode, n): AnalogMatrix(codes, config | {"read_mode": mode, "devices": n}).values(x).var()
        for mode in ("conversion", "cell")
        for n in (1, 4)
    }
    for mode in ("conversion", "cell"):
        assert found[mode, 1] / found[mode, 4] == pytest.approx(4, rel=0.15)
    assert found["cell", 4] == pytest.approx(found["conversion", 4], rel=0.15)


def test_two_devices_of_hermes_are_near_its_own_fit() -> None:
    """The chip's measured spread of two devices a conductance (20.7 µS together) against two of its single devices (10.35 µS
    each) with independent errors, over the conductances of a pair that holds normal weights of RMS 30 / 127. (At 0.8 of
    Gmax alone independence is pessimistic: 6.7 against 4.4 %.)"""
    weights = np.minimum(np.abs(np.random.default_rng(1).normal(0, 30 / 127, 40000)), 1.0)
    relative = np.concatenate([weights, np.zeros_like(weights)])
    off: dict[str, float] = {}
    for name in ("pcm_hermes_1dev", "pcm_hermes_2dev"):
        gmax = find_model("technology", name).gmax_us
        drawn = conductances(name, relative * gmax, 0.0, seed=1, drift=False, read_noise=False) / gmax
        off[name] = float(np.square(drawn - relative).mean())
    assert off["pcm_hermes_1dev"] / 2 == pytest.approx(off["pcm_hermes_2dev"], rel=0.1)


def test_ideal_devices_change_nothing_but_the_count_of_cells() -> None:
    codes, x = matrices()
    one, four = AnalogMatrix(codes, BASE), AnalogMatrix(codes, BASE | {"devices": 4})
    assert np.array_equal(one.values(x), four.values(x))
    assert four.counts.cells == 4 * one.counts.cells
    assert four.counts.conversions == one.counts.conversions


@pytest.mark.parametrize("devices", [0, -1, 17, 1.5, True])
def test_impossible_numbers_are_refused(devices: object) -> None:
    with pytest.raises(CimcError, match="devices"):
        read_config(BASE | {"devices": devices})
