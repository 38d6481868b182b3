"""Loads of links, against ways walked hop by hop."""

from __future__ import annotations

import itertools

import numpy as np

from cimc.arch import noc
from cimc.arch.load import load
from cimc.codegen.links import SERVING, Flow, Links

CHIP = load("sram-digital").spec


def carried(links: Links) -> np.ndarray:
    """By number of the link, as the simulator counts them."""
    return np.stack([links.east, links.west, links.south, links.north], axis=-1).reshape(-1)


def test_messages_take_the_ways_of_the_simulator() -> None:
    links, wanted = Links(CHIP), np.zeros(4 * CHIP.tile_count)
    for source, targets in ((0, (119,)), (119, (0,)), (50, (3, 53, 110, 56)), (60, (48, 12)), (7, (7, 8))):
        links.send(source, targets, 5)
        for link in noc.tree(CHIP, source, targets).links:
            wanted[link] += 5
    np.testing.assert_array_equal(carried(links), wanted)


def test_the_price_is_the_growth_of_the_sum_of_squares() -> None:
    links = Links(CHIP)
    for source, target in ((0, 119), (50, 3), (60, 48), (100, 5), (31, 88)):
        links.send(source, (target,), 3 + source % 7)
    links.take(Flow(40, 0, 11.0, True), 90)

    def squares(of: Links) -> float:
        return float((carried(of) ** 2).sum() + SERVING * (of.queue**2).sum())

    for tile, writes in itertools.product((0, 47, 64), (False, True)):
        flow = Flow(tile, 0, 7.0, writes)
        price = links.price(flow).reshape(-1)
        for home in (0, 5, 40, 64, 90, 119):
            after = Links(CHIP)
            for name in ("east", "west", "south", "north", "queue"):
                setattr(after, name, getattr(links, name).copy())
            after.take(flow, home)
            assert price[home] == squares(after) - squares(links)
