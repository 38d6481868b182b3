"""One program of two: what follows the length is affine in it, whatever else differs is refused."""

from __future__ import annotations

import pytest

from cimc.arch.load import load
from cimc.codegen.grown import Differs, Line, grown
from cimc.isa import Program, parse_program, print_program, verify
from cimc.isa.program import Param

TOY = load("toy").spec
LINE = Line(Param("n", 1, 7), 3)


def text(
    length: int, *, rows: str = "", scale: float = 0.5, place: int = 0, wide: int = 0, ring: str = "", kept: str = ""
) -> str:
    """Two heads' scores with a cache of so many rows, and whatever differs besides."""
    n, k = length, length + 1
    return f"""
.cim 1
.hardware "toy"
.global new f32 2x4
.global mask f32 1x{k}
.global y f32 2x{k}
.input "new" new
.input "mask" mask
.output "y" y
.tile {place}
.buffer kv f32 2x{k}x4 @0 state
.buffer q f32 2x4 @512
.buffer s f32 2x{k} @1024
.buffer m f32 {ring}1x{k + wide} @2048 {kept}
load m[0; 1x{k}], mask
repeat h 2 {{
  load kv[h*{4 * k}+{4 * n}; 1x4], new[h*4; 1x4]
  load q[h*4; 1x4], new[h*4; 1x4]
  matmul s[h*{k}; 1x{k}], q[h*4; 1x4], kv[h*{4 * k}; 4x{k}; 1,4], scale={scale}
}}
add s, s, m[0; 2x{k}; 0,1]
{rows}
store y, s
halt
"""


def program(length: int, **other: object) -> Program:
    found = parse_program(text(length, **other))  # pyright: ignore[reportArgumentType]
    verify(found, TOY)
    return found


def test_extents_and_offsets_follow_the_length() -> None:
    found = grown(program(7), program(3), LINE)
    verify(found, TOY)
    body = print_program(found).split(".tile 0\n")[1].splitlines()
    assert body[4:] == [
        "load m[0; 1x(n+1); 8,1], mask[0; 1x(n+1); 8,1]",
        "repeat h 2 {",
        "  load kv[h*32+n*4; 1x4], new[h*4; 1x4]",
        "  load q[h*4; 1x4], new[h*4; 1x4]",
        "  matmul s[h*8; 1x(n+1); 8,1], q[h*4; 1x4], kv[h*32; 4x(n+1); 1,4], scale=0.5",
        "}",
        "add s[0; 2x(n+1); 8,1], s[0; 2x(n+1); 8,1], m[0; 2x(n+1); 0,1]",
        "store y[0; 2x(n+1); 8,1], s[0; 2x(n+1); 8,1]",
        "halt",
    ]
    assert ".param n 1..7" in print_program(found)
    assert '.input "mask" mask 1x(n+1)' in print_program(found)
    assert parse_program(print_program(found)) == found


@pytest.mark.parametrize("short", [1, 2, 4, 5, 6])
def test_any_two_lengths_come_to_the_same(short: int) -> None:
    assert grown(program(7), program(short), Line(LINE.param, short)) == grown(program(7), program(3), LINE)


def test_what_does_not_follow_the_length_stays() -> None:
    same = grown(program(7), program(7), Line(LINE.param, 3))
    assert same.tiles == program(7).tiles


@pytest.mark.parametrize(
    ("long", "short", "why"),
    [
        ({"scale": 0.5}, {"scale": 0.25}, "tile 0 does `matmul .* in one and"),
        ({"rows": "relu s, s"}, {}, "tile 0 does `store .* in one and `relu"),
        ({"place": 1}, {}, "only one has a tile 1"),
        (
            {"kept": "state"},
            {"kept": "state", "wide": 9},
            r"buffer of tile 0 m is f32\[1x13\] in one and f32\[1x8\] in the other",
        ),
        ({"rows": "relu s[0; 16], s[0; 16]"}, {"rows": "relu s[0; 8], s[0; 8]"}, "from one row into the next"),
        ({"rows": "relu s[0; 1x3], s[0; 1x3]"}, {"rows": "relu s[0; 1x2], s[0; 1x2]"}, "no line of whole numbers"),
        ({"rows": "relu s[0; 2x2; 8,1], s[0; 2x2; 8,1]"}, {"rows": "relu s[0; 2x2; 2,1], s[0; 2x2; 2,1]"}, "otherwise"),
        ({"rows": "repeat i 8 {\nrelu q, q\n}"}, {"rows": "repeat j 4 {\nrelu q, q\n}"}, "count otherwise"),
    ],
)
def test_what_differs_is_named(long: dict[str, object], short: dict[str, object], why: str) -> None:
    with pytest.raises(Differs, match=why):
        grown(program(7, **long), program(3, **short), LINE)


@pytest.mark.parametrize(
    ("long", "short"), [({}, {"wide": 9}), ({"ring": "2x"}, {}), ({}, {"ring": "4x"}), ({"ring": "2x"}, {"ring": "8x"})]
)
def test_places_that_are_not_needed_may_differ(long: dict[str, object], short: dict[str, object]) -> None:
    found = grown(program(7, **long), program(3, **short), LINE)
    assert found.tiles[0].steps == grown(program(7, **long), program(3, **long), LINE).tiles[0].steps
    verify(found, TOY)


def test_repeats_may_go_on_longer() -> None:
    found = grown(
        program(7, rows="repeat i 8 {\nrelu s[i; 2x1; 8,1], s[i; 2x1; 8,1]\n}"),
        program(3, rows="repeat i 4 {\nrelu s[i; 2x1; 4,1], s[i; 2x1; 4,1]\n}"),
        LINE,
    )
    assert "repeat i (n+1) {\n  relu s[i; 2x1; 8,1], s[i; 2x1; 8,1]\n}" in print_program(found)
    verify(found, TOY)
