"""KV caches found in a graph, and heads shared among tiles."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.errors import CimcError, Exit
from cimc.ir.graph import Graph
from cimc.mapping.caches import Cache, Heads, caches, cut, spread, wanted
from cimc.mapping.segment import Range
from tests.passes.graph_builder import Build


def decoder(axis: int = 2, *, output: bool = True, extra: str = "") -> Graph:
    """Scores of a query with three cached keys of two heads, and a new one."""
    b = Build("partitioned")
    shape = [1, 2, 3, 4]
    past, new = b.input("past", f"f32[{'x'.join(map(str, shape))}]"), b.input("new", "f32[1x2x1x4]")
    if axis == 3:
        new = b.input("wide", "f32[1x2x3x1]")
    query = b.input("query", "f32[1x2x1x4]" if axis == 2 else "f32[1x2x1x5]")
    present = b("concat", past, new, axis=axis)
    scores = b("matmul", query, b("transpose", present, perm=(0, 1, 3, 2)), scale=1.0)
    outputs = [scores, present] if output else [scores]
    if extra == "past":
        outputs.append(b("neg", past))
    elif extra == "rows":
        outputs.append(b("neg", present))
    return b.graph(*outputs)


def test_a_cache_is_an_input_that_comes_back_with_rows_added() -> None:
    (cache,), refused = caches(decoder())
    assert not refused
    assert (cache.past, cache.new, cache.axis, cache.rows, cache.shape) == ("past", "new", 2, 3, (1, 2, 4, 4))
    assert (cache.units, cache.unit, cache.length, cache.bytes) == (2, 16, 4, 128)


@pytest.mark.parametrize(
    ("graph", "why"),
    [
        (decoder(3), "grows along its last axis"),
        (decoder(extra="past"), "past is read by others too"),
        (decoder(extra="rows"), "does not multiply with it"),
    ],
)
def test_what_cannot_stay_in_tiles_is_told(graph: Graph, why: str) -> None:
    found, refused = caches(graph)
    assert not found
    (told,) = refused.values()
    assert why in told
    assert wanted(graph, "fit") == wanted(graph, "memory") == ()
    with pytest.raises(CimcError, match=why) as caught:
        wanted(graph, "resident")
    assert caught.value.exit is Exit.USAGE


def test_what_is_no_output_is_no_cache() -> None:
    assert caches(decoder(output=False)) == ((), {})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=3), st.data())
def test_rectangles_are_the_units_in_order(lead: list[int], data: st.DataObject) -> None:
    units = prod(lead)
    low = data.draw(st.integers(0, units - 1))
    high = data.draw(st.integers(low + 1, units))
    cache = Cache("p", "n", "q", len(lead), 1, (*lead, 2, 4), 4)
    numbers = np.arange(units).reshape(lead)
    found = [
        numbers[tuple(slice(f, f + n) for f, n in zip(first, counts, strict=True))].reshape(-1)
        for first, counts in cache.rectangles(low, high)
    ]
    np.testing.assert_array_equal(np.concatenate(found), np.arange(low, high))


def positions(extents: tuple[int, ...], share: tuple[Range, ...]) -> np.ndarray:
    """Which heads a share has."""
    there = np.zeros(extents, np.int64)
    there[tuple(slice(r.low, r.low + r.count) for r in share)] = 1
    return there


@given(st.lists(st.integers(1, 6), max_size=3).map(tuple), st.integers(1, 40))
def test_shares_cover_all_heads_once(extents: tuple[int, ...], most: int) -> None:
    shares = cut(extents, most)
    assert all(prod(r.count for r in share) <= most for share in shares)
    np.testing.assert_array_equal(sum(positions(extents, s) for s in shares), np.ones(extents))


@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=2).map(tuple),
    st.lists(st.integers(0, 60), min_size=1, max_size=6),
)
def test_heads_are_spread_if_and_only_if_they_fit(extents: tuple[int, ...], room: list[int]) -> None:
    heads, left = Heads(extents, 10), dict(enumerate(room))
    found = spread(heads, range(len(room)), left)
    places = sum(n // heads.bytes for n in room)  # a head lies in one tile
    assert (found is not None) == (places >= prod(extents))
    if found is None:
        return
    np.testing.assert_array_equal(sum(positions(extents, s) for _, s in found), np.ones(extents))
    for tile in left:
        taken = sum(prod(r.count for r in share) for t, share in found if t == tile)
        assert taken * heads.bytes <= left[tile]


def test_as_many_tiles_as_there_are_heads_take_part() -> None:
    found = spread(Heads((12,), 10), range(20), dict.fromkeys(range(20), 1000))
    assert found is not None
    assert [t for t, _ in found] == list(range(12))
    found = spread(Heads((12,), 10), range(5), dict.fromkeys(range(5), 1000))
    assert found is not None
    assert max(share[0].count for _, share in found) == 3
