"""Cycles, instructions and actions per model and chip, exactly: a change in any of them is meant, and read in the diff of
``golden/metrics.json``."""

from __future__ import annotations

import json
from pathlib import Path

from cimc.sim.interpreter import run
from tests.e2e.workloads import CASES, MODELS, PRESETS, Case, compiled
from tests.golden import Golden

FIRST = {name: next(c for c in CASES if c.model == name) for name in MODELS}


def metrics(one: Case, preset: str, folder: Path) -> dict[str, object]:
    program = compiled(one, preset, folder)
    timing = run(program.program, {}, program.hardware.spec, values=False).timing
    assert timing is not None
    return {
        "shape": dict(one.dims),
        "cycles": timing.cycles,
        "bound": timing.bound.cycles,
        "instructions": timing.instructions,
        "macs": dict(timing.macs),
        "actions": dict(sorted(timing.actions.items())),
    }


def test_metrics(tmp_path: Path, golden: Golden) -> None:
    found = {f"{name} on {preset}": metrics(one, preset, tmp_path) for name, one in FIRST.items() for preset in PRESETS}
    golden.check("golden/metrics.json", json.dumps(found, indent=1) + "\n")


def test_work_does_not_depend_on_the_chip(tmp_path: Path) -> None:
    for one in FIRST.values():
        macs = [compiled(one, preset, tmp_path) for preset in PRESETS]
        counts = {tuple(sorted(run(c.program, {}, c.hardware.spec, values=False).timing.macs.items())) for c in macs}  # pyright: ignore[reportOptionalMemberAccess]
        assert len(counts) == 1, one


def test_macs_of_bert_are_those_of_the_formulas(tmp_path: Path) -> None:
    rows, hidden, ffn, heads = 8, 32, 64, 2
    timing = run((c := compiled(FIRST["bert"], "isaac", tmp_path)).program, {}, c.hardware.spec, values=False).timing
    assert timing is not None
    assert (
        timing.macs["static"] == rows * (4 * hidden * hidden + 2 * hidden * ffn) + hidden * hidden
    )  # the pooler: one row
    assert timing.macs["dynamic"] == 2 * heads * rows * rows * (hidden // heads)
    assert timing.actions["matmul.mac"] == timing.macs["dynamic"]
