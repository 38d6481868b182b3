"""Sizes of blocks of a batch that streams: which are tried, and in which order, against costs written down."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import pytest

from cimc.codegen.sizes import FEWEST, MOST, WASTE, Cost, Size, ranked, rows_of_blocks


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [(128, [8, 4, 2, 1]), (197, [11, 10, 9, 8, 6, 5, 4, 3, 2, 1]), (17, [1]), (5, [1])],
)
def test_blocks_are_parts_of_a_sample_or_little_is_done_twice(rows: int, wanted: list[int]) -> None:
    """The 197 rows of a picture are a prime: 11 of them 18 times are one too many."""
    assert rows_of_blocks(rows) == wanted


@hypothesis.given(st.integers(1, 2000))
def test_no_more_is_done_twice_than_allowed(rows: int) -> None:
    found = rows_of_blocks(rows)
    assert found[-1] == 1
    for n in found:
        blocks = -(-rows // n)
        assert (blocks * n - rows) * WASTE <= rows
        assert blocks >= min(FEWEST, rows)


def _cost(cells: int, tiles: float, layers: int) -> dict[Size, Cost]:
    """64 samples of 128 rows: so many layers late, ``tiles`` cycles for a row and more for fewer rows together."""
    return {
        Size(n, g): Cost(64 * 128 // n + layers * (128 // n + 20), n * cells, n * tiles + 200 / g)
        for n in (8, 4, 2, 1)
        for g in (1, 2, 4, 8, 16, 32)
    }


def _first(cells: int, tiles: float, layers: int) -> Size:
    costs = _cost(cells, tiles, layers)
    return ranked(128, lambda s: Cost(costs[s].steps, costs[s].cells, 0.0), lambda s: costs[s])[0]


def test_many_layers_take_small_blocks_where_cells_take_the_time() -> None:
    assert _first(960, 100, 12).rows == 2
    assert 128 // _first(960, 100, 12).rows <= MOST


def test_steps_take_long_blocks_where_they_are_all_there_is() -> None:
    """Each step takes the same beside its work, so few are best."""
    assert _first(1, 1, 1).rows == 8


def test_what_is_tried_ends_with_blocks_of_a_row() -> None:
    costs = _cost(960, 100, 12)
    found = ranked(128, lambda s: Cost(costs[s].steps, costs[s].cells, 0.0), lambda s: costs[s])
    assert len(set(found)) == len(found)
    assert Size(1, 1) in found


def test_a_smaller_size_keeps_less() -> None:
    assert Size(4, 8).below(Size(8, 4))
    assert Size(8, 2).below(Size(8, 4))
    assert not Size(8, 4).below(Size(8, 2))
