"""``--calibration FILE.npz``: ADC ranges fitted to inputs other than the run's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import save_model

from cimc import inputs as input_files
from cimc.cli.main import run as command
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.errors import CimcError
from cimc.options import Options
from cimc.sim.interpreter import run
from cimc.sim.values import Analog
from cimc.study import calibration
from models.small import bert

LOW = ("adc.bits=6",)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save_model(bert(layers=1, hidden=32, heads=2, vocab=64, positions=16), path)
    found = compile_model(path, Options(overrides=LOW, dims={"batch": 1, "sequence": 4}))
    assert found is not None
    return found


def several(compiled: Compiled, count: int) -> dict[str, np.ndarray]:
    drawn = [input_files.draw(compiled.program, seed) for seed in range(1, count + 1)]
    return {name: np.stack([one[name] for one in drawn]) for name in drawn[0]}


def saturated(compiled: Compiled, *runs: dict[str, np.ndarray]) -> int:
    program, weights, chip = compiled.program, compiled.weights, compiled.hardware.spec
    samples = calibration(program, weights, chip, *runs)
    how = Analog(Device.of(chip, ("adc_range=calibrated_slice",), "ideal"), samples=samples)
    feeds = input_files.draw(program, 0)
    return run(program, weights, chip, inputs=feeds, numerics="analog", timing=False, analog=how).counts["saturated"]


def test_more_data_clips_less(compiled: Compiled) -> None:
    other = input_files.calibration(input_files.types(compiled.program), several(compiled, 16))
    assert 0 < saturated(compiled, *other) < saturated(compiled, other[0])


def test_every_run_gives_its_share(compiled: Compiled) -> None:
    runs = input_files.calibration(input_files.types(compiled.program), several(compiled, 3))
    samples = calibration(compiled.program, compiled.weights, compiled.hardware.spec, *runs)
    decl = compiled.program.tiles[0].matrices[0]
    alone = calibration(compiled.program, compiled.weights, compiled.hardware.spec, runs[2]).of(decl)
    seen = samples.of(decl)
    assert seen is not None
    assert alone is not None
    assert np.array_equal(seen[-len(alone) :], alone)
    assert len(seen) == 3 * len(alone)


def test_arrays_must_agree(compiled: Compiled) -> None:
    types = input_files.types(compiled.program)
    good = several(compiled, 2)
    name = next(iter(good))
    assert len(input_files.calibration(types, good)) == 2
    assert len(input_files.calibration(types, {n: a[0] for n, a in good.items()})) == 1
    for bad in (good | {name: good[name][:1]}, good | {name: good[name][0]}, {n: a[:0] for n, a in good.items()}):
        with pytest.raises(CimcError, match="calibration file"):
            input_files.calibration(types, bad)
    with pytest.raises(CimcError, match="no_such"):
        input_files.calibration(types, good | {"no_such": good[name]})


def test_on_the_command_line(compiled: Compiled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "data.npz", **several(compiled, 4))
    compiled.write(tmp_path / "out")
    common = ["--numerics", "analog", "--calibration", str(tmp_path / "data.npz"), "--json", "-"]
    for words in (
        ["run", str(tmp_path / "out"), "--no-timing"],
        ["check", str(compiled.model), "--dim", "sequence=4", "-c", "adc.bits=6", "--min-cosine", "0"],
    ):
        assert command([*words, *common, "--device", "adc_range=calibrated"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["device"]["adc_range"] == "calibrated"
        assert command([*words, *common]) == 2
        assert "'--calibration'" in capsys.readouterr().err
