"""Tokens between tiles: where what was stored is read first, and no later."""

from __future__ import annotations

from cimc.codegen.tilecode import instruction
from cimc.codegen.tokens import Chunk, order
from cimc.isa.instruction import Instruction, Phase, Repeat, Step
from cimc.isa.operands import Affine, View, dense_strides

ROWS, WIDTH = 16, 8


def rows(name: str, first: int | Affine, count: int) -> View:
    offset = first * WIDTH if isinstance(first, Affine) else Affine(first * WIDTH)
    return View(name, offset, (count, WIDTH), dense_strides((count, WIDTH)))


def store(first: int, count: int) -> Instruction:
    return instruction("store", rows("t", first, count), rows("x", 0, count))


def reader(count: int = ROWS, phase: Phase | None = None) -> Repeat:
    """A repeat that loads a row of the array in each round."""
    load = instruction("load", rows("y", 0, 1), rows("t", Affine.of(0, {"i": 1}), 1))
    return Repeat("i", count, (Instruction(load.mnemonic, load.operands, load.keywords, phase=phase),))


def ordered(writers: dict[int, tuple[Step, ...]], read: tuple[Step, ...]) -> dict[int, tuple[Step, ...]]:
    """What each tile does where the writers' segment is the one before the reader's, which is on tile 9."""
    chunks = {tile: [Chunk(0, steps)] for tile, steps in writers.items()}
    chunks[9] = [Chunk(1, read)]
    order(chunks, {"t": {0: list(writers)}})
    return {tile: found[0].ordered() for tile, found in chunks.items()}


def waits(step: Step) -> list[tuple[object, Phase | None]]:
    assert isinstance(step, Repeat)
    found = [s for s in step.body if isinstance(s, Instruction) and s.mnemonic == "wait"]
    return [(dict(s.keywords)["source"], s.phase) for s in found]


def test_a_lane_waits_for_each_tile_in_the_round_that_reads_its_rows() -> None:
    done = ordered({1: (store(0, 6),), 2: (store(6, 10),)}, (reader(),))
    assert done[9][0] == instruction("wait", source=1)
    assert waits(done[9][1]) == [(2, Phase(0, 6, ROWS))]
    assert all(done[tile][-1] == instruction("signal", to=(9,)) for tile in (1, 2))


def test_of_what_takes_turns_only_rounds_of_its_turn_count() -> None:
    done = ordered({1: (store(0, 4),), 2: (store(4, 12),)}, (reader(phase=Phase(0, 3, 4)),))
    assert waits(done[9][0]) == [(1, Phase(0, 3, ROWS)), (2, Phase(0, 7, ROWS))]


def test_a_tile_whose_rows_nobody_reads_sends_no_token() -> None:
    done = ordered({1: (store(0, 4),), 2: (store(4, 12),)}, (reader(4),))
    assert done[2] == (store(4, 12),)
    assert done[9][0] == instruction("wait", source=1)


def test_rounds_that_are_too_many_are_waited_for_at_once() -> None:
    done = ordered({1: (store(90, 10),)}, (reader(100),))
    assert done[9] == (instruction("wait", source=1), reader(100))


def test_rows_that_are_needed_first_have_a_token_of_their_own() -> None:
    done = ordered({1: (store(0, 4), store(8, 8))}, (reader(),))
    assert done[1] == (store(0, 4), instruction("signal", to=(9,)), store(8, 8), instruction("signal", to=(9,)))
    assert done[9][0] == instruction("wait", source=1)
    assert waits(done[9][1]) == [(1, Phase(0, 8, ROWS))]
