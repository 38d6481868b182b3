"""Partial sums in one tile, in a tree or in the network: the same answers, and the choice is really taken."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cimc.compiler import compile_model
from cimc.isa.steps import walk
from cimc.isa.verify import verify
from cimc.mapping.choices import Choices, Objective
from cimc.mapping.sums import SUMS_AT
from cimc.options import Options
from cimc.session import InferenceSession
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from models.graph import save
from models.small import RECIPES, build, mlp

SMALL = (
    "tiles.cim.cores=1",
    "crossbar.rows=32",
    "crossbar.cols=64",
    "layout=12x14",
    "noc.reduce={lanes: 8, cycles: 1}",
)
"""Tiles of one small core: the sums of most products come from many tiles."""

FLATTER = (*SMALL, "crossbar.rows=16", "layout=20x18")
"""From twice as many: where samples stream, products of ``SMALL`` come from two tiles, and a tree of two is no tree."""


@pytest.mark.parametrize(
    ("optimize", "batch", "chip"),
    [("latency", 1, SMALL), pytest.param("throughput", 4, FLATTER, marks=pytest.mark.slow)],
)
def test_same_bits_wherever_sums_are_added(
    tmp_path: Path, optimize: Objective, batch: int, chip: tuple[str, ...]
) -> None:
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    answers: dict[str, list[bytes]] = {}
    cycles: dict[str, int] = {}
    carried: dict[str, int] = {}
    for way in SUMS_AT:
        choices = Choices(replicas=1, sums=way, optimize=optimize, exchange=False)  # on the same tiles
        made = compile_model(path, Options("sram-digital", chip, {"batch": batch, "sequence": 8}, choices=choices))
        assert made is not None
        verify(made.program, made.hardware.spec)
        count = Counter(s.mnemonic for t in made.program.tiles for s in walk(t.steps))
        assert (count["reduce"] > count["collect"] > 0) == (way in ("auto", "network"))
        session = InferenceSession(made, numerics="integer", timing=False)
        rng = np.random.default_rng(3)
        feeds = {a.name: rng.integers(0, 2, a.shape).astype(a.type) for a in session.get_inputs()}
        answers[way] = [np.ascontiguousarray(out).tobytes() for out in session.run(None, feeds)]
        timing = run_timing(made.program, made.hardware.spec)
        cycles[way], carried[way] = timing.cycles, timing.traffic_bytes["noc"]
        assert (timing.actions.get("noc.add", 0) > 0) == (way in ("auto", "network"))
        assert timing.bound.cycles <= timing.cycles
        if way == "network":
            reference = Reference(made.program, made.hardware.spec)
            assert reference.run() == timing.cycles
    assert len({tuple(found) for found in answers.values()}) == 1
    assert carried["network"] < carried["tree"] < carried["one"]
    assert cycles["network"] < cycles["one"]


def test_segments_on_the_same_tiles_have_sums_apart(tmp_path: Path) -> None:
    """Weights in turn: sums of several layers have some of their tiles in common, and the tile that takes them, but not all."""
    path = tmp_path / "mlp.onnx"
    save(mlp(inputs=70, hidden=60, layers=4, classes=5), path)
    chip = ("layout=4x3", "tiles.all.local_bytes=65536")
    answers: list[bytes] = []
    for way in SUMS_AT:
        made = compile_model(path, Options("toy", chip, {"batch": 6}, choices=Choices(sums=way, reload=True)))
        assert made is not None
        sums = {
            (dict(s.keywords)["of"], dict(s.keywords)["to"])
            for t in made.program.tiles
            for s in walk(t.steps)
            if s.mnemonic == "reduce"
        }
        ends = [(tile, to) for of, to in sums if isinstance(of, tuple) for tile in of]
        assert (len(ends) > len(set(ends))) == (way in ("auto", "network"))
        session = InferenceSession(made, numerics="integer", timing=False)
        (y,) = session.run(None, {"x": np.random.default_rng(3).standard_normal((6, 70)).astype(np.float32)})
        answers.append(np.ascontiguousarray(y).tobytes())
    assert len(set(answers)) == 1
