"""Turns of a repeat executed at once compute what they compute one after another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cimc.errors import CimcError
from cimc.isa.operands import Affine, Element
from cimc.isa.program import GlobalBuffer, Program
from cimc.sim import atonce, values
from cimc.sim.matrices import product
from cimc.sim.scope import Arena
from cimc.sim.values import Prepared, run_values
from tests.sim.chips import buffers, chip, do, matrix, program, repeat, tile, view
from tests.sim.test_values import linear, weights

F32, Q8, Q32 = Element.F32, Element.Q8, Element.Q32
I = Affine(0, (("i", 1),))
ROWS = 6


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many turns were executed at once, each time."""
    found: list[int] = []
    run = atonce.AtOnce.run

    def counted(self: atonce.AtOnce, count: int) -> None:
        found.append(count)
        run(self, count)

    monkeypatch.setattr(atonce.AtOnce, "run", counted)
    return found


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no memory for turns at once."""
    monkeypatch.setattr(values, "Arena", lambda: Arena(0))


def both(p: Program, w: dict, inputs: dict, groups: list[int], numerics: str = "integer", **more) -> dict:
    """What turns one by one compute, after turns at once have been compared with it bit for bit."""
    got, _ = run_values(p, w, inputs, chip(), numerics=numerics, **more)
    done = list(groups)
    with pytest.MonkeyPatch.context() as patch:
        one_by_one(patch)
        want, _ = run_values(p, w, inputs, chip(), numerics=numerics, **more)
    assert groups == done
    for name, value in want.items():
        np.testing.assert_array_equal(got[name], value)
    return want


def split(rows: int = ROWS, inputs: int = 24, outputs: int = 12) -> Program:
    """Two tiles: one quantises rows and sends them, two in a turn on one channel, the other multiplies."""
    x, y = GlobalBuffer("x", F32, (2 * rows, inputs)), GlobalBuffer("y", F32, (2 * rows, outputs))
    near = buffers(("xl", F32, (1, inputs)), ("xq", Q8, (1, inputs)), ("s", F32, (1, 1)))
    far = buffers(
        ("xq", Q8, (1, inputs)), ("s", F32, (1, 1)), ("acc", Q32, (1, outputs)), ("ws", F32, (1, outputs)),
        ("yl", F32, (1, outputs)),
    )  # fmt: skip
    give, take = [], []
    for half in (0, 1):
        offset = I * (2 * inputs) + half * inputs
        give += [
            do("load", view("xl", 1, inputs), view("x", 1, inputs, offset=offset)),
            do("quantize", view("xq", 1, inputs), view("s", 1, 1), view("xl", 1, inputs)),
            do("send", view("xq", 1, inputs), to=(1,), tag=3),
            do("send", view("s", 1, 1), to=(1,), tag=3),
        ]
        take += [
            do("recv", view("xq", 1, inputs), source=0, tag=3),
            do("mvm", view("acc", 1, outputs), "W", view("xq", 1, inputs), accumulate=0),
            do("recv", view("s", 1, 1), source=0, tag=3),
            do("dequantize", view("yl", 1, outputs), view("acc", 1, outputs), view("s", 1, 1), view("ws", 1, outputs)),
            do("store", view("y", 1, outputs, offset=I * (2 * outputs) + half * outputs), view("yl", 1, outputs)),
        ]
    first = tile(0, repeat("i", rows, *give), buffers=near)
    second = tile(
        1,
        do("fill", view("ws", 1, outputs), value=0.25),
        repeat("i", rows, *take),
        buffers=far,
        matrices=[matrix("W", inputs, outputs)],
    )
    return program(first, second, globals=[x, y], inputs=["x"], outputs=["y"])


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("numerics", ["float", "integer", "analog"])
def test_a_layer_is_the_same_in_one_go(numerics: str, groups: list[int]):
    both(linear(ROWS), weights(), {"x": drawn(ROWS, 20)}, groups, numerics)
    assert groups == [ROWS]


@pytest.mark.parametrize(("numerics", "order"), list(itertools.product(["float", "integer"], [(0, 1), (1, 0)])))
def test_messages_of_a_channel_keep_their_order(numerics: str, order: tuple[int, int], groups: list[int]):
    both(split(), weights(24), {"x": drawn(2 * ROWS, 24)}, groups, numerics, order=order)
    assert groups == [ROWS, ROWS]


def test_noise_sees_the_vectors_in_their_order(groups: list[int]):
    """An analog core's second use in a turn comes before its first one in the next."""
    both(split(), weights(24), {"x": drawn(2 * ROWS, 24)}, groups, "analog", seed=3)
    assert groups == [ROWS]  # the tile without a matrix


