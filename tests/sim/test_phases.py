"""Engines execute repeats whose rounds overlap as the definition does, instruction by instruction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from cimc import inputs
from cimc.compiler import compile_model
from cimc.isa.instruction import Instruction, Step
from cimc.isa.operands import Affine, View
from cimc.isa.program import Program, TileProgram
from cimc.isa.steps import walk
from cimc.options import Options
from cimc.sim.interpreter import run
from cimc.sim.reference import Reference, unroll
from cimc.sim.timing import run_timing
from models import small


def _constant(step: Instruction, env: dict[str, int]) -> Instruction:
    operands = tuple(
        View(o.buffer, Affine(o.offset.evaluate(env)), o.shape, o.strides) if isinstance(o, View) else o
        for o in step.operands
    )
    return Instruction(step.mnemonic, operands, step.keywords, step.origin)


def _unrolled(program: Program) -> Program:
    """Every instruction as it is executed, by the reference's own rule, without repeats."""
    tiles: list[TileProgram] = []
    for tile in program.tiles:
        steps: tuple[Step, ...] = tuple(_constant(step, env) for step, _, env in unroll(tile.steps, {}))
        tiles.append(replace(tile, steps=steps))
    return replace(program, tiles=tuple(tiles))


@pytest.mark.parametrize("chip", ["sram-digital", "isaac"])
def test_as_the_definition(chip: str, tmp_path: Path) -> None:
    onnx.save(small.bert(hidden=64, heads=2, ffn=256, positions=32, layers=1), tmp_path / "m.onnx")
    model = compile_model(tmp_path / "m.onnx", Options(chip, (), {"batch": 1, "sequence": 21}))
    assert model is not None
    program, spec = model.program, model.hardware.spec
    phases = [s.phase for tile in program.tiles for s in walk(tile.steps) if s.phase is not None]
    assert any(p.stage for p in phases)
    assert any(p.turns > 1 for p in phases)
    plain = _unrolled(program)
    cycles = run_timing(program, spec).cycles
    assert cycles == run_timing(plain, spec).cycles
    reference = Reference(program, spec)
    reference.run()
    assert cycles == max(e.end for e in reference.executed)
    feeds = inputs.draw(program, 0, model.tokens)
    ran, wanted = (
        run(p, model.weights, spec, inputs=feeds, numerics="integer", timing=False).outputs for p in (program, plain)
    )
    assert ran is not None
    assert wanted is not None
    for name, values in wanted.items():
        np.testing.assert_array_equal(ran[name], values)
