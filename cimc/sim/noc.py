"""The mesh: XY routes, multicast trees, the nearest port of global memory. No time here, only ways.

A directed link is a number: ``4 * tile + direction`` is the link that leaves a tile's router to the east (0), west (1),
south (2) or north (3)."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

from cimc.arch.spec import ChipSpec

EAST, WEST, SOUTH, NORTH = range(4)
CACHED = 1 << 14  # ways remembered: programs send over the same few again and again


def route(chip: ChipSpec, source: int, destination: int) -> tuple[int, ...]:
    """The links of the way from one tile to another: along the row first, then along the column."""
    return _route(chip.columns, source, destination)


@functools.lru_cache(maxsize=CACHED)
def _route(columns: int, source: int, destination: int) -> tuple[int, ...]:
    (y, x), (to_y, to_x) = divmod(source, columns), divmod(destination, columns)
    links: list[int] = []
    while x != to_x:
        links.append(4 * (y * columns + x) + (EAST if to_x > x else WEST))
        x += 1 if to_x > x else -1
    while y != to_y:
        links.append(4 * (y * columns + x) + (SOUTH if to_y > y else NORTH))
        y += 1 if to_y > y else -1
    return tuple(links)


@dataclass(frozen=True)
class Tree:
    """The union of the ways to several tiles. ``parents[i]`` is the position in ``links`` of the link before link i, -1
    at the source; parents stand before their children. ``leaves[d]`` is the last link to destination d, -1 if it is the
    source itself."""

    links: tuple[int, ...]
    parents: tuple[int, ...]
    leaves: tuple[int, ...]


def tree(chip: ChipSpec, source: int, destinations: Iterable[int]) -> Tree:
    """The links a multicast packet takes, each once."""
    return _tree(chip.columns, source, tuple(destinations))


@functools.lru_cache(maxsize=CACHED)
def _tree(columns: int, source: int, destinations: tuple[int, ...]) -> Tree:
    position: dict[int, int] = {}
    parents: list[int] = []
    leaves: list[int] = []
    for destination in destinations:
        last = -1
        for link in _route(columns, source, destination):
            if link not in position:
                position[link] = len(parents)
                parents.append(last)
            last = position[link]
        leaves.append(last)
    return Tree(tuple(position), tuple(parents), tuple(leaves))


def memory_ports(chip: ChipSpec) -> tuple[int, ...]:
    """The tiles at which global memory hangs."""
    letters = {kind.letter for kind in chip.tiles.values() if kind.memory_port}
    return tuple(t for t, letter in enumerate("".join(chip.layout)) if letter in letters)


def nearest(chip: ChipSpec, tile: int, ports: Iterable[int]) -> int:
    """The port with the fewest hops to a tile; the lowest number of those equally near."""
    x, y = chip.position(tile)

    def hops(port: int) -> tuple[int, int]:
        to_x, to_y = chip.position(port)
        return abs(to_x - x) + abs(to_y - y), port

    return min(ports, key=hops)


def packet_cycles(chip: ChipSpec, size: int) -> int:
    """Cycles a packet of ``size`` bytes occupies a link: ``ceil(size / link_bytes_per_cycle)``, 1 for a packet without
    bytes (a token, a request)."""
    return max(1, -(-size // chip.noc.link_bytes_per_cycle))
