"""Regions that a batch streams through: folded streams against doing step after step, placing against closed forms, programs
against the other way to run the same model."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import onnx
import pytest

import cimc.compiler
from cimc.codegen import balance
from cimc.codegen.flow import Flow
from cimc.codegen.fold import BLOCK, RING, ROW, SAMPLE, Ring, Turn, When, fold, ringed
from cimc.codegen.near import Message, Places, Want, spread
from cimc.codegen.sizes import Size
from cimc.codegen.stages import Job
from cimc.codegen.tilecode import TileCode
from cimc.isa.instruction import Derived, Instruction, Repeat, Step
from cimc.isa.operands import Affine, Element, View
from cimc.isa.printer import print_program
from cimc.isa.steps import walk
from cimc.mapping import region
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.sim.reference import unroll
from cimc.sim.values import run_values
from models import small


def _step(name: str, **factors: int) -> Instruction:
    """An instruction that shows the values of variables."""
    return Instruction(name, (View("b", Affine.of(0, {f"@{n}": f for n, f in factors.items()}), (1,), (1,)),))


def _done(steps: list[Step]) -> list[tuple[str, int]]:
    """What is executed: names, and where their views are."""
    return [
        (i.mnemonic, o.offset.evaluate(env))
        for i, _, env in unroll(steps, {})
        for o in i.operands
        if isinstance(o, View)
    ]


def test_two_stages_written_out() -> None:
    """Three blocks; the second stage follows one step behind, and comes first in each step."""
    found = fold({When(0): [_step("a", block=10)], When(1): [_step("b", block=10)]}, 3, {BLOCK: Turn()})
    assert _done(found) == [("a", 0), ("b", 0), ("a", 10), ("b", 10), ("a", 20), ("b", 20)]
    assert [type(s) for s in found] == [Instruction, Repeat, Instruction]


def test_a_group_is_done_when_its_last_block_is_there() -> None:
    """Groups of two blocks from step 3 on, each sent block by block behind it."""
    stages = {When(0): [_step("a", block=1)], When(3, 2): [_step("g", block=1)], When(3): [_step("s", block=1)]}
    found = _done(fold(stages, 4, {BLOCK: Turn()}))
    assert found == [
        *(("a", 0), ("a", 1), ("a", 2)),
        *(("g", 0), ("s", 0), ("a", 3)),
        *(("s", 1), ("g", 2), ("s", 2), ("s", 3)),
    ]


@hypothesis.settings(max_examples=150)
@hypothesis.given(
    st.dictionaries(st.integers(0, 30), st.sampled_from([1, 2, 4]), min_size=1, max_size=5),
    st.integers(1, 3),
    st.sampled_from([4, 8]),
    st.sampled_from([4, 8, 12]),
)
def test_folded_streams_do_step_after_step(periods: dict[int, int], samples: int, blocks: int, ring: int) -> None:
    turns = {SAMPLE: Turn(blocks), BLOCK: Turn(1, blocks), f"{RING}": Turn(1, ring)}
    whens = [When(start, period) for start, period in periods.items()]
    names = {when: f"s{k}" for k, when in enumerate(whens)}
    stages = {when: [_step(name, sample=10_000, block=100, ring=1)] for when, name in names.items()}
    want: list[tuple[str, int]] = []
    total = samples * blocks
    for step in range(total + 31):
        for when in sorted(whens, reverse=True):
            block = step - when.start
            if 0 <= block < total and block % when.period == 0:
                want.append((names[when], block // blocks * 10_000 + block % blocks * 100 + block % ring))
    assert _done(fold(stages, total, turns)) == want


@hypothesis.given(st.integers(0, 50), st.integers(1, 9), st.integers(0, 9), st.integers(1, 9), st.integers(1, 40))
def test_bounds_of_derived_variables_hold(offset: int, divisor: int, modulus: int, factor: int, count: int) -> None:
    derived = Derived("d", offset, divisor, modulus, factor)
    low, high = derived.bounds(count)
    values = [derived.at(t) for t in range(count)]
    assert low <= min(values)
    assert max(values) <= high
    assert low != high or set(values) == {low}


@hypothesis.given(st.integers(1, 9), st.integers(2, 60), st.integers(0, 7), st.sampled_from([1, 2, 4]))
def test_overlapping_blocks_begin_where_they_are_due(samples: int, rows: int, start: int, period: int) -> None:
    """Block b of 8 at row ``b · rows // 8`` of its sample, as also the block three further on; the ring keeps two samples."""
    blocks, ring = 8, Ring(2 * rows, rows=rows)
    turns = {ROW: Turn(blocks, rows, rows), f"{ROW}3": Turn(blocks, rows, rows, 3), ring.name(RING): ring.turn(blocks)}
    stages = {When(start, period): [_step("a", row=1), _step("b", row3=1), _step("c", **{ring.name("ring"): 1})]}
    want: list[tuple[str, int]] = []
    for block in range(0, samples * blocks, period):
        first = block % blocks * rows // blocks
        further = (block + 3) % blocks * rows // blocks
        want += [("a", first), ("b", further), ("c", block // blocks % 2 * rows + first)]
    assert _done(fold(stages, samples * blocks, turns)) == want


def test_rings_are_written_place_after_place() -> None:
    code = TileCode(0)
    view = code.buffer(Element.F32, (2, 3), "r")
    (step,) = ringed([Instruction("a", (view,))], {view.buffer: Ring(4)}, code)
    found = fold({When(0): [step]}, 6, {Ring(4).name(RING): Turn(1, 4)})
    assert [at for _, at in _done(found)] == [0, 6, 12, 18, 0, 6]


def _job(stage: int) -> Job:
    return Job(0, stage, "rows")


def test_a_stage_goes_between_those_it_talks_to() -> None:
    """On a row of five tiles, what gets from tile 0 and sends to tile 4 as much may be anywhere between; what gets more from
    a tile that can do it goes there."""
    end = (0, _job(1), 0)
    far, near = (0, _job(0), -1 - 0), (0, _job(2), -1 - 3)
    messages = [Message(10, far, (end,)), Message(30, end, (near,))]
    places = Places(5, 100, {end: Want((0.1,), (0, 1, 2, 3, 4))}, messages)
    assert spread(places, [end]) == {end: 3}


def test_pieces_of_a_stage_are_on_tiles_of_their_own() -> None:
    ends = [(0, _job(1), k) for k in range(3)]
    want = Want((0.1,), (0, 1, 2))
    assert sorted(spread(Places(3, 1, dict.fromkeys(ends, want), []), ends).values()) == [0, 1, 2]


def test_pieces_make_room_where_a_buffer_is_full() -> None:
    """Three tiles in a row; each has the product that one piece talks to, and room for that piece alone. Filled less than a
    piece takes, the first is left to none, and no other has room for two."""
    ends = [(0, _job(k), 0) for k in range(3)]
    messages = [Message(50, (0, _job(9), -1 - k), (end,)) for k, end in enumerate(ends)]
    want = Want((0.1, 0.6), (0, 1, 2))
    places = Places(3, 100, dict.fromkeys(ends, want), messages)
    assert spread(places, ends) == dict(zip(ends, (0, 1, 2), strict=True))
    alone = Places(3, 100, {ends[0]: want}, messages[:1])
    assert spread(alone, ends[:1]) == {ends[0]: 0}
    alone.narrow(0, 0.1)
    assert spread(alone, ends[:1]) == {ends[0]: 1}


def test_the_fullest_is_what_is_taken_most_of() -> None:
    """A message of half a block's cycles to a piece beside it, which takes a tenth of its tile."""
    end = (0, _job(0), 0)
    places = Places(2, 100, {end: Want((0.1, 0.9), (1,))}, [Message(50, (0, _job(9), -1), (end,))])
    spread(places, [end])
    assert places.fullest() == pytest.approx(0.5)


def _compiled(
    path: Path, chip: str, how: str, kind: str, rows: int = 64, overrides: tuple[str, ...] = ()
) -> cimc.compiler.Compiled:
    dims = {"batch": 3} if kind == "vit" else {"batch": 3, "sequence": rows}
    choices = Choices(optimize=how, replicas=1)
    return cimc.compiler.compile_model(path, Options(chip, overrides, dims, choices=choices))


def _outputs(model: cimc.compiler.Compiled) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    shapes = {g.name: g for g in model.program.globals}
    feeds: dict[str, np.ndarray] = {}
    for port in model.program.inputs:
        room = shapes[port.buffer]
        whole = room.element.value.startswith("i")
        drawn = rng.integers(0, 2, room.shape) if whole else rng.standard_normal(room.shape)
        feeds[port.name] = drawn.astype(room.element.dtype(exact=True))
    outputs, _ = run_values(model.program, model.contents, feeds, model.hardware.spec, numerics="integer")
    return dict(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["isaac", "sram-digital"])
@pytest.mark.parametrize("kind", ["bert", "gpt2", "vit"])
def test_streaming_computes_bit_for_bit_what_one_layer_after_the_other_does(
    kind: str, chip: str, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(getattr(small, kind)(), path)
    flowing = _compiled(path, chip, "throughput", kind)
    want, got = _outputs(_compiled(path, chip, "latency", kind)), _outputs(flowing)
    assert want.keys() == got.keys()
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)
    assert print_program(_compiled(path, chip, "throughput", kind).program) == print_program(flowing.program)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "sizes", "rows", "streams"),
    [
        ("vit", {"image": 112, "patch": 8}, 197, "3 samples stream through 5 of 8"),
        ("gpt2", {"positions": 256}, 134, "3 samples stream through 5 of 6"),
        ("bert", {"positions": 256}, 67, "3 samples stream through 5 of 7"),
        ("llama", {"with_past": False}, 67, "3 samples stream through 9 of 11"),
    ],
)
def test_other_shapes_stream_bit_for_bit(
    kind: str, sizes: dict[str, int], rows: int, streams: str, tmp_path: Path
) -> None:
    """Rows that are no whole number of blocks, a causal mask made block by block, rotated heads that share keys."""
    path = tmp_path / "m.onnx"
    onnx.save(getattr(small, kind)(layers=2, **sizes), path)
    flowing = _compiled(path, "isaac", "throughput", kind, rows)
    assert any(streams in note for note in flowing.notes), flowing.notes
    want, got = _outputs(_compiled(path, "isaac", "latency", kind, rows)), _outputs(flowing)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize(
    ("kind", "sizes", "rows", "chip"),
    [
        ("bert", {"layers": 2, "heads": 3, "hidden": 96}, 64, "sram-digital"),
        pytest.param("gpt2", {}, 64, "sram-digital", marks=pytest.mark.slow),
        pytest.param("gpt2", {"layers": 2, "positions": 256}, 134, "isaac", marks=pytest.mark.slow),
        pytest.param("vit", {"layers": 2, "image": 112, "patch": 8}, 197, "sram-digital", marks=pytest.mark.slow),
        pytest.param("llama", {"layers": 2, "with_past": False}, 67, "sram-digital", marks=pytest.mark.slow),
    ],
)
def test_stages_cut_by_columns_compute_the_same_bits(
    kind: str, sizes: dict[str, int], rows: int, chip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales found over several tiles are those of whole rows, of attention's columns and of those behind a product."""
    path = tmp_path / "m.onnx"
    onnx.save(getattr(small, kind)(**sizes), path)
    whole = _compiled(path, chip, "throughput", kind, rows)
    monkeypatch.setattr(balance, "CARRIED", 0)
    strips = _compiled(path, chip, "throughput", kind, rows)
    done = [s.mnemonic for t in strips.program.tiles for s in walk(t.steps)]
    assert "quantize_static" in done
    assert "quantize_static" not in [s.mnemonic for t in whole.program.tiles for s in walk(t.steps)]
    want, got = _outputs(whole), _outputs(strips)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.parametrize(("bytes_per_cycle", "cut"), [(1, True), (1024, False)])
def test_stages_are_cut_by_columns_where_links_are_narrow(bytes_per_cycle: int, cut: bool, tmp_path: Path) -> None:
    """Digital tiles receive for longer than they work, or not."""
    path = tmp_path / "m.onnx"
    onnx.save(small.bert(layers=2), path)
    chip = ("layout=4x8", f"noc.link_bytes_per_cycle={bytes_per_cycle}")
    found = _compiled(path, "sram-digital", "throughput", "bert", overrides=chip)
    assert any(s.mnemonic == "quantize_static" for t in found.program.tiles for s in walk(t.steps)) == cut


@pytest.mark.parametrize("long", [0, 2, 3])
def test_what_is_read_at_once_and_much_later_is_made_before(
    long: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Embeddings that a norm reads at once, and a residual after attention: made there, the norm would have to wait for it."""
    monkeypatch.setattr(region, "LONG", long)
    path = tmp_path / "m.onnx"
    onnx.save(small.llama(layers=2, with_past=False), path)
    flowing = _compiled(path, "sram-digital", "throughput", "llama", 8)
    assert any("stream through" in note for note in flowing.notes), flowing.notes
    want, got = _outputs(_compiled(path, "sram-digital", "latency", "llama", 8)), _outputs(flowing)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


def test_heads_make_their_mask_of_the_tokens(tmp_path: Path) -> None:
    """A constant triangle stays in the tile; all that a head loads is a row of tokens, and heads on a tile share the mask."""
    path = tmp_path / "m.onnx"
    onnx.save(small.gpt2(layers=2), path)
    model = _compiled(path, "isaac", "throughput", "gpt2")
    elements = {g.name: g.element for g in model.program.globals}
    heads = [t for t in model.program.tiles if any(s.mnemonic == "softmax" for s in walk(t.steps))]
    assert heads
    for tile in heads:
        steps = list(walk(tile.steps))
        views = [v for s in steps if s.mnemonic == "load" for v in s.operands[1:] if isinstance(v, View)]
        masks = [v for v in views if elements[v.buffer] in (Element.B8, Element.F32) and v.shape[-1] == 64]
        assert {(elements[v.buffer], v.shape) for v in masks} == {(Element.B8, (1, 64))}
        assert (64 * 64,) in {b.shape for b in tile.buffers if b.element is Element.B8 and b.key}
        made, used = (sum(s.mnemonic == name for s in steps) for name in ("select", "softmax"))
        assert 0 < made <= used


@pytest.mark.slow
def test_a_stage_has_no_more_pieces_than_a_block_has_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fine stages are cut: twelve pieces are hardly larger than the mean of eleven rows, and one would have none."""
    monkeypatch.setattr(balance, "FINE", (100, 100))
    monkeypatch.setattr(balance, "ranked", lambda *_: [Size(11, 1)])
    path = tmp_path / "m.onnx"
    onnx.save(small.vit(layers=2, image=112, patch=8), path)
    flowing = _compiled(path, "isaac", "throughput", "vit")
    want, got = _outputs(_compiled(path, "isaac", "latency", "vit")), _outputs(flowing)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "room", "cim"), [("bert", 35_000, 32_768), ("gpt2", 35_000, 32_768)])
