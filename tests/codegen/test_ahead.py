"""What works sample by sample before a region: which stores and reads are, the tokens between, and what it gains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from cimc.arch.spec import ChipSpec
from cimc.codegen.ahead import awaited, signalled, stored
from cimc.codegen.fold import BLOCK, SAMPLE, When
from cimc.compiler import Compiled, compile_model
from cimc.ir.graph import Graph
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.isa.steps import walk
from cimc.mapping import build
from cimc.mapping.ahead import ahead
from cimc.mapping.choices import Choices
from cimc.mapping.placement import Placement, Segment
from cimc.mapping.region import Region
from cimc.mapping.segment import MATRIX_OPS
from cimc.options import Options
from cimc.sim.reference import unroll
from cimc.sim.timing import run_timing
from cimc.sim.values import run_values
from models import small

SAMPLES, ROWS, COLS = 32, 4, 8


def _view(buffer: str, rows: int, **factors: int) -> View:
    constant = factors.pop("at", 0)
    return View(
        buffer, Affine.of(constant, {n.replace("_", "@", 1): f for n, f in factors.items()}), (rows, COLS), (COLS, 1)
    )


def _moved(mnemonic: str, there: View) -> Instruction:
    here = View("x", Affine(), (there.shape[0], COLS), (COLS, 1))
    return Instruction(mnemonic, (there, here) if mnemonic == "store" else (here, there))


def _stored(*views: View, count: int = SAMPLES) -> set[str]:
    inner = Repeat("i1", 2, tuple(_moved("store", view) for view in views))
    return stored((Repeat("i0", count, (inner,)),), SAMPLES, {"a": ROWS * COLS, "b": ROWS * COLS})


def test_a_round_that_stores_one_sample() -> None:
    """Two blocks of two rows in each round."""
    whole = _view("a", 2, i0=ROWS * COLS, i1=2 * COLS)
    assert _stored(whole) == {"a"}
    assert _stored(whole, _view("b", 1, i0=ROWS * COLS)) == {"a", "b"}


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(_view("a", 2, i0=2 * COLS, i1=2 * COLS), id="half a sample a round"),
        pytest.param(_view("a", 2, i0=ROWS * COLS, i1=3 * COLS), id="a row of the next sample"),
        pytest.param(_view("a", 2, i0=ROWS * COLS, i1=2 * COLS, at=-COLS), id="a row of the one before"),
        pytest.param(_view("c", 2, i0=ROWS * COLS), id="an array of another size"),
    ],
)
def test_a_round_that_stores_something_else(view: View) -> None:
    """Then no token tells that a sample is there."""
    assert _stored(view) == set()
    assert _stored(_view("a", 2, i0=ROWS * COLS, i1=2 * COLS), view) == set()


def test_rounds_that_are_no_samples() -> None:
    """Another count, and steps beside the loop."""
    view = _view("a", 2, i0=ROWS * COLS, i1=2 * COLS)
    assert _stored(view, count=SAMPLES // 2) == set()
    loop = Repeat("i0", SAMPLES, (_moved("store", view),))
    assert stored((loop, _moved("store", view)), SAMPLES, {"a": ROWS * COLS}) == set()
    assert stored((), SAMPLES, {}) == set()


def _awaited(**stages: View) -> dict[int, int]:
    found: dict[When, list[Step]] = {When(int(at[1:])): [_moved("load", view)] for at, view in stages.items()}
    return awaited(found, {"a": [7, 9], "b": [9]}, SAMPLE, {"a": ROWS * COLS, "b": ROWS * COLS}, {BLOCK: (0, 1)})


def test_who_is_waited_for() -> None:
    """All that store an array, before the first stage that reads it."""
    own = _view("a", 2, _sample=ROWS * COLS, _block=2 * COLS)
    assert _awaited(s3=own, s5=own) == {7: 3, 9: 3}
    assert _awaited(s3=_view("b", 2, _sample=ROWS * COLS), s2=_view("c", 2)) == {9: 3}


def test_reading_more_than_its_own_sample() -> None:
    """Nobody's token for a sample says that the next is there."""
    own, far = (_view("a", 2, _sample=ROWS * COLS, _block=n * COLS) for n in (2, 3))
    assert _awaited(s3=own, s5=far) == {}
    assert _awaited(s3=own, s5=_view("b", 2, _block=2 * COLS)) == {7: 3}


