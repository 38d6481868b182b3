"""Residuals of a batch that streams are added where the products are, on tiles with cores."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc import compiler, options
from cimc.isa.steps import walk
from cimc.mapping.choices import Choices
from models.graph import save
from models.small import RECIPES, build

RESIDUALS = {
    "bert": [f"/encoder/layer.{i}/{of}output/Add" for i in (0, 1) for of in ("attention/", "")],
    "gpt2": [f"/transformer/h.{i}/{add}" for i in (0, 1) for add in ("Add", "Add_1")],
}


def _kinds(path: Path, chosen: Choices) -> dict[str, set[str]]:
    """Kinds of the tiles that do additions, by the ONNX node that these come from."""
    dims = {"batch": 4, "sequence": 16}
    made = compiler.compile_model(path, options.Options("sram-digital", (), dims, choices=chosen))
    assert made is not None
    found: dict[str, set[str]] = {}
    for tile in made.program.tiles:
        for step in walk(tile.steps):
            if step.mnemonic == "add":
                found.setdefault(str(step.origin), set()).add(made.hardware.spec.kind(tile.tile))
    return found


@pytest.mark.parametrize("name", list(RESIDUALS))
def test_residuals_go_to_the_products_they_are_added_to(name: str, tmp_path: Path) -> None:
    """Layer by layer they meet on tiles for vector work, which would receive both."""
    save(build(RECIPES[name].config), tmp_path / "m.onnx")
    streamed = _kinds(tmp_path / "m.onnx", Choices(optimize="throughput", replicas=1))
    by_layers = _kinds(tmp_path / "m.onnx", Choices(replicas=1))
    assert [streamed[node] for node in RESIDUALS[name]] == [{"cim"}] * 4
    assert [by_layers[node] for node in RESIDUALS[name]] == [{"digital"}] * 4
