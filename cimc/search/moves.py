"""Changes of a placement: a search tries them, one at a time.

*Shapes* are tried one after another: blocks of rows, copies of weights, values in global memory, of all segments that are
alike at once (the layers of a model). *Positions* are drawn: two tiles of a kind change places, a value moves to another
tile, a segment's vector work to another; the one of several that the model of traffic likes best is tried.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Graph
from cimc.mapping.allocate import ALIGN
from cimc.mapping.pinned import lacking
from cimc.mapping.placement import PlacedMatrix, Placement, Segment, Style
from cimc.mapping.written import unfit
from cimc.search import copies as numbers
from cimc.search.traffic import Traffic

T = TypeVar("T")
DRAWN = 48
"""Changes of position that the model of traffic compares for one trial (estimated)."""
SELDOM = 8
"""One in so many values that are to move is moved to global memory (estimated)."""


@dataclass(frozen=True)
class Change:
    """A placement to try. ``key``: what is changed into what, the same for the same change of the same placement."""

    kind: str
    key: tuple[object, ...]
    placement: Placement

    @property
    def told(self) -> str:
        """The change in words, as ``mapping.json`` tells those that were accepted."""
        return " ".join("-".join(map(str, part)) if isinstance(part, tuple) else str(part) for part in self.key)


class Scene:
    """What does not change: the graph, its segments, the chip."""

    def __init__(self, graph: Graph, segments: Sequence[Segment], chip: ChipSpec, placement: Placement) -> None:
        self.graph = graph
        self.chip = chip
        self.segments = {s.index: s for s in segments}
        tiles = range(chip.tile_count)
        self.able = {
            s.index: [t for t in tiles if not lacking(s, placement, chip, t)]
            for s in segments
            if s.style is not Style.HOST
        }
        self.kinds: dict[str, list[int]] = {}
        for tile in tiles:
            self.kinds.setdefault(chip.kind(tile), []).append(tile)
        self.alike: dict[tuple[object, ...], list[int]] = {}
        for s in segments:
            shape = (s.style, s.domain, tuple(n.op for n in s.nodes))
            self.alike.setdefault(shape, []).append(s.index)
        makers = {o: (s, i) for s in segments for i, n in enumerate(s.nodes) for o in n.outputs if o}
        self.role = {v: (s.style, s.domain, tuple(n.op for n in s.nodes), i) for v, (s, i) in makers.items()}


# --- shapes ------------------------------------------------------------------------------------
def shapes(scene: Scene, now: Placement) -> Iterator[Change]:
    """Every change of shape that there is: copies, blocks of rows, values to global memory; of most segments at once first."""
    groups = sorted(scene.alike.values(), key=lambda g: (-len(g), g))
    for change in (_copies, _rows):
        for group in groups:
            yield from change(scene, now, group)
    yield from _away(scene, now)


def _rows(scene: Scene, now: Placement, group: Sequence[int]) -> Iterator[Change]:
    first = scene.segments[group[0]]
    if first.style not in (Style.STREAM, Style.SPREAD):
        return
    rows = now.rows[first.index]
    most = max(1, first.rows // len(now.homes.get(first.index, (0,))))
    for count in dict.fromkeys((2 * rows, rows // 2, rows + 1, rows - 1)):
        if 1 <= count <= min(most, 2 * rows):
            changed = {**now.rows, **dict.fromkeys(group, count)}
            yield Change("rows", ("rows", group[0], count), replace(now, rows=changed))


def _copies(scene: Scene, now: Placement, group: Sequence[int]) -> Iterator[Change]:
    """One copy more for all of the group, or for those with fewest; one more for one at the cost of one of another."""
    if scene.segments[group[0]].style is not Style.STREAM:
        return
    counts = {s: len(now.homes[s]) for s in group}
    low = [s for s in group if counts[s] == min(counts.values())]
    for chosen in dict.fromkeys((tuple(group), tuple(low), tuple(low[:1]))):
        grown: Placement | None = now
        for index in chosen:
            grown = numbers.more(grown, scene.segments[index], scene.chip, scene.able[index]) if grown else None
        if grown is not None:
            yield Change("copies", ("more", chosen, tuple(counts[s] for s in chosen)), grown)
    for other in sorted(now.homes, key=lambda s: -len(now.homes[s]))[:2]:
        less = numbers.fewer(now, scene.segments[other]) if other not in low else None
        grown = numbers.more(less, scene.segments[low[0]], scene.chip, scene.able[low[0]]) if less else None
        if grown is not None:
            yield Change("copies", ("instead", other, low[0], counts[low[0]]), grown)
    if min(counts.values()) > 1:
        shrunk: Placement | None = now
        for index in group:
            shrunk = numbers.fewer(shrunk, scene.segments[index]) if shrunk else None
        if shrunk is not None:
            yield Change("copies", ("fewer", tuple(counts.values())), shrunk)


def _away(scene: Scene, now: Placement) -> Iterator[Change]:
    """Values to global memory: all, or those of one role in the segments that are alike."""
    kept = [v for v, tile in now.residents.items() if tile is not None]
    if not kept:
        return
    roles: dict[object, list[str]] = {}
    for value in kept:
        roles.setdefault(scene.role.get(value), []).append(value)
    for values in (kept, *roles.values()):
        away = {**now.residents, **dict.fromkeys(values)}
        yield Change("memory", ("memory", values[0], len(values)), replace(now, residents=away))


# --- positions ---------------------------------------------------------------------------------
def _other(a: int, b: int, tile: int) -> int:
    """The tile that ``tile`` becomes when ``a`` and ``b`` change places."""
    return b if tile == a else a if tile == b else tile


def swapped(placement: Placement, a: int, b: int) -> Placement:
    """Two tiles of a kind with all that is on them changed for each other."""
    to = partial(_other, a, b)

    def moved(matrix: PlacedMatrix) -> PlacedMatrix:
        if not any(p.tile in (a, b) for p in matrix.parts):
            return matrix
        return replace(matrix, parts=tuple(replace(p, tile=to(p.tile)) for p in matrix.parts))

    return replace(
        placement,
        matrices={v: tuple(map(moved, m)) for v, m in placement.matrices.items()},
        homes={
            s: tuple(tuple(tuple(map(to, lanes)) for lanes in stages) for stages in replicas)
            for s, replicas in placement.homes.items()
        },
        tiles={s: tuple(map(to, tiles)) for s, tiles in placement.tiles.items()},
        beside={
            s: tuple({to(tile): to(other) for tile, other in copy.items()} for copy in copies)
            for s, copies in placement.beside.items()
        },
        residents={v: None if t is None else to(t) for v, t in placement.residents.items()},
    )


def reseated(placement: Placement, segment: int, a: int, b: int) -> Placement:
    """The vector work that one tile does of a segment on the other, and the other way round."""
    to = partial(_other, a, b)
    if segment in placement.tiles:
        return replace(placement, tiles={**placement.tiles, segment: tuple(map(to, placement.tiles[segment]))})
    changed = tuple(tuple(tuple(map(to, lanes)) for lanes in stages) for stages in placement.homes[segment])
    return replace(placement, homes={**placement.homes, segment: changed})


@dataclass(frozen=True)
class _Drawn:
    """A change of position before it is made."""

    kind: str
    key: tuple[object, ...]
    gain: float


class Positions:
    """Draws changes of position of one placement. ``room``: bytes left in the tiles' local memory."""

    def __init__(self, scene: Scene, now: Placement, traffic: Traffic, room: Mapping[int, int]) -> None:
        self.scene = scene
        self.now = now
        self.traffic = traffic
        self.room = room
        self.segments = sorted(traffic.flows)
        self.costs = {s: traffic.cost(s, now.residents, {}) for s in self.segments}
        total = sum(self.costs.values())
        self.weights = [c / total for c in self.costs.values()] if total else None
        self.fullest: dict[int, int] = {}
        self.seats: dict[int, list[int]] = {}
        self.values = [v for v in now.residents if v in traffic.values]

    def best(self, rng: np.random.Generator, tried: set[tuple[object, ...]]) -> Change | None:
        """Of several that are drawn and were not tried yet, the one the model likes best."""
        drawn = (self._draw(rng) for _ in range(DRAWN))
        found = [d for d in drawn if d is not None and d.key not in tried]
        if not found:
            return None
        best = max(found, key=lambda d: d.gain)
        return Change(best.kind, best.key, self._made(best))

    def _made(self, drawn: _Drawn) -> Placement:
        match drawn.key:
            case ("swap", int(a), int(b)):
                return swapped(self.now, a, b)
            case ("seat", int(segment), int(a), int(b)):
                return reseated(self.now, segment, a, b)
            case ("home", str(value), tile):
                assert tile is None or isinstance(tile, int)
                return replace(self.now, residents={**self.now.residents, value: tile})
            case _:
                raise AssertionError(drawn.key)

    def _draw(self, rng: np.random.Generator) -> _Drawn | None:
        if self.weights is None:
            return None
        segment = self.segments[int(rng.choice(len(self.segments), p=self.weights))]
        turn = int(rng.integers(3))
        if turn == 0:
            return self._swap(rng, segment)
        return self._home(rng, segment) if turn == 1 else self._seat(rng, segment)

    def _swap(self, rng: np.random.Generator, segment: int) -> _Drawn | None:
        inside = sorted(t for t, found in self.traffic.tiles.items() if segment in found)
        a = self._full(segment) if rng.integers(2) else _one(rng, inside)
        b = _one(rng, self.scene.kinds[self.scene.chip.kind(a)])
        if a == b:
            return None
        homes = {v for v, t in self.now.residents.items() if t in (a, b)}
        touched = {s for t in (a, b) for s in self.traffic.tiles.get(t, ())}
        touched |= {s for v in homes for s in self.traffic.values.get(v, ())}
        gain = self._gain(touched, self.now.residents, {a: b, b: a})
        return _Drawn("swap", ("swap", min(a, b), max(a, b)), gain)

    def _home(self, rng: np.random.Generator, segment: int) -> _Drawn | None:
        inside = [v for v in self.values if segment in self.traffic.values[v]]
        if not inside:
            return None
        value = _one(rng, inside)
        need = self.scene.graph.type(value).bytes + ALIGN  # wherever it begins
        fits = [t for t, left in self.room.items() if left >= need]
        tile = None if not fits or not rng.integers(SELDOM) else _one(rng, fits)
        if tile == self.now.residents[value]:
            return None
        gain = self._gain(self.traffic.values[value], {**self.now.residents, value: tile}, {})
        return _Drawn("home", ("home", value, tile), gain)

    def _seat(self, rng: np.random.Generator, segment: int) -> _Drawn | None:
        now = self.now
        used = now.tiles.get(segment) or tuple(now.seats(segment))
        a, b = _one(rng, used), _one(rng, self._seats(segment) or used)
        if a == b:
            return None
        return _Drawn("seat", ("seat", segment, a, b), self._gain((segment,), now.residents, {a: b, b: a}))

    def _seats(self, segment: int) -> list[int]:
        """The tiles that can do a segment's vector work and, where it writes operands, have the cores for these."""
        if segment not in self.seats:
            able, scene, held = self.scene.able.get(segment, []), self.scene, self.now.occupied()
            writes, written = segment in self.now.least_rows, self.now.written
            self.seats[segment] = [
                t for t in able if not writes or not unfit(scene.segments[segment], written, scene.chip, t, held)
            ]
        return self.seats[segment]

    def _gain(
        self, touched: set[int] | tuple[int, ...], homes: Mapping[str, int | None], moves: Mapping[int, int]
    ) -> float:
        return sum(self.costs[s] - self.traffic.cost(s, homes, moves) for s in sorted(touched))

    def _full(self, segment: int) -> int:
        if segment not in self.fullest:
            self.fullest[segment] = self.traffic.fullest(segment, self.now.residents)
        return self.fullest[segment]


def _one(rng: np.random.Generator, of: Sequence[T]) -> T:
    return of[int(rng.integers(len(of)))]
