"""Stages of a region are put where their messages do not all take the same links: the mesh has many, and most messages pass
by the few tiles that can do attention.

Costs are sums of powers: of what a piece of a stage takes of its tile and of each link, in parts of what there is of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cimc.codegen.stages import Job

POWER = 6
"""Of the parts in the cost: high, so that the fullest tile or link decides (estimated)."""

SWEEPS = 4
"""How often every piece is put anew, at most."""

AWAY = 0.1
"""What a link taken for the whole of a block costs, however free it is: of several ways to spread messages, the short one
(estimated)."""

FULL, BURST = 0.9, 1000.0
"""A buffer is to be filled to this part at most, and what it costs to go over it: more than any way (estimated)."""

End = tuple[int, Job, int]  # which copy of the region, stage, and its piece; a piece of -1 - t is bound to tile t


@dataclass(frozen=True, slots=True)
class Message:
    """What a piece of a stage sends for a block, and who takes it: cycles on a link."""

    cycles: float
    source: End
    targets: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class Want:
    """What a piece of a stage takes of a tile, in parts of what there is, of its buffer last; and the tiles that can do it."""

    parts: tuple[float, ...]
    tiles: tuple[int, ...]


@lru_cache(maxsize=1 << 16)
def _route(columns: int, source: int, target: int) -> tuple[int, ...]:
    """Links of the way, along the row first (isa/SPEC.md, section 6): number of the tile they leave · 4 + direction."""
    (y, x), (to_y, to_x) = divmod(source, columns), divmod(target, columns)
    across, down = (1 if to_x > x else -1), (1 if to_y > y else -1)
    along = [(y * columns + at) * 4 + (across > 0) for at in range(x, to_x, across)]
    return (*along, *((at * columns + to_x) * 4 + 2 + (down > 0) for at in range(y, to_y, down)))


class Places:
    """Where pieces are, and what that costs. ``whole``: cycles of a block, which links are compared with."""

    def __init__(self, columns: int, whole: float, wants: Mapping[End, Want], messages: Iterable[Message]) -> None:
        self.columns, self.whole, self.wants = columns, max(1.0, whole), wants
        self.at: dict[End, int] = {}
        self.links: Counter[int] = Counter()  # cycles of a block, scaled to whole ones so that sums are exact
        self.tiles: dict[int, tuple[float, ...]] = {}
        self.of: dict[End, list[Message]] = defaultdict(list)
        for message in messages:
            for end in dict.fromkeys((message.source, *message.targets)):
                self.of[end].append(message)

    def _tile(self, end: End) -> int | None:
        return -1 - end[2] if end[2] < 0 else self.at.get(end)

    def _used(self, end: End) -> Counter[int]:
        """Cycles on links that the messages of a piece take, as far as their ends are placed."""
        found: Counter[int] = Counter()
        for message in self.of[end]:
            source = self._tile(message.source)
            tiles = [t for t in map(self._tile, message.targets) if t is not None]
            if source is not None:
                for link in {x for t in tiles for x in _route(self.columns, source, t)}:
                    found[link] += round(message.cycles)
        return found

    def cost(self, end: End, tile: int) -> float:
        """What it would add to put a piece there."""
        self.at[end] = tile
        total = 0.0
        for link, cycles in self._used(end).items():
            now = self.links[link]
            total += ((now + cycles) / self.whole) ** POWER - (now / self.whole) ** POWER + AWAY * cycles / self.whole
        del self.at[end]
        parts = self.wants[end].parts
        has = self.tiles.get(tile, (0.0,) * len(parts))
        for now, more in zip(has, parts, strict=True):
            total += (now + more) ** POWER - now**POWER
        return total + BURST * max(0.0, has[-1] + parts[-1] - FULL)

    def put(self, end: End, tile: int) -> None:
        """Put a piece there."""
        self.at[end] = tile
        self.links.update(self._used(end))
        parts = self.wants[end].parts
        old = self.tiles.get(tile, (0.0,) * len(parts))
        self.tiles[tile] = tuple(a + b for a, b in zip(old, parts, strict=True))

    def take(self, end: End) -> int:
        """Take a piece away; where it was."""
        self.links.subtract(self._used(end))
        tile = self.at.pop(end)
        self.tiles[tile] = tuple(a - b for a, b in zip(self.tiles[tile], self.wants[end].parts, strict=True))
        return tile

    def best(self, end: End) -> int:
        """The tile that a piece is put on for the least, none that has another piece of the same stage."""
        taken = {t for other, t in self.at.items() if other[:2] == end[:2]}
        return min((t for t in self.wants[end].tiles if t not in taken), key=lambda t: (self.cost(end, t), t))


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