def _vit(path: Path, batch: int = SAMPLES) -> Compiled:
    onnx.save(small.vit(), path / "vit.onnx")
    options = Options("sram-digital", dims={"batch": batch}, choices=Choices(optimize="throughput"))
    made = compile_model(path / "vit.onnx", options)
    assert made is not None
    return made


def _tiles(made: Compiled) -> list[int]:
    return [t.tile for t in made.program.tiles]


def test_pictures_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The convolution of patches on tiles of its own, a token for each picture: the same results as when the region waits for
    all of them, sooner, and not before their rows are there (else they would be zeros)."""
    new = _vit(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(build, "ahead", lambda _graph, _segments, _region, placement, _chip: placement)
        old = _vit(tmp_path)
    pixels = np.random.default_rng(3).standard_normal((SAMPLES, 3, 32, 32), np.float32)
    forward, backward, together = (
        run_values(
            made.program, made.contents, {"pixel_values": pixels}, made.hardware.spec, order=_tiles(made)[::way]
        )[0]["logits"]
        for made, way in ((new, 1), (new, -1), (old, 1))
    )
    np.testing.assert_array_equal(forward, together)
    np.testing.assert_array_equal(backward, together)
    assert run_timing(new.program, new.hardware.spec).cycles < run_timing(old.program, old.hardware.spec).cycles
    counts = [
        [sum(i.mnemonic == what for i, _, _ in unroll(list(t.steps), {})) for t in new.program.tiles]
        for what in ("signal", "wait")
    ]
    assert max(counts[0]) >= SAMPLES
    assert max(counts[1]) >= SAMPLES


def test_few_pictures_have_copies(tmp_path: Path) -> None:
    """One copy for each is as soon done with all as one copy with the first."""
    made = _vit(tmp_path, 3)
    mapping: Any = made.mapping
    (conv,) = (m for m in mapping["static"] if m["value"].endswith("projection/Conv.matmul.acc"))
    assert {b["replica"] for b in conv["blocks"]} == {0, 1, 2}


def test_a_token_at_the_end_of_each_round() -> None:
    """Behind all that the round does, to all that wait, in order."""
    loop = Repeat("i0", SAMPLES, (_moved("store", _view("a", 2)),))
    (found,) = signalled((loop,), [9, 7])
    assert isinstance(found, Repeat)
    *others, last = walk(found.body)
    assert [i.mnemonic for i in others] == ["store"]
    assert dict(last.keywords)["to"] == (7, 9)


def test_a_tile_shared_with_the_region(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of a layer beside those of the patches: the layer would wait for all pictures, so that nothing works ahead."""
    seen: list[tuple[Placement, Placement]] = []

    def shared(
        graph: Graph, segments: Sequence[Segment], region: Region | None, placement: Placement, chip: ChipSpec
    ) -> Placement:
        first, second = (next(n.outputs[0] for n in s.nodes if n.op in MATRIX_OPS) for s in (segments[0], segments[2]))
        there = placement.matrices[second][0].parts[0].tile
        conv = placement.matrices[first]
        parts = tuple(replace(p, tile=there) for p in conv[0].parts)
        beside = replace(placement, matrices={**placement.matrices, first: (replace(conv[0], parts=parts), *conv[1:])})
        seen.append((beside, ahead(graph, segments, region, beside, chip)))
        return ahead(graph, segments, region, placement, chip)

    monkeypatch.setattr(build, "ahead", shared)
    _vit(tmp_path)
    assert seen
    assert all(before is after for before, after in seen)
