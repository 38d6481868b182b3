"""The order of a tile's instructions within a step, against schedules that can be told by hand."""

from __future__ import annotations

import pytest

from cimc.arch.load import load
from cimc.codegen.fold import RING, Ring, When
from cimc.codegen.order import Costs, Order, put_off
from cimc.codegen.tilecode import TileCode
from cimc.isa.instruction import Step
from cimc.isa.operands import Affine, Element

CHIP = load("sram-digital").spec
TILE = next(t for t in range(CHIP.tile_count) if CHIP.tile(t).matmul)


def _mnemonics(code: TileCode, order: Order, stages: dict[When, list[Step]]) -> list[str]:
    return [stages[when][i].mnemonic for when, i in order(sorted(stages, reverse=True))]


def test_independent_stages_share_the_units_and_messages_come_last() -> None:
    """A late stage of two steps on one unit; an early one that receives and works on another: that need not wait."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    code.emit("gelu", a, a)
    code.emit("softmax", a, a)
    late = code.steps
    code.steps = []
    code.emit("recv", c, source=0, tag=0)
    code.emit("add", b, b, b)
    stages = {When(3): late, When(0): code.steps}
    assert _mnemonics(code, Order(stages, code, CHIP, {}), stages) == ["gelu", "add", "softmax", "recv"]


def test_the_longest_way_goes_first_and_what_is_read_was_written() -> None:
    """Of two instructions for one unit the one that others wait for comes first; a reader never before its writer."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    code.emit("add", b, b, b)
    lone = code.steps
    code.steps = []
    code.emit("mul", a, a, a)
    code.emit("softmax", c, a)
    stages = {When(1): lone, When(0): code.steps}
    assert _mnemonics(code, Order(stages, code, CHIP, {}), stages) == ["mul", "softmax", "add"]


def test_what_something_waits_for_goes_before_a_longer_one() -> None:
    """Of two instructions for one unit that could start, the shorter one first if its result has a way to go behind it."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    code.emit("softmax", a, a)
    long = code.steps
    code.steps = []
    code.emit("gelu", b, b)
    code.emit("mul", c, b, b)
    code.emit("send", c, to=(0,), tag=0)
    stages = {When(3): long, When(0): code.steps}
    costs = Costs(CHIP, code)
    assert costs.of(long[0])[2] > costs.of(code.steps[0])[2]
    assert _mnemonics(code, Order(stages, code, CHIP, {}), stages) == ["gelu", "mul", "softmax", "send"]


def test_what_a_message_brings_for_the_same_step_comes_after_all_that_need_not_wait() -> None:
    """A product's stage that receives its rows and uses them at once; another, whose result is there, sends it before."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    code.emit("recv", a, source=0, tag=0)
    code.emit("gelu", a, a)
    prompt = code.steps
    code.steps = []
    code.emit("recv", c, source=0, tag=1)
    code.emit("add", b, b, b)
    code.emit("send", b, to=(0,), tag=2)
    stages = {When(3): prompt, When(0): code.steps}
    assert _mnemonics(code, Order(stages, code, CHIP, {}), stages) == ["add", "send", "recv", "recv", "gelu"]


def test_what_follows_special_functions_is_done_a_step_later_with_what_it_sends() -> None:
    """The scaling behind a norm and its message; not the copy beside it, nor a chain in which a special
    function follows. Before what takes the result from its stage in that step."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    code.emit("layer_norm", a, a, epsilon=1e-5)
    code.emit("copy", c, b)
    code.emit("mul", a, a, b)
    code.emit("send", a, to=(0,), tag=0)
    norm = code.steps
    code.steps = []
    code.emit("gelu", a, a)
    code.emit("add", a, a, b)
    code.emit("softmax", a, a)
    code.steps, chain = [], code.steps
    code.emit("copy", c, a)
    stages = {When(0): norm, When(1): code.steps, When(5): chain, When(9, 4): list(norm)}
    put_off(stages, code, CHIP)
    names = {when: [step.mnemonic for step in steps] for when, steps in stages.items()}
    assert names == {
        When(0): ["layer_norm", "copy"],
        When(1): ["mul", "send", "copy"],
        When(5): ["gelu", "add", "softmax"],
        When(9, 4): ["layer_norm", "copy", "mul", "send"],
    }


@pytest.mark.parametrize(("depth", "order"), [(1, ["add", "mul", "gelu"]), (2, ["add", "gelu", "mul"])])
def test_blocks_that_are_in_other_places_of_a_ring_do_not_wait_for_each_other(depth: int, order: list[str]) -> None:
    """What is done with the block before, and the next block written where the first still is, or beside it: the
    special unit then has nothing to wait for."""
    code = TileCode(TILE)
    a, b, c = (code.buffer(Element.F32, (8, 512), name) for name in "abc")
    ring = Ring(depth)
    place = a.at(Affine.of(0, {ring.name(RING): 8 * 512}))
    code.emit("add", b, b, b)
    code.emit("mul", b, place, b)
    later = code.steps
    code.steps = []
    code.emit("gelu", place, c)
    stages = {When(4): later, When(3): code.steps}
    assert _mnemonics(code, Order(stages, code, CHIP, {a.buffer: ring}), stages) == order
