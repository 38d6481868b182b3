"""Code generation looks over the whole graph a fixed number of times, however many layers it has."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.compiler import compile_model
from cimc.ir.graph import Graph
from cimc.options import Options
from models import small
from models.graph import save


def test_walks_over_the_graph_do_not_grow_with_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk over all nodes for each segment would make the time quadratic."""
    honest = Graph.uses
    walks: list[int] = []
    counts: list[int] = []
    monkeypatch.setattr(Graph, "uses", lambda graph: walks.append(1) or honest(graph))
    for layers in (1, 4):
        path = tmp_path / f"{layers}.onnx"
        save(small.bert(layers=layers, hidden=16, heads=2, ffn=32, vocab=50, positions=16), path)
        walks.clear()
        compile_model(path, Options(dims={"batch": 1, "sequence": 4}))
        counts.append(len(walks))
    assert counts[0] == counts[1]
