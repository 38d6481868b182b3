"""The presets of published machines run a transformer: against onnxruntime, with time, energy and the baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.checker import CheckOptions, check_model
from cimc.options import Options
from models import small
from models.graph import save


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models") / "bert.onnx"
    save(small.bert(layers=1, hidden=32, heads=2, ffn=64, vocab=50), made)
    return made


@pytest.mark.parametrize("machine", ["puma", "hermes", "neurram", "colonnade", "xformer", "retransformer"])
def test_a_transformer_runs(machine: str, path: Path) -> None:
    """``float`` is onnxruntime's answer on every machine; NeuRRAM's cells hold 4-bit weights."""
    precision = "w4a8" if machine == "neurram" else "w8a8"
    options = Options(hardware=machine, dims={"batch": 1, "sequence": 4}, precision=precision)
    report = check_model(str(path), options, CheckOptions(numerics="float")).report
    assert report.passed
    assert report.run.cycles
    assert report.run.bound is not None
    assert report.run.bound.cycles <= report.run.cycles
    assert (report.run.traffic_bytes or {})["core_registers"] > 0
    baseline = report.run.baseline
    assert baseline is not None
    assert baseline.ratio.keys() == {"bytes", "latency", "energy"}
    assert all(value is None or value > 0 for value in baseline.ratio.values())
