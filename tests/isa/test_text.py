"""What prints, parses; the two readers and the grammar agree; every fault is told with its place."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.errors import CimcError, CimcErrors, Source
from cimc.isa import Affine, Element, Instruction, Program, Repeat, TileBuilder, View, parse_program, print_program
from cimc.isa.assembler import MAX_NESTING
from cimc.isa.fastline import FastReader
from cimc.isa.grammar import read_line, read_program
from cimc.isa.instruction import INSTRUCTIONS, complete
from cimc.isa.operands import dense_view
from tests.golden import Golden
from tests.isa.strategies import programs

FAULTY = sorted((Path(__file__).parent / "golden").glob("[!l]*.cim"))  # law_*: test_verify.py


@given(programs())
@settings(max_examples=150)
def test_what_prints_parses(program: Program) -> None:
    text = print_program(program)
    parsed = parse_program(text)
    assert parsed == program
    assert print_program(parsed) == text


@given(programs())
@settings(max_examples=40)
def test_the_grammar_reads_what_the_quick_reader_reads(program: Program) -> None:
    text = print_program(program)
    assert parse_program(text, fast=False) == program
    quick = FastReader()
    lines = [line.strip() for line in text.split("\n")]
    by_line = [read_line(line, Source("", 1)) for line in lines if line and not line.startswith("#")]
    assert read_program(text) == by_line
    for line, statement in zip((x for x in lines if x and not x.startswith("#")), by_line, strict=True):
        assert quick.line(line) in (statement, None)


@given(programs())
@settings(max_examples=30)
def test_the_quick_reader_reads_steps_and_declarations(program: Program) -> None:
    # Not only agrees, but does the work: canonical lines below a `.tile` need no grammar, strings aside.
    _, tiles, text = print_program(program).partition("\n.tile")
    quick = FastReader()
    for line in (tiles + text).split("\n")[1:] if tiles else ():
        if line.strip() and "#" not in line and ", " not in "".join(line.split('"')[1::2]):
            assert quick.line(line.strip()) is not None, line


_LINES = st.text(st.sampled_from(list('adx0189 .,;:[](){}=@*+-"\\#_')), max_size=30)


@given(_LINES | st.builds("add {}, {}".format, _LINES, _LINES) | st.builds("load y[{}; {}], x".format, _LINES, _LINES))
@settings(max_examples=400)
def test_any_line_is_read_the_same_way_or_refused(line: str) -> None:
    quick = FastReader().line(line.strip(" "))
    if not line.strip(" ") or line.strip(" ").startswith("#"):
        return
    try:
        slow = read_line(line, Source("f", 1, 1, line))
    except CimcError:
        slow = None
    assert quick in (slow, None)


def test_header_and_comments() -> None:
    text = '.cim 1\n.hardware "toy"  # a comment\n# for people\n#\n#  more\n\n.tile 0   # tile\n# inside\nhalt # end\n'
    program = parse_program(text)
    assert program.header == ("for people", "", " more")
    assert print_program(program) == '.cim 1\n.hardware "toy"\n# for people\n#\n#  more\n\n.tile 0\nhalt\n'


def test_spelling_is_free_and_prints_canonically() -> None:
    text = '.cim 1\n.hardware "t"\n.param p 0..3\n.global g f32 4x8\n.tile 0\n.buffer y f32 2x8 @0\n'
    text += (
        "repeat i 2{\nload y[ 8-8+0*i ;2 x 4;8 , 1],g[8*i+p*8-i*4+1-1; (1+1)x4 ; 8,1 ]\n}\nrecv y,source=1,tag=0\nhalt"
    )
    printed = print_program(parse_program(text)).split("\n")
    assert printed[-6:] == [
        "repeat i 2 {",
        "  load y[0; 2x4; 8,1], g[i*4+p*8; 2x4; 8,1]",
        "}",
        "recv y, source=1",
        "halt",
        "",
    ]


def test_equal_texts_of_nan_are_equal_programs() -> None:
    text = '.cim 1\n.hardware "t"\n.tile 0\n.buffer y f32 2 @0\nfill y, value=nan\nhalt\n'
    built = TileBuilder(0)
    built.buffer("y", Element.F32, (2,), 0)
    built.emit("fill", "y", value=float("nan"))
    for fast in (True, False):
        assert parse_program(text, fast=fast).tiles == (built.build(),)


def test_lines_are_remembered_but_no_part_of_equality() -> None:
    text = '.cim 1\n.hardware "t"\n.tile 0\n.buffer y f32 2 @0\nrepeat i 2 {\nfill y, value=nan\n}\nhalt\n'
    spaced = text.replace("\n", "\n\n")
    first, second = parse_program(text, "a.cim"), parse_program(spaced, "b.cim")
    assert first == second
    repeat = second.tiles[0].steps[0]
    assert isinstance(repeat, Repeat)
    assert (repeat.line, repeat.body[0].line, second.source) == (9, 11, "b.cim")
    fill = repeat.body[0]
    assert isinstance(fill, Instruction)
    assert isinstance(dict(fill.keywords)["value"], float)
    assert math.isnan(float(str(dict(fill.keywords)["value"])))


def test_whole_and_row_major_views_elide() -> None:
    text = '.cim 1\n.hardware "t"\n.param n 1..4\n.tile 0\n.buffer y f32 4x8 @0\n'
    text += "add y[0; 4x8; 8,1], y[8; (n)x8; 8,1], y\nhalt\n"
    program = parse_program(text)
    add = program.tiles[0].steps[0]
    assert isinstance(add, Instruction)
    assert add.operands[0] == View("y", Affine(), (4, 8), (8, 1))
    assert add.operands[1] == View("y", Affine(8), (Affine(0, (("n", 1),)), 8), (8, 1))
    assert "add y, y[8; (n)x8], y\n" in print_program(program)
    assert program.tiles[0].buffers[0].element is Element.F32


@pytest.mark.parametrize("path", FAULTY, ids=lambda p: p.stem)
def test_faults_are_told_as_the_golden_says(path: Path, golden: Golden) -> None:
    with pytest.raises(CimcError) as caught:
        parse_program(path.read_text(), path.name)
    golden.check(f"isa/golden/{path.stem}.err", caught.value.render() + "\n")


def test_hostile_texts_are_refused_in_one_message() -> None:
    head = '.cim 1\n.hardware "t"\n.tile 0\n'
    deep = head + "repeat i 1 {\n" * 5000
    for text in (deep, head + ".buffer a f32 " + "9" * 5000 + " @0\n", head + "x" * (2**20 + 1), head + "(" * 100000):
        with pytest.raises(CimcError) as caught:
            parse_program(text)
        assert len(caught.value.render()) < 40_000
    nested = "".join(f"repeat v{i} 1 {{\n" for i in range(MAX_NESTING)) + "}\n" * MAX_NESTING
    assert parse_program(head + nested + "halt\n").tiles
    with pytest.raises(CimcError, match="depth of repeats"):
        parse_program(head + "repeat w 1 {\n" + nested + "}\nhalt\n")


def test_many_faults_are_told_at_once_but_not_without_end() -> None:
    text = '.cim 1\n.hardware "t"\n.tile 0\n' + "nonsense\n" * 1000
    with pytest.raises(CimcErrors) as caught:
        parse_program(text)
    assert 20 <= len(caught.value.errors) <= 100


def test_one_mistake_is_told_once() -> None:
    text = '.cim 1\n.hardware "t"\n.tile 0\n.buffer acc f33 8 @0\n'
    text += "repeat i x {\nfill acc[i; 2], value=0\n}\nfill acc, value=1\nhalt\n"
    with pytest.raises(CimcErrors) as caught:
        parse_program(text)
    assert [e.source.line for e in caught.value.errors if e.source] == [4, 5]


def test_what_is_the_same_is_one_object_but_for_the_sign_of_zero():
    spec = INSTRUCTIONS["fill"]
    zeros = [dict(complete(spec, {"value": value}))["value"] for value in (0.0, -0.0)]
    assert [str(z) for z in zeros] == ["0.0", "-0.0"]
    a, b = (dense_view(name, (n, 8), 8 * n) for name, n in (("".join(["x"]), int("4")), ("x", 4)))
    assert a == b
    assert a.buffer is b.buffer
    assert a.shape is b.shape
    assert a.offset is b.offset
    words = [complete(INSTRUCTIONS["recv"], {"source": 3, "tag": tag}) for tag in (1000, 10**3, 7)]
    assert words[0] is words[1]
    assert words[0] != words[2]
