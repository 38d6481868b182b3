"""Later runs, in batches of instances that are alike, compute what instructions one by one do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from cimc.compiler import compile_model
from cimc.errors import CimcError
from cimc.inputs import draw
from cimc.isa.instruction import Derived, Repeat
from cimc.isa.operands import Affine, Element, View
from cimc.isa.program import Buffer, GlobalBuffer, Program
from cimc.options import Options
from cimc.session import InferenceSession
from cimc.sim import matrices, recorded, replay
from cimc.sim.matrices import FloatMatrix
from cimc.sim.packing import Unsuited, packed
from cimc.sim.values import Prepared, run_values
from models import small
from tests.sim.chips import buffers, chip, do, program, repeat, tile, view
from tests.sim.test_turns import APART, CARRIED, body_of, drawn, pingpong, split
from tests.sim.test_values import linear, weights

F32 = Element.F32
I = Affine(0, (("i", 1),))
ROWS = 6


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches and copies each replay executed."""
    found: list[int] = []
    run = replay.Replay.run

    def counted(self: replay.Replay, inputs: dict) -> dict:
        found.append(len(self._work))
        return run(self, inputs)

    monkeypatch.setattr(replay.Replay, "run", counted)
    return found


def thrice(p: Program, w: dict, shape: tuple[int, ...], numerics: str = "float") -> None:
    """Three runs of a prepared program on different inputs, each against a run by itself."""
    prepared = Prepared()
    for seed in range(3):
        inputs = {"x": np.random.default_rng(seed).normal(size=shape).astype(np.float32)} if p.inputs else {}
        got, _ = run_values(p, w, inputs, chip(), numerics=numerics, prepared=prepared)
        want, _ = run_values(p, w, inputs, chip(), numerics=numerics)
        assert got.keys() == want.keys()
        for name, value in want.items():
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)


BODIES = {**CARRIED, **APART}


@pytest.mark.parametrize("body", list(BODIES.values()), ids=list(BODIES))
def test_turns_give_the_same_whatever_they_hand_on(body: tuple, replays: list[int]):
    thrice(body_of(*body), {}, (ROWS, 4))
    assert len(replays) == 2


@pytest.mark.parametrize("numerics", ["float", "integer"])
@pytest.mark.parametrize("case", ["layer", "two tiles", "answers"])
def test_layers_and_messages(case: str, numerics: str, replays: list[int]):
    if case == "layer":
        thrice(linear(ROWS), weights(), (ROWS, 20), numerics)
    elif case == "two tiles":
        thrice(split(), weights(24), (2 * ROWS, 24), numerics)
    else:
        thrice(pingpong(5), {}, (5, 4), numerics)
    assert len(replays) == 2


def test_all_turns_of_all_lanes_are_one_product(monkeypatch: pytest.MonkeyPatch):
    """Two products in each of six turns, on what another tile sends: one call."""
    shapes: list[tuple[int, ...]] = []
    mvm = FloatMatrix.mvm

    def seen(self: FloatMatrix, x: np.ndarray) -> np.ndarray:
        shapes.append(x.shape)
        return mvm(self, x)

    monkeypatch.setattr(matrices.FloatMatrix, "mvm", seen)
    prepared, x = Prepared(), drawn(2 * ROWS, 24)
    for _ in range(2):
        shapes.clear()
        run_values(split(), weights(24), {"x": x}, chip(), prepared=prepared)
    assert shapes == [(2 * ROWS, 1, 24)]


def ring(rounds: int) -> Program:
    """A pipeline in software: a turn squares row i + 1 into one half of a ring and adds what the other half holds, of row i,
    to y; the first row goes in before the repeat, the last one comes out behind it."""
    into = View("r", Affine(0, (("w0", 4),)), (4,), (1,))
    out = View("r", Affine(0, (("w1", 4),)), (4,), (1,))
    a, s = view("a", 4), view("s", 4)
    steps = (
        do("load", a, view("x", 4)),
        do("mul", view("r", 4), a, a),
        Repeat(
            "i",
            rounds - 1,
            (
                do("load", a, view("x", 4, offset=I * 4 + 4)),
                do("mul", into, a, a),
                do("add", s, s, out),
                do("store", view("y", 4, offset=I * 4), s),
            ),
            (Derived("w0", 1, 1, 2), Derived("w1", 0, 1, 2)),
        ),
        do("add", s, s, view("r", 4, offset=(rounds - 1) % 2 * 4)),
        do("store", view("y", 4, offset=4 * (rounds - 1)), s),
    )
    local = buffers(("a", F32, (4,)), ("s", F32, (4,)), ("r", F32, (8,)))
    g = [GlobalBuffer("x", F32, (rounds, 4)), GlobalBuffer("y", F32, (rounds, 4))]
    return program(tile(0, *steps, buffers=local), globals=g, inputs=["x"], outputs=["y"])


