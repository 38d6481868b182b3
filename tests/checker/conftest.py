"""Models that several tests of this folder check."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import small
from models.graph import save


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two tiny layers."""
    path = tmp_path_factory.mktemp("model") / "bert.onnx"
    save(small.bert(layers=2, hidden=16, heads=2, ffn=32, vocab=50, positions=16), path)
    return path
