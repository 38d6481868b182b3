"""The search: never slower, the same every time, never another answer; its model of traffic; its changes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest

from cimc import inputs
from cimc.arch import noc
from cimc.arch.load import load
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lowered
from cimc.compiler import compile_model
from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.isa.steps import executed
from cimc.isa.verify import verify
from cimc.mapping.beside import columns_aside
from cimc.mapping.build import build
from cimc.mapping.choices import Choices
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Placement
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.search.climb import Found, search
from cimc.search.copies import fewer, free_cores, more
from cimc.search.moves import swapped
from cimc.search.plan import Plan, parse_plan
from cimc.search.traffic import MEMORY, Traffic
from cimc.sim.interpreter import run
from cimc.sim.timing import run_timing
from models import small
from models.graph import save
from tests.codegen.random_graphs import Drawn, graphs
from tests.mapping.hardware import two_sizes
from tests.mapping.test_segment import static
from tests.passes.graph_builder import Build

CHIP = load("toy", ("layout=4x3", "tiles.all.cores=8", "tiles.all.local_bytes=65536")).spec


def two_layers():
    b = Build("partitioned")
    hidden = b("layer_norm", static(b, b.input("x", "f32[64x16]"), 24, "a"), epsilon=1e-5)
    return b.graph(b("softmax", static(b, hidden, 16, "b")))


def searched(trials: int, seed: int = 0) -> Found:
    graph, mapping = build(two_layers(), CHIP, "w8a8")
    return search(graph, mapping, CHIP, (), Plan(trials, seed=seed), lowered(graph, mapping, CHIP))


def test_a_search_is_never_slower_and_says_what_it_gained() -> None:
    graph, mapping = build(two_layers(), CHIP, "w8a8")
    before = run_timing(lowered(graph, mapping, CHIP).program, CHIP).cycles
    found = searched(30)
    outcome = found.outcome
    assert outcome.begun == before
    assert outcome.cycles == run_timing(found.made.program, CHIP).cycles
    assert outcome.cycles < before  # this one has something to gain
    assert outcome.trials == sum(k.tried for k in outcome.kinds.values()) == 30
    verify(found.made.program, CHIP, None)


def test_a_search_is_the_beginning_of_a_longer_one() -> None:
    assert searched(12).made.program == searched(12).made.program
    cycles = [searched(n).outcome.cycles for n in (0, 4, 12, 30)]
    assert cycles == sorted(cycles, reverse=True)


def test_no_seconds_means_no_trials() -> None:
    graph, mapping = build(two_layers(), CHIP, "w8a8")
    made = lowered(graph, mapping, CHIP)
    found = search(graph, mapping, CHIP, (), Plan(seconds=0.0), made)
    assert found.made.program == made.program
    assert found.outcome.out_of_time
    assert "`--search 0` gives the same program" in found.outcome.note


@hypothesis.settings(max_examples=15, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(graphs())
def test_programs_that_were_searched_for_compute_what_graphs_mean(drawn: Drawn) -> None:
    graph, mapping = build(drawn.graph, CHIP, "w8a8")
    found = search(graph, mapping, CHIP, (), Plan(8), lowered(graph, mapping, CHIP))
    program = found.made.program
    verify(program, CHIP, None)
    wanted = evaluate(drawn.graph, drawn.constants, drawn.inputs, Arithmetic(exact=False))
    weights = Contents(program, graph, drawn.constants)
    result = run(program, weights, CHIP, inputs=drawn.inputs, numerics="integer", timing=False)
    assert result.outputs is not None
    for name, port in zip(drawn.graph.outputs, program.outputs, strict=True):
        np.testing.assert_array_equal(result.outputs[port.name], wanted[name])


def cores(placement: Placement) -> list[tuple[int, int]]:
    return [(p.tile, b.core) for m in placement.matrices.values() for copy in m for p in copy.parts for b in p.blocks]


def decided() -> tuple[Mapping, Placement]:
    graph, mapping = build(two_layers(), CHIP, "w8a8")
    made = lowered(graph, mapping, CHIP)
    return mapping, replace(mapping.placement, rows=made.rows, residents=made.residents)


def test_copies_come_and_go_in_free_cores() -> None:
    mapping, now = decided()
    segment = mapping.segments[0]
    less = fewer(now, segment)
    assert less is not None
    again = more(less, segment, CHIP, range(CHIP.tile_count))
    assert again is not None
    assert len(again.homes[0]) == len(now.homes[0]) == len(less.homes[0]) + 1
    for placement in (less, again):
        held = cores(placement)
        free = {(t, c) for t, found in free_cores(placement, CHIP).items() for c in found}
        assert len(held) == len(set(held))
        assert not free & set(held)
        assert len(held) + len(free) == sum(CHIP.tile(t).cores for t in range(CHIP.tile_count))


def test_swapping_twice_changes_nothing() -> None:
    _, now = decided()
    used = {tile for tile, _ in cores(now)}
    a = min(used)
    once = swapped(now, a, 11)
    assert once != now
    assert swapped(once, a, 11) == now


def test_traffic_counts_the_links_cycles_as_the_engine_does() -> None:
    """All packets of all segments, link by link: tokens alone are not in the model."""
    graph, mapping = build(two_layers(), CHIP, "w8a8")
    made = lowered(graph, mapping, CHIP)
    timing = run_timing(made.program, CHIP)
    traffic = Traffic(made, CHIP)
    links: dict[int, int] = {}
    servers: dict[int, int] = {}
    for flows in traffic.flows.values():
        for flow in flows:
            traffic._count(flow, made.residents, {}, links, servers)
    total = 2 * ((CHIP.columns - 1) * 4 + 3 * CHIP.columns)
    assert max(links) < noc.first_chip_link(CHIP)
    tokens = timing.bound.resources["noc"] * total - sum(links.values())
    assert 0 <= tokens < 0.1 * sum(links.values()) + total
    assert servers[MEMORY] == round(timing.utilization["global_memory"] * timing.cycles)


def test_rounds_that_do_not_come_send_nothing(tmp_path: Path) -> None:
    """Tokens of one round in several, where a repeat has fewer: no packets, and nothing to divide bytes by."""
    save(small.cnn(image=12, width=4, stages=2, classes=5), tmp_path / "cnn.onnx")
    options = Options("sram-dcim", (), {"batch": 4}, copies="count=2", choices=Choices(2, lanes=7, rotation=3))
    plain = compile_model(tmp_path / "cnn.onnx", options)
    assert plain is not None
    counts = [times for tile in plain.program.tiles for _, times in executed(tile.steps)]
    assert 0 in counts
    found = compile_model(tmp_path / "cnn.onnx", replace(options, search=Plan(2)))
    assert found is not None
    assert found.searched is not None
    assert found.searched.cycles <= run_timing(plain.program, plain.hardware.spec).cycles


@pytest.mark.parametrize(
    ("text", "plan"),
    [
        ("200", Plan(200)),
        ("30s", Plan(seconds=30.0)),
        ("200, 1.5s, seed=3", Plan(200, 1.5, 3)),
        ("trials=7,seconds=2", Plan(7, 2.0)),
    ],
)
def test_plans(text: str, plan: Plan) -> None:
    assert parse_plan(text) == plan


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("x", "'x' is no number"), ("-1", "'-1'"), ("5,5", "twice"), ("seed=1", "how long"), ("trails=5", "'trials'?"),
        ("²", "no number"), ("9" * 30, "no number"), ("1.5", "no number"), ("1..2s", "no number"), ("s", "no number"),
    ],
)  # fmt: skip
def test_plans_that_are_none(text: str, word: str) -> None:
    with pytest.raises(CimcError) as caught:
        parse_plan(text)
    assert word in caught.value.message + caught.value.hint


def test_parts_of_values_and_tiles_beside_move_along(tmp_path: Path) -> None:
    """On sram-digital a transformer's K and V are arrays of their own head by head, and GELU has tiles beside the products."""
    save(small.bert(layers=2, hidden=128, heads=4, ffn=512, vocab=50, positions=64), tmp_path / "bert.onnx")
    dims = {"batch": 1, "sequence": 64}
    made = compile_model(tmp_path / "bert.onnx", Options("sram-digital", (), dims, search=Plan(12)))
    assert made is not None
    assert made.searched is not None
    assert any("." in b.name for b in made.program.globals)  # parts
    assert made.searched.cycles < made.searched.begun
    steps = made.searched.accepted
    assert [s.cycles for s in steps] == sorted((s.cycles for s in steps), reverse=True)
    assert steps[-1].cycles == made.searched.cycles == run_timing(made.program, made.hardware.spec).cycles
    plain = compile_model(tmp_path / "bert.onnx", Options("sram-digital", (), dims))
    assert plain is not None
    feeds = inputs.draw(plain.program, 0, plain.tokens)
    mine, other = (
        run(m.program, m.weights, m.hardware.spec, inputs=feeds, numerics="integer", timing=False).outputs
        for m in (made, plain)
    )
    assert mine is not None
    assert other is not None
    assert all(np.array_equal(mine[name], other[name]) for name in other)


