"""Values cut by columns: what the pieces move is what the whole moves, element by element."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pytest

from cimc.codegen.parts import Access, accesses, cut, rewritten
from cimc.codegen.tilecode import instruction
from cimc.isa.instruction import Instruction, Repeat, Step
from cimc.isa.operands import Affine, Element, View, dense_strides, static_shape
from cimc.isa.program import GlobalBuffer

ROWS, HEADS, WIDE = 64, 4, 32
T = GlobalBuffer("t", Element.F32, (ROWS, HEADS * WIDE))
Pair = tuple[bool, int, int]  # whether it writes; element of the whole array; element of the local buffer


def local(shape: tuple[int, ...]) -> View:
    return View("x", Affine(), shape, dense_strides(shape))


def view(offset: Affine, shape: tuple[int, ...], strides: tuple[int, ...]) -> View:
    return View("t", offset, shape, strides)


def move(mnemonic: str, whole: View) -> Instruction:
    mine = local(static_shape(whole))
    return instruction(mnemonic, mine, whole) if mnemonic == "load" else instruction(mnemonic, whole, mine)


STORE_SHARD = Repeat("i", ROWS // 8, (move("store", view(Affine(WIDE, (("i", 8 * 128),)), (8, 64), (128, 1))),))
LOAD_HEAD = move("load", view(Affine(2 * WIDE), (WIDE, ROWS), (1, 128)))  # transposed, as attention reads K
LOAD_HEADS = Repeat("h", 2, (move("load", view(Affine(WIDE, (("h", WIDE),)), (ROWS, WIDE), (128, 1))),))
LOAD_ROWS = Repeat("i", ROWS // 4, (move("load", view(Affine(0, (("i", 4 * 128),)), (4, 128), (128, 1))),))


def elements(v: View, env: Mapping[str, int]) -> Iterator[int]:
    for at in itertools.product(*(range(n) for n in static_shape(v))):
        yield v.offset.evaluate(env) + sum(i * s for i, s in zip(at, v.strides, strict=True))


def moved(steps: Sequence[Step], origin: Mapping[str, tuple[int, int]], env: Mapping[str, int]) -> Iterator[Pair]:
    """Every element that steps move. ``origin``: by array, the column of the whole it begins with and its width."""
    for step in steps:
        if isinstance(step, Repeat):
            assert isinstance(step.count, int)
            for k in range(step.count):
                yield from moved(step.body, origin, {**env, step.variable: k})
            continue
        writes = step.mnemonic == "store"
        whole, mine = step.operands if writes else step.operands[::-1]
        assert isinstance(whole, View)
        assert isinstance(mine, View)
        first, wide = origin[whole.buffer]
        for a, b in zip(elements(whole, env), elements(mine, env), strict=True):
            yield writes, a // wide * 128 + a % wide + first, b


@pytest.mark.parametrize(
    ("steps", "edges"),
    [
        ((STORE_SHARD, LOAD_HEAD), (0, 64, 96, 128)),
        ((STORE_SHARD, LOAD_HEADS), (0, 32, 96, 128)),  # two heads of one loop stay together
        ((STORE_SHARD, LOAD_ROWS), (0, 32, 96, 128)),  # loads of whole rows: what stores bring
        ((LOAD_ROWS,), None),  # rows of 512 bytes are not worth cutting
    ],
)
def test_pieces_move_what_the_whole_moves(steps: tuple[Step, ...], edges: tuple[int, ...] | None) -> None:
    found = [a for _, a in accesses(3, steps) if a is not None]
    plan = cut(T, found)
    if edges is None:
        assert plan is None
        return
    assert plan is not None
    assert plan.edges == edges
    parts = plan.arrays(T)
    assert sum(p.size for p in parts) == T.size
    starts = {p.name: (edge, p.shape[1]) for p, edge in zip(parts, edges, strict=False)}
    after = rewritten(3, steps, {"t": plan})
    assert sorted(moved(after, starts, {})) == sorted(moved(steps, {"t": (0, 128)}, {}))


def test_negative_strides_and_small_arrays_stay_whole() -> None:
    back = Access(0, view(Affine(T.size - 1), (ROWS, 128), (-128, -1)), (), False, True)
    assert cut(T, [back]) is None
    small = GlobalBuffer("t", Element.F32, (8, 128))
    head = Access(0, view(Affine(), (8, 32), (128, 1)), (), False, True)
    assert cut(small, [head]) is None


@pytest.mark.parametrize(("element", "cut_too"), [(Element.QF16, True), (Element.QBF16, True), (Element.Q8, False)])
def test_values_in_16_bits_are_cut_where_those_in_32_are(element: Element, cut_too: bool) -> None:
    """Half the bytes, and the same ways there and back; codes are another matter."""
    least = 4096 // HEADS // WIDE  # rows of a value that in 32 bits is just worth it
    heads = [Access(t, view(Affine(t * WIDE), (least, WIDE), (128, 1)), (), False, True) for t in range(HEADS)]
    for rows in (least, least - 1):
        wide, narrow = (cut(GlobalBuffer("t", e, (rows, HEADS * WIDE)), heads) for e in (Element.F32, element))
        assert (wide is not None) == (rows == least)
        assert narrow == (wide if cut_too else None)
