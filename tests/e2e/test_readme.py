"""The README's Python, run as it stands there on a small model."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import cimc
from models import small
from models.graph import save

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    save(small.bert(layers=1, hidden=32, heads=2, ffn=48, vocab=50, positions=128), Path("model.onnx"))
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, (1, 128))
    weights, inputs = rng.integers(-7, 8, (3, 6)), rng.integers(0, 4, (6, 2))
    names = {
        "ids": ids, "mask": np.ones_like(ids), "types": np.zeros_like(ids), "weights": weights, "inputs": inputs,
        "config": {"weight_bits": 4, "cell_bits": 2, "input_bits": 2, "rows": 8},
    }  # fmt: skip
    exec(compile(code, str(README), "exec"), names)
    session = names["session"]
    assert isinstance(session, cimc.InferenceSession)
    assert session.report is not None
    assert session.report.cycles
    assert [np.shape(y) for y in names["outputs"]] == [o.shape for o in session.get_outputs()]
    np.testing.assert_array_equal(names["y"], weights @ inputs)