def test_a_ring_with_what_fills_and_drains_it(replays: list[int]):
    """The products are of one level: one batch. Each sum needs the one before; the first one gathers zeros."""
    rounds = 7
    thrice(ring(rounds), {}, (rounds, 4))
    x = drawn(rounds, 4)
    got, _ = run_values(ring(rounds), {}, {"x": x}, chip())
    np.testing.assert_allclose(got["y"], np.cumsum(x * x, axis=0, dtype=np.float32), rtol=1e-6)
    assert replays == [1 + rounds + 1] * 2


def test_constants_are_told_apart(replays: list[int]):
    """Two of one place and another length, and two views of one with other strides: each is what it is."""
    key = np.arange(16, dtype=np.float32)
    short, long = Buffer("c", F32, (4,), 0, key="k"), Buffer("d", F32, (16,), 64, key="l")
    square, wide = view("d", 2, 2, strides=(2, 1)), view("d", 2, 2, strides=(8, 1))
    steps = [
        do("load", view("a", 4), view("x", 4)),
        do("copy", view("b", 4), view("c", 4)),
        do("add", view("b", 4), view("b", 4), view("a", 4)),
        do("store", view("y", 4), view("b", 4)),
        do("copy", view("b", 4), view("d", 4, offset=9)),
        do("add", view("b", 4), view("b", 4), view("a", 4)),
        do("store", view("y", 4, offset=4), view("b", 4)),
    ]
    for at, constant in ((8, square), (12, wide)):
        steps += [
            do("mul", view("b", 2, 2), view("a", 2, 2), constant),
            do("store", view("y", 4, offset=at), view("b", 4)),
        ]
    local = [*buffers(("a", F32, (4,)), ("b", F32, (4,))), short, long]
    g = [GlobalBuffer("x", F32, (1, 4)), GlobalBuffer("y", F32, (4, 4))]
    p = program(tile(0, *steps, buffers=local), globals=g, inputs=["x"], outputs=["y"])
    w = {"k": key[:4], "l": key}
    thrice(p, w, (1, 4))
    x = drawn(1, 4)
    got, _ = run_values(p, w, {"x": x}, chip())
    np.testing.assert_array_equal(got["y"][3], (x[0] * [0, 1, 8, 9]).astype(np.float32))
    assert len(replays) == 2


def test_a_sum_is_added_to_in_its_order(replays: list[int]):
    """accumulate=1 adds to what the product before it left."""
    p = linear(ROWS)
    body = p.tiles[0].steps[1].body  # type: ignore[union-attr]
    twice = [*body[:3], do("mvm", view("acc", 1, 12), "W", view("xq", 1, 20), accumulate=1), *body[3:]]
    t = tile(
        0,
        p.tiles[0].steps[0],
        repeat("i", ROWS, *twice),
        buffers=p.tiles[0].buffers,
        matrices=p.tiles[0].matrices,
    )
    for numerics in ("float", "integer"):
        thrice(program(t, globals=list(p.globals), inputs=["x"], outputs=["y"]), weights(), (ROWS, 20), numerics)
    assert len(replays) == 4


def test_a_failure_in_a_later_run_names_the_instruction(replays: list[int]):
    prepared, p, w = Prepared(), linear(ROWS), weights()
    x = drawn(ROWS, 20)
    good = [run_values(p, w, {"x": x}, chip(), numerics="integer", prepared=prepared)[0]["y"] for _ in range(2)]
    bad = x.copy()
    bad[4, 3] = np.nan
    with pytest.raises(CimcError, match=r"/layer.*instruction 3.*NaN"):
        run_values(p, w, {"x": bad}, chip(), numerics="integer", prepared=prepared)
    good += [run_values(p, w, {"x": x}, chip(), numerics="integer", prepared=prepared)[0]["y"]]
    for y in good[1:]:
        np.testing.assert_array_equal(y, good[0])
    assert len(replays) == 3


