"""Buffers that share bytes while both live, against every pair looked at."""

from __future__ import annotations

from itertools import combinations

import hypothesis
import hypothesis.strategies as st

from cimc.isa.lives import clashes
from cimc.isa.operands import Element
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Span

BUFFER = st.tuples(st.integers(0, 60), st.integers(0, 12), st.integers(0, 25), st.integers(0, 6))


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.lists(BUFFER, max_size=8))
def test_clashes_are_all_pairs_that_meet_in_place_and_time(drawn: list[tuple[int, int, int, int]]) -> None:
    buffers = tuple(Buffer(f"b{i}", Element.U8, (size,), at) for i, (at, size, _, _) in enumerate(drawn))
    spans = {b.name: Span(first, first + more) for b, (_, _, first, more) in zip(buffers, drawn, strict=True)}
    wanted = [
        (a.name, b.name)
        for a, b in combinations(buffers, 2)
        if a.bytes
        and b.bytes
        and a.address < b.address + b.bytes
        and b.address < a.address + a.bytes
        and spans[a.name].meets(spans[b.name])
    ]
    assert [(a.name, b.name) for a, b in clashes(TileProgram(0, buffers, (), ()), spans)] == wanted
