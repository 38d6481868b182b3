"""Code that was written to know what tiles send each other, against the same code written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.arch.load import load
from cimc.codegen.lower import arranged, lowered
from cimc.compiler import compile_model
from cimc.mapping.build import build
from cimc.mapping.choices import DEFAULT
from cimc.mapping.placement import Style
from cimc.options import Options
from models import small
from models.graph import save


@pytest.mark.parametrize("hardware", ["isaac", "sram-digital"])
@pytest.mark.parametrize("pace", [1e9, 0.0])  # no segment's links are so busy; every segment's are
def test_drafts_are_the_code_that_would_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hardware: str, pace: float
) -> None:
    monkeypatch.setattr("cimc.codegen.exchange.PACE", pace)
    save(small.bert(layers=2, hidden=64, heads=2, ffn=128, vocab=50, positions=64), tmp_path / "bert.onnx")
    made = compile_model(tmp_path / "bert.onnx", Options(hardware, dims={"batch": 1, "sequence": 64}))
    assert made is not None
    chip = load(hardware).spec
    graph, before = build(made.graph, chip, "w8a8", DEFAULT)
    placed, drafts = arranged(graph, before, chip)
    assert lowered(graph, placed, chip, drafts=drafts).program == lowered(graph, placed, chip).program
    streamed = {s.index for s in placed.segments if s.style is Style.STREAM}
    moved = {i for i in streamed if placed.placement.homes[i] != before.placement.homes[i]}
    assert drafts.segments.keys() <= streamed - moved
    assert pace == 0.0 or drafts.segments.keys() == streamed