def test_a_small_arena_takes_some_turns_at_a_time(groups: list[int], monkeypatch: pytest.MonkeyPatch):
    want = both(linear(ROWS), weights(), {"x": drawn(ROWS, 20)}, groups)
    monkeypatch.setattr(values, "Arena", lambda: Arena(5 * 64 * 4))
    groups.clear()
    got, _ = run_values(linear(ROWS), weights(), {"x": drawn(ROWS, 20)}, chip(), numerics="integer")
    np.testing.assert_array_equal(got["y"], want["y"])
    assert sum(groups) <= ROWS
    assert all(1 < g < ROWS for g in groups)
    assert groups


def body_of(*body, rows: int = ROWS) -> Program:
    """A repeat over the rows of x into those of y, with local buffers a, b (4 elements)."""
    local = buffers(("a", F32, (4,)), ("b", F32, (4,)), ("r", F32, (rows, 4)))
    g = [GlobalBuffer("x", F32, (rows, 4)), GlobalBuffer("y", F32, (rows, 4))]
    return program(tile(0, repeat("i", rows, *body), buffers=local), globals=g, inputs=["x"], outputs=["y"])


A, B, X, Y = view("a", 4), view("b", 4), view("x", 4, offset=I * 4), view("y", 4, offset=I * 4)
CARRIED = {
    "a sum over turns": (do("load", B, X), do("add", A, A, B), do("store", Y, A)),
    "a buffer read before it is written": (do("store", Y, A), do("load", A, X)),
    "half a buffer that an earlier turn wrote": (
        do("load", view("a", 2), view("x", 2, offset=I * 4)), do("store", Y, A),
    ),
    "a global buffer that the next turn reads": (
        do("load", A, view("y", 4)), do("load", B, X), do("add", B, A, B), do("store", view("y", 4), B),
    ),
    "stores over one another": (do("load", A, X), do("store", view("y", 4, offset=I * 2), A)),
    "rows that overlap": (do("load", A, X), do("copy", view("r", 4, offset=I * 2), A), do("store", Y, view("r", 4))),
}  # fmt: skip


@pytest.mark.parametrize("body", list(CARRIED.values()), ids=list(CARRIED))
def test_what_turns_hand_on_keeps_them_in_order(body: tuple, groups: list[int]):
    both(body_of(*body), {}, {"x": drawn(ROWS, 4)}, groups)
    assert groups == []


APART = {
    "in place": (do("load", A, X), do("add", A, A, A), do("mul", A, A, A), do("store", Y, A)),
    "rows of a local buffer": (
        do("load", view("r", 4, offset=I * 4), X), do("neg", view("r", 4, offset=I * 4), view("r", 4, offset=I * 4)),
        do("store", Y, view("r", 4, offset=I * 4)),
    ),
    "two halves": (
        do("load", view("a", 2), view("x", 2, offset=I * 4)), do("load", view("a", 2, offset=2), view("x", 2, offset=I * 4 + 2)),
        do("reduce_sum", view("b", 1), A), do("add", A, A, view("b", 1)), do("store", Y, A),
    ),
    "columns": (
        do("load", A, X), do("store", view("y", 2, offset=I * 4 + 2), view("a", 2)),
        do("store", view("y", 2, offset=I * 4), view("a", 2, offset=2)),
    ),
    "the other way round": (do("load", A, X), do("store", view("y", 4, offset=I * -4 + (4 * ROWS - 4)), A)),
    "a mean over rows that broadcasts": (
        do("load", view("r", 2, 4), view("x", 2, 4, offset=I * 4, strides=(0, 1))),
        do("add", A, view("r", 4), view("r", 4, offset=4)), do("store", Y, A),
    ),
}  # fmt: skip


@pytest.mark.parametrize("body", list(APART.values()), ids=list(APART))
def test_turns_that_share_nothing_go_at_once(body: tuple, groups: list[int]):
    both(body_of(*body), {}, {"x": drawn(ROWS, 4)}, groups)
    assert groups == [ROWS]


def test_a_buffer_is_left_as_the_last_turn_leaves_it(groups: list[int]):
    p = body_of(do("load", A, X), do("store", Y, A))
    last = program(
        tile(0, *p.tiles[0].steps[:1], do("store", view("y", 4), A), buffers=p.tiles[0].buffers),
        globals=list(p.globals), inputs=["x"], outputs=["y"],
    )  # fmt: skip
    x = drawn(ROWS, 4)
    got = both(last, {}, {"x": x}, groups)["y"]
    np.testing.assert_array_equal(got[0], x[-1])
    assert groups == [ROWS]


