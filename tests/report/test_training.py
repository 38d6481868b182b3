"""Noise for hardware-aware training: nothing where nothing is lost, closed forms where there are, bad input refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

from cimc.analog import AnalogMatrix
from cimc.arch.load import load
from cimc.cli.main import run as command
from cimc.compiler import compile_model
from cimc.device import Device
from cimc.errors import CimcError
from cimc.options import Options
from cimc.report.training import GENERIC, effective_weights, training_noise, weights_of
from models.small import bert


def device(*settings: str, tech: str = "ideal", seconds: float = 0.0, overrides: tuple[str, ...] = ()) -> Device:
    return Device.of(load("isaac", overrides).spec, settings, tech, seconds)


@pytest.mark.parametrize("encoding", ["offset", "differential"])
def test_an_ideal_device_adds_nothing(encoding: str) -> None:
    chip = load("isaac", (f"core.encoding={encoding}",)).spec
    found = training_noise("isaac", chip, Device.of(chip, ("adc=off",), "ideal")).layers[0]
    assert (found.gain, found.sigma, found.bias) == pytest.approx((1.0, 0.0, 0.0), abs=1e-12)
    assert found.output == found.clipped == 0.0
    assert (found.name, found.rows, found.cols, found.largest) == (GENERIC, 128, 128, 127)
    assert all(b.sigma == 0 for b in found.bins)
    assert sum(b.count for b in found.bins) == 128 * 128


@pytest.mark.parametrize("encoding", ["offset", "differential"])
@pytest.mark.parametrize("more", [{}, {"Gmin_norm": 0.3}, {"msb_copies": 3, "msb_combine": "mean"}])
def test_effective_weights_are_what_the_core_multiplies_by(encoding: str, more: dict[str, object]) -> None:
    """Driven one row at a time without a converter, a core shows its weights."""
    codes = np.random.default_rng(0).integers(-127, 128, (10, 7))
    core = AnalogMatrix(codes, {"cell_bits": 2, "weight_encoding": encoding, "technology": "pcm", "seconds": 1e5,
                                "grid": "fine", **more})  # fmt: skip
    core.gain = np.linspace(0.9, 1.1, 7)
    assert core.values(np.eye(10, dtype=int)) == pytest.approx(effective_weights(core), abs=1e-6)


def test_gaussian_cells_give_their_closed_form() -> None:
    """FeFET: 2 % of Gmax, 0.06 of three levels, in slices of weight 1, 4, 16, 64; no conductance is negative, so the cells
    at level 0 keep half of their mean square (and a mean of sigma / sqrt(2 pi), which is bias). Spread of one weight."""
    chip = load("isaac").spec
    weights = np.random.default_rng(1).integers(-127, 128, (512, 256))
    fefet = Device.of(chip, ("adc=off", "read_noise=off", "on_off=off"), "fefet")
    found = training_noise("isaac", chip, fefet, {"w": weights}, trials=1).layers[0]
    zero = [float((((weights + 128) >> 2 * s) & 3 == 0).mean()) for s in range(4)]
    mean = [0.06 * z / np.sqrt(2 * np.pi) for z in zero]
    square = [0.06**2 * (1 - 0.5 * z) for z in zero]
    bias = sum(4**s * m for s, m in enumerate(mean))
    variance = sum(16**s * q for s, q in enumerate(square))
    assert found.bias * 127 == pytest.approx(bias, rel=0.05)
    assert found.sigma * 127 == pytest.approx(np.sqrt(variance - bias**2), rel=0.02)
    assert found.output == pytest.approx(0.0, abs=1e-4)  # the grid of conductances alone


def test_drift_lowers_the_gain_and_compensation_restores_it() -> None:
    chip = load("isaac", ("core.encoding=differential",)).spec

    def gain(*settings: str) -> float:
        quiet = ("adc=off", "read_noise=off", *settings)
        return training_noise("isaac", chip, Device.of(chip, quiet, "pcm", 86400.0)).layers[0].gain

    # PCM's exponents: 0.049 to 0.1, t0 20 s.
    assert (86420 / 20) ** -0.1 < gain() < (86420 / 20) ** -0.049
    assert gain("drift_compensation=global") == pytest.approx(1.0, abs=0.05)


def test_a_narrow_converter_is_output_noise_not_weight_noise() -> None:
    chip = load("isaac", ("adc.bits=5",)).spec
    fixed = training_noise("isaac", chip, Device.of(chip, (), "ideal")).layers[0]
    fitted = training_noise("isaac", chip, Device.of(chip, ("adc_range=calibrated_slice",), "ideal")).layers[0]
    assert fixed.sigma == pytest.approx(0.0, abs=1e-12)
    assert fixed.output > fitted.output > 0


@pytest.mark.parametrize("settings", [("stuck_on_rate=0.1", "remap=both")])
def test_faults_of_one_chip_are_refused(settings: tuple[str, ...]) -> None:
    with pytest.raises(CimcError, match=r"device\.remap"):
        training_noise("isaac", load("isaac").spec, device(*settings))


def test_without_an_analog_core_there_is_none() -> None:
    chip = load("sram-digital").spec
    with pytest.raises(CimcError, match="no analog core"):
        training_noise("sram-digital", chip, Device.of(chip))


def test_layers_of_a_compiled_model_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), tmp_path / "bert.onnx")
    made = compile_model(tmp_path / "bert.onnx", Options(dims={"batch": 1, "sequence": 4}))
    assert made is not None
    made.write(tmp_path / "out")
    words = ["hw", "noise", "isaac", "--technology", "pcm", "--time", "1h", "--program", str(tmp_path / "out")]
    assert command([*words, "--trials", "1", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [x["name"] for x in told["layers"]] == list(weights_of(made.program, made.weights, made.hardware.spec))
    assert len(told["layers"]) == 7
    assert told["seconds"] == 3600
    assert told["aihwkit"]["modifier.std_dev"] == pytest.approx(
        np.mean([x["weight_noise_sigma"] for x in told["layers"]])
    )
    assert told["aihwkit"]["noise_model"] == "PCMLikeNoiseModel"
    assert command(words[:7]) == 0
    assert GENERIC in capsys.readouterr().out
    assert command([*words, "--device", "drfit=off"]) == 2
    assert command([*words[:3], "--time", "1h,1d"]) == 2
