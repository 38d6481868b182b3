"""Pieces of stages put on tiles: what surely finds no room is told before anything is tried."""

from __future__ import annotations

import itertools

import pytest

from cimc.codegen.near import Places, Want
from cimc.codegen.stages import Job


def _places(kept: tuple[float, ...], tiles: int) -> Places:
    job = Job(0, 0, "rows")
    wants = {(0, job, k): Want((0.1, part), tuple(range(tiles))) for k, part in enumerate(kept)}
    return Places(tiles, 100.0, wants, [])


def _fit(kept: tuple[float, ...], tiles: int) -> bool:
    """Whether there is any way at all, all of them tried."""
    for at in itertools.product(range(tiles), repeat=len(kept)):
        if all(sum(part for part, t in zip(kept, at, strict=True) if t == tile) <= 1.0 for tile in range(tiles)):
            return True
    return False


@pytest.mark.parametrize(
    ("kept", "tiles", "hopeless"),
    [
        ((0.6, 0.6), 2, False),
        ((0.6, 0.6, 0.6), 2, True),
        ((0.4, 0.4, 0.4, 0.4), 2, False),
        ((0.4, 0.4, 0.4, 0.4, 0.35), 2, True),
        ((0.4, 0.4, 0.4, 0.4, 0.1), 2, False),
        ((1.1,), 3, True),
        ((0.5,) * 6, 3, False),
    ],
)
def test_pieces_that_fit_nowhere_are_known_before_they_are_put(
    kept: tuple[float, ...], tiles: int, hopeless: bool
) -> None:
    found = _places(kept, tiles).hopeless()
    assert (found is not None) == hopeless
    assert _fit(kept, tiles) != hopeless
    if found is not None:
        assert found[0] == 0
        assert found[1] > 1.0


@pytest.mark.parametrize("kept", list(itertools.combinations_with_replacement((0.15, 0.34, 0.45, 0.6), 4)))
def test_nothing_that_fits_is_called_hopeless(kept: tuple[float, ...]) -> None:
    if _places(kept, 2).hopeless() is not None:
        assert not _fit(kept, 2)