def test_a_compiled_model_whose_blocks_overlap(replays: list[int], tmp_path: Path):
    """Its repeats have phases; later runs are those of the first, and are no stepping."""
    onnx.save(small.bert(hidden=128, heads=4, ffn=512, positions=64), tmp_path / "m.onnx")
    made = compile_model(tmp_path / "m.onnx", Options("sram-digital", (), {"batch": 1, "sequence": 64}))
    assert made is not None
    assert any(t.straight != t.steps for t in made.program.tiles)
    feeds = draw(made.program, 0, made.tokens)
    session = InferenceSession(made, "integer", timing=False)
    first, *later = (session.run(None, feeds) for _ in range(3))
    assert len(replays) == 2
    for outputs in later:
        for got, want in zip(outputs, first, strict=True):
            np.testing.assert_array_equal(got, want)


def stepped(p: Program, w: dict, shape: tuple[int, ...], numerics: str = "float") -> str:
    """Why the second run of a program is not a replay."""
    prepared = Prepared()
    for _ in range(2):
        run_values(p, w, {"x": drawn(*shape)}, chip(), numerics=numerics, prepared=prepared)
    return prepared.stepped


def test_long_programs_are_executed_as_before_and_it_is_said(replays: list[int], monkeypatch: pytest.MonkeyPatch):
    steps = 1 + 5 * ROWS + 1  # with the halt at the end
    monkeypatch.setattr(recorded, "MOST_STEPS", steps)
    assert not stepped(linear(ROWS), weights(), (ROWS, 20))
    assert len(replays) == 1
    monkeypatch.setattr(recorded, "MOST_STEPS", steps - 1)
    thrice(linear(ROWS), weights(), (ROWS, 20))
    assert len(replays) == 1
    assert f"{steps} instructions" in stepped(linear(ROWS), weights(), (ROWS, 20))


def test_why_a_program_is_not_recorded():
    assert "noisy" in stepped(linear(ROWS), weights(), (ROWS, 20), "analog")
    varying = (repeat("i", 3, repeat("j", I + 1, do("fill", view("xl", 1, 20), value=0.0))),)
    layer = linear(ROWS)
    of = replace(layer.tiles[0], steps=(*varying, *layer.tiles[0].steps))
    assert "count" in stepped(replace(layer, tiles=(of,)), weights(), (ROWS, 20))


@pytest.mark.parametrize("inputs", [20, 384, 1536])
def test_products_of_several_turns_are_those_of_each(inputs: int):
    """Bit for bit: BLAS adds a single row in another order than several."""
    rng = np.random.default_rng(1)
    matrix = FloatMatrix(rng.normal(size=(inputs, 96)).astype(np.float32))
    x = rng.normal(size=(9, 1, inputs)).astype(np.float32)
    np.testing.assert_array_equal(matrix.mvm(x), np.concatenate([matrix.mvm(row) for row in x]))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [
        ((3, 4), (4, 1)),
        ((3, 4), (9, 2)),
        ((4, 3), (1, 5)),
        ((2, 5, 3), (0, 3, 1)),
        ((1, 6), (0, 1)),
        ((5,), (3,)),
        ((), ()),
    ],
)
def test_packed_views_are_the_same_without_gaps(shape: tuple[int, ...], strides: tuple[int, ...]):
    memory = np.arange(64, dtype=np.float32)
    view = np.ndarray(shape, np.float32, memory, 4, tuple(4 * s for s in strides))
    found = packed(shape, strides)
    flat = found.flat(view)
    assert flat.shape == (found.size,)
    assert len(set(flat.tolist())) == found.size
    assert flat.tolist() == sorted(flat.tolist())  # in the order of their addresses
    again = np.ndarray(shape, np.float32, np.ascontiguousarray(flat), 0, tuple(4 * s for s in found.strides))
    np.testing.assert_array_equal(again, view)


@pytest.mark.parametrize(("shape", "strides"), [((3,), (-1,)), ((0, 3), (3, 1))])
def test_views_that_are_not_packed(shape: tuple[int, ...], strides: tuple[int, ...]):
    with pytest.raises(Unsuited):
        packed(shape, strides)


def test_factors_that_numpy_multiplies_in_another_way_are_not_packed():
    assert packed((3, 4), (9, 1), product=True).strides == (4, 1)
    assert packed((4, 3), (1, 8), product=True).strides == (1, 4)
    with pytest.raises(Unsuited):
        packed((3, 4), (9, 2), product=True)
