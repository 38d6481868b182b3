"""What an engine refuses to run, each told by its own code with what, where and what would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from cimc import errors
from cimc.isa.operands import Element
from cimc.isa.program import GlobalBuffer, Param, Program
from cimc.sim.flat import MAX_MESSAGES
from cimc.sim.timing import run_timing
from cimc.sim.values import run_values
from tests.sim.chips import buffers, chip, do, program, repeat, tile, view

F32 = Element.F32
CHIP = chip()


def copying(elements: int, *, key: str = "", state: bool = False, params: tuple[Param, ...] = ()) -> Program:
    """Eight elements of a global array, loaded by tile 0."""
    steps = (do("load", view("v", 8), view("g", 8)),)
    held = GlobalBuffer("g", F32, (elements,), key=key, state=state)
    return program(tile(0, *steps, buffers=buffers(("v", F32, (8,)))), globals=[held], params=params)


def refused(p: Program, weights: Mapping[str, np.ndarray] | None = None, **how: object) -> errors.CimcError:
    with pytest.raises(errors.CimcError) as caught:
        run_values(p, weights or {}, {}, CHIP, **how)  # pyright: ignore[reportArgumentType]
    return caught.value


def test_more_global_memory_than_the_chip_has() -> None:
    told = refused(copying(CHIP.memory.capacity_bytes // 4 + 1))
    assert told.diagnostic is errors.MEMORY_EXCEEDED
    assert (
        f"global memory takes {CHIP.memory.capacity_bytes + 4} bytes, {CHIP.memory.capacity_bytes} are" in told.message
    )


def test_a_buffer_beyond_the_local_memory() -> None:
    p = copying(8)
    (t,) = p.tiles
    far = replace(t.buffers[0], address=CHIP.tile(0).local_bytes - 28)
    told = refused(replace(p, tiles=(replace(t, buffers=(far,)),)))
    assert told.diagnostic is errors.MEMORY_EXCEEDED
    assert "buffer 'v' of tile 0 takes 65540 bytes, 65536 are there" in told.message


@pytest.mark.parametrize("kept", [np.zeros(8, np.float64), np.zeros(7, np.float32), np.zeros(16, np.float32)[::2]])
def test_state_of_another_program(kept: np.ndarray) -> None:
    told = refused(copying(8, state=True), state={"g": kept})
    assert told.diagnostic is errors.STATE_MISMATCH
    assert "state 'g' is float" in told.message


@pytest.mark.parametrize(
    ("given", "row", "words"),
    [
        ({}, errors.PARAM_MISSING, "'pos' has no value"),
        ({"pos": 8}, errors.PARAM_RANGE, "'pos' = 8 is outside 2..7"),
        ({"pos": 1}, errors.PARAM_RANGE, "'pos' = 1 is outside 2..7"),
        ({"pos": 2, "post": 3}, errors.PARAM_UNKNOWN, "no runtime parameter 'post'"),
    ],
)
def test_parameters(given: dict[str, int], row: errors.Diagnostic, words: str) -> None:
    p = copying(8, params=(Param("pos", 2, 7),))
    told = refused(p, param_values=given)
    assert told.diagnostic is row
    assert words in told.message
    with pytest.raises(errors.CimcError) as caught:  # the clock asks for them too
        run_timing(p, CHIP, param_values=given)
    assert caught.value.render() == told.render()


def test_weights_that_are_missing_or_of_another_shape() -> None:
    p = copying(8, key="k")
    assert refused(p).diagnostic is errors.WEIGHT_MISSING
    told = refused(p, {"k": np.zeros(9, np.float32)})
    assert told.diagnostic is errors.WEIGHT_MISMATCH
    assert "'k' are float32 9, global buffer 'g' needs float32 8" in told.message


@pytest.mark.parametrize(
    ("node", "row"),
    [
        (None, errors.WEIGHT_MISSING),
        (np.zeros(4, np.int8), errors.WEIGHT_MISMATCH),
        (np.frombuffer(b"no protobuf", np.uint8), errors.HOST_CALL),
    ],
    ids=["missing", "no bytes", "no model"],
)
def test_host_calls(node: np.ndarray | None, row: errors.Diagnostic) -> None:
    t = tile(0, do("host", view("g", 8), view("g", 8), call="h", outputs=1))
    p = program(t, globals=[GlobalBuffer("g", F32, (8,))])
    told = refused(p, {} if node is None else {"h": node})
    assert told.diagnostic is row
    assert "'h'" in told.message


def test_more_messages_than_the_clock_has_room_for() -> None:
    """Tokens have no bytes, so a channel holds all that are sent."""
    turns = MAX_MESSAGES + 1
    sender = tile(0, repeat("i", turns, do("signal", to=(1,), tag=0)))
    receiver = tile(1, repeat("i", turns, do("wait", source=0, tag=0)))
    with pytest.raises(errors.CimcError) as caught:
        run_timing(program(sender, receiver), CHIP)
    assert caught.value.diagnostic is errors.TIMING_TOO_LARGE
    assert f"needs {turns} entries in the timing engine, {MAX_MESSAGES} are allowed" in caught.value.message
