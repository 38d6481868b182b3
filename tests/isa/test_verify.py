"""The law of programs: what is refused, in which words, and that nothing lawful is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cimc.arch.load import load
from cimc.arch.spec import ChipSpec
from cimc.errors import CimcError
from cimc.isa import (
    INSTRUCTIONS,
    Affine,
    Element,
    GlobalBuffer,
    Instruction,
    Param,
    Program,
    Repeat,
    TileBuilder,
    TileProgram,
    View,
    assemble,
    complete,
    dense_view,
    parse_program,
    verify,
)
from cimc.isa.assembler import MAX_NESTING
from cimc.isa.ranges import reach
from tests.golden import Golden

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS = {
    "constant": np.zeros(4, np.float32),
    "constant8": np.zeros(8, np.float32),
    "W": np.zeros((16, 8), np.int8),
}


def _toy() -> ChipSpec:
    return load("toy").spec


def _program(*tiles: TileProgram, params: tuple[Param, ...] = ()) -> Program:
    return Program("toy", (GlobalBuffer("g", Element.F32, (64,)),), (), (), tiles, params)


def _refusal(program: Program) -> str:
    with pytest.raises(CimcError) as caught:
        verify(program, _toy())
    return caught.value.render()


@pytest.mark.parametrize(
    "name", ["law_views", "law_places", "law_channels", "law_homes", "law_held", "law_ports", "law_parts", "law_sums"]
)
def test_what_is_unlawful_is_told_as_the_golden_says(name: str, golden: Golden) -> None:
    text = (GOLDEN / f"{name}.cim").read_text()
    with pytest.raises(CimcError) as caught:
        verify(parse_program(text, f"{name}.cim"), _toy(), WEIGHTS, text=text)
    golden.check(f"isa/golden/{name}.err", caught.value.render() + "\n")


def test_a_built_program_names_tile_step_and_instruction() -> None:
    tile = TileBuilder(1)
    tile.buffer("a", Element.F32, (4, 8), 0)
    with tile.repeat("i", 5) as i:
        tile.emit("fill", "a", value=0.0)
        tile.emit("neg", dense_view("a", (1, 8), i * 8), dense_view("a", (1, 8)))
    message = _refusal(_program(tile.build()))
    assert "tile 1, step 2 `neg a[i*8; 1x8], a[0; 1x8]`" in message
    assert "reaches elements 0 to 39, and the buffer holds 0 to 31" in message


def _pair(first: Callable[[TileBuilder], None], *, address: int = 0) -> TileProgram:
    tile = TileBuilder(0)
    tile.buffer("a", Element.F32, (8,), 0)
    tile.buffer("b", Element.F32, (8,), address)
    tile.buffer("c", Element.F32, (8,), 64)
    first(tile)
    return tile.build()


def _one_after_the_other(tile: TileBuilder) -> None:
    tile.emit("fill", "a", value=1.0)
    tile.emit("neg", "c", "a")
    tile.emit("neg", "b", "c")
    tile.emit("neg", "c", "b")


def _at_once(tile: TileBuilder) -> None:
    tile.emit("fill", "a", value=1.0)
    tile.emit("neg", "b", "a")


def _fresh_in_every_turn(tile: TileBuilder) -> None:
    with tile.repeat("i", 2):
        _one_after_the_other(tile)


def _carried_round(tile: TileBuilder) -> None:
    with tile.repeat("i", 2):
        tile.emit("neg", "c", "a")  # what the turn before left in a, though b is written in between
        tile.emit("neg", "b", "c")
        tile.emit("neg", "c", "b")


def _used_outside(tile: TileBuilder) -> None:
    tile.emit("fill", "a", value=1.0)
    with tile.repeat("i", 2):
        tile.emit("neg", "c", "a")
        tile.emit("neg", "b", "c")


@pytest.mark.parametrize("steps", [_one_after_the_other, _fresh_in_every_turn])
def test_buffers_may_share_addresses_one_after_the_other(steps: Callable[[TileBuilder], None]) -> None:
    verify(_program(_pair(steps)), _toy())


@pytest.mark.parametrize("steps", [_at_once, _carried_round, _used_outside])
def test_buffers_may_not_share_addresses_while_both_live(steps: Callable[[TileBuilder], None]) -> None:
    assert "share bytes 0 to 31" in _refusal(_program(_pair(steps)))
    assert "share bytes 16 to 31" in _refusal(_program(_pair(steps, address=16)))
    verify(_program(_pair(steps, address=32)), _toy())


def test_resident_buffers_take_no_global_memory_and_bytes_that_nothing_else_has() -> None:
    whole = _toy().tile(1).local_bytes
    small = _toy().model_copy(update={"memory": _toy().memory.model_copy(update={"capacity_bytes": 32})})
    tile = TileBuilder(1)
    tile.buffer("a", Element.F32, (8,), 0)
    there = GlobalBuffer("g", Element.F32, (whole // 4 - 8,), tile=1, address=32)
    verify(Program("toy", (there,), (), (), (tile.build(),)), small)
    tile.buffer("b", Element.F32, (1,), whole - 4)  # never touched, and still in the way
    with pytest.raises(CimcError, match=f"'g' and 'b' share bytes {whole - 4} to {whole - 1} .* of tile 1"):
        verify(Program("toy", (there,), (), (), (tile.build(),)), small)
    at_no_tile = GlobalBuffer("g", Element.F32, (8,), address=32)
    with pytest.raises(CimcError, match="lies at byte 32 of tile -1"):
        verify(Program("toy", (at_no_tile,), (), (), ()), small)
    here = GlobalBuffer("g", Element.F32, (16,))
    with pytest.raises(CimcError, match="64 needed, 32 there"):
        verify(Program("toy", (here,), (), (), ()), small)


def _nested(depth: int) -> TileProgram:
    body: Instruction | Repeat = Instruction("neg", (dense_view("a", (8,)), dense_view("a", (8,))))
    for i in range(depth):
        body = Repeat(f"i{i}", 1, (body,))
    tile = TileBuilder(0)
    tile.buffer("a", Element.F32, (8,), 0)
    done = tile.build()
    return TileProgram(0, done.buffers, (), (body, *done.steps))


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 5000])
def test_built_repeats_are_nested_no_deeper_than_a_text_may(depth: int) -> None:
    verify(_program(_nested(MAX_NESTING)), _toy())
    assert "depth of repeats in tile 0: 17, and 16 is the limit" in _refusal(_program(_nested(depth)))


@pytest.mark.parametrize("special", ["state", "key"])
def test_constants_and_state_live_always(special: str) -> None:
    tile = TileBuilder(0)
    tile.buffer("k", Element.F32, (8,), 0, state=special == "state", key="k" if special == "key" else "")
    tile.buffer("a", Element.F32, (8,), 0)
    tile.emit("fill", "a", value=0.0)
    assert "while both are in use" in _refusal(_program(tile.build()))


def test_a_run_has_a_bounded_number_of_instructions() -> None:
    tile = TileBuilder(0)
    tile.buffer("a", Element.F32, (8,), 0)
    with tile.repeat("i", 2**16), tile.repeat("j", 2**16):
        tile.emit("neg", "a", "a")
    assert "4294967297" in _refusal(_program(tile.build()))


def test_faults_of_built_records() -> None:
    whole = dense_view("a", (8,))
    tile = TileBuilder(0)
    tile.buffer("a", Element.F32, (8,), 0)
    good = tile.build()
    steps = {
        "no instruction is called 'nge'": Instruction("nge", (whole, whole)),
        "no buffer is called 'z'": Instruction("neg", (whole, dense_view("z", (8,)))),
        "neg takes 2 operands, not 1": Instruction("neg", (whole,)),
        "no global buffer is called 'a'": Instruction("load", (whole, whole)),
        "no matrix is called 'W'": Instruction("program", ("W", whole), complete(INSTRUCTIONS["program"], {})),
        "'a' stands where a view": Instruction("neg", ("a", whole)),
        "fill needs the keyword 'value'": Instruction("fill", (whole,)),
        "'value' takes a number": Instruction("fill", (whole,), (("value", "x"),)),
        "'scale' is not filled in": Instruction("matmul", (whole, whole, whole)),
        "2 strides": Instruction("neg", (whole, View("a", Affine(), (8,), (1, 1)))),
        "'q', which is no variable": Instruction("neg", (whole, View("a", Affine(0, (("q", 1),)), (8,), (1,)))),
    }
    for message, step in steps.items():
        assert message in _refusal(_program(TileProgram(0, good.buffers, (), (step, *good.steps)))), message
    assert "does not end with 'halt'" in _refusal(_program(TileProgram(0, good.buffers, (), ())))


def test_a_unit_the_tile_lacks_is_named_with_the_kinds_that_have_it() -> None:
    chip = _toy().model_copy(
        update={
            "layout": ("TD",),
            "tiles": {**_toy().tiles, "bare": _toy().tiles["all"].model_copy(update={"letter": "D", "special": None})},
        }
    )
    tile = TileBuilder(1)
    tile.buffer("a", Element.F32, (8,), 0)
    tile.emit("exp", "a", "a")
    with pytest.raises(CimcError, match=r"exp needs a special unit, and tile 1 \(bare\) has none") as caught:
        verify(_program(tile.build()), chip)
    assert caught.value.code == "no-such-unit"
    assert "kinds that have one: all" in caught.value.render()


def test_sums_need_routers_that_add() -> None:
    bare = _toy().model_copy(update={"noc": _toy().noc.model_copy(update={"reduce": None})})
    tiles = [TileBuilder(n) for n in range(2)]
    for t in tiles:
        t.buffer("a", Element.Q32, (8,), 0)
        t.emit("reduce", "a", of=(0, 1), to=0)
    tiles[0].emit("collect", "a", of=(0, 1))
    program = _program(*(t.build() for t in tiles))
    verify(program, _toy())
    with pytest.raises(CimcError, match="reduce needs routers that add, and those of toy do not") as caught:
        verify(program, bare)
    assert caught.value.code == "no-adders"
    assert "-c 'noc.reduce={lanes: 8, cycles: 1}'" in caught.value.render()


@given(st.data())
def test_reach_is_exact(data: st.DataObject) -> None:
    small = st.integers(-3, 3)
    box = {"i": (0, data.draw(st.integers(0, 3))), "p": (1, data.draw(st.integers(1, 3)))}
    offset = Affine.of(data.draw(small), {"i": data.draw(small), "p": data.draw(small)})
    shape = (data.draw(st.integers(1, 3)), Affine(0, (("p", 1),)))
    view = View("a", offset, shape, (data.draw(small), data.draw(small)))
    touched = [
        offset.evaluate({"i": i, "p": p}) + r * view.strides[0] + c * view.strides[1]
        for i in range(box["i"][1] + 1)
        for p in range(1, box["p"][1] + 1)
        for r in range(shape[0])
        for c in range(p)
    ]
    assert reach(view, box) == (min(touched), max(touched))


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(CimcError, match="program not found"):
        assemble(tmp_path / "absent.cim")
    (tmp_path / "latin.cim").write_bytes(b".cim 1\n# caf\xe9\n")
    with pytest.raises(CimcError, match="byte 12 is not UTF-8"):
        assemble(tmp_path / "latin.cim")
    with pytest.raises(CimcError, match="cannot be read"):
        assemble(tmp_path)
