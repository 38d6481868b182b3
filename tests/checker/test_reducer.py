"""cimc reduce finds the node that is broken on purpose."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from cimc import errors, reducer
from cimc.checker import CheckOptions
from cimc.cli.main import run
from cimc.options import Options
from cimc.reducer import reduce_model
from models import small
from models.graph import save
from tests.checker.broken import break_norms

FLAGS = ["--dim", "batch=1", "--dim", "sequence=6"]


def test_only_the_broken_norm_is_left(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model of its own that fails while the op is broken, and passes when it is not."""
    out, again = tmp_path / "part.onnx", tmp_path / "again.onnx"
    with monkeypatch.context() as patch:
        break_norms(patch)
        assert run(["reduce", str(bert), *FLAGS, "-o", str(out)]) == 0
        told = capsys.readouterr()
        assert run(["reduce", str(bert), *FLAGS, "-o", str(again), "-q"]) == 0
        assert run(["check", str(out), "--inputs", str(out.with_suffix(".npz")), "-q"]) == 1
    assert run(["check", str(out), "--inputs", str(out.with_suffix(".npz")), "-q"]) == 0
    assert out.read_bytes() == again.read_bytes()
    assert "trial 1:" in told.err
    ops = {n.op_type for n in onnx.load(out).graph.node} - {"Constant"}
    assert ops == {"LayerNormalization"}
    with np.load(out.with_suffix(".npz")) as feeds:
        session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
        assert len(session.run(None, dict(feeds))) == 1


def test_trials_are_bounded(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was found so far is written when they are used up."""
    break_norms(monkeypatch)
    found = reduce_model(str(bert), Options(dims={"batch": 1, "sequence": 6}), CheckOptions(), max_trials=3)
    assert found.trials == 3
    assert 0 < found.kept < found.nodes


def test_a_refused_node_is_found(tmp_path: Path) -> None:
    """A model that cimc cannot take is cut down to the node it refuses."""
    model = small.bert(layers=1, hidden=16, heads=2, ffn=32, vocab=50, positions=16)
    last = model.graph.node[-1]
    value, last.output[0] = last.output[0], "before"
    model.graph.node.append(onnx.helper.make_node("Bernoulli", ["before"], [value], seed=1.0))
    path = tmp_path / "m.onnx"
    save(model, path)
    found = reduce_model(str(path), Options(dims={"batch": 1, "sequence": 6}), CheckOptions())
    assert found.failure.kind == "model-unsupported"
    assert [n.op_type for n in onnx.load_from_string(found.model).graph.node] == ["Bernoulli"]


def test_a_model_that_passes_is_refused(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a message that says so; no file."""
    assert run(["reduce", str(bert), *FLAGS, "-o", str(tmp_path / "out.onnx")]) == 2
    assert "error[reduce-passes]: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_failure_that_vanishes_with_bound_dims_is_told(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms that are wrong while the whole model is checked, and right in its parts, whose dims are bound."""
    honest = reducer._check  # pyright: ignore[reportPrivateUsage]

    def check(model: str, options: Options, how: CheckOptions):
        with monkeypatch.context() as patch:
            if options.dims:
                break_norms(patch)
            return honest(model, options, how)

    monkeypatch.setattr(reducer, "_check", check)
    with pytest.raises(
        errors.CimcError, match=r"fails \(.* max abs error .*\), but not with its symbolic dims bound"
    ) as caught:
        reduce_model(str(bert), Options(dims={"batch": 1, "sequence": 6}), CheckOptions())
    assert caught.value.diagnostic is errors.REDUCE_VANISHES
