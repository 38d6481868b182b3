"""Stages of a region are put where their messages do not all take the same links: the mesh has many, and most messages pass
by the few tiles that can do attention.

Costs are sums of powers: of what a piece of a stage takes of its tile's units and of each link, in parts of what there is of
it. What a piece would cost is found for all tiles at once: the way to or from each is one part of a row and one of a column of
the mesh, whose costs are differences of running sums."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from cimc.arch.noc import way
from cimc.codegen.stages import Job
from cimc.codegen.ways import IN, OUT, SIDES, Costs, Numbers, Spots, Ways, power

NOWHERE: Numbers = np.array([], np.intp)

SWEEPS = 8
"""How often every piece is put anew, at most."""

EARLY = 2
"""How often while buffers may still be too full."""

FULL, BURSTS = 0.95, (10.0, 1e2, 1e3, 1e4, 1e6)
"""A buffer is to be filled to this part at most, and what it costs to go over it: at last more than any way (estimated). Less at
first, so that what does not fit makes room by and by beside it; else the last pieces go wherever room is left, far away."""

End = tuple[int, Job, int]  # which copy of the region, stage, and its piece; a piece of -1 - t is bound to tile t


@dataclass(frozen=True, slots=True)
class Message:
    """What a piece of a stage sends for a block, and who takes it: cycles on a link. From nobody: what its one target loads
    from global memory, by the nearest memory port."""

    cycles: float
    source: End | None
    targets: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """What a piece of a stage takes of a tile, in parts of what there is, of its buffer last; and the tiles that can do it."""

    parts: tuple[float, ...]
    tiles: tuple[int, ...]


@lru_cache(maxsize=1 << 16)
def _links(columns: int, source: int, target: int) -> tuple[int, ...]:
    """Links of the way: number of the tile they leave · SIDES + direction. Chips side by side are one mesh here."""
    return tuple(link // 4 * SIDES + link % 4 for link in way((columns, columns, 0), source, target))


def _sent(columns: int, source: int, target: int) -> tuple[int, ...]:
    """What a message takes: the port of the tile that sends it, links, the receive side of the other; nothing within a
    tile."""
    if source == target:
        return ()
    return (source * SIDES + OUT, *_links(columns, source, target), target * SIDES + IN)


class Places:
    """Where pieces are, and what that costs. ``whole``: cycles of a block, which links are compared with."""

    def __init__(
        self,
        columns: int,
        whole: float,
        wants: Mapping[End, Want],
        messages: Iterable[Message],
        ports: Sequence[int] = (),
    ) -> None:
        """``ports``: of every tile, the nearest with a memory port; needed if something is loaded."""
        self.columns, self.whole, self.wants = columns, max(1.0, whole), wants
        self.ports = ports
        self.at: dict[End, int] = {}
        self.of: dict[End, list[Message]] = defaultdict(list)
        last = max((t for want in wants.values() for t in want.tiles), default=0)
        for message in _merged(messages):
            for end in dict.fromkeys((message.source, *message.targets)):
                if end is not None:
                    self.of[end].append(message)
                    last = max(last, -1 - end[2])
        self.rows = max(last, len(ports) - 1) // columns + 1
        self.links = np.zeros(SIDES * self.rows * columns)  # by side, then tile
        self.known: dict[tuple[int, ...], Numbers] = {}  # ways by their ends
        width = max((len(want.parts) for want in wants.values()), default=1)
        self.tiles = np.zeros((self.rows * columns, width))
        self.able = {want.tiles: np.array(want.tiles) for want in wants.values()}
        self.spots = {tiles: Spots(tiles, len(self.tiles), columns) for tiles in self.able}
        self.limits = np.full(self.rows * columns, FULL)
        self.burst = BURSTS[-1]

    def _tile(self, end: End) -> int | None:
        return -1 - end[2] if end[2] < 0 else self.at.get(end)

    def _links(self, message: Message) -> Numbers:
        """Links that a message takes, as far as its ends are placed."""
        tiles = [t for t in map(self._tile, message.targets) if t is not None]
        source = -1 if message.source is None else self._tile(message.source)
        if source is None:
            return NOWHERE
        found = self.known.get((source, *tiles))
        if found is None:
            sent = (self._fetched(t) if source < 0 else _sent(self.columns, source, t) for t in tiles)
            way = np.array(list(dict.fromkeys(x for links in sent for x in links)), np.intp)
            found = self.known[source, *tiles] = way % SIDES * (len(self.links) // SIDES) + way // SIDES
        return found

    def _fetched(self, tile: int) -> tuple[int, ...]:
        return _links(self.columns, self.ports[tile], tile)

    def costs(self, end: End) -> Costs:
        """What it would add to put a piece, of none so far, on each of the tiles that can do it."""
        want = self.wants[end]
        able = self.able[want.tiles]
        total = self._way_costs(end, self.of[end]) if self.of[end] else np.zeros(len(able))
        has, parts = self.tiles[able], np.array(want.parts)
        full = np.maximum(0.0, has[:, -1] + parts[-1] - self.limits[able])
        return total + (power(has + parts) - power(has)).sum(axis=1) + self.burst * full

    def _way_costs(self, end: End, messages: Sequence[Message]) -> Costs:
        """Of all messages, with the piece on each of its tiles."""
        spots = self.spots[self.wants[end].tiles]
        ways = Ways(self.links / self.whole, spots)
        parts = np.array([m.cycles for m in messages]) / self.whole
        found = np.zeros((len(messages), len(spots.tiles)))
        come: list[tuple[int, int]] = []
        for k, message in enumerate(messages):
            if message.source is None:
                found[k] = ways.fetched(parts[k], np.array(self.ports)[spots.tiles])
            elif message.source == end:
                targets = [t for t in map(self._tile, message.targets) if t is not None]
                found[k] = ways.leaving(parts[k], np.array(targets)) if targets else 0.0
            elif (source := self._tile(message.source)) is not None:
                come.append((k, source))
        if come:
            arriving, sources = (list(of) for of in zip(*come, strict=True))
            had = np.zeros((len(come), len(self.links)), np.bool_)
            for i, k in enumerate(arriving):
                had[i, self._links(messages[k])] = True
            found[arriving] = ways.arriving(parts[arriving], np.array(sources), had)
        return np.add.reduce(found, axis=0)

    def hopeless(self) -> tuple[int, float] | None:
        """Where pieces surely do not fit, wherever they are put: of k times as many pieces as tiles and one more, k + 1 are on
        one tile. The first of the tiles and what it would have to have, in parts of its buffer; None if that shows nothing.
        For tiles of one size."""
        able = sorted({t for want in self.wants.values() for t in want.tiles})
        kept = sorted((want.parts[-1] for want in self.wants.values()), reverse=True)
        for place in range(0, len(kept), max(1, len(able))):
            together = place // len(able) + 1  # of so many large pieces, so many are on one tile at least
            if kept[place] * together > 1.0:
                return able[0], kept[place] * together
        return None

    def narrow(self, tile: int, part: float) -> None:
        """Fill the buffer of a tile with less than now, by so much: pieces are no even parts of their stages, and rings are
        whole, so only their code shows what they take."""
        self.limits[tile] = min(self.limits[tile], self.tiles[tile, -1]) - part

    def fullest(self) -> float:
        """What the fullest unit, link, port or receive side has to do for a block, in parts of ``whole``."""
        return max(self.tiles[:, :-1].max(initial=0.0), self.links.max(initial=0.0) / self.whole)

    def put(self, end: End, tile: int) -> None:
        """Put a piece there."""
        self._change(end, -1.0)
        self.at[end] = tile
        self._change(end, 1.0)
        self.tiles[tile] += self.wants[end].parts

    def take(self, end: End) -> int:
        """Take a piece away; where it was."""
        self._change(end, -1.0)
        tile = self.at.pop(end)
        self._change(end, 1.0)
        self.tiles[tile] -= self.wants[end].parts
        return tile

    def _change(self, end: End, sign: float) -> None:
        for message in self.of[end]:
            self.links[self._links(message)] += sign * message.cycles

    def best(self, end: End) -> int:
        """The tile that a piece is put on for the least, none that has another piece of the same stage."""
        taken = {t for k in range(self._pieces(end)) if (t := self.at.get((*end[:2], k))) is not None}
        costs = self.costs(end)
        tiles = self.wants[end].tiles
        for i in np.argsort(costs, kind="stable").tolist():
            if tiles[i] not in taken:
                return tiles[i]
        raise AssertionError("a stage has no more pieces than tiles")

    def _pieces(self, end: End) -> int:
        count = end[2] + 1
        while (*end[:2], count) in self.wants:
            count += 1
        return count


def _merged(messages: Iterable[Message]) -> list[Message]:
    """Those between the same ends as one."""
    found: dict[tuple[End | None, tuple[End, ...]], float] = defaultdict(float)
    for message in messages:
        found[message.source, tuple(sorted(message.targets, key=repr))] += message.cycles
    return [Message(round(cycles), source, targets) for (source, targets), cycles in found.items()]


def spread(places: Places, order: Sequence[End]) -> dict[End, int]:
    """Put all pieces, one after the other, then each anew until none moves; those that are somewhere already, only anew."""
    bursts = BURSTS[-1:] if places.at else BURSTS
    for burst in bursts:
        places.burst = burst
        for end in order:
            if end not in places.at:
                places.put(end, places.best(end))
        for _ in range(SWEEPS if burst == bursts[-1] else EARLY):
            if not _anew(places, order):
                break
    return dict(places.at)


def _anew(places: Places, order: Sequence[End]) -> int:
    """Put each piece anew; how many moved."""
    moved = 0
    for end in order:
        before = places.take(end)
        after = places.best(end)
        places.put(end, after)
        moved += before != after
    return moved
