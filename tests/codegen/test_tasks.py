"""Tasks: every row of every head once, evenly over the tiles."""

from __future__ import annotations

import pytest

from cimc.arch.load import load
from cimc.codegen.spread import neighbours
from cimc.codegen.tasks import LEAST_ROWS, MOST_TASKS, Task, graded, takers, tasks
from cimc.ir.graph import Graph
from cimc.mapping.segment import Range
from tests.passes.graph_builder import Build

CHIP = load("sram-digital").spec
DIGITAL = [t for t in range(CHIP.tile_count) if CHIP.kind(t) == "digital"]


def attention(heads: int, rows: int, depth: int = 32) -> Graph:
    b = Build("partitioned")
    x = b.input("x", f"f32[{heads}x{rows}x{depth}]")
    return b.graph(b("attention", x, b("transpose", x, perm=(0, 2, 1)), x, scale=1.0))


@pytest.mark.parametrize(
    ("heads", "rows", "tiles"), [(12, 128, 8), (12, 128, 16), (12, 197, 16), (1, 64, 16), (5, 7, 3)]
)
def test_every_row_of_every_head_is_in_one_task(heads: int, rows: int, tiles: int) -> None:
    graph = attention(heads, rows)
    found = tasks(graph, [graph.nodes[-1]], (heads, rows), CHIP, DIGITAL[:tiles])
    done = [(t.at[0], r) for some in found for t in some for r in range(t.rows.low, t.rows.low + t.rows.count)]
    assert sorted(done) == [(h, r) for h in range(heads) for r in range(rows)]
    assert len(found) <= tiles
    counts = [len(some) for some in found]
    assert max(counts) - min(counts) <= 1


def test_heads_are_cut_where_they_do_not_divide_among_the_tiles() -> None:
    """12 heads on 8 tiles: whole ones would keep four tiles busy for two heads, and four for one."""
    graph = attention(12, 128)
    found = tasks(graph, [graph.nodes[-1]], (12, 128), CHIP, DIGITAL[:8])
    assert {sum(t.rows.count for t in some) for some in found} == {12 * 128 // 8}


def test_loops_are_left_to_loop() -> None:
    """More heads than a tile has text for, operands too large to have two of them, and constants."""
    many, large = attention(MOST_TASKS * 2 + 1, LEAST_ROWS), attention(2, 2048, 128)
    assert tasks(many, [many.nodes[-1]], (MOST_TASKS * 2 + 1, LEAST_ROWS), CHIP, DIGITAL[:2]) == []
    assert tasks(large, [large.nodes[-1]], (2, 2048), CHIP, DIGITAL) == []
    b = Build("partitioned")
    y = b("matmul", b.input("x", "f32[64x8]"), b.const([[1.0] * 8] * 8))
    constant = b.graph(y)
    assert tasks(constant, constant.nodes, (64,), CHIP, DIGITAL) == []


def grouped(heads: int, kinds: int, rows: int, keys: int) -> Graph:
    """Attention of ``heads``, as many as ``kinds`` divides them into with the same K and V."""
    b = Build("partitioned")
    q = b.input("q", f"f32[{kinds}x{heads // kinds}x{rows}x32]")
    k = b.input("k", f"f32[{kinds}x1x32x{keys}]")
    return b.graph(b("attention", q, k, b.input("v", f"f32[{kinds}x1x{keys}x32]"), scale=1.0))


def test_heads_that_share_operands_loop_where_loading_them_takes_longest() -> None:
    """One token after many: what six heads compute is little beside loading K and V once for each of them, and much where
    there are rows enough."""
    for kinds, rows, looped in ((2, 1, True), (6, 1, False), (2, 256, False)):
        graph = grouped(6, kinds, rows, 256)
        found = tasks(graph, [graph.nodes[-1]], (kinds, 6 // kinds, rows), CHIP, DIGITAL[:6])
        assert (found == []) == looped


def test_operands_are_handed_on_where_three_tiles_begin_with_a_head() -> None:
    whole = {t: (Task((0,), Range(8 * t, 8)),) for t in range(3)}
    assert takers(whole) == {(0,): [0, 1, 2]}
    assert takers({t: whole[t] for t in (0, 1)}) == {}
    mixed = {**whole, 2: (Task((1,), Range(0, 8)), *whole[2])}
    assert takers(mixed) == {}


@pytest.mark.parametrize(("count", "parts"), [(128, 5), (197, 5), (256, 8), (64, 2), (40, 5), (7, 1)])
def test_parts_are_all_rows_in_order_and_the_first_no_larger(count: int, parts: int) -> None:
    found = graded(count, parts)
    assert len(found) == parts
    assert [row for r in found for row in range(r.low, r.low + r.count)] == list(range(count))
    assert all(r.count >= min(LEAST_ROWS, count // parts) for r in found)
    assert found[0].count <= max(r.count for r in found)


def test_a_tile_begins_with_the_first_rows_of_its_heads() -> None:
    graph = attention(12, 128)
    for mine in tasks(graph, [graph.nodes[-1]], (12, 128), CHIP, DIGITAL[:8]):
        lows = [task.rows.low for task in mine]
        assert lows == sorted(lows)


def test_neighbours_follow_each_other_in_a_column() -> None:
    places = [(x, y, 10 * y + x) for y in range(5) for x in (2, 6)]
    assert neighbours(places, 2) == [(2, 12), (22, 32), (6, 16), (26, 36)]