def test_rows_that_wait_in_other_tiles_are_the_same(kind: str, room: int, cim: int, tmp_path: Path) -> None:
    """Digital tiles too small for the rows that wait, and some of those that take them: some wait in other tiles of matrices
    (buffers whose names begin with p)."""
    path = tmp_path / "m.onnx"
    onnx.save(getattr(small, kind)(), path)
    small_tiles = ("layout=4x8", f"tiles.digital.local_bytes={room}", f"tiles.cim.local_bytes={cim}")
    flowing = _compiled(path, "sram-digital", "throughput", kind, overrides=small_tiles)
    cim = {t.tile for t in flowing.program.tiles if not flowing.hardware.spec.tile(t.tile).matmul}
    waiting = {t.tile for t in flowing.program.tiles for b in t.buffers if b.name.startswith("p")}
    assert waiting
    assert waiting <= cim
    want, got = _outputs(_compiled(path, "sram-digital", "latency", kind)), _outputs(flowing)
    for name, values in want.items():
        np.testing.assert_array_equal(got[name], values)


def test_what_a_tile_keeps_is_copied_before_anything_is_received_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Heads' columns meet in rows of one buffer. A copy behind what the tile receives there would wait for all its other work,
    and the next receives for the copy."""
    stages: list[list[Step]] = []
    fold_all = Flow._fold
    monkeypatch.setattr(Flow, "_fold", lambda flow, code, of: (stages.extend(of.values()), fold_all(flow, code, of)))
    path = tmp_path / "m.onnx"
    onnx.save(small.bert(layers=3, heads=8, hidden=128), path)
    _compiled(path, "sram-digital", "throughput", "bert")
    copies = 0
    for steps in stages:
        received: set[str] = set()
        for step in walk(steps):
            if step.mnemonic in ("copy", "recv") and isinstance(view := step.operands[0], View):
                copies += step.mnemonic == "copy"
                assert step.mnemonic == "recv" or view.buffer not in received
                received |= {view.buffer} if step.mnemonic == "recv" else set()
    assert copies
