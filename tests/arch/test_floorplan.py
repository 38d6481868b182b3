"""Floorplans in another size."""

from __future__ import annotations

import pytest

from cimc.arch import load
from cimc.arch.floorplan import size_of, stretched
from cimc.errors import CimcError

PLAN = ("CCIC", "CCDC", "CCDC", "CCIC")


def test_kinds_keep_their_places() -> None:
    assert stretched(PLAN, 4, 4) == PLAN
    assert stretched(PLAN, 8, 8) == tuple("".join(c * 2 for c in row) for row in PLAN for _ in range(2))
    assert stretched(PLAN, 2, 4) == ("CCIC", "CCDC")


def test_a_kind_that_gets_lost_is_named() -> None:
    with pytest.raises(ValueError, match="letter 'D'"):
        stretched(PLAN, 1, 4)
    with pytest.raises(ValueError, match="at most 65536"):
        stretched(PLAN, 1000, 1000)


def test_sizes() -> None:
    assert size_of(" 8x16") == (8, 16)
    assert [size_of(t) for t in ("8", "0x4", "8x", "8x4x2", "-1x4", "[CC, CI]")] == [None] * 6


def test_on_the_command_line() -> None:
    hardware = load.load("isaac", ("layout=6x16",))
    assert (len(hardware.spec.layout), hardware.spec.columns) == (6, 16)
    assert load.parse(hardware.text, "again").spec == hardware.spec
    with pytest.raises(CimcError, match="a size is needed"):
        load.load("isaac", ("layout=big",))
    with pytest.raises(CimcError, match="leaves out every tile"):
        load.load("isaac", ("layout=1x1",))
