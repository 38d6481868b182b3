"""K and V sent to the tiles of their head as they are made: the same bits, nothing stored, and who receives what."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cimc.codegen.pushed import Taken, receive
from cimc.codegen.tags import PUSHED
from cimc.codegen.tilecode import TileCode
from cimc.compiler import Compiled, compile_model
from cimc.isa.instruction import Phase, Repeat
from cimc.isa.operands import Affine, Element, View, static_shape
from cimc.isa.steps import executed
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.origin import Origin
from cimc.session import InferenceSession, Numerics
from models.graph import save
from models.small import RECIPES, build

HARDWARE = ("layout=5x16",)
"""Of sram-digital: a column of digital tiles for every few columns of others."""


def _sent(compiled: Compiled, mnemonic: str) -> Counter[tuple[int, int, int]]:
    """Elements by source, destination and tag, of messages that are operands."""
    found: Counter[tuple[int, int, int]] = Counter()
    for tile in compiled.program.tiles:
        for step, times in executed(tile.steps):
            words = dict(step.keywords)
            tag = words.get("tag")
            if step.mnemonic != mnemonic or not isinstance(tag, int) or tag < PUSHED:
                continue
            view = step.operands[0]
            assert isinstance(view, View)
            ends = words["to"] if mnemonic == "send" else words["source"]
            assert isinstance(ends, (int, tuple))
            for other in (ends,) if isinstance(ends, int) else ends:
                assert isinstance(other, int)
                way = (tile.tile, other) if mnemonic == "send" else (other, tile.tile)
                found[way[0], way[1], tag] += times * int(np.prod(static_shape(view)))
    return found


DIMS = {
    "bert": {"batch": 1, "sequence": 37},
    "gpt2": {"batch": 1, "sequence": 40},
    "llama": {"batch": 1, "sequence": 24},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("m")
    for name in DIMS:
        save(build(RECIPES[name].config), path / f"{name}.onnx")
    return path


def _compiled(folder: Path, name: str, push: bool, replicas: int | None = None) -> Compiled:
    options = Options("sram-digital", HARDWARE, DIMS[name], choices=Choices(push=push, replicas=replicas))
    found = compile_model(folder / f"{name}.onnx", options)
    assert found is not None
    return found


@pytest.mark.parametrize(("name", "replicas"), [("bert", 1), ("bert", 2), ("bert", 3), ("gpt2", 1), ("llama", 2)])
def test_same_bits_however_they_come(folder: Path, name: str, replicas: int) -> None:
    """Rows that are no whole number of blocks or of copies; joint projections; heads that share keys; rotated keys."""
    with_push, without = (_compiled(folder, name, push, replicas) for push in (True, False))
    assert _sent(with_push, "send")
    assert not _sent(without, "send")
    assert len(with_push.program.globals) < len(without.program.globals)  # nobody stores them
    both: tuple[Numerics, ...] = ("float", "integer")
    for numerics in both:
        runs = [_run(c, numerics) for c in (with_push, without)]
        for one, other in zip(*runs, strict=True):
            np.testing.assert_array_equal(one, other)


def _run(compiled: Compiled, numerics: Numerics) -> list[np.ndarray]:
    session = InferenceSession(compiled, numerics=numerics, timing=False)
    return [np.asarray(v) for v in session.run(None, _feeds(session))]


def _feeds(session: InferenceSession) -> dict[str, np.ndarray]:
    draws = np.random.default_rng(3)
    return {a.name: draws.integers(0, 2, a.shape).astype(a.type) for a in session.get_inputs()}


def test_all_that_is_sent_is_received_and_fits_its_channel(folder: Path) -> None:
    compiled = _compiled(folder, "bert", True)
    sent = _sent(compiled, "send")
    assert sent == _sent(compiled, "recv")
    room = compiled.hardware.spec.noc.channel_bytes
    assert all(4 * elements <= room for elements in sent.values())


def test_receives_take_turns_with_lanes_and_copies() -> None:
    """Two copies with two variants of a block: one repeat, each source in its turns; then the rows that are no block."""
    origin = Origin("x", "X")
    code = {7: TileCode(7)}
    copies = [Taken(blocks=4, turns=2), Taken(blocks=4, turns=2)]
    for k, taken in enumerate(copies):
        for turn, source in enumerate((10 + k, 20 + k)):
            view = View("whole0.0", Affine.of(64 * k, {"@b": 8}), (2, 4), (4, 1))
            taken.note(turn, 7, view, (source, PUSHED), origin)
    copies[1].note(4, 7, View("whole0.0", Affine(120), (1, 4), (4, 1)), (21, PUSHED), origin)
    receive(code, copies)
    repeat, rest = code[7].steps
    assert isinstance(repeat, Repeat)
    assert repeat.count == 4
    assert not isinstance(rest, Repeat)
    found = [(dict(s.keywords)["source"], s.phase) for s in repeat.body if not isinstance(s, Repeat)]
    assert found == [(s, Phase(0, t, 2)) for s, t in ((10, 0), (20, 1), (11, 0), (21, 1))]
    offsets = {o.offset for s in repeat.body if not isinstance(s, Repeat) for o in s.operands if isinstance(o, View)}
    assert offsets == {Affine.of(low, {repeat.variable: 8}) for low in (0, 64)}
    assert dict(rest.keywords)["source"] == 21


@pytest.mark.parametrize("own", range(4))
def test_a_tile_that_makes_rows_itself_receives_those_of_the_other_turns(own: int) -> None:
    """Seven blocks, four tiles that take turns: block b is made by tile b % 4, and the taker is one of them."""
    code = {own: TileCode(own)}
    taken = Taken(blocks=7, turns=4)
    for turn in set(range(4)) - {own}:
        view = View("whole0.0", Affine.of(0, {"@b": 8}), (1, 8), (8, 1))
        taken.note(turn, own, view, (turn, PUSHED), Origin("x", "X"))
    receive(code, [taken])
    (repeat,) = code[own].steps
    assert isinstance(repeat, Repeat)
    assert repeat.count == 7
    received = [(s.phase or Phase(), dict(s.keywords)["source"]) for s in repeat.body if not isinstance(s, Repeat)]
    found = [[source for when, source in received if b % when.turns == when.turn] for b in range(7)]
    assert found == [[b % 4] if b % 4 != own else [] for b in range(7)]


def test_buffers_of_two_segments_keep_their_name() -> None:
    first, second, whole = TileCode(3), TileCode(3), TileCode(3)
    for code in (first, second):
        code.buffer(Element.F32, (4,), "x")
        code.fixed("whole1.0", Element.F32, (8, 4))
    assert whole.take(first) == {"x0": "x0", "whole1.0": "whole1.0"}
    assert whole.take(second) == {"x0": "x1", "whole1.0": "whole1.0"}
    assert list(whole.rooms) == ["x0", "whole1.0", "x1"]
