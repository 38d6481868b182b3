"""Texts that someone else wrote, or that were damaged: refused with a message, never with a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.arch.load import load
from cimc.errors import CimcError, CimcErrors
from cimc.isa import parse_program, print_program, verify

EXAMPLES = [p.read_text() for p in sorted((Path(__file__).parents[2] / "isa" / "examples").glob("*.cim"))]
CHIP = load("toy").spec

PIECES = st.sampled_from(
    ["", "0", "9", "-1", "999999999999999999", "x", "(pos)", "i", "i*8", "a", "W", ";", ",", "[", "]", "{", "}", "\n",
     '"', "@", "=", "state", "repeat i 2 {\n", "halt\n", ".tile 1\n", "q8", "f16", "b8", "nan", "\u00e9", "\t", "\x00"]
)  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(EXAMPLES))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(PIECES) + text[at + draw(st.integers(0, 3)) :]
    return text


@given(damaged())
@settings(max_examples=400)
def test_a_damaged_program_is_refused_or_is_another_program(text: str) -> None:
    try:
        program = parse_program(text)
        verify(program, CHIP, {}, text=text)
    except CimcError:
        return
    assert parse_program(print_program(program)) == program


@pytest.mark.parametrize(
    "line",
    [
        ".buffer b f32 999999999999999999x999999999999999999 @0",
        ".buffer b f32 8 @999999999999999999",
        ".buffer b f32 " + "1x" * 5000 + "1 @0",
        ".matrix W q8 999999999999999999x8 { 0 [0:999999999999999999, 0:8] }",
        ".matrix W q8 8x8 { " + "; ".join(["0 [0:8, 0:8]"] * 3000) + " }",
        "repeat i 999999999999999999 {\n}",
        'host x, call="' + "a" * 100_000 + '"',
        "send x, to=[" + "0," * 5000 + "0]",
        "neg x, " + "y" * 100_000,
        ".buffer " + "y" * 100_000 + " f32 8 @0",
    ],
)
def test_sizes_are_checked_before_they_are_believed(line: str) -> None:
    head = '.cim 1\n.hardware "toy"\n.global x f32 8\n.tile 0\n'
    if not line.startswith("."):
        head += ".buffer x f32 8 @0\n"
    text = f"{head}{line}\nhalt\n"
    if line.startswith("repeat"):
        verify(parse_program(text), CHIP, {}, text=text)  # an empty body runs in no time
        return
    with pytest.raises(CimcError) as caught:
        verify(parse_program(text), CHIP, {}, text=text)
    assert len(caught.value.render()) < 20_000


def test_buffers_that_end_beyond_all_numbers_are_compared_with_others() -> None:
    text = (
        '.cim 1\n.hardware "toy"\n.tile 0\n.buffer a f32 8 @0\n'
        ".buffer b f32 9x999999999999999999x8 @0\nadd a, a, b\nadd b, a, b\nhalt\n"
    )
    with pytest.raises(CimcErrors) as caught:
        verify(parse_program(text), CHIP, {}, text=text)
    assert {"wrong-declaration", "program-too-big", "buffers-overlap"} <= {e.code for e in caught.value.errors}
