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
from numpy.typing import NDArray

from cimc.arch.noc import way
from cimc.codegen.stages import Job

Costs = NDArray[np.float64]

SWEEPS = 8
"""How often every piece is put anew, at most."""

AWAY = 0.02
"""What a link taken for the whole of a block costs, however free it is: of several ways to spread messages, the short one
(estimated)."""

SIDES = 6
EAST, WEST, SOUTH, NORTH, OUT, IN = range(SIDES)
"""Of a tile: its links to its neighbours as :mod:`cimc.arch.noc` numbers them, its port and its receive side."""

FULL, BURST = 0.95, 1000.0
"""A buffer is to be filled to this part at most, and what it costs to go over it: more than any way (estimated)."""

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


def _power(of: Costs) -> Costs:
    """The sixth: high, so that the fullest tile or link decides (estimated)."""
    square = of * of
    return square * square * square


class _Ways:
    """Costs of the ways between a tile and all others, given what each link costs."""

    def __init__(self, costs: Costs, rows: int, columns: int) -> None:
        mesh = costs.reshape(rows, columns, SIDES)
        self.west, self.east = (np.zeros((rows, columns + 1)) for _ in range(2))
        self.north, self.south = (np.zeros((rows + 1, columns)) for _ in range(2))
        np.cumsum(mesh[:, :, WEST], axis=1, out=self.west[:, 1:])
        np.cumsum(mesh[:, :, EAST], axis=1, out=self.east[:, 1:])
        np.cumsum(mesh[:, :, NORTH], axis=0, out=self.north[1:])
        np.cumsum(mesh[:, :, SOUTH], axis=0, out=self.south[1:])
        self.out, self.into = mesh[:, :, OUT], mesh[:, :, IN]
        self.x, self.y = np.arange(columns), np.arange(rows)

    def loaded(self, y: int, x: int) -> Costs:
        """Of links alone, from one tile."""
        east, west = self.east[y], self.west[y]
        along = np.where(self.x > x, east[:-1] - east[x], west[x + 1] - west[1:])
        down = np.where((self.y > y)[:, None], self.south[:-1] - self.south[y], self.north[y + 1] - self.north[1:])
        return along[None, :] + down

    def to_all(self, y: int, x: int) -> Costs:
        """Of messages from one tile."""
        found = self.loaded(y, x) + self.out[y, x] + self.into
        found[y, x] = 0.0
        return found

    def from_all(self, y: int, x: int) -> Costs:
        """Of messages to one tile."""
        along = np.where(
            self.x < x, self.east[:, x, None] - self.east[:, :-1], self.west[:, 1:] - self.west[:, x + 1, None]
        )
        down = np.where(self.y < y, self.south[y, x] - self.south[:-1, x], self.north[1:, x] - self.north[y + 1, x])
        found = along + down[:, None] + self.out + self.into[y, x]
        found[y, x] = 0.0
        return found


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
        self.links = np.zeros(self.rows * columns * SIDES)
        width = max((len(want.parts) for want in wants.values()), default=1)
        self.tiles = np.zeros((self.rows * columns, width))
        self.able = {want.tiles: np.array(want.tiles) for want in wants.values()}

    def _tile(self, end: End) -> int | None:
        return -1 - end[2] if end[2] < 0 else self.at.get(end)

    def _links(self, message: Message) -> list[int]:
        """Links that a message takes, as far as its ends are placed."""
        tiles = [t for t in map(self._tile, message.targets) if t is not None]
        if message.source is None:
            return [x for t in tiles for x in _links(self.columns, self.ports[t], t)]
        source = self._tile(message.source)
        return [] if source is None else list({x for t in tiles for x in _sent(self.columns, source, t)})

    def costs(self, end: End) -> Costs:
        """What it would add to put a piece, of none so far, on each of the tiles that can do it."""
        total = np.zeros((self.rows, self.columns))
        for message in self.of[end]:
            total += self._way_costs(end, message)
        want = self.wants[end]
        able = self.able[want.tiles]
        has, parts = self.tiles[able], np.array(want.parts)
        full = np.maximum(0.0, has[:, -1] + parts[-1] - FULL)
        return total.reshape(-1)[able] + (_power(has + parts) - _power(has)).sum(axis=1) + BURST * full

    def _way_costs(self, end: End, message: Message) -> Costs:
        """Of a message, with the piece on each tile of the mesh."""
        part = message.cycles / self.whole
        now = self.links / self.whole
        costs = _power(now + part) - _power(now) + AWAY * part
        if message.source is None:
            ways = _Ways(costs, self.rows, self.columns)
            nearest = np.array(self.ports).reshape(self.rows, self.columns)
            found = [np.where(nearest == p, ways.loaded(*divmod(p, self.columns)), 0.0) for p in sorted({*self.ports})]
            return sum(found, np.zeros(nearest.shape))
        if end != message.source:
            source = self._tile(message.source)
            if source is None:
                return np.zeros((self.rows, self.columns))
            costs[self._links(message)] = 0.0
            return _Ways(costs, self.rows, self.columns).to_all(*divmod(source, self.columns))
        ways = _Ways(costs, self.rows, self.columns)
        found = [ways.from_all(*divmod(t, self.columns)) for t in map(self._tile, message.targets) if t is not None]
        return np.maximum.reduce(found) if found else np.zeros((self.rows, self.columns))

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
    """Put all pieces, one after the other; then each anew until none moves."""
    for end in order:
        places.put(end, places.best(end))
    for _ in range(SWEEPS):
        moved = 0
        for end in order:
            before = places.take(end)
            after = places.best(end)
            places.put(end, after)
            moved += before != after
        if not moved:
            break
    return dict(places.at)
