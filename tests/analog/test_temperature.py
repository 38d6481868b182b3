"""Temperature: what sources say of it, and that it is refused where they say nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cimc import analog
from cimc.analog import AnalogMatrix, technologies
from cimc.analog.reference import reference_mvm
from cimc.errors import CimcError

THERMAL = ("reram", "reram_wan_crosssim", "reram_milo", "reram_hfox", "reram_hfalo", "sram_analog")
HOT = 250.0
LATE = 3.0e4  # seconds
CODES = np.random.default_rng(0).integers(-127, 128, (40, 6))
X = np.random.default_rng(1).integers(-100, 101, (5, 40))


def lammie(seconds: float, kelvin: float, p0: float, p2: float, p3: float) -> float:
    """The source's own form (GeneralModel.py, gradual operation): log10 of the resistance over its first value."""
    threshold = p0 * math.exp(p2 * 298 / kelvin)
    if seconds <= threshold:
        return 0.0
    slope = p3 * p2 * 298 / kelvin
    return slope * math.log10(seconds) - slope * math.log10(threshold)


@pytest.mark.parametrize(
    ("name", "p0", "p2", "p3"), [("reram_hfox", 1.541e-13, 63.43, 0.04), ("reram_hfalo", 4.764e-17, 76.47, 0.014)]
)
@pytest.mark.parametrize("celsius", [25.0, 150.0, 200.0, 250.0, 300.0])
@pytest.mark.parametrize("seconds", [10.0, 1e3, 1e5, 3e7])
def test_retention_is_the_published_fit(
    name: str, p0: float, p2: float, p3: float, celsius: float, seconds: float
) -> None:
    got = analog.conductances(name, np.array([235.0, 100.0]), seconds, temperature_c=celsius)
    want = 10 ** -lammie(seconds, celsius + 273, p0, p2, p3)
    np.testing.assert_allclose(got, np.array([235.0, 100.0]) * want, rtol=1e-12)


def test_retention_is_near_what_was_measured() -> None:
    """The last point of each of the source's curves of Ti/HfAlO/TiN (Experimental Data/3B_LRS_Al_*.csv): within 2."""
    for celsius, seconds, ohm in ((200, 944613, 23233.67), (250, 67819, 57747.78), (300, 3767, 189286.97)):
        g = analog.conductances("reram_hfalo", np.array([1e6 / 4250]), seconds, temperature_c=celsius)
        assert 0.5 < 1e6 / g[0] / ohm < 2
    cold = analog.conductances("reram_hfox", np.array([235.0]), 3.2e8, temperature_c=25.0)
    assert cold[0] == 235.0  # ten years at room temperature: nothing is lost


def test_noise_of_a_capacitor_follows_nyquist() -> None:
    """Variance proportional to the absolute temperature: at 327 °C twice that at 27 °C; here 300 °C against 0 °C."""
    target = np.full(40000, 1.0)

    def spread(celsius: float | None) -> float:
        read = analog.conductances("sram_analog", target, 0.0, programming=False, temperature_c=celsius)
        return float((read - target).std())

    assert spread(300.0) / spread(0.0) == pytest.approx(math.sqrt(573.15 / 273.15), rel=1e-12)
    assert spread(26.85) == pytest.approx(spread(None), rel=1e-12)


def test_which_technologies_know_it() -> None:
    assert {name for name, item in technologies().items() if item.model.thermal} == set(THERMAL)
    for name in technologies():
        if name in THERMAL:
            analog.conductances(name, np.array([60.0]), 0.0, temperature_c=85.0)
            continue
        with pytest.raises(CimcError, match=f"'temperature_c'.*'{technologies()[name].model.name}'"):
            analog.conductances(name, np.array([10.0]), 0.0, temperature_c=85.0)
        with pytest.raises(CimcError, match=f"'temperature_c'.*'{name}'"):
            AnalogMatrix(CODES, {"technology": name, "input_encoding": "twos_complement", "temperature_c": 85.0})


@pytest.mark.parametrize("celsius", [-273.15, 301.0, math.nan, math.inf])
def test_what_is_no_temperature(celsius: float) -> None:
    with pytest.raises(CimcError, match="'temperature_c'"):
        analog.conductances("reram", np.array([10.0]), 0.0, temperature_c=celsius)


def test_retention_needs_a_temperature_and_its_model() -> None:
    for config, key in (
        ({"retention": "ReRamHfOx"}, "'retention'"),
        ({"retention": "PCMLike", "temperature_c": 85.0}, "'retention.model'"),
        ({"temperature_c": 85.0}, "'temperature_c'"),
    ):
        with pytest.raises(CimcError, match=key):
            AnalogMatrix(CODES, config)


@pytest.mark.parametrize("name", THERMAL)
@pytest.mark.parametrize("adc", [None, {"bits": 8, "lsb_units": 1}])
def test_both_cores_agree_and_off_changes_nothing(name: str, adc: dict[str, object] | None) -> None:
    common = {"technology": name, "cell_bits": 2, "input_encoding": "twos_complement", "rows": 20, "adc": adc}
    base = AnalogMatrix(CODES, {**common, "seconds": LATE}, seed=3).values(X)
    hot = AnalogMatrix(CODES, {**common, "seconds": LATE, "temperature_c": HOT}, seed=3)
    want, _ = reference_mvm(X, hot.cells, hot.config, hot.streams)
    got = hot.values(X)
    assert np.array_equal(got, want)
    # A converter of whole levels takes all of SRAM's noise away.
    assert np.array_equal(got, base) == (name == "sram_analog" and adc is not None)
    if name != "sram_analog":  # nothing is lost when it is cold
        cold = AnalogMatrix(CODES, {**common, "seconds": LATE, "temperature_c": 25.0}, seed=3).values(X)
        assert np.array_equal(cold, base)


def test_it_composes_with_models_of_other_cells() -> None:
    """Milo's programming error and the retention of Ti/HfOx/TiN: the same cells, scaled by what is kept."""
    common = {"cell_bits": 7, "weight_encoding": "differential", "programming_error": "RRAMMilo", "gmax_us": 225.0,
              "Gmin_norm": 0.0, "input_encoding": "twos_complement", "grid": "fine", "seconds": LATE}  # fmt: skip
    fresh = AnalogMatrix(CODES, common, seed=5)
    hot = AnalogMatrix(CODES, {**common, "retention": "ReRamHfOx", "temperature_c": HOT}, seed=5)
    kept = 10 ** -lammie(LATE, HOT + 273, 1.541e-13, 63.43, 0.04)
    assert kept < 0.2
    np.testing.assert_allclose(hot.cells.net, fresh.cells.net * kept, atol=1e-6)
