"""Where the partial sums of a product are added whose rows of blocks lie on several tiles: in one of them, in a tree of
tiles, handed on from one to the next, or by the routers on the way, if they can."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.isa.operands import Element

SumsAt = Literal["auto", "network", "tree", "chain", "one"]
SUMS_AT = get_args(SumsAt)
Pair = tuple[int, int]


def rounds(count: int) -> list[list[Pair]]:
    """Which of ``count`` partial sums are added to which others in a tree: rounds of (to, from), neighbours first, so that
    at last all are in the first."""
    found: list[list[Pair]] = []
    step = 1
    while step < count:
        found.append([(i, i + step) for i in range(0, count - step, 2 * step)])
        step *= 2
    return found


def chain(count: int) -> list[Pair]:
    """Of ``count`` partial sums each added to the one before it (to, from), the last one first: at last all are in the first."""
    return [(i - 1, i) for i in range(count - 1, 0, -1)]


def most_taken(how: SumsAt, count: int) -> int:
    """How many of ``count`` partial sums, or sums of some, come to the tile that takes most of them."""
    if how == "one":
        return count - 1
    return (count - 1).bit_length() if how == "tree" else min(1, count - 1)


def where(chip: ChipSpec, tiles: Sequence[int], elements: int, wanted: SumsAt, spare: float = math.inf) -> SumsAt:
    """Where the partial sums of so many elements, one of each of different tiles, are added: what takes the fewest cycles
    until the sum is in the first of the tiles, and of equals what carries the fewest bytes · hops. ``spare``: cycles that
    each tile can receive sums for before the next ones are due; what takes longer holds up all rows, so of several such the
    one that exceeds them least is taken. ``wanted``: not to be weighed, but that only routers that add do so in the network,
    and of two tiles one adds."""
    if len(tiles) < 3 or wanted == "one":
        return "one"
    if wanted in ("tree", "chain") or (wanted == "network" and chip.noc.reduce):
        return wanted
    costs: list[tuple[tuple[int, int], SumsAt]] = [
        (_one(chip, tiles, elements), "one"),
        (_tree(chip, tiles, elements), "tree"),
        (_chain(chip, tiles, elements), "chain"),
    ]
    if chip.noc.reduce:
        costs.append((_network(chip, tiles, elements), "network"))
    packet = _packet(chip, elements)
    return min(costs, key=lambda found: (max(0.0, most_taken(found[1], len(tiles)) * packet - spare), found[0]))[1]


def _packet(chip: ChipSpec, elements: int) -> int:
    """Cycles that the elements of a sum take on a link."""
    return noc.packet_cycles(chip, elements * Element.Q32.bytes)


def _add(chip: ChipSpec, tile: int, elements: int) -> int:
    """Cycles in which a tile adds one partial sum to another."""
    unit = chip.tile(tile).vector
    return unit.startup_cycles + -(-elements // unit.lanes) if unit else 0


def _one(chip: ChipSpec, tiles: Sequence[int], elements: int) -> tuple[int, int]:
    """Cycles and links if the first takes all, one after the other, and adds each as the next one comes in."""
    first, *others = tiles
    hops = [noc.hops(chip, t, first) for t in others]
    packet, add = _packet(chip, elements), _add(chip, first, elements)
    way = min(hops) * chip.noc.router_cycles
    return way + packet + (len(others) - 1) * max(packet, add) + add, sum(hops)


def _tree(chip: ChipSpec, tiles: Sequence[int], elements: int) -> tuple[int, int]:
    """The same if tiles add in pairs, round by round."""
    cycles = links = 0
    for pairs in rounds(len(tiles)):
        hops = [noc.hops(chip, tiles[b], tiles[a]) for a, b in pairs]
        add = max(_add(chip, tiles[a], elements) for a, _ in pairs)
        cycles += max(hops) * chip.noc.router_cycles + _packet(chip, elements) + add
        links += sum(hops)
    return cycles, links


def _chain(chip: ChipSpec, tiles: Sequence[int], elements: int) -> tuple[int, int]:
    """The same if each tile takes one sum, adds its own and hands it on."""
    cycles = links = 0
    for to, of in chain(len(tiles)):
        hops = noc.hops(chip, tiles[of], tiles[to])
        cycles += hops * chip.noc.router_cycles + _packet(chip, elements) + _add(chip, tiles[to], elements)
        links += hops
    return cycles, links


def _network(chip: ChipSpec, tiles: Sequence[int], elements: int) -> tuple[int, int]:
    """The same if routers add those of all others, and the first its own: the longest way, the adders on it, and one packet
    at the pace of the slower of links and adders. Its own part would have to leave by the port that is needed for results."""
    adders, first = chip.noc.reduce, tiles[0]
    assert adders is not None
    meeting = noc.meeting(chip, tiles[1:], first)
    longest = max(_way(chip, meeting, start, adders.cycles) for start in meeting.starts)
    packet = max(_packet(chip, elements), -(-elements // adders.lanes))
    return longest + packet + _add(chip, first, elements), len(meeting.links) - 1


def _way(chip: ChipSpec, meeting: noc.Meeting, router: int, adder: int) -> int:
    """Cycles of a header from a router to the destination."""
    cycles = 0
    while router >= 0:
        cycles += adder if meeting.inputs[router] > 1 else 0
        cycles += chip.noc.router_cycles if meeting.nexts[router] >= 0 else 0
        router = meeting.nexts[router]
    return cycles