def test_copies_and_swaps_take_the_tiles_beside_along(tmp_path: Path) -> None:
    save(small.bert(layers=1, hidden=128, heads=4, ffn=512, vocab=50, positions=64), tmp_path / "bert.onnx")
    made = compile_model(
        tmp_path / "bert.onnx",
        Options("sram-digital", (), {"batch": 1, "sequence": 64}, choices=Choices(replicas=1)),
    )
    assert made is not None
    chip = made.hardware.spec
    graph, mapping = build(made.graph, chip, "w8a8", Choices(replicas=1))
    now = lowered(graph, mapping, chip).decided(mapping.placement)
    index, beside = next((i, b) for i, b in now.beside.items() if b[0])
    segment = next(s for s in mapping.segments if s.index == index)
    able = [t for t in range(chip.tile_count) if chip.kind(t) == chip.kind(next(iter(beside[0].values())))]
    grown = more(now, segment, chip, able)
    assert grown is not None
    columns = columns_aside(segment, grown.aside, grown.shards, grown.matrices)
    assert [set(c) for c in grown.beside[index]] == [set(c) for c in columns]
    less = fewer(grown, segment)
    assert less is not None
    assert less.beside == now.beside
    tile = next(iter(beside[0]))
    other = next(t for t in range(chip.tile_count) if chip.kind(t) == chip.kind(tile) and t != tile)
    moved = swapped(now, tile, other)
    assert moved.beside[index][0][other] == beside[0][tile]
    for placement in (grown, moved):
        verify(lowered(graph, replace(mapping, placement=placement), chip).program, chip, None)


@pytest.mark.parametrize("attention", ["digital", "sram-write", "nvm-write"])
def test_a_search_leaves_cores_of_another_size_and_cores_that_are_written_alone(tmp_path: Path, attention: str) -> None:
    """Tiles for operands have smaller cores than those for weights; a search that takes either for the other breaks the
    program, which is verified after it."""
    save(small.bert(layers=1, hidden=48, heads=2, ffn=96, vocab=50, positions=16), tmp_path / "bert.onnx")
    options = Options(
        two_sizes(tmp_path),
        ("layout=3x8", "cim.cores=2", "sram.cores=8"),
        {"batch": 1, "sequence": 16},
        attention=attention,
        search=Plan(12, seed=1),
    )
    made = compile_model(tmp_path / "bert.onnx", options)
    assert made is not None
    chip = made.hardware.spec
    verify(made.program, chip, None)
    data = json.loads(json.dumps(made.mapping))
    assert {chip.kind(b["tile"]) for m in data["static"] for b in m["blocks"]} == {"cim"}
