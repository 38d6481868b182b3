"""A segment's code taken from its trial is the code that would be written anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from cimc.codegen import rows
from cimc.codegen.context import Context
from cimc.codegen.taken import take
from cimc.compiler import compile_model
from cimc.isa.printer import print_program
from cimc.mapping.choices import Choices
from cimc.options import Options
from models.graph import save
from models.small import RECIPES, build

BUILDS = (
    ("bert", "isaac", {"batch": 2, "sequence": 16}, Choices()),
    ("bert", "sram-digital", {"batch": 1, "sequence": 9}, Choices(reload=True)),
    ("gpt2", "isaac", {"batch": 1, "sequence": 16}, Choices(replicas=1)),
)


@pytest.mark.parametrize(("recipe", "hardware", "dims", "choices"), BUILDS)
def test_same_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    hardware: str,
    dims: dict[str, int],
    choices: Choices,
) -> None:
    path = tmp_path / "model.onnx"
    save(build(RECIPES[recipe].config), path)
    taken: list[Context] = []

    def counted(trial: Context, into: Context) -> None:
        taken.append(trial)
        take(trial, into)

    monkeypatch.setattr(rows, "take", counted)
    once = compile_model(path, Options(hardware, (), dims, choices=choices))
    assert once is not None
    segments = len(taken)
    assert segments > 1
    tried = rows.RowChooser.choose  # what remembers the trials

    def forgotten(chooser: rows.RowChooser) -> list[int]:
        chosen = tried(chooser)
        chooser.tried.clear()
        return chosen

    monkeypatch.setattr(rows.RowChooser, "choose", forgotten)
    anew = compile_model(path, Options(hardware, (), dims, choices=choices))
    assert anew is not None
    assert len(taken) == segments
    assert print_program(once.program) == print_program(anew.program)
