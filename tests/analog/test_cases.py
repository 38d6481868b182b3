"""Every case of cases/ at the comparison its JSON states."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc.analog import conductances, mvm
from cimc.analog.core import AnalogMatrix
from cimc.analog.reference import reference_mvm

CASES = Path(__file__).parent / "cases"
ALL = {
    case["id"]: case
    for name in ("crosssim", "acs", "aihwkit")
    for case in json.loads((CASES / f"{name}.json").read_text())["cases"]
}
SIBLINGS = ("adc_rule", "adc_min", "adc_max", "adc_levels", "Gmin_norm")


def load(case: dict[str, Any]) -> dict[str, np.ndarray]:
    with np.load(CASES / case["file"]) as data:
        return {name: data[name] for name in data.files}


def ids(kind: str, *prefixes: str) -> list[str]:
    return [name for name, case in ALL.items() if case["kind"] == kind and name.startswith(prefixes)]


def test_the_folder_holds_what_the_lists_name() -> None:
    assert len(ALL) == 29
    assert {case["file"] for case in ALL.values()} == {path.name for path in CASES.glob("*.npz")}


@pytest.mark.parametrize("name", ids("exact_integer", ""))
def test_exact_integers(name: str) -> None:
    case = ALL[name]
    data = load(case)
    config = dict(case["config"])
    if "stuck" in data:
        config["stuck"] = data["stuck"]
    y = mvm(data["W"], data["X"], config)
    assert y.dtype == np.int64
    assert np.array_equal(y, data["Y"])


@pytest.mark.parametrize(
    "name", ["C04_offset_2b_lsb3_ragged", "C06_diff_1b_lsb2_ties", "A01_acs_twos_complement_diff_2b"]
)
def test_the_reference_passes_them_too(name: str) -> None:
    case = ALL[name]
    data = load(case)
    core = AnalogMatrix(data["W"][:5].T, case["config"])
    y, _ = reference_mvm(data["X"][:, :2].T.astype(np.int64), core.cells, core.config, core.streams)
    assert np.array_equal(y.T, data["Y"][:5, :2])


@pytest.mark.parametrize("name", ids("float", "F"))
def test_adc_ranges_and_finite_on_off(name: str) -> None:
    case = ALL[name]
    data = load(case)
    config = {**case["config"], **{key: case[key] for key in SIBLINGS}}
    y = mvm(data["W"], data["X"], config)
    assert np.abs(y - data["Y"]).max() <= 1e-6 * np.abs(data["Y"]).max()


def test_the_rule_alone_gives_the_range() -> None:
    case = ALL["F01_range_MAX_offset"]
    data = load(case)
    y = mvm(data["W"], data["X"], {**case["config"], "adc_rule": "MAX"})
    assert np.abs(y - data["Y"]).max() <= 1e-6 * np.abs(data["Y"]).max()


def test_wire_resistance() -> None:
    case = ALL["I01_irdrop_input_source"]
    data = load(case)
    y = mvm(data["W"], data["X"], case["config"])
    assert np.abs(y - data["Y"]).max() <= 1e-6 * np.abs(data["Y"]).max()


@pytest.mark.parametrize("name", ids("float", "H"))
def test_single_pass_io_model(name: str) -> None:
    case = ALL[name]
    data = load(case)
    y = mvm(data["W"], data["X"].T, case["config"]).T
    step = np.abs(data["X"]).max(axis=1, keepdims=True) * 20 / 254
    off = np.abs(y - data["Y"]) / step
    assert np.all((off < 1e-5) | (np.abs(off - 1) < 1e-5))
    assert np.count_nonzero(off > 0.5) <= 0.01 * off.size


def test_read_noise_of_the_io_model() -> None:
    case = ALL["H03_aihwkit_pcm_read_noise"]
    data = load(case)
    config = {"w_noise": 0.0175, "w_noise_type": "PCM_READ", "inp_res": -1, "out_res": -1, "out_bound": 1e6}
    runs = np.stack([mvm(data["W"], data["X"].T, config, seed=seed).T for seed in range(500)])
    ratio = runs.std(axis=0) / data["std"]
    assert abs(ratio.mean() - 1) < 0.02


STATISTICS = {
    "N01_prog_normal_independent": ({"programming_error": {"model": "NormalIndependent", "sigma": 0.01}}, 50),
    "N02_prog_normal_proportional": ({"programming_error": {"model": "NormalProportional", "sigma": 0.03}}, 50),
    "N04_rram_milo_diff": ({"programming_error": "RRAMMilo", "gmin_us": 50, "gmax_us": 225}, 100),
    "N05_read_noise_adc8_bitserial": ({"read_noise": {"model": "NormalIndependent", "sigma": 0.02}}, 40),
}


@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize("read_mode", ["cell", "conversion"])
def test_error_statistics(name: str, read_mode: str) -> None:
    """err_std within 4 standard errors of a seed's std, plus 1 %; err_mean within 4 of its own, plus 1 % of the std."""
    more, seeds = STATISTICS[name]
    if read_mode == "conversion" and "read_noise" not in more:
        pytest.skip("only read noise has modes")
    case = ALL[name]
    data, check = load(case), case["check"]
    exact = data["W"].astype(np.int64) @ data["X"].astype(np.int64)
    config = {**case["config"], **more, "read_mode": read_mode}
    errors = np.stack([mvm(data["W"], data["X"], config, seed=seed) - exact for seed in range(seeds)])
    per_seed = errors.std(axis=(1, 2))
    allowed = 4 * check["std_of_per_seed_std"] / np.sqrt(seeds) + 0.01 * check["err_std"]
    assert abs(per_seed.mean() - check["err_std"]) < allowed
    spread = errors.mean(axis=(1, 2)).std() * np.sqrt(1 / seeds + 1 / check["n_seeds"])
    assert abs(errors.mean() - check["err_mean"]) < 4 * spread + 0.01 * check["err_std"]


