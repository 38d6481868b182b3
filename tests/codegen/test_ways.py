"""Costs of ways in the mesh, many at once, against each way taken link by link."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.arch.noc import way
from cimc.codegen.ways import AWAY, IN, OUT, SIDES, Spots, Ways

ROWS, COLUMNS = 5, 6
SIZE = ROWS * COLUMNS
TILES = (1, 4, 7, 10, 13, 25, 28)


def _sides(source: int, target: int, *, ends: bool = True) -> set[int]:
    """The sides that a message takes, by side and then tile."""
    if source == target and ends:
        return set()
    links = {link % 4 * SIZE + link // 4 for link in way((COLUMNS, COLUMNS, 0), source, target)}
    return links | ({OUT * SIZE + source, IN * SIZE + target} if ends else set())


def _cost(now: np.ndarray, part: float, sides: set[int]) -> float:
    return sum((now[s] + part) ** 6 - now[s] ** 6 + AWAY * part for s in sides)


@pytest.fixture(name="now")
def _now() -> np.ndarray:
    return np.random.default_rng(3).random(SIDES * SIZE)


def test_messages_that_arrive(now: np.ndarray) -> None:
    sources, others, parts = [0, 13, 29], [2, 25, 28], [0.3, 0.1, 0.7]
    had = np.zeros((3, SIDES * SIZE), np.bool_)
    for k, (source, other) in enumerate(zip(sources, others, strict=True)):
        had[k, list(_sides(source, other))] = True
    found = Ways(now, Spots(TILES, SIZE, COLUMNS)).arriving(np.array(parts), np.array(sources), had)
    due = [
        [_cost(now, part, _sides(source, tile) - _sides(source, other)) for tile in TILES]
        for source, other, part in zip(sources, others, parts, strict=True)
    ]
    np.testing.assert_allclose(found, due, rtol=1e-9, atol=1e-12)


def test_a_message_that_leaves_for_several_costs_its_dearest_way(now: np.ndarray) -> None:
    targets = [3, 13, 24]
    found = Ways(now, Spots(TILES, SIZE, COLUMNS)).leaving(np.float64(0.4), np.array(targets))
    due = [max(_cost(now, 0.4, _sides(tile, target)) for target in targets) for tile in TILES]
    np.testing.assert_allclose(found, due, rtol=1e-9, atol=1e-12)


def test_what_is_fetched_takes_links_from_the_port_of_each_tile(now: np.ndarray) -> None:
    ports = np.array([0 if tile % COLUMNS < 3 else 5 for tile in TILES])
    found = Ways(now, Spots(TILES, SIZE, COLUMNS)).fetched(np.float64(0.2), ports)
    due = [_cost(now, 0.2, _sides(int(p), tile, ends=False)) for tile, p in zip(TILES, ports, strict=True)]
    np.testing.assert_allclose(found, due, rtol=1e-9, atol=1e-12)
