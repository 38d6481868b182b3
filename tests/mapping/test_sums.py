"""Where partial sums are added: rounds of a tree, and what the estimate takes."""

from __future__ import annotations

import pytest

from cimc.arch.load import load
from cimc.mapping.sums import chain, rounds, where

ROW = tuple(range(12, 19))  # tiles of a row of sram-digital's mesh


@pytest.mark.parametrize("count", range(1, 20))
def test_rounds_bring_every_part_into_the_first_once(count: int) -> None:
    parts = [{i} for i in range(count)]
    found = rounds(count)
    for pairs in found:
        assert len({i for pair in pairs for i in pair}) == 2 * len(pairs)  # no tile does two things in a round
        for to, of in pairs:
            assert not parts[to] & parts[of]
            parts[to] |= parts[of]
    assert parts[0] == set(range(count))
    assert len(found) == (count - 1).bit_length()


def test_only_routers_that_add_do() -> None:
    bare, able = load("sram-digital").spec, load("sram-digital", ("noc.reduce={lanes: 8, cycles: 1}",)).spec
    assert where(bare, ROW, 256, "network") == "tree"
    assert where(able, ROW, 256, "network") == "network"
    for chip in (bare, able):
        assert where(chip, ROW, 256, "one") == "one"
        assert where(chip, ROW, 256, "tree") == "tree"
        assert where(chip, ROW[:2], 256, "tree") == where(chip, ROW[:2], 256, "network") == "one"  # a pair has one way


def test_the_estimate_takes_what_takes_least() -> None:
    bare, able = load("sram-digital").spec, load("sram-digital", ("noc.reduce={lanes: 8, cycles: 1}",)).spec
    slow = load("sram-digital", ("noc.reduce={lanes: 1, cycles: 64}",)).spec
    assert where(able, ROW, 256, "auto") == "network"
    # 7 parts of 256 sums: 6 of 32 cycles one after the other, or 3 rounds
    assert where(bare, ROW, 256, "auto") == "tree"
    assert where(slow, ROW, 256, "auto") == "tree"  # adders that take 256 cycles, and 64 more at each of 5 routers
    # parts of a few sums are all there before a second round would begin
    assert where(bare, (12, 13, 24), 8, "auto") == "one"


@pytest.mark.parametrize("count", range(1, 9))
def test_a_chain_brings_every_part_into_the_first_and_no_tile_takes_two(count: int) -> None:
    parts = [{i} for i in range(count)]
    for to, of in chain(count):
        parts[to] |= parts[of]
    assert parts[0] == set(range(count))
    assert len({to for to, _ in chain(count)}) == len(chain(count)) == count - 1


def test_sums_are_handed_on_where_a_tile_has_no_time_to_take_more() -> None:
    bare = load("sram-digital").spec
    # 6 packets of 32 cycles come to one tile, 3 to a tree's first, 1 to each of a chain
    assert where(bare, ROW, 256, "auto", 200) == "tree"
    assert where(bare, ROW, 256, "auto", 96) == "tree"
    assert where(bare, ROW, 256, "auto", 95) == "chain"
    assert where(bare, ROW, 256, "auto", 0) == "chain"
    assert where(bare, ROW[:2], 256, "chain") == "one"
