"""Rows that a `program` writes, and matrices that take turns on a core: what is allowed, and what waits for what."""

from __future__ import annotations

import pytest

from cimc.errors import CimcError
from cimc.isa.cells import contended, covered, spans, strips, written_first
from cimc.isa.instruction import Step
from cimc.isa.operands import Element
from cimc.isa.program import Program
from cimc.isa.reloads import reloading, without_reloads
from cimc.isa.verify import verify
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from tests.sim.chips import buffers, chip, do, matrix, program, repeat, tile, view

LOCAL = buffers(("x", Element.Q8, (2, 8)), ("acc", Element.I32, (2, 8)), ("codes", Element.Q8, (8, 8)))
CODES = view("codes", 8, 8)


def mvm(name: str, accumulate: int = 0) -> Step:
    return do("mvm", view("acc", 2, 8), name, view("x", 2, 8), accumulate=accumulate)


def write(name: str, **words: object) -> Step:
    return do("program", name, CODES, **words)


def made(*steps: Step, keys: tuple[str, str] = ("", ""), cores: tuple[int, int] = (0, 0)) -> Program:
    """Matrices A and B on these cores."""
    both = (matrix("A", 8, 8, keys[0], cores[0]), matrix("B", 8, 8, keys[1], cores[1]))
    return program(tile(0, *steps, buffers=LOCAL, matrices=both))


def test_strips_by_hand() -> None:
    assert list(strips(8, 0, 0, 0)) == [(0, 8)]
    assert list(strips(5, 1, 2, 4)) == [(1, 2), (5, 2), (9, 1)]


def test_what_is_covered_of_each_block() -> None:
    two = matrix("A", 16, 8, "", 0)
    rows = covered(two, 5, 1, 2, 8)  # rows 1, 2, 9, 10, 17
    assert sum(n for n, _ in rows) == 4
    assert all(columns == 8 for _, columns in rows)


def test_neighbouring_cores_are_one_range() -> None:
    assert list(spans([3, 0, 1, 7, 2])) == [(0, 4), (7, 8)]


LAWFUL = {
    "one after the other": (write("A"), mvm("A"), write("B"), mvm("B")),
    "and again": (write("A"), mvm("A"), write("A"), mvm("A"), write("B"), mvm("B")),
    "in a body each": (repeat("i", 2, write("A"), mvm("A")), repeat("j", 2, write("B"), mvm("B"))),
    "in one body": (repeat("i", 2, write("A"), mvm("A"), write("B"), mvm("B")),),
}
UNLAWFUL = {
    "used before it is written": (mvm("A"), write("B"), mvm("B")),
    "written while the other is still to be used": (write("A"), write("B"), mvm("A"), mvm("B")),
    "used again": (write("A"), mvm("A"), write("B"), mvm("B"), mvm("A")),
    "kept through a body": (write("A"), repeat("i", 2, mvm("A"), write("B"), mvm("B"))),
    "never used": (write("A"), mvm("A")),
}


@pytest.mark.parametrize("name", LAWFUL)
def test_lawful(name: str) -> None:
    verify(made(*LAWFUL[name]), chip())


@pytest.mark.parametrize("name", UNLAWFUL)
def test_unlawful(name: str) -> None:
    verify(made(*UNLAWFUL[name], cores=(0, 1)), chip())  # each with a core of its own
    with pytest.raises(CimcError, match="core 0 holds 'A' in steps") as caught:
        verify(made(*UNLAWFUL[name]), chip())
    assert "'program'" in caught.value.hint


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ({"row": 1}, "reach row 8 of A, which has 8"),
        ({"row": -1}, "none is negative"),
        ({"run": 4, "step": 2}, "a step is at least a run"),
        ({"run": 4, "step": 5}, "reach row 8 of A, which has 8"),
    ],
)
def test_rows_that_are_not_there(words: dict[str, int], what: str) -> None:
    with pytest.raises(CimcError, match=what):
        verify(made(write("A", **words), cores=(0, 1)), chip())


def test_writing_waits_for_the_last_product_with_the_cells_and_products_for_the_writing() -> None:
    """8 rows · 5 ns a row; a product of 2 rows: 8 input bits in an interval of 8 · 8 cycles, 10 more to drain."""
    apart = run_timing(made(*LAWFUL["one after the other"], cores=(0, 1)), chip()).cycles
    shared = made(*LAWFUL["one after the other"])
    found = run_timing(shared, chip(), trace=True)
    starts = {(e.mnemonic, e.unit): (e.start, e.end) for e in found.events}
    assert starts["mvm", "core:A"][0] == starts["program", "core:A"][1]
    assert starts["program", "core:B"][0] == starts["mvm", "core:A"][1]
    assert starts["mvm", "core:B"][0] == starts["program", "core:B"][1]
    assert found.cycles > apart
    assert Reference(shared, chip()).run() == found.cycles
    assert found.bound.cycles <= found.cycles
    assert [(w.matrix, w.last - w.first) for w in found.writings] == [("A", 40), ("B", 40)]


def test_which_matrices_matter_and_which_start_empty() -> None:
    first = made(*LAWFUL["one after the other"]).tiles[0]
    assert contended(first) == {"A", "B"}
    assert written_first(first.steps) == {"A", "B"}
    second = made(mvm("A"), write("B"), mvm("B"), cores=(0, 1)).tiles[0]
    assert contended(second) == written_first(second.steps) == {"B"}


def test_a_program_without_its_reloads() -> None:
    """Only matrices with a key are reloaded; their codes' loads go with the writing, other loads stay."""
    load = do("load", CODES, view("g", 8, 8))
    steps = (load, write("A"), mvm("A"), load, write("B"), mvm("B"))
    plain = made(*steps)
    assert without_reloads(plain) == plain
    keyed = made(*steps, keys=("a", "b"))
    assert reloading(keyed.tiles[0]) == ({"A", "B"}, {"codes"})
    assert [s.mnemonic for s in without_reloads(keyed).tiles[0].steps] == ["mvm", "mvm", "halt"]  # pyright: ignore
