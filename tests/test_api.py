"""The Python API: the commands as functions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cimc
from cimc.errors import CimcError, Exit
from cimc.isa.printer import print_program
from tests.cli.command import linear
from tests.report.test_run_report import validate

W = np.arange(16, dtype=np.float32).reshape(4, 4) / 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "linear.onnx")


def test_compile_and_run(model: Path, tmp_path: Path) -> None:
    program = cimc.compile(model, hardware="toy", dims={"n": 2}, output=tmp_path / "out")
    x = np.eye(2, 4, dtype=np.float32)
    bare = tmp_path / "bare.cim"
    bare.write_bytes((tmp_path / "out" / "program.cim").read_bytes())
    bare.with_suffix(".safetensors").write_bytes((tmp_path / "out" / "weights.safetensors").read_bytes())
    for source in (program, tmp_path / "out", str(bare)):
        session = cimc.InferenceSession(source)
        assert session.report is None
        (y,) = session.run(None, {"x": x})
        np.testing.assert_allclose(y, W[:2], atol=1e-6)
        assert session.report is not None
        assert (session.report.baseline is None) == isinstance(source, str)  # a bare program is no model


def test_a_session_says_what_it_takes_and_gives(model: Path) -> None:
    session = cimc.InferenceSession(cimc.compile(model, hardware="toy", dims={"n": 2}), "integer", timing=False)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [("x", "float32", (2, 4))]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [("y", "float32", (2, 4))]
    with pytest.raises(CimcError, match=r"output-unknown.*no output 'z'"):
        session.run(["z"], {"x": np.zeros((2, 4), np.float32)})
    with pytest.raises(CimcError, match="input 'x' is missing"):
        session.run(["y"], {})


def test_check(model: Path) -> None:
    found = cimc.check(model, hardware="toy", dims={"n": 2}, numerics="integer")
    validate(found, "check")
    assert found["passed"] is True


def test_names_nobody_has(model: Path) -> None:
    with pytest.raises(AttributeError, match="nothing"):
        cimc.nothing  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
    assert callable(cimc.analog.mvm)
    assert set(cimc.__all__) == {"InferenceSession", "analog", "check", "compile", "sweep"}


def test_compile_takes_the_options_of_the_command(model: Path, tmp_path: Path) -> None:
    ready = cimc.compile(model, hardware="toy", dims={"n": 2}, calibrate="start", mapping=["replicas=1"])
    assert any("calibrate" in line for line in print_program(ready.program).splitlines())
    several = cimc.compile(model, hardware="isaac", dims={"n": 2}, chips=2)
    assert several.hardware.spec.chips == 2
    assert cimc.compile(model, hardware="toy", dims={"n": 2}, chips="auto").hardware.spec.chips == 1
    x = np.eye(2, 4, dtype=np.float32)
    fixed = cimc.compile(model, hardware="toy", inputs={"x": x}, activations="static")
    assert "activations=static" in fixed.pipeline
    assert cimc.compile(model, hardware="isaac", dims={"n": 2}, passes=several.pipeline).pipeline == several.pipeline


def test_calibration_data_decide_the_converters(model: Path) -> None:
    """Ranges fitted to inputs of next to nothing clip the real ones; those fitted to the run's own do not."""
    program = cimc.compile(model, hardware="toy", dims={"n": 2}, overrides=["adc.bits=4"])
    large = {"x": np.full((2, 4), 3, np.float32)}
    one_hot = np.zeros((3, 2, 4), np.float32)
    one_hot[:, :, 0] = 1
    how: dict[str, Any] = {"device": ["adc_range=calibrated_slice"], "timing": False}

    def clipped(**more: Any) -> object:
        session = cimc.InferenceSession(program, "analog", **how, **more)
        assert session.device_report is None
        session.run(None, large)
        assert session.device_report is not None
        return session.device_report["adc_saturated"]

    assert clipped() == 0
    assert clipped(calibration=large) == 0
    assert int(str(clipped(calibration={"x": one_hot}))) > 0
    by_check = cimc.check(
        model,
        hardware="toy",
        numerics="analog",
        inputs=large,
        calibration={"x": one_hot},
        overrides=["adc.bits=4"],
        **how,
    )
    assert by_check["device"]["adc_saturated"] == clipped(calibration={"x": one_hot})  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"chips": 0}, "argument 'chips'"),
        ({"chips": "some"}, "argument 'chips'"),
        ({"activations": "statc"}, "did you mean 'static'"),
        ({"calibrate": "often"}, "argument 'calibrate'"),
        ({"fit": "some"}, "argument 'fit'"),
        ({"values": "f8"}, "argument 'values'"),
        ({"fit": "all", "calibration": {"y": np.zeros((2, 4), np.float32)}}, "'y'"),
        ({"dims": {"n": "two"}}, "argument 'dims'"),
        ({"mapping": ["replica=2"]}, "did you mean 'replicas'"),
        ({"numerics": "analogue"}, "argument 'numerics'"),
        ({"numerics": "analog", "rate": 0.0}, "'rate'"),
        ({"numerics": "analog", "trials": -1}, "'trials'"),
        ({"numerics": "analog", "budget": 1.5}, "'budget'"),
        ({"numerics": "analog", "time": -1.0}, "'device.seconds'"),
        ({"numerics": "analog", "calibration": {}}, "no range to calibrate"),
        ({"calibration": {}}, "no range to calibrate"),
    ],
)
def test_a_wrong_argument_is_named(model: Path, given: dict[str, object], words: str) -> None:
    with pytest.raises(CimcError, match=words) as caught:
        cimc.check(model, **{"hardware": "toy", "dims": {"n": 2}, **given})  # pyright: ignore[reportArgumentType]
    assert caught.value.exit is Exit.USAGE


