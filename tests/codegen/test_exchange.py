"""Tiles that change places: less on the fullest link, the same values."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cimc import errors
from cimc.arch import load, noc
from cimc.arch.spec import ChipSpec
from cimc.codegen.balance import plans
from cimc.codegen.handed import Handed
from cimc.codegen.stages import Plan
from cimc.codegen.swaps import Exchange, Message, together
from cimc.compiler import compile_model
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.session import InferenceSession
from cimc.sim.bound import occupation
from cimc.sim.flat import flatten
from cimc.sim.timing import simulate
from models.graph import save
from models.small import RECIPES, build


@pytest.fixture(scope="module")
def chip() -> ChipSpec:
    return load.load("sram-digital", ("layout=5x16",)).spec


def _carried(chip: ChipSpec, messages: list[Message], at: dict[int, int]) -> Counter[int]:
    """Cycles by link, one message after the other, one link after the other."""
    found: Counter[int] = Counter()
    for source, to, cycles in messages:
        found.update(
            {x: cycles for t in to for x in noc.route(chip, at.get(source, source), at.get(t, t))}
        )  # a link once
    return found


def _crowded(chip: ChipSpec) -> tuple[list[Message], list[list[int]]]:
    """All tiles of the first row that hold weights send to its first digital tile, and to two others together."""
    weights = [t for t in range(chip.tile_count) if chip.tile(t).cores]
    digital = [t for t in range(chip.tile_count) if chip.tile(t).matmul is not None]
    row = [t for t in weights if chip.position(t)[1] == 0]
    one = [(t, (digital[0],), 100 + k) for k, t in enumerate(row)]
    both = [(t, (digital[1], digital[2]), 40) for t in row]
    return [*one, *both], [weights, digital]


def test_the_fullest_link_carries_less(chip: ChipSpec) -> None:
    messages, groups = _crowded(chip)
    before = max(_carried(chip, messages, {}).values())
    found = Exchange(chip, messages, groups)
    assert found.fullest == before
    moves = found.run()
    after = _carried(chip, messages, moves)
    assert max(after.values()) == found.fullest < before * 0.8
    assert {link: n for link, n in found.load.items() if n} == dict(after)


def test_tiles_change_places_within_their_group_only(chip: ChipSpec) -> None:
    messages, groups = _crowded(chip)
    moves = Exchange(chip, messages, groups).run()
    assert sorted(moves) == sorted(moves.values())
    assert all(any({tile, at} <= set(group) for group in groups) for tile, at in moves.items())


def test_the_same_every_time_and_nothing_without_gain(chip: ChipSpec) -> None:
    messages, groups = _crowded(chip)
    assert Exchange(chip, messages, groups).run() == Exchange(chip, messages, groups).run()
    beside = [(0, (1,), 100)]
    assert Exchange(chip, beside, groups).run() == {}
    assert Exchange(chip, [], groups).run() == {}


def test_memory_is_behind_the_nearest_port(chip: ChipSpec) -> None:
    digital = [t for t in range(chip.tile_count) if chip.tile(t).matmul is not None]
    found = Exchange(chip, [(-1, (digital[0],), 7), (digital[1], (-1,), 5)], [digital])
    ports = noc.memory_ports(chip)
    ways = [
        (noc.nearest(chip, digital[0], ports), digital[0], 7),
        (digital[1], noc.nearest(chip, digital[1], ports), 5),
    ]
    expected = Counter[int]()
    for source, to, cycles in ways:
        expected.update(dict.fromkeys(noc.route(chip, source, to), cycles))
    assert found.load == expected


def test_who_hands_rows_on_stays_with_who_takes_them(chip: ChipSpec) -> None:
    messages, groups = _crowded(chip)
    weights, digital = groups
    back = [(digital[-1 - i], tuple(weights[-9:]), 60) for i in range(4)]
    parts = {2: Exchange(chip, messages, groups), 5: Exchange(chip, back, groups)}
    links = [Handed((2, digital[i]), (5, digital[-1 - i])) for i in range(3)]
    before = [p.fullest for p in parts.values()]
    moves = together(
        parts, [*links, Handed((2, digital[0]), (5, digital[4])), Handed((2, weights[0]), (5, digital[5]))]
    )
    for link in links:
        (_, source), (_, to) = link.source, link.to
        assert moves[2].get(source, source) == moves[5].get(to, to)
    for i, given in ((2, messages), (5, back)):
        assert sorted(moves[i]) == sorted(moves[i].values())
        assert parts[i].load == _carried(chip, given, moves[i])
    assert sum(p.fullest for p in parts.values()) < sum(before)


@pytest.mark.parametrize(("optimize", "batch"), [("latency", 1), ("throughput", 3)])
def test_same_bits_with_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimize: str, batch: int) -> None:
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    answers: list[list[bytes]] = []
    placed: list[object] = []
    monkeypatch.setattr("cimc.codegen.exchange.PACE", 0.0)  # a small model's links are never as busy as its cores
    for exchange in (True, False):
        choices = Choices(exchange=exchange, optimize=optimize)
        made = compile_model(path, Options("sram-digital", (), {"batch": batch, "sequence": 64}, choices=choices))
        assert made is not None
        placed.append((made.mapping["static"], made.mapping["segments"]))
        session = InferenceSession(made, numerics="integer", timing=False)
        rng = np.random.default_rng(3)
        feeds = {a.name: rng.integers(0, 2, a.shape).astype(a.type) for a in session.get_inputs()}
        answers.append([np.ascontiguousarray(out).tobytes() for out in session.run(None, feeds)])
    assert placed[0] != placed[1]
    assert answers[0] == answers[1]


def test_links_carry_more_evenly_where_a_batch_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sum of fourth powers of what links are taken for in the whole run, counted by the clock."""
    monkeypatch.setattr("cimc.codegen.exchange.PACE", 0.0)
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    found: list[float] = []
    for exchange in (True, False):
        choices = Choices(exchange=exchange, optimize="throughput")
        made = compile_model(path, Options("sram-digital", (), {"batch": 4, "sequence": 64}, choices=choices))
        assert made is not None
        chip = made.hardware.spec
        layout = flatten(made.program, chip, {})
        carried = occupation(layout, chip, simulate(layout, chip, None, None)).astype(float)
        found.append(float((carried**4).sum()))
    assert found[0] < found[1]


