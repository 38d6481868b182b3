"""The Python API: the commands as functions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cimc
from cimc.errors import CimcError
from tests.cli.command import linear
from tests.report.test_run_report import validate

W = np.arange(16, dtype=np.float32).reshape(4, 4) / 16


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return linear(tmp_path / "linear.onnx")


def test_compile_and_run(model: Path, tmp_path: Path) -> None:
    program = cimc.compile(model, hardware="toy", dims={"n": 2}, output=tmp_path / "out")
    x = np.eye(2, 4, dtype=np.float32)
    for source in (program, tmp_path / "out", str(tmp_path / "out" / "program.cim")):
        if isinstance(source, str):
            (tmp_path / "out" / "program.safetensors").write_bytes(
                (tmp_path / "out" / "weights.safetensors").read_bytes()
            )
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
    with pytest.raises(CimcError, match="no output 'z'"):
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
    assert set(cimc.__all__) == {"InferenceSession", "analog", "check", "compile"}