def test_a_name_that_is_no_argument(model: Path) -> None:
    for call in (cimc.compile, cimc.check):
        with pytest.raises(TypeError, match=r"'precison'\. did you mean 'precision'"):
            call(model, hardware="toy", precison="w4a8")  # pyright: ignore[reportCallIssue, reportUnknownVariableType]


def test_a_sweep_takes_the_options_of_a_compile(model: Path) -> None:
    def cycles(**asked: Any) -> list[int]:
        found: Any = cimc.sweep(model, {"crossbar.rows": [8, 4]}, hardware="toy", dims={"n": 3}, **asked)
        return [point["figures"]["cycles"] for point in found["points"]]

    calibrated = [
        cimc.check(model, hardware="toy", dims={"n": 3}, calibrate="start", overrides=[f"crossbar.rows={rows}"])["run"][
            "cycles"
        ]  # pyright: ignore[reportArgumentType, reportCallIssue, reportIndexIssue, reportOptionalSubscript]
        for rows in (8, 4)
    ]
    assert cycles(calibrate="start") == calibrated
    assert cycles() != calibrated


def test_a_session_names_its_wrong_arguments(model: Path) -> None:
    program = cimc.compile(model, hardware="toy", dims={"n": 2})
    with pytest.raises(CimcError, match=r"error\[argument\]: argument 'numerics'"):
        cimc.InferenceSession(program, "digital")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CimcError, match="'rate'"):
        cimc.InferenceSession(program, "analog", rate=0)
    with pytest.raises(CimcError, match="'calibration'"):
        cimc.InferenceSession(program, calibration={"x": np.zeros((2, 4), np.float32)})
    program = cimc.compile(model, hardware="toy", dims={"n": 2}, overrides=["adc.bits=4"])
    calibrated = ["adc_range=calibrated"]
    with pytest.raises(CimcError, match="'y'"):
        cimc.InferenceSession(program, "analog", device=calibrated, calibration={"y": np.zeros((2, 4), np.float32)})
