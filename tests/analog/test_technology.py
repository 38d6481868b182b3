"""Technologies: complete, sourced, usable; models behave where the cases do not look."""

from __future__ import annotations

import numpy as np
import pytest

from cimc import errors
from cimc.analog import AnalogMatrix, conductances, technologies, technology
from cimc.analog.noise import models
from cimc.analog.tech.reram import WAN_SPREAD, wan_sigma


def test_the_five_and_their_variants() -> None:
    names = set(technologies())
    assert {"sram", "sram_analog", "reram", "pcm", "fefet", "mram", "ideal", "sonos"} <= names
    assert {"pcm_hermes_1dev", "pcm_hermes_2dev", "pcm_joshi"} <= names
    assert {"reram_wan_crosssim", "reram_milo", "reram_cmo", "reram_isaac"} <= names


@pytest.mark.parametrize("name", sorted(technologies()))
def test_every_number_has_a_source(name: str) -> None:
    item = technology(name)
    assert item.summary
    assert len(item.model.source) > 10
    assert 0 <= item.gmin_us < item.gmax_us
    for fact in item.facts:
        assert fact.source
        assert fact.unit
        assert fact.low <= fact.high
    if name not in ("ideal",):
        assert item.fact("endurance").low > 0


@pytest.mark.parametrize("name", sorted(technologies()))
def test_every_technology_computes(name: str) -> None:
    rng = np.random.default_rng(0)
    codes, x = rng.integers(-127, 128, (64, 8)), rng.integers(-128, 128, (16, 64))
    config = {"technology": name, "cell_bits": technology(name).cell_bits, "input_encoding": "twos_complement",
              "seconds": 3600.0}  # fmt: skip
    y = AnalogMatrix(codes, config, seed=1).mvm(x)
    exact = x @ codes
    correlation = np.corrcoef(y.ravel(), exact.ravel())[0, 1]
    assert (
        correlation > 0.5
    )  # an hour of uncompensated drift; the state-independent PCM model has a fifth of read noise
    if technology(name).model.program is None and technology(name).model.read is None:
        assert np.abs(y - exact).max() <= 0.05 * np.abs(exact).max()
    else:
        assert not np.array_equal(y, exact)


def test_names_are_spelled_freely() -> None:
    assert technology("PCM").name == "pcm"
    assert technology("RRAMMilo").name == technology("reram_milo").name == technology("rram-milo").name
    with pytest.raises(errors.CimcError, match="hermes"):
        technology("pcm_hermes_3dev")


def test_wan_between_the_published_times() -> None:
    target = np.array([4.0, 20.0])
    for time in WAN_SPREAD:
        assert wan_sigma(target, 40.0, time) == pytest.approx(np.polyval(WAN_SPREAD[time][::-1], target / 40))
    hour = wan_sigma(target, 40.0, 3600.0)
    low, high = wan_sigma(target, 40.0, 1.0), wan_sigma(target, 40.0, 86400.0)
    assert np.all((hour > np.minimum(low, high)) & (hour < np.maximum(low, high)))
    assert np.array_equal(wan_sigma(target, 40.0, 1e8), wan_sigma(target, 40.0, 2 * 86400.0))


def test_drift_lowers_pcm_with_time() -> None:
    target = np.full(20000, 12.0)
    means = [conductances("pcm", target, seconds=t, seed=1).mean() for t in (0.0, 3600.0, 86400.0, 3e7)]
    assert means == sorted(means, reverse=True)
    assert means[-1] / means[0] == pytest.approx((1 + 3e7 / 20) ** -0.049, rel=0.02)


def test_generic_models() -> None:
    target = np.full(200000, 0.5)
    for name, expected in (
        ("NormalIndependent", 0.01),
        ("NormalProportional", 0.005),
        ("NormalInverseProportional", 0.02),
        ("UniformIndependent", 0.01 / np.sqrt(12)),
    ):
        g = conductances(name, target, seconds=0.0, sigma=0.01, read_noise=False)
        assert g.std() == pytest.approx(expected, rel=0.01)
    assert np.all(conductances("NormalInverseProportional", np.zeros(5), sigma=0.1) == 0)


def test_write_verify_narrows_programming() -> None:
    codes = np.zeros((100, 50), dtype=int)
    config = {"cell_bits": 2, "grid": "fine", "programming_error": {"model": "NormalIndependent", "sigma": 0.02}}
    spreads = [AnalogMatrix(codes, {**config, "write_verify": n}).cells.plus[3].std() for n in (1, 2, 8)]
    assert spreads[0] == pytest.approx(3 * 0.02, rel=0.05)
    assert spreads[0] > 1.5 * spreads[1] > 3 * spreads[2]


def test_models_have_distinct_names() -> None:
    assert len(models()) >= 18
    for name in models():
        assert conductances(name, np.array([10.0]), seconds=0.0).shape == (1,)