DEVICES = {
    "D01_pcm_joshi": ("pcm_joshi", 25.0, 0.0, {"drift": False, "read_noise": False}),
    "D03_rram_milo": ("rram_milo", 225.0, 0.0, {"drift": False, "read_noise": False}),
    "D04_sonos_prog": ("sonos", 16.0, 0.0, {"drift": False, "read_noise": False}),
    "D05_sonos_drift_2.5days": ("sonos", 16.0, 2.5 * 86400, {"read_noise": False}),
    "D06_sonos_read": ("sonos", 16.0, 0.0, {"programming": False, "drift": False}),
}
DRAWS = 50_000


def compare(g: np.ndarray, mean: np.ndarray, std: np.ndarray, n: int) -> None:
    """4 standard errors of both samples; that of a standard deviation with the sample's own kurtosis."""
    share = np.sqrt(1 / len(g) + 1 / n)
    assert np.all(np.abs(g.mean(axis=0) - mean) <= 4 * std * share + 1e-6)
    centred = g - g.mean(axis=0)
    variance = np.maximum((centred**2).mean(axis=0), 1e-30)
    kurtosis = (centred**4).mean(axis=0) / variance**2
    assert np.all(np.abs(np.sqrt(variance) - std) <= 4 * std * np.sqrt((kurtosis - 1) / 4) * share + 1e-6)


@pytest.mark.parametrize("name", DEVICES)
def test_device_models_of_crosssim(name: str) -> None:
    model, gmax, seconds, parts = DEVICES[name]
    data = load(ALL[name])
    target = np.broadcast_to(data["grid_Gnorm"] * gmax, (DRAWS, 12))
    g = conductances(model, target, seconds=seconds, seed=11, **parts) / gmax
    compare(g, data["mean"], data["std"], ALL[name]["n"])


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("E01_pcm_like_25uS", "pcm"),
        ("E02_hermes_2dev", "pcm_hermes_2dev"),
        ("E03_hermes_1dev", "pcm_hermes_1dev"),
        ("E05_reram_cmo", "reram_cmo"),
    ],
)
def test_device_models_of_aihwkit(name: str, model: str) -> None:
    data = load(ALL[name])
    target = np.broadcast_to(data["g_target_uS"], (DRAWS, 12))
    programmed = conductances(model, target, seconds=0.0, seed=5, drift=False, read_noise=False)
    compare(programmed, data["prog_mean"], data["prog_std"], ALL[name]["n"])
    times = [key.removesuffix("_mean")[1:] for key in data if key.startswith("t") and key.endswith("_mean")]
    assert len(times) >= 2
    for time in times:
        g = conductances(model, target, seconds=float(time), seed=6)
        compare(g, data[f"t{time}_mean"], data[f"t{time}_std"], ALL[name]["n"])
