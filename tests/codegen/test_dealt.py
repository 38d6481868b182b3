"""Values dealt out by blocks of rows: what the parts move is what the whole moves, element by element, each tile in its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cimc.codegen.dealt import Deal, deal
from cimc.codegen.parts import Access, accesses, rewritten
from cimc.codegen.tilecode import instruction
from cimc.isa.instruction import Instruction, Phase, Repeat, Step
from cimc.isa.operands import Affine, Element, View, dense_strides, static_shape
from cimc.isa.phases import straight
from cimc.isa.program import GlobalBuffer

WIDE, BLOCK = 128, 2  # elements of a row, rows of a block
ROWS = 50


def array(rows: int = ROWS) -> GlobalBuffer:
    return GlobalBuffer("t", Element.F32, (rows, WIDE))


def move(mnemonic: str, offset: Affine, rows: int = BLOCK, phase: Phase | None = None) -> Instruction:
    whole = View("t", offset, (rows, WIDE), (WIDE, 1))
    mine = View("x", Affine(), (rows, WIDE), dense_strides((rows, WIDE)))
    made = instruction(mnemonic, *((mine, whole) if mnemonic == "load" else (whole, mine)))
    return Instruction(made.mnemonic, made.operands, made.keywords, made.origin, phase=phase)


def lane(mnemonic: str, k: int, lanes: int, rows: int, first: int = 0) -> tuple[Step, ...]:
    """What a tile does that takes every ``lanes``-th block of some rows: a repeat, and what rows are left over, if its turn."""
    blocks, rest = divmod(rows, BLOCK)
    at = Affine(first * WIDE + k * BLOCK * WIDE, (("i", lanes * BLOCK * WIDE),))
    found: list[Step] = [Repeat("i", len(range(k, blocks, lanes)), (move(mnemonic, at),))]
    if rest and blocks % lanes == k:
        found.append(move(mnemonic, Affine((first + blocks * BLOCK) * WIDE), rest))
    return tuple(found)


def turns(mnemonic: str, k: int, lanes: int, blocks: int) -> tuple[Step, ...]:
    """The same written with the number of the block at hand, in one of so many turns, a round late."""
    at = Affine(0, (("i", BLOCK * WIDE),))
    return (Repeat("i", blocks, (move(mnemonic, at, phase=Phase(1, k, lanes)),)),)


def moved(steps: tuple[Step, ...]) -> Iterator[tuple[str, list[int]]]:
    """The arrays that executed instructions reach, and their elements there."""
    work: list[tuple[Step, dict[str, int]]] = [(s, {}) for s in straight(steps)]
    for step, env in work:
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            work += ((s, {**env, step.variable: n}) for n in range(step.count) for s in step.body)
            continue
        view = step.operands[step.mnemonic == "load"]
        assert isinstance(view, View)
        rows, columns = static_shape(view)
        low = view.offset.evaluate(env)
        yield (
            view.buffer,
            [low + r * view.strides[0] + c * view.strides[1] for r in range(rows) for c in range(columns)],
        )


def found(codes: dict[int, tuple[Step, ...]]) -> list[Access]:
    return [a for tile, steps in codes.items() for _, a in accesses(tile, steps) if a is not None]


@pytest.mark.parametrize("rows", [48, 49, ROWS])
def test_lanes_that_store_and_load_have_parts_of_their_own(rows: int) -> None:
    stores = {k: lane("store", k, 4, rows) for k in range(4)}
    loads = {10 + k: lane("load", k, 4, rows) for k in range(4)}
    plan = deal(array(rows), found(stores | loads))
    tail = rows - rows % BLOCK  # where a last, shorter block stands alone it is a range of its own
    assert plan == Deal(BLOCK * WIDE, 4, ((0, tail * WIDE), *([(tail * WIDE, rows * WIDE)] if rows % BLOCK else [])))
    assert plan is not None
    sizes = {b.name: b.size for b in plan.arrays(array(rows))}
    there: dict[tuple[str, int], int] = {}  # element of a part → of the whole
    for tile, steps in (stores | loads).items():
        after = rewritten(tile, steps, {"t": plan})
        for (_, whole), (name, part) in zip(moved(steps), moved(after), strict=True):
            assert name == f"t.{tile % 10 + (0 if whole[0] < tail * WIDE else 4 - tile % 10)}"
            assert max(part) < sizes[name]
            assert all(there.setdefault((name, a), b) == b for a, b in zip(part, whole, strict=True))
    assert sorted(there.values()) == list(range(rows * WIDE))


def test_turns_of_a_repeat_are_lanes() -> None:
    stores = {k: lane("store", k, 4, 48) for k in range(4)}
    loads = {10 + k: turns("load", k, 4, 24) for k in range(4)}
    plan = deal(array(48), found(stores | loads))
    assert plan is not None
    for k in range(4):
        after = [sorted(moved(rewritten(t, s, {"t": plan}))) for t, s in ((k, stores[k]), (10 + k, loads[10 + k]))]
        assert after[0] == after[1]
        assert {name for name, _ in after[0]} == {f"t.{k}"}


def test_copies_with_rows_of_their_own_are_ranges() -> None:
    low, high = ({k: lane(m, k, 2, 24, first) for k in range(2)} for m, first in (("store", 0), ("store", 25)))
    plan = deal(array(), found({**low, **{10 + k: s for k, s in high.items()}}))
    assert plan == Deal(BLOCK * WIDE, 2, ((0, 24 * WIDE), (25 * WIDE, 49 * WIDE)))
    assert plan is not None
    names = {name for k, steps in high.items() for name, _ in moved(rewritten(k, steps, {"t": plan}))}
    assert names == {"t.2", "t.3"}


def test_whoever_takes_rows_otherwise_leaves_the_array_whole() -> None:
    stores = {k: lane("store", k, 4, 48) for k in range(4)}
    every = {10: lane("load", 0, 1, 48)}  # all blocks, one after the other
    columns = View("t", Affine(0, (("i", WIDE),)), (1, 64), (WIDE, 1))
    half = {10: (Repeat("i", 48, (instruction("load", View("x", Affine(), (1, 64), (64, 1)), columns),)),)}
    odd = {10: (move("load", Affine(WIDE)),)}  # from the middle of a block
    for others in (every, half, odd):
        assert deal(array(48), found(stores | others)) is None
    assert deal(array(8), found({k: lane("store", k, 4, 8) for k in range(4)})) is None  # too small


@pytest.mark.parametrize("lanes", [(0, 1, 2, 3), (1, 2, 3)])
def test_rounds_that_do_nothing_stay_within_the_part_too(lanes: tuple[int, ...]) -> None:
    """Without the lane of the first block, the array of the others begins behind it, and the offset of a first round in
    which they do nothing lies before that: not dealt out."""
    stores = {k: turns("store", k, 4, 8) for k in lanes}
    loads = {10 + k: turns("load", k, 4, 8) for k in lanes}
    assert (deal(array(), found(stores | loads)) is not None) == (len(lanes) == 4)
