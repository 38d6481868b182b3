"""The mesh: XY routes, multicast trees, the nearest port of global memory. No time here, only ways.

A directed link is a number: ``4 * tile + direction`` is the link that leaves a tile's router to the east (0), west (1),
south (2) or north (3). Links between chips come after those of all tiles: ``4 * tiles + 2 * chip`` leads from a chip to the
next one in the east, the number after it back; whatever crosses there takes it, in any row of the mesh."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec

Ints = NDArray[np.int64]
EAST, WEST, SOUTH, NORTH = range(4)
CACHED = 1 << 14  # ways remembered: programs send over the same few again and again


def route(chip: ChipSpec, source: int, destination: int) -> tuple[int, ...]:
    """The links of the way from one tile to another: along the row first, then along the column."""
    return way(mesh(chip), source, destination)


def hops(chip: ChipSpec, source: int, destination: int) -> int:
    """How many links the way from one tile to another has."""
    (x, y), (to_x, to_y) = chip.position(source), chip.position(destination)
    return abs(to_x - x) + abs(to_y - y)


def first_chip_link(chip: ChipSpec) -> int:
    """The number from which on links lead from chip to chip."""
    return 4 * chip.tile_count


def link_count(chip: ChipSpec) -> int:
    """How many numbers of links there are."""
    return first_chip_link(chip) + 2 * (chip.chips - 1)


Mesh = tuple[int, int, int]  # its columns, those of one chip, the first link between chips


def mesh(chip: ChipSpec) -> Mesh:
    """What the ways of a chip depend on: for who asks for many of them."""
    return chip.columns, chip.chip_columns, first_chip_link(chip)


def crossings(of: Mesh, links: Iterable[int]) -> int:
    """How many of some links lead from chip to chip."""
    columns, width, first = of
    return sum(link >= first for link in links) if width < columns else 0


@functools.lru_cache(maxsize=CACHED)
def way(of: Mesh, source: int, destination: int) -> tuple[int, ...]:
    """As :func:`route`, in a mesh."""
    columns, width, between = of
    (y, x), (to_y, to_x) = divmod(source, columns), divmod(destination, columns)
    links: list[int] = []
    if width == columns and x != to_x:
        to_east = to_x > x
        begin, step = 4 * source + (EAST if to_east else WEST), 4 if to_east else -4
        links.extend(range(begin, begin + step * abs(to_x - x), step))
        x = to_x
    while x != to_x:
        after = x + 1 if to_x > x else x - 1
        back = after < x
        if x // width == after // width:
            links.append(4 * (y * columns + x) + (WEST if back else EAST))
        else:
            links.append(between + 2 * min(x // width, after // width) + back)
        x = after
    if y != to_y:
        to_south = to_y > y
        begin = 4 * (y * columns + x) + (SOUTH if to_south else NORTH)
        step = 4 * columns if to_south else -4 * columns
        links.extend(range(begin, begin + step * abs(to_y - y), step))
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
    return multicast(mesh(chip), source, tuple(destinations))


@functools.lru_cache(maxsize=CACHED)
def multicast(of: Mesh, source: int, destinations: tuple[int, ...]) -> Tree:
    """As :func:`tree`, in a mesh."""
    position: dict[int, int] = {}
    parents: list[int] = []
    leaves: list[int] = []
    for destination in destinations:
        last = -1
        for link in way(of, source, destination):
            if link not in position:
                position[link] = len(parents)
                parents.append(last)
            last = position[link]
        leaves.append(last)
    return Tree(tuple(position), tuple(parents), tuple(leaves))


@dataclass(frozen=True)
class Meeting:
    """The union of the ways from several tiles to one, router by router, as packets take it that are added where they meet.
    Of router n: ``links[n]`` leads on to router ``nexts[n]`` (both -1 at the destination), ``inputs[n]`` parts and sums come
    together there. ``starts[i]`` is the router of source i; ``fresh[i]`` are the links that it is the first of the sources
    to take."""

    links: tuple[int, ...]
    nexts: tuple[int, ...]
    inputs: tuple[int, ...]
    starts: tuple[int, ...]
    fresh: tuple[tuple[int, ...], ...]


def meeting(chip: ChipSpec, sources: Iterable[int], destination: int) -> Meeting:
    """Where packets from tiles to one meet. From a router every packet to the destination goes the same way, so ways that
    have met do not part: their union is a tree."""
    return meeting_in(mesh(chip), tuple(sources), destination)


@functools.lru_cache(maxsize=CACHED)
def meeting_in(of: Mesh, sources: tuple[int, ...], destination: int) -> Meeting:
    """As :func:`meeting`, in a mesh."""
    number = {destination: 0}  # tile → router
    links, nexts, inputs = [-1], [-1], [0]
    fresh: list[tuple[int, ...]] = []
    for source in sources:
        tile, mine = source, list[int]()
        for link in way(of, source, destination):
            if tile in number:
                break
            number[tile] = len(links)
            links.append(link)
            mine.append(link)
            tile = _towards(of, tile, destination)
        fresh.append(tuple(mine))
        inputs += [0] * len(mine)
        passed = [*range(len(links) - len(mine), len(links)), number[tile]]
        for _, after in pairwise(passed):
            nexts.append(after)
            inputs[after] += 1
    starts = tuple(number[source] for source in sources)
    for start in starts:
        inputs[start] += 1
    return Meeting(tuple(links), tuple(nexts), tuple(inputs), starts, tuple(fresh))


def _towards(of: Mesh, tile: int, destination: int) -> int:
    """The tile whose router is next on the way."""
    columns = of[0]
    aside = destination % columns - tile % columns
    if aside:
        return tile + (1 if aside > 0 else -1)
    return tile + (columns if destination > tile else -columns)


def memory_ports(chip: ChipSpec) -> tuple[int, ...]:
    """The tiles at which global memory hangs."""
    letters = {kind.letter for kind in chip.tiles.values() if kind.memory_port}
    return tuple(t for t, letter in enumerate("".join(row * chip.chips for row in chip.layout)) if letter in letters)


def nearest(chip: ChipSpec, tile: int, ports: Iterable[int]) -> int:
    """The port with the fewest hops to a tile, of those on its chip if there are any; the lowest number of those equally
    near."""
    return min(ports, key=lambda port: (chip.chip_of(port) != chip.chip_of(tile), hops(chip, tile, port), port))


def nearest_of(chip: ChipSpec, tiles: Ints, ports: Ints) -> Ints:
    """As :func:`nearest`, of many tiles."""
    (y, x), (to_y, to_x) = np.divmod(tiles[:, None], chip.columns), np.divmod(ports[None], chip.columns)
    elsewhere = x // chip.chip_columns != to_x // chip.chip_columns
    hops = np.abs(to_x - x) + np.abs(to_y - y) + elsewhere * chip.tile_count * 2
    return ports[np.argmin(hops, axis=1)]  # the first of those equally near; ports ascend


def ways(of: Mesh, sources: Ints, destinations: Ints) -> tuple[Ints, Ints]:
    """The links of many ways, one after the other, and how many each has. See :func:`way`."""
    columns, width, _ = of
    if width < columns:
        found = [way(of, a, b) for a, b in zip(sources.tolist(), destinations.tolist(), strict=True)]
        lengths = np.array([len(links) for links in found], np.int64)
        return np.array([link for links in found for link in links], np.int64), lengths
    (y, x), (to_y, to_x) = np.divmod(sources, columns), np.divmod(destinations, columns)
    along, across = np.abs(to_x - x), np.abs(to_y - y)
    lengths = along + across
    owner = np.repeat(np.arange(len(sources)), lengths)
    place = np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]  # along its way
    east, south = np.where(to_x > x, 1, -1), np.where(to_y > y, 1, -1)
    row_links = 4 * sources[owner] + 4 * east[owner] * place + np.where(east > 0, EAST, WEST)[owner]
    corner = y * columns + to_x
    down = place - along[owner]
    column_links = 4 * corner[owner] + 4 * columns * south[owner] * down + np.where(south > 0, SOUTH, NORTH)[owner]
    return np.where(down < 0, row_links, column_links), lengths


def packet_cycles(chip: ChipSpec, size: int) -> int:
    """Cycles a packet of ``size`` bytes occupies a link: ``ceil(size / link_bytes_per_cycle)``, 1 for a packet without
    bytes (a token, a request)."""
    return max(1, -(-size // chip.noc.link_bytes_per_cycle))


def crossing_cycles(chip: ChipSpec, size: int) -> int:
    """Cycles it occupies a link between chips: ``ceil(size / link.bytes_per_cycle)``, at least 1; 0 without such links."""
    return max(1, ceil(size / chip.link.bytes_per_cycle)) if chip.link and chip.chips > 1 else 0
