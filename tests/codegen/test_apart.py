"""Columns quantised where they are give the answers of whole rows, bit for bit, and the choice is really taken."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cimc.compiler import compile_model
from cimc.isa.steps import walk
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.session import InferenceSession
from models.graph import save
from models.small import RECIPES, build


@pytest.mark.parametrize("numerics", ["float", "integer"])
def test_same_bits_with_and_without(tmp_path: Path, numerics: Literal["float", "integer"]) -> None:
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    answers: list[list[bytes]] = []
    scaled: list[int] = []
    for choices in (Choices(replicas=1), Choices(replicas=1, parts=False, aside=False)):
        made = compile_model(path, Options("sram-digital", (), {"batch": 1, "sequence": 64}, choices=choices))
        assert made is not None
        scaled.append(sum(s.mnemonic == "quantize_static" for t in made.program.tiles for s in walk(t.steps)))
        session = InferenceSession(made, numerics=numerics, timing=False)
        rng = np.random.default_rng(3)
        feeds = {a.name: rng.integers(0, 2, a.shape).astype(a.type) for a in session.get_inputs()}
        answers.append([np.ascontiguousarray(out).tobytes() for out in session.run(None, feeds)])
    assert answers[0] == answers[1]
    assert scaled[0] > 0
    assert scaled[1] == 0
