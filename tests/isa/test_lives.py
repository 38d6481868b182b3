"""Buffers that share bytes while both live, against every pair; how long one lives, against every repeat."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import hypothesis
import hypothesis.strategies as st

from cimc.isa.instruction import Instruction, Kind, Phase, Repeat, Step
from cimc.isa.lives import Repeats, clashes, life
from cimc.isa.operands import Element
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Span
from cimc.isa.visit import Walk, walk_tile

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


PHASES = st.sampled_from((None, Phase(1), Phase(0, 0, 2), Phase(2, 1, 2)))
FLAT = st.lists(st.builds(lambda phase: Instruction("halt", phase=phase), PHASES), max_size=4)


def _nested(inner: st.SearchStrategy[Step]) -> st.SearchStrategy[Step]:
    body = st.lists(inner, max_size=4)
    return st.builds(lambda steps: Repeat("i", 3, tuple(steps)), body)


STEPS = st.recursive(
    st.just(Instruction("halt")) | st.builds(lambda steps: Repeat("i", 3, tuple(steps)), FLAT), _nested, max_leaves=12
)


def _late(repeat: Repeat, first: int) -> bool:
    phases = [s.phase for s in repeat.body if isinstance(s, Instruction) and s.phase is not None]
    step = repeat.body[first] if phases else None
    return any(p.stage for p in phases) or (isinstance(step, Instruction) and step.phase is not None)


def _life(accesses: Sequence[tuple[int, Kind]], walk: Walk) -> tuple[int, int]:
    """By the rule as isa/SPEC.md says it, over all repeats, innermost first."""
    first = start = accesses[0][0]
    end = accesses[-1][0]
    fresh = all(kind is Kind.WRITE for at, kind in accesses if at == first)
    for repeat, body, _ in walk.repeats:
        apart = body.last < start or end < body.first
        within = body.first <= start and end <= body.last
        if not apart and not (within and fresh and not _late(repeat, first - body.first)):
            start, end = min(start, body.first), max(end, body.last)
    return start, end


@hypothesis.settings(max_examples=400)
@hypothesis.given(st.lists(STEPS, min_size=1, max_size=5), st.data())
def test_a_life_is_what_all_repeats_make_of_it(steps: list[Step], data: st.DataObject) -> None:
    walk = walk_tile(TileProgram(0, (), (), tuple(steps)), {})
    hypothesis.assume(walk.visits)
    access = st.tuples(st.integers(0, len(walk.visits) - 1), st.sampled_from((Kind.READ, Kind.WRITE)))
    accesses = sorted(data.draw(st.lists(access, min_size=1, max_size=5)), key=lambda a: a[0])
    found = life(Buffer("b", Element.U8, (4,), 0), accesses, Repeats(walk.repeats), len(walk.visits) - 1)
    assert found is not None
    assert (found.first, found.last) == _life(accesses, walk)
