"""Blocks that overlap: tiles do all of every block, in one order for all of them, and overwrite nothing still to be read."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from cimc import inputs
from cimc.arch.load import load
from cimc.codegen.overlap import BLOCK, PLACES, Overlap, overlapped
from cimc.codegen.tilecode import TileCode, instruction
from cimc.compiler import compile_model
from cimc.isa.instruction import MAX_STAGE, Instruction, Repeat
from cimc.isa.operands import Affine, Element, View
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.sim.interpreter import run
from cimc.sim.reference import unroll
from models import small

ROWS, COLS = 2, 64


def _view(code: TileCode, stem: str) -> View:
    return code.buffer(Element.F32, (ROWS, COLS), stem)


def _back_and_forth(blocks: int) -> tuple[dict[int, TileCode], Overlap]:
    """A tile loads, sends to another, which works and answers; then the first works on and stores."""
    chip = load("sram-digital").spec
    tiles = [t for t in range(chip.tile_count) if chip.tile(t).vector is not None][:2]
    one, two = (TileCode(t) for t in tiles)
    x, y, z, w = _view(one, "x"), _view(two, "y"), _view(two, "z"), _view(one, "w")
    here = Affine.of(0, {BLOCK: ROWS * COLS})
    source, target = (View(name, here, (ROWS, COLS), (COLS, 1)) for name in ("in0", "out0"))
    steps = [
        (one.tile, instruction("load", x, source)),
        (one.tile, instruction("send", x, to=(two.tile,), tag=0)),
        (two.tile, instruction("recv", y, source=one.tile, tag=0)),
        (two.tile, instruction("add", z, y, y)),
        (two.tile, instruction("send", z, to=(one.tile,), tag=1)),
        (one.tile, instruction("recv", w, source=two.tile, tag=1)),
        (one.tile, instruction("add", w, w, x)),
        (one.tile, instruction("store", target, w)),
    ]
    codes = {one.tile: one, two.tile: two}
    plan = overlapped(chip, codes, [steps], {one.tile: 1, two.tile: 1}, 2)
    plan.emit(codes, blocks, "i0")
    return codes, plan


def _executed(code: TileCode) -> list[tuple[Instruction, dict[str, int]]]:
    return [(step, env) for step, _, env in unroll(code.steps, {})]


def test_a_long_way_through_many_tiles_is_no_more_stages_than_the_isa_has() -> None:
    """Two hundred tiles after each other, each with little to do for a block."""
    chip = load("sram-digital", ("layout=40x16",)).spec
    tiles = [t for t in range(chip.tile_count) if chip.tile(t).vector is not None][:200]
    codes = {t: TileCode(t) for t in tiles}
    views = [_view(code, "x") for code in codes.values()]
    steps = [(tiles[0], instruction("fill", views[0], value=0))]
    for i, (here, there) in enumerate(itertools.pairwise(tiles)):
        steps.append((here, instruction("send", views[i], to=(there,), tag=0)))
        steps.append((there, instruction("recv", views[i + 1], source=here, tag=0)))
    back = _view(codes[tiles[0]], "z")
    steps.append((tiles[-1], instruction("send", views[-1], to=(tiles[0],), tag=1)))
    steps.append((tiles[0], instruction("recv", back, source=tiles[-1], tag=1)))
    plan = overlapped(chip, codes, [steps], dict.fromkeys(tiles, 1), 2)
    plan.emit(codes, 500, "i0")
    for code in codes.values():
        for step in code.steps:
            assert isinstance(step, Repeat)
            assert (
                max((s.phase.stage for s in step.body if isinstance(s, Instruction) and s.phase), default=0)
                <= MAX_STAGE
            )


def test_fewer_places_where_buffers_would_not_fit() -> None:
    """A value that is read again at the end lives through many blocks: they come further apart where it has fewer places."""
    found = [_rings(most) for most in PLACES]
    assert max(found[0]) > 2
    assert max(found[1]) == 2
    assert max(found[2]) == 1


def _rings(most: int) -> list[int]:
    """Places of the buffers of a block that goes through ten tiles, its first value read again at the end."""
    chip = load("sram-digital").spec
    tiles = [t for t in range(chip.tile_count) if chip.tile(t).vector is not None][:10]
    codes = {t: TileCode(t) for t in tiles}
    first = _view(codes[tiles[0]], "x")
    steps = [(tiles[0], instruction("fill", first, value=0))]
    view = first
    for here, there in itertools.pairwise(tiles):
        came = _view(codes[there], "r")
        steps.append((here, instruction("send", view, to=(there,), tag=0)))
        steps.append((there, instruction("recv", came, source=here, tag=0)))
        view = came
    back = _view(codes[tiles[0]], "z")
    steps.append((tiles[-1], instruction("send", view, to=(tiles[0],), tag=1)))
    steps.append((tiles[0], instruction("recv", back, source=tiles[-1], tag=1)))
    steps.append((tiles[0], instruction("add", back, back, first)))
    return list(overlapped(chip, codes, [steps], dict.fromkeys(tiles, 1), 2, most).rings.values())


@pytest.mark.parametrize("blocks", [1, 2, 3, 7, 16, 33])
def test_each_block_once(blocks: int) -> None:
    codes, _ = _back_and_forth(blocks)
    for code in codes.values():
        found = Counter(step.mnemonic for step, _ in _executed(code))
        assert set(found.values()) == {blocks}
    first = _executed(codes[min(codes)])
    for mnemonic, which in (("load", 1), ("store", 0)):
        views = [(s.operands[which], env) for s, env in first if s.mnemonic == mnemonic]
        offsets = [v.offset.evaluate(env) for v, env in views if isinstance(v, View)]
        assert offsets == [b * ROWS * COLS for b in range(blocks)]


def test_values_of_a_block_stay_until_they_are_read() -> None:
    """What is stored for a block is the sum of what was loaded for it and twice the same, whatever came in between."""
    codes, plan = _back_and_forth(24)
    assert max(plan.rings.values()) > 2  # blocks are under way at the same time
    first, second = (_executed(codes[t]) for t in sorted(codes))
    names = {t: dict[tuple[str, int], int]() for t in codes}
    channels: dict[int, list[int]] = {0: [], 1: []}
    queues = {min(codes): first, max(codes): second}
    stored: list[tuple[int, int]] = []
    loaded = 0
    while any(queues.values()):
        moved = False
        for tile, queue in queues.items():
            while queue:
                step, env = queue[0]
                words, held = dict(step.keywords), names[tile]
                views = [o for o in step.operands if isinstance(o, View)]
                at = [(v.buffer, v.offset.evaluate(env)) for v in views]
                if step.mnemonic == "recv":
                    tag = words["tag"]
                    assert isinstance(tag, int)
                    if not channels[tag]:
                        break
                    held[at[0]] = channels[tag].pop(0)
                elif step.mnemonic == "send":
                    tag = words["tag"]
                    assert isinstance(tag, int)
                    channels[tag].append(held[at[0]])
                elif step.mnemonic == "load":
                    held[at[0]] = 10**loaded % 1000003
                    loaded += 1
                elif step.mnemonic == "add":
                    held[at[0]] = held[at[1]] + held[at[2]]
                else:
                    block = at[0][1] // (ROWS * COLS)
                    stored.append((block, held[at[1]]))
                queue.pop(0)
                moved = True
        assert moved, "the order lets tiles wait for each other"
    assert stored == [(b, 3 * (10**b % 1000003)) for b in range(24)]


def test_rotation_of_one_keeps_blocks_apart() -> None:
    codes, _ = _back_and_forth(4)
    chip = load("sram-digital").spec
    tile = min(codes)
    code = TileCode(tile)
    x = _view(code, "x")
    source = View("in0", Affine.of(0, {BLOCK: ROWS * COLS}), (ROWS, COLS), (COLS, 1))
    steps = [(tile, instruction("load", x, source)), (tile, instruction("add", x, x, x))]
    plan = overlapped(chip, {tile: code}, [steps], {tile: 1}, 1)
    assert set(plan.rings.values()) == {1}
    plan.emit({tile: code}, 4, "i0")
    assert [s.mnemonic for s, _ in _executed(code)] == ["load", "add"] * 4


@pytest.mark.parametrize(
    ("chip", "made", "dims"),
    [
        ("sram-digital", small.bert(hidden=128, heads=4, ffn=512, positions=64), {"batch": 1, "sequence": 64}),
        ("sram-digital", small.gpt2(), {"batch": 2, "sequence": 29}),
        ("isaac", small.bert(hidden=128, heads=4, ffn=512, positions=64), {"batch": 1, "sequence": 61}),
        ("isaac", small.vit(), {"batch": 3}),
        ("hybrid", small.bert(hidden=128, heads=4, ffn=512, positions=64), {"batch": 1, "sequence": 50}),
    ],
)
def test_same_bits_as_block_after_block(chip: str, made: onnx.ModelProto, dims: dict[str, int], tmp_path: Path) -> None:
    """Lanes differ in when they use a buffer; none may come before the one that had it is done with it."""
    onnx.save(made, tmp_path / "m.onnx")
    found: list[dict[str, np.ndarray]] = []
    for choices in (Choices(), Choices(lanes=1, rotation=1)):
        model = compile_model(tmp_path / "m.onnx", Options(chip, (), dims, choices=choices))
        assert model is not None
        feeds = inputs.draw(model.program, 0, model.tokens)
        ran = run(model.program, model.weights, model.hardware.spec, inputs=feeds, numerics="integer", timing=False)
        assert ran.outputs is not None
        found.append(dict(ran.outputs))
    assert found[0].keys() == found[1].keys()
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name])
