"""How much the links of the mesh carry, while tiles are chosen: what flows where many flow waits, however near it is."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from cimc.arch.noc import way
from cimc.arch.spec import ChipSpec

CANDIDATES = 24
"""Tiles that are looked at for each choice, the nearest ones: a way past more of them is hardly the best
(12 and 48: the same for MiniLM)."""

INTO_WEIGHT = 3
"""How much dearer than a link a tile is: it takes in one message after the other, and works on it (1 and 9: the
same for MiniLM)."""


@dataclass(frozen=True)
class Hops:
    """Hops from some tiles, all of them together, to each column and to each row of the mesh, and borders between chips to
    each chip: what is far from all of them is found without looking at each."""

    across: Sequence[int]
    down: Sequence[int]
    borders: Sequence[int]


def hops(chip: ChipSpec, sources: Iterable[int]) -> Hops:
    """How far everything is from some tiles."""
    known = [(*chip.position(s), chip.chip_of(s)) for s in sources]
    rows = chip.tile_count // chip.columns
    return Hops(
        [sum([abs(x - to) for x, _, _ in known]) for to in range(chip.columns)],
        [sum([abs(y - to) for _, y, _ in known]) for to in range(rows)],
        [sum([abs(c - to) for _, _, c in known]) for to in range(chip.chips)],
    )


class Traffic:
    """Loads of links, and of tiles' receive sides, from flows that are added one by one."""

    def __init__(self, chip: ChipSpec) -> None:
        self.chip = chip
        self._mesh = (chip.columns, chip.columns, 0)
        self._load: dict[int, float] = {}

    def _way(self, source: int, target: int) -> Iterator[int]:
        """The links of a packet's way, chips side by side as one mesh; then the tile's receive side, a negative number."""
        yield from way(self._mesh, source, target)
        yield -1 - target

    def nearest(self, sources: Iterable[int], tiles: Iterable[int]) -> list[int]:
        """The tiles that are worth a look for flows from these sources, the nearest first."""
        far, columns, wide = hops(self.chip, sources), self.chip.columns, self.chip.chip_columns
        across = [(far.borders[x // wide], far.across[x]) for x in range(columns)]

        def way(tile: int) -> tuple[int, int]:
            borders, hops = across[tile % columns]
            return borders, hops + far.down[tile // columns]

        return nsmallest(CANDIDATES, tiles, key=way)

    def price(self, flows: Mapping[int, float], tile: int) -> tuple[int, float]:
        """What flows (weight by source) to a tile would cost: borders between chips, and the growth of the sum of squares of
        all loads, so that a way is the dearer the longer and the fuller it is."""
        borders, cost, load, at = 0, 0.0, self._load, self.chip.chip_of(tile)
        for source, weight in flows.items():
            borders += abs(self.chip.chip_of(source) - at)
            for link in way(self._mesh, source, tile):
                cost += (2 * load.get(link, 0.0) + weight) * weight
            cost += INTO_WEIGHT * ((2 * load.get(-1 - tile, 0.0) + weight) * weight)
        return borders, cost

    def add(self, flows: Mapping[int, float], tile: int) -> None:
        """The flows from now on go to the tile."""
        for source, weight in flows.items():
            for link in self._way(source, tile):
                self._load[link] = self._load.get(link, 0.0) + weight

    def choose(self, flows: Mapping[int, float], tiles: Sequence[int]) -> int:
        """The tile of some that the flows go to from now on, because it costs least."""
        offered = self.nearest(flows, tiles)
        found = min(offered, key=lambda t: self.price(flows, t))
        self.add(flows, found)
        return found


class FreeTiles:
    """Tiles that are taken one by one, so that links carry little; when they run out, all of ``able`` are free again."""

    def __init__(self, able: Sequence[int], traffic: Traffic) -> None:
        self.left: list[int] = []
        self._able = able
        self._traffic = traffic

    def refill(self, count: int) -> None:
        """Let all be free again if fewer than so many are."""
        if len(self.left) < count:
            self.left += [t for t in self._able if t not in self.left]

    def take(self, flows: Mapping[int, float], count: int, avoided: Container[int] = ()) -> tuple[int, ...]:
        """Tiles that share these flows; none that is ``avoided`` while there are others."""
        self.refill(count)
        found: list[int] = []
        for _ in range(count):
            offered = [t for t in self.left if t not in avoided] or self.left
            found.append(self._traffic.choose({t: n / count for t, n in flows.items()}, offered))
            self.left.remove(found[-1])
        return tuple(found)
