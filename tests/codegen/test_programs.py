"""Whole small programs on the toy machine, short enough to check by hand: ``codegen/golden/*.cim``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from cimc.arch.load import load
from cimc.codegen.lower import lower
from cimc.codegen.spread import MIN_ELEMENTS, split
from cimc.errors import CimcError, Exit
from cimc.ir.graph import Graph
from cimc.isa.printer import print_program
from cimc.isa.verify import verify
from cimc.mapping.build import build
from tests.golden import Golden
from tests.mapping.test_segment import static
from tests.passes.graph_builder import Build

TOY = load("toy").spec


def chain() -> Graph:
    """Rows in, a constant row added, softmax, rows out."""
    b = Build("partitioned")
    return b.graph(b("softmax", b("add", b.input("x", "f32[4x6]"), b.const(np.zeros(6, np.float32), "bias"))))


def linear() -> Graph:
    """A weight matrix of one block: quantise, multiply, scale."""
    b = Build("partitioned")
    return b.graph(static(b, b.input("x", "f32[4x8]"), 8, "w"))


def long_column() -> Graph:
    """Three row blocks on two tiles: the partial sum of the second tile is sent to the first and added."""
    b = Build("partitioned")
    return b.graph(static(b, b.input("x", "f32[2x24]"), 8, "w"))


def attention() -> Graph:
    """Two heads; k arrives transposed."""
    b = Build("partitioned")
    q, k, v = (b.input(n, "f32[2x3x4]") for n in "qkv")
    return b.graph(b("attention", q, b("transpose", k, perm=(0, 2, 1)), v, scale=0.5))


def regions() -> Graph:
    """Rows one below the other, and a border of zeros."""
    b = Build("partitioned")
    both = b("concat", b.input("x", "f32[2x3]"), b.input("y", "f32[1x3]"), axis=0)
    return b.graph(b("pad", both, before=(1, 0), after=(0, 2), value=0.0))


GRAPHS: dict[str, Callable[[], Graph]] = {f.__name__: f for f in (chain, linear, long_column, attention, regions)}


@pytest.mark.parametrize("name", GRAPHS)
def test_programs(name: str, golden: Golden) -> None:
    graph, mapping = build(GRAPHS[name](), TOY, "w8a8")
    program = lower(graph, mapping, TOY, (GRAPHS[name].__doc__ or "",))
    verify(program, TOY, None)
    golden.check(f"codegen/golden/{name}.cim", print_program(program))


def test_a_row_that_no_buffer_holds_is_refused_with_the_numbers() -> None:
    b = Build("partitioned")
    graph, mapping = build(b.graph(b("neg", b.input("x", "f32[1x4096]"))), TOY, "w8a8")
    with pytest.raises(CimcError, match=r"need 32768 bytes, the local buffer has 16384") as caught:
        lower(graph, mapping, TOY)
    assert caught.value.exit == Exit.DOES_NOT_FIT


@pytest.mark.parametrize("domain", [(7,), (2, 5), (1, 64), (3, 4, 5)])
@pytest.mark.parametrize("tiles", [1, 2, 5, 64])
def test_shares_are_all_of_the_domain_once(domain: tuple[int, ...], tiles: int) -> None:
    shares = split(domain, tiles, MIN_ELEMENTS * tiles)
    assert len(shares) <= tiles
    seen = np.zeros(domain, int)
    for share in shares:
        seen[tuple(slice(r.low, r.low + r.count) for r in share)] += 1
    assert (seen == 1).all()


def test_little_work_is_not_spread() -> None:
    assert len(split((64,), 16, MIN_ELEMENTS)) == 1
    assert len(split((64,), 16, 4 * MIN_ELEMENTS)) == 4
