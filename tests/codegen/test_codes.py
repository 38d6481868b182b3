"""Queries and keys as codes where they are made: programs give the bits of programs without, and move fewer bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from cimc.compiler import Compiled, compile_model
from cimc.isa.operands import View, static_shape
from cimc.isa.steps import executed
from cimc.mapping.choices import Choices, CodesAt, Objective
from cimc.options import Options
from cimc.session import InferenceSession
from models.graph import save
from models.small import RECIPES, build


def compiled(path: Path, hardware: str, codes: CodesAt, optimize: Objective, **dims: int) -> Compiled:
    choices = Choices(codes=codes, optimize=optimize, replicas=1)
    made = compile_model(path, Options(hardware, (), dims, choices=choices))
    assert made is not None
    return made


def answers(made: Compiled, numerics: Literal["float", "integer"]) -> list[bytes]:
    session, rng = InferenceSession(made, numerics=numerics, timing=False), np.random.default_rng(3)
    feeds = {a.name: rng.integers(0, 2, a.shape).astype(a.type) for a in session.get_inputs()}
    return [np.ascontiguousarray(out).tobytes() for out in session.run(None, feeds)]


def moved(made: Compiled) -> tuple[int, int]:
    """Bytes that tiles load and store, and products of codes."""
    elements = {b.name: b.element.bytes for b in made.program.globals}
    size, products = 0, 0
    for step, times in (pair for t in made.program.tiles for pair in executed(t.steps)):
        products += step.mnemonic == "matmul_codes"
        if step.mnemonic in ("load", "store"):
            view = step.operands[step.mnemonic == "load"]
            assert isinstance(view, View)
            size += times * elements[view.buffer] * int(np.prod(static_shape(view)))
    return size, products


@pytest.mark.parametrize("numerics", ["float", "integer"])
@pytest.mark.parametrize(
    ("recipe", "hardware", "optimize", "batch"),
    [
        ("bert", "sram-digital", "latency", 1),
        ("gpt2", "isaac", "latency", 2),
        ("llama", "sram-digital", "latency", 1),
        ("gpt2", "isaac", "throughput", 4),
        ("bert", "sram-digital", "throughput", 4),
    ],
)
def test_same_bits_with_and_without(
    tmp_path: Path,
    recipe: str,
    hardware: str,
    optimize: Objective,
    batch: int,
    numerics: Literal["float", "integer"],
) -> None:
    path = tmp_path / "model.onnx"
    save(build(RECIPES[recipe].config), path)
    on, off = (compiled(path, hardware, how, optimize, batch=batch, sequence=16) for how in ("on", "off"))
    assert answers(on, numerics) == answers(off, numerics)
    assert moved(on)[1] > 0
    assert moved(off)[1] == 0


def test_fewer_bytes_and_the_mapping_says_how_many(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    save(build(RECIPES["gpt2"].config), path)
    on, off = (compiled(path, "isaac", how, "latency", batch=1, sequence=64) for how in ("on", "off"))
    assert moved(on)[0] < moved(off)[0]
    rows = json.loads(json.dumps(on.mapping["codes"]))
    assert rows
    assert all(row["bytes"] < row["plain_bytes"] for row in rows)
    assert off.mapping["codes"] == []