def _streams(path: Path, *overrides: str) -> object:
    """Where the matrices of a small BERT's batch are, and the tiles of its stages."""
    made = compile_model(
        path, Options("sram-digital", overrides, {"batch": 4, "sequence": 64}, choices=Choices(optimize="throughput"))
    )
    assert made is not None
    return made.mapping["static"], made.mapping["segments"]


def test_tiles_of_a_region_stay_where_global_memory_sets_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links that are busy enough beside the cells, with memory that is slow enough, and with one that is not."""
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    moved: list[bool] = []
    for speed in (1000, 0.01):
        found: list[object] = []
        for pace in (0.01, 1e9):
            monkeypatch.setattr("cimc.codegen.exchange.PACE", pace)
            found.append(_streams(path, f"memory.bytes_per_cycle={speed}"))
        moved.append(found[0] != found[1])
    assert moved == [True, False]


def test_stages_that_do_not_fit_anew_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time a region's stages are put, there is no room: what the first time found is taken."""
    path = tmp_path / "bert.onnx"
    save(build(RECIPES["bert"].config), path)
    monkeypatch.setattr("cimc.codegen.exchange.PACE", 0.0)
    monkeypatch.setattr("cimc.codegen.lower.TURNS", 1)
    once = _streams(path)
    monkeypatch.setattr("cimc.codegen.lower.TURNS", 2)
    again: list[int] = []

    def full(*of: object) -> list[Plan]:
        if len(of) > 4:
            again.append(1)
            raise errors.STREAM_ROOM(chip="c", tile=0, kind="digital", need=2, have=1)
        return plans(*of)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("cimc.codegen.lower.plans", full)
    assert _streams(path) == once
    assert again
