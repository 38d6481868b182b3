"""Repeats whose rounds overlap: what they execute, how they are written, and which are refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import CimcError, CimcErrors
from cimc.isa import Derived, Instruction, Repeat, Step, TileBuilder, View, parse_program, print_program, verify
from cimc.isa.instruction import Phase
from cimc.isa.operands import Affine, Element, Extent
from cimc.isa.phases import straight
from cimc.isa.program import Program
from cimc.isa.steps import executed

LATEST = 3
FACTORS = st.integers(1, 5)
PHASES = st.none() | st.integers(1, 4).flatmap(
    lambda turns: st.builds(Phase, st.integers(0, LATEST), st.integers(0, turns - 1), st.just(turns))
).filter(lambda p: p != Phase())
DERIVED = st.builds(Derived, st.just("w"), st.integers(0, 9), st.integers(1, 3), st.integers(0, 4), FACTORS)


def _value(value: Extent, env: dict[str, int]) -> int:
    return value if isinstance(value, int) else value.evaluate(env)


def _executed(steps: Sequence[Step], env: dict[str, int]) -> list[tuple[str, int, int]]:
    """What is executed, by the definition in isa/SPEC.md: name, offset and extent of each."""
    found: list[tuple[str, int, int]] = []
    for step in steps:
        if isinstance(step, Instruction):
            view = step.operands[0]
            assert isinstance(view, View)
            found.append((step.mnemonic, view.offset.evaluate(env), _value(view.shape[0], env)))
            continue
        count = step.count
        assert isinstance(count, int)
        for t in range(count + LATEST):
            for inner in step.body:
                phase = (inner.phase if isinstance(inner, Instruction) else None) or Phase()
                i = t - phase.stage
                if i in range(count) and i % phase.turns == phase.turn:
                    here = {**env, step.variable: i, **{d.name: d.at(i) for d in step.derived}}
                    found += _executed((inner,), here)
    return found


@st.composite
def _repeats(draw: st.DrawFn) -> Repeat:
    body: list[Instruction] = []
    for mnemonic in draw(st.lists(st.sampled_from(["add", "mul", "recv"]), min_size=1, max_size=5)):
        offset = Affine.of(draw(st.integers(0, 9)), {n: draw(st.integers(0, 3)) for n in ("i", "w", "outer")})
        view = View("a", offset, (draw(st.integers(1, 3) | st.just(Affine.of(1, {"w": 1}))),), (1,))
        body.append(Instruction(mnemonic, (view,), phase=draw(PHASES)))
    return Repeat("i", draw(st.integers(0, 17)), tuple(body), (draw(DERIVED),))


@settings(max_examples=120, deadline=None, derandomize=True)
@given(_repeats())
def test_written_out_does_the_same(repeat: Repeat) -> None:
    outer = straight((Repeat("outer", 2, (repeat,)),))
    assert _executed(outer, {}) == [e for n in range(2) for e in _executed((repeat,), {"outer": n})]
    assert all(s.phase is None for s, _ in executed(outer))
    assert sum(n for _, n in executed((repeat,))) == len(_executed((repeat,), {"outer": 0}))


def test_a_repeat_without_phases_is_itself() -> None:
    steps: tuple[Step, ...] = (Repeat("i", 3, (Instruction("halt"),)),)
    assert straight(steps) is steps


TEXT = """.cim 1
.hardware "toy"

.tile 0
.buffer a f32 4x8 @0
.buffer b f32 2x8 @128
repeat i 9, iw=(i+0)%4, ix=(i+0)%2 {
  recv a[iw*8; 1x8], source=1|2
  +1: add b[ix*8; 1x8], a[iw*8; 1x8], a[iw*8; 1x8]
  +2: send b[ix*8; 1x8], to=[1]|[2], tag=1
  +1 2%3: copy b[ix*8; 1x8], a[iw*8; 1x8]
}
halt

.tile 1
.buffer a f32 1x8 @0
repeat i 5 {
  send a, to=[0]
  recv a, source=0, tag=1
}
halt

