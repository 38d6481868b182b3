"""Blocks to cores and work to tiles; the mapping dump; homes of views."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cimc.arch.load import load
from cimc.arch.spec import ChipSpec
from cimc.codegen.lower import lower
from cimc.compiler import compile_model
from cimc.errors import CimcError, Exit
from cimc.ir.graph import Graph
from cimc.mapping.build import build
from cimc.mapping.chips import on_chips, snake
from cimc.mapping.choices import Choices
from cimc.mapping.dump import dump
from cimc.mapping.layout import homes, materialize
from cimc.mapping.placement import PlacedMatrix, Placement
from cimc.ops import Layout
from cimc.options import Options
from models import field
from models.graph import save
from tests.mapping.test_segment import static
from tests.passes.graph_builder import Build
from tests.report.test_run_report import validate

TOY = load("toy").spec  # 2 tiles × 2 cores of 8 × 8


def chip(cores: int) -> ChipSpec:
    return load("toy", (f"tiles.all.cores={cores}", "tiles.all.local_bytes=65536")).spec


def product(k: int, n: int, rows: int = 4) -> Graph:
    b = Build("partitioned")
    return b.graph(static(b, b.input("x", f"f32[{rows}x{k}]"), n, "a"))


def placed(graph: Graph, on: ChipSpec) -> Placement:
    return build(graph, on, "w8a8")[1].placement


def matrices(placement: Placement) -> list[PlacedMatrix]:
    """One placed copy of every matrix: the first, where matrices are replicated."""
    return [m[0] if isinstance(m, tuple) else m for m in placement.matrices.values()]


def covers_once(matrix: PlacedMatrix) -> None:
    """Every weight lies in exactly one block, every block inside its part."""
    seen = np.zeros((matrix.rows, matrix.cols), int)
    for part in matrix.parts:
        for block in part.blocks:
            seen[slice(*block.rows), slice(*block.cols)] += 1
            assert part.rows[0] <= block.rows[0] < block.rows[1] <= part.rows[1]
            assert part.cols[0] <= block.cols[0] < block.cols[1] <= part.cols[1]
    assert (seen == 1).all()


@pytest.mark.parametrize(("k", "n", "blocks"), [(8, 8, 1), (16, 16, 4), (9, 8, 2), (5, 32, 4), (32, 3, 4)])
def test_what_fits_exactly_is_placed(k: int, n: int, blocks: int) -> None:
    (matrix,) = matrices(placed(product(k, n), TOY))
    cores = [(p.tile, b.core) for p in matrix.parts for b in p.blocks]
    assert len(cores) == len(set(cores)) == blocks
    assert all(core < 2 for _, core in cores)
    covers_once(matrix)


@pytest.mark.parametrize(("k", "n", "need"), [(8, 33, 5), (17, 16, 6), (40, 8, 5)])
def test_one_core_short_is_refused_with_the_numbers(k: int, n: int, need: int) -> None:
    with pytest.raises(CimcError, match=f"needs {need} cores of 8×8 weights, toy has 4: {need - 4} short") as caught:
        placed(product(k, n), TOY)
    assert caught.value.exit == Exit.DOES_NOT_FIT


def test_several_matrices_share_tiles_when_they_must() -> None:
    b = Build("partitioned")
    x = b.input("x", "f32[4x8]")
    graph = b.graph(*(static(b, x, 8, tag) for tag in "abcd"))
    found = matrices(placed(graph, TOY))
    assert sorted((m.parts[0].tile, m.parts[0].blocks[0].core) for m in found) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_stages_start_on_tiles_of_their_own_while_there_are_enough() -> None:
    b = Build("partitioned")
    first = static(b, b.input("x", "f32[4x8]"), 8, "a")
    graph = b.graph(static(b, b("layer_norm", first, epsilon=1e-5), 8, "b"))
    one, two = matrices(placed(graph, chip(4)))
    assert one.parts[0].tile != two.parts[0].tile


def test_row_blocks_of_a_column_stay_on_one_tile_if_they_fit() -> None:
    """Four row blocks fit a tile of five cores: the fifth stays free, so that partial sums need no message."""
    (matrix,) = matrices(placed(product(32, 16), chip(5)))
    assert [(p.rows, p.cols) for p in matrix.parts] == [((0, 32), (0, 8)), ((0, 32), (8, 16))]


def test_a_column_longer_than_a_tile_is_split_and_added_over_messages() -> None:
    graph = product(24, 8)
    (matrix,) = matrices(placed(graph, TOY))
    assert [(p.rows, len(p.blocks)) for p in matrix.parts] == [((0, 16), 2), ((16, 24), 1)]
    covers_once(matrix)
    graph, mapping = build(graph, TOY, "w8a8", Choices(lanes=1, rotation=1))
    text = [s.mnemonic for t in lower(graph, mapping, TOY).tiles for s in _flat(t.steps)]
    assert text.count("mvm") == 2
    assert "add" in text


def _flat(steps):
    for step in steps:
        if hasattr(step, "body"):
            yield from _flat(step.body)
        else:
            yield step


def test_neighbours_in_the_snake_are_neighbours_on_the_chip() -> None:
    isaac = load("isaac").spec
    order = snake(isaac, range(isaac.tile_count))
    places = [isaac.position(t) for t in order]
    assert sorted(order) == list(range(isaac.tile_count))
    assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(places))


def test_two_columns_together_are_neighbours_too() -> None:
    tall = load("sram-digital", ("layout=20x16",)).spec
    weights = [t for t in range(tall.tile_count) if tall.tile(t).cores]
    order = snake(tall, weights, wide=2)
    places = [tall.position(t) for t in order]
    assert sorted(order) == weights
    steps = [abs(a - c) + abs(b - d) for (a, b), (c, d) in itertools.pairwise(places)]
    assert max(steps) <= 3  # from one pair of columns to the next, past digital tiles or across the pair
    assert steps.count(1) >= len(steps) - 8
    assert [x for x, _ in places[:4]] == [0, 1, 1, 0]


def test_the_snake_goes_chip_by_chip() -> None:
    two = load("isaac", ("chips=2",)).spec
    order = snake(two, range(two.tile_count))
    half = len(order) // 2
    assert sorted(order) == list(range(two.tile_count))
    assert [two.chip_of(t) for t in order] == [0] * half + [1] * half
    for part in (order[:half], order[half:]):
        places = [two.position(t) for t in part]
        assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in itertools.pairwise(places))


def test_tiles_on_a_chip_are_all_if_they_are_too_few() -> None:
    two = load("isaac", ("chips=2",)).spec
    assert on_chips(two, [0, 1, 16, 33], frozenset([0])) == [0, 1, 33]
    assert on_chips(two, [0, 1, 16, 33], frozenset([1])) == [16]
    assert on_chips(two, [0, 1, 16, 33], frozenset([1]), 2) == [0, 1, 16, 33]
    assert on_chips(two, [0, 1], frozenset([1])) == [0, 1]
    assert on_chips(two, [0, 16], frozenset()) == [0, 16]


def test_no_tile_with_the_units_is_refused() -> None:
    spec = load("sram-digital").spec
    bare = spec.model_copy(update={"tiles": {k: t.model_copy(update={"matmul": None}) for k, t in spec.tiles.items()}})
    b = Build("partitioned")
    graph = b.graph(b("matmul", b.input("x", "f32[4x8]"), b.input("y", "f32[8x3]"), scale=1.0))
    with pytest.raises(CimcError, match=r"unit-missing.*matmul") as caught:
        build(graph, bare, "w8a8")
    assert caught.value.exit == Exit.DOES_NOT_FIT


def test_the_dump_covers_every_weight_once() -> None:
    b = Build("partitioned")
    x = b(
        "attention", *(b.input(n, s) for n, s in (("q", "f32[4x8]"), ("k", "f32[8x4]"), ("v", "f32[4x8]"))), scale=1.0
    )
    graph, mapping = build(b.graph(static(b, x, 19, "a")), chip(3), "w8a8")
    found = dump(graph, mapping, lower(graph, mapping, chip(3)), chip(3))
    validate(found, "mapping")
    (weight,) = found["static"]
    seen = np.zeros((8, 19), int)
    crossbars = []
    for block in weight["blocks"]:
        seen[slice(*block["rows"]), slice(*block["cols"])] += 1
        crossbars += [(block["tile"], c) for c in block["crossbars"]]
        assert block["slices"] == 4  # 8-bit weights in 2-bit cells
    assert (seen == 1).all()
    assert len(crossbars) == len(set(crossbars)) == found["totals"]["crossbars_used"] == 12
    assert found["totals"]["cell_utilization"] == pytest.approx(8 * 19 / (3 * 64))
    assert {d["kind"]: d["macs"] for d in found["dynamic"]} == {"qk": 4 * 8 * 4, "pv": 4 * 4 * 8}


def test_merged_heads_are_stored_in_the_order_they_are_read() -> None:
    """attention (heads × rows × d) → transpose → reshape: no copy, the store writes with strides."""
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[2x3x4]"))
    merged = b("reshape", b("transpose", a, perm=(1, 0, 2)), shape=(3, 8))
    graph, views = materialize(b.graph(b("tanh", merged)))
    assert [n.op for n in graph.nodes] == ["neg", "transpose", "reshape", "tanh"]
    layout = homes(graph, views)[a].layout
    assert (layout.shape, layout.strides) == ((2, 3, 4), (4, 8, 1))


def test_a_view_no_strides_can_say_gets_a_copy() -> None:
    b = Build("partitioned")
    x = b.input("x", "f32[2x3]")
    turned = b("reshape", b("transpose", x, perm=(1, 0)), shape=(2, 3))
    y = b("tanh", turned)
    graph, views = materialize(b.graph(y))
    assert [n.op for n in graph.nodes] == ["transpose", "copy", "reshape", "tanh"]
    assert not views.broken


def test_outputs_have_buffers_of_their_own() -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[2x3]"))
    graph, _ = materialize(b.graph(a, a, "x", b("transpose", a, perm=(1, 0))))
    assert len(set(graph.outputs)) == 4
    assert [n.op for n in graph.nodes].count("copy") == 3


@pytest.mark.parametrize("view", ["transpose", "reshape"])
def test_an_output_that_is_a_view_is_stored_as_it_is_seen(view: str) -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[2x3]"))
    seen = b("transpose", a, perm=(1, 0)) if view == "transpose" else b("reshape", a, shape=(3, 2))
    graph, views = materialize(b.graph(seen))
    assert [n.op for n in graph.nodes] == ["neg", view]
    found = homes(graph, views)
    assert found[seen].buffer == found[a].buffer == a
    assert found[seen].layout == Layout.dense((3, 2))
    assert found[a].layout.strides == ((1, 2) if view == "transpose" else (3, 1))


def test_an_output_that_shows_what_others_read_is_a_copy() -> None:
    """Others would find it in global memory, where outputs are, and not where it was made."""
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[2x3]"))
    seen = b("transpose", a, perm=(1, 0))
    graph, _ = materialize(b.graph(seen, b("tanh", a)))
    assert [n.op for n in graph.nodes].count("copy") == 1


def test_a_copys_vector_work_is_on_no_tile_of_another_copys_matrices(tmp_path: Path) -> None:
    """On a chip whose tiles do everything: else one copy would wait until the other has done all of its rows."""
    save(field.build("ffn64"), tmp_path / "ffn.onnx")
    overrides = ("tiles.cim.cores=1", "crossbar.cols=2048")
    found = compile_model(tmp_path / "ffn.onnx", Options("benchmarks/pimcomp.yaml", overrides)).mapping
    (stream,) = (s for s in found["segments"] if s["style"] == "stream")
    blocks = [(b["replica"], b["tile"]) for s in found["static"] for b in s["blocks"]]
    assert len(stream["stages"]) > 1
    for copy, stages in enumerate(stream["stages"]):
        mine, others = ({t for r, t in blocks if (r == copy) == own} for own in (True, False))
        assert not (others - mine).intersection(t for lanes in stages for t in lanes)