def pingpong(rounds: int) -> Program:
    """Each tile adds 1 to what the other one sent in the same turn: no turn's messages are there before the last one's."""
    local = buffers(("v", F32, (4,)), ("one", F32, (4,)))
    v, one = view("v", 4), view("one", 4)
    first = tile(
        0,
        do("fill", one, value=1.0),
        repeat(
            "i",
            rounds,
            do("load", v, X),
            do("send", v, to=(1,), tag=0),
            do("recv", v, source=1, tag=0),
            do("store", Y, v),
        ),
        buffers=local,
    )
    second = tile(
        1,
        do("fill", one, value=1.0),
        repeat("i", rounds, do("recv", v, source=0, tag=0), do("add", v, v, one), do("send", v, to=(0,), tag=0)),
        buffers=local,
    )
    g = [GlobalBuffer("x", F32, (rounds, 4)), GlobalBuffer("y", F32, (rounds, 4))]
    return program(first, second, globals=g, inputs=["x"], outputs=["y"])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_tiles_that_answer_each_other_in_every_turn_get_on(order: tuple[int, int], groups: list[int]):
    x = drawn(5, 4)
    got = both(pingpong(5), {}, {"x": x}, groups, order=order)["y"]
    np.testing.assert_array_equal(got, x + 1)


def test_a_deadlock_in_a_repeat_names_the_instruction():
    v = view("v", 4)
    stuck = tile(0, repeat("i", 3, do("recv", v, source=1, tag=0)), buffers=buffers(("v", F32, (4,))))
    few = tile(1, do("send", v, to=(0,), tag=0), buffers=buffers(("v", F32, (4,))))
    with pytest.raises(CimcError, match=r"tile 0, instruction 1: recv .*from tile 1 .* never comes"):
        run_values(program(stuck, few), {}, {}, chip())


def test_a_failure_among_turns_names_the_instruction(groups: list[int]):
    x = drawn(ROWS, 20)
    x[4, 3] = np.nan
    with pytest.raises(CimcError, match=r"/layer.*instruction 3.*NaN"):
        run_values(linear(ROWS), weights(), {"x": x}, chip(), numerics="integer")
    assert groups == [ROWS]


def test_a_prepared_program_runs_again_as_if_it_were_new():
    prepared, p, w = Prepared(), linear(ROWS), weights()
    for seed in range(3):
        x = np.random.default_rng(seed).normal(size=(ROWS, 20)).astype(np.float32)
        got, _ = run_values(p, w, {"x": x}, chip(), numerics="integer", prepared=prepared)
        want, _ = run_values(p, w, {"x": x}, chip(), numerics="integer")
        np.testing.assert_array_equal(got["y"], want["y"])
        bad = np.full_like(x, np.inf)
        with pytest.raises(CimcError):
            run_values(p, w, {"x": bad}, chip(), numerics="integer", prepared=prepared)


def test_a_prepared_program_finds_empty_buffers():
    """y of the second run does not see what the first one left in a buffer that nothing fills."""
    prepared, p = Prepared(), body_of(do("store", Y, A), do("load", A, X))
    x = drawn(ROWS, 4)
    runs = [run_values(p, {}, {"x": x}, chip(), prepared=prepared)[0]["y"] for _ in range(2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not runs[1][0].any()


def test_state_and_parameters_are_decoded_every_time():
    p = program(
        tile(0, do("load", view("v", 4), view("s", 4)), do("add", view("v", 4), view("v", 4), view("one", 4)),
             do("store", view("s", 4), view("v", 4)), do("store", view("y", 4), view("v", 4)),
             buffers=buffers(("v", F32, (4,)), ("one", F32, (4,)))),
        globals=[GlobalBuffer("s", F32, (4,), state=True), GlobalBuffer("y", F32, (4,))], outputs=["y"],
    )  # fmt: skip
    prepared = Prepared()
    for value in (1.0, 7.0):
        state = {"s": np.full(4, value, np.float32)}
        got, _ = run_values(p, {}, {}, chip(), state=state, prepared=prepared)
        assert got["y"].tolist() == [value] * 4


@pytest.mark.parametrize(("count", "rows", "inputs", "outputs"), [(7, 2, 30, 20), (5, 1, 1100, 1000), (3, 1, 8, 0)])
def test_products_of_groups_are_those_of_all_rows(count: int, rows: int, inputs: int, outputs: int):
    rng = np.random.default_rng(1)
    x = rng.integers(-9, 9, (count, rows, inputs)).astype(np.float32)
    w = rng.integers(-9, 9, (inputs, outputs)).astype(np.float32)
    np.testing.assert_array_equal(product(x, w), x.reshape(-1, inputs) @ w)