.tile 2
.buffer a f32 1x8 @0
repeat i 4 {
  send a, to=[0]
  recv a, source=0, tag=1
}
halt
"""


@pytest.mark.parametrize("fast", [True, False])
def test_text(fast: bool) -> None:
    program = parse_program(TEXT, fast=fast)
    assert print_program(program) == TEXT
    repeat = program.tiles[0].steps[0]
    assert isinstance(repeat, Repeat)
    got = [(s.mnemonic, s.phase, dict(s.keywords).get("source")) for s in repeat.body if isinstance(s, Instruction)]
    assert got[:3] == [("recv", Phase(0, 0, 2), 1), ("recv", Phase(0, 1, 2), 2), ("add", Phase(1), None)]
    assert got[-1][1] == Phase(1, 2, 3)
    verify(program)


def test_turns_that_miss_one_stand_alone() -> None:
    text = TEXT.replace("source=1|2", "source=1").replace("  recv a[iw", "  0%2: recv a[iw")
    assert "  0%2: recv a[iw*8; 1x8], source=1\n" in print_program(parse_program(text))


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("source=1|2", "source=1|2|3, tag=0|0", "different turns"),
        ("  recv a[iw*8; 1x8], source=1|2", "  0%2: recv a[iw*8; 1x8], source=1|2", "different turns"),
        ("+1 2%3", "+1 3%3", "numbered from 0"),
        ("+1 2%3", "+1 0%0", "numbered from 0"),
        ("+1 2%3", "+65", "stages are 0 to 64"),
        ("halt\n\n.tile 1", "+1: halt\n\n.tile 1", "outside repeats"),
        ("  +1 2%3: copy b[ix*8; 1x8], a[iw*8; 1x8]", "  repeat j 2 {\n  }", "repeats in it"),
        ("+1 2%3", "+1 0%61", "come back after"),
        ("source=1|2", "source=1|1", "on tag 0, which takes 9"),
        ("repeat i 9, iw", "repeat i 8, iw", "which takes"),
    ],
)
def test_refused(old: str, new: str, told: str) -> None:
    with pytest.raises((CimcError, CimcErrors)) as fault:
        verify(parse_program(TEXT.replace(old, new)))
    errors = fault.value.errors if isinstance(fault.value, CimcErrors) else [fault.value]
    assert any(told in e.message for e in errors), [e.message for e in errors]


def test_a_count_that_varies() -> None:
    text = TEXT.replace(".tile 0", ".param n 1..9\n\n.tile 0", 1).replace("repeat i 9,", "repeat i (n),")
    with pytest.raises((CimcError, CimcErrors), match="its count varies"):
        verify(parse_program(text.replace('"toy"\n\n', '"toy"\n')))


def _tile(stage: int, turns: int) -> Program:
    """Two buffers on the same bytes, each written and read in every round."""
    tile = TileBuilder(0)
    a = tile.buffer("a", Element.F32, (8,), 0)
    b = tile.buffer("b", Element.F32, (8,), 0)
    phase = Phase(stage, 0, turns)
    with tile.repeat("i", 4):
        tile.emit("fill", a, value=1.0)
        tile.emit("add", a, a, a)
        tile.emit("fill", b, value=1.0)
        tile.emit("add", b, b, b)
    made = tile.build()
    repeat = made.steps[0]
    assert isinstance(repeat, Repeat)
    body = [s for s in repeat.body if isinstance(s, Instruction)]
    body[2] = Instruction("fill", body[2].operands, body[2].keywords, phase=None if phase == Phase() else phase)
    steps = (Repeat("i", 4, tuple(body)), *made.steps[1:])
    return Program("toy", (), (), (), (type(made)(0, made.buffers, (), steps),))


def test_lives_where_rounds_overlap() -> None:
    """Buffers that are done with in a round may share bytes; not where a round goes on in the next, or writes only at times."""
    verify(_tile(0, 1))
    for stage, turns in ((1, 1), (0, 2)):
        with pytest.raises((CimcError, CimcErrors), match="share bytes"):
            verify(_tile(stage, turns))
