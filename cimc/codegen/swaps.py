"""Which tiles change places: the search of :mod:`cimc.codegen.exchange`, in all segments at the same time.

Simulated annealing: pairs of places change their work, at first also where that makes links fuller, less and less so, by the
sum of fourth powers of what links carry: the fullest ones decide.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.codegen.handed import Handed, Role

if TYPE_CHECKING:
    from cimc.codegen.anneal import Board, Moving

TRIALS, EACH = 20000, 500
"""Pairs that are tried for a segment at most, and for each of its tiles. As the numbers below the best of a few, by the fullest
links of MiniLM's and BERT-base's segments. Which pairs are drawn moves cycles by chance, too: with other numbers MiniLM takes
from 0.6 % fewer to 0.8 % more."""

HEAT, COOLING = 0.05, 6
"""How much worse a pair may make it at the beginning, as part of the fullest link's fourth power; the power of the part of all
trials that is left with which that falls."""

BASE = 0.1
"""What every link counts as carrying in any case, as part of the fullest one: so a way costs the more the longer it is."""

NEAR = 2
"""A tile changes places with one of those nearest to it rather than with another: the power of a number drawn from 0 to 1, which
is its place among them by distance."""

MEMORY, BOUND = -1, -2
"""Global memory, as who sends or takes a message. Tile t as one that takes it wherever the segment's work is done: BOUND - t."""

Message = tuple[int, tuple[int, ...], int]  # tile that sends, tiles that take it, cycles of a link in all
Ints = NDArray[np.int64]


@dataclass
class Exchange:
    """One segment's messages, ``groups`` of tiles that may change places with each other, and ``at``: where the work of a tile is
    done that is not where it was."""

    chip: ChipSpec
    messages: Sequence[Message]
    groups: Sequence[Sequence[int]]
    at: dict[int, int] = field(default_factory=dict[int, int])

    def __post_init__(self) -> None:
        self.at.update((tile, BOUND - tile) for _, to, _ in self.messages for tile in to if tile <= BOUND)

    @property
    def load(self) -> Counter[int]:
        """Cycles that links are taken for."""
        return self._load(self.messages)

    def _load(self, messages: Iterable[Message]) -> Counter[int]:
        mesh, ports, found = noc.mesh(self.chip), noc.memory_ports(self.chip), Counter[int]()
        for source, to, cycles in messages:
            ends = [self.at.get(t, t) for t in to if t != MEMORY]
            if source != MEMORY:
                here = self.at.get(source, source)
                ends = ends or [noc.nearest(self.chip, here, ports)]
            else:
                here = noc.nearest(self.chip, ends[0], ports)
            for link in noc.multicast(mesh, here, tuple(ends)).links:
                found[link] += cycles
        return found

    @property
    def fullest(self) -> int:
        """Cycles that the fullest link is taken for."""
        return max(self.load.values(), default=0)

    @property
    def without_bound(self) -> int:
        """The same, if messages to tiles wherever the work is done were not sent."""
        return max(self._load(m for m in self.messages if m[1][0] > BOUND).values(), default=0)

    def again(self, bound: bool) -> Exchange:
        """The same before anything was moved, with or without messages to tiles wherever the work is done."""
        return Exchange(self.chip, [m for m in self.messages if bound or m[1][0] > BOUND], self.groups)

    @property
    def roles(self) -> list[int]:
        """The tiles that send or take messages."""
        return sorted({t for source, to, _ in self.messages for t in (source, *to)} - {MEMORY})

    def run(self) -> dict[int, int]:
        """Try pairs; where the work of each tile is done then, none if the fullest link carries no less for it."""
        return together({0: self}, ()).get(0, {})

    def put(self, role: int, place: int) -> bool:
        """Let a tile's work be done in a place, and what was done there in its place; False if it may not."""
        if not any(role in tiles and place in tiles for tiles in self.groups):
            return False
        here = self.at.get(role, role)
        other = next((r for r, at in self.at.items() if at == place and r > BOUND), place)
        self.at[other], self.at[role] = here, place
        return True

    @property
    def moves(self) -> dict[int, int]:
        """Where the work of tiles is done that is no longer where it was."""
        return {tile: at for tile, at in self.at.items() if tile != at and tile > BOUND}


def together(parts: Mapping[int, Exchange], links: Iterable[Handed], share: float = 1) -> dict[int, dict[int, int]]:
    """Try a ``share`` of pairs in several segments; by segment, where the work of each tile is done then. Who takes rows from
    a tile of an earlier segment (``links``) is where that is, and stays there: if one of them goes elsewhere, so does the
    other, with what is in its way in each segment. Segments whose fullest links carry no less for it, taken together if they
    are linked, are not among what is returned."""
    before = {i: part.fullest for i, part in parts.items()}
    linked = _joined(parts, links)
    if searched := {i: p for i, p in parts.items() if p.messages and any(len(g) > 1 for g in p.groups)}:
        _Search(searched, linked).run(share)
    of = {i: {i} for i in parts}  # the segments that each is linked with, in the end
    for (a, _), (b, _) in linked:
        of.update(dict.fromkeys(both := of[a] | of[b], both))
    gain = {i: before[i] - part.fullest for i, part in parts.items()}
    return {i: part.moves for i, part in parts.items() if sum(gain[k] for k in of[i]) > 0}


def _joined(parts: Mapping[int, Exchange], links: Iterable[Handed]) -> list[tuple[Role, Role]]:
    """Put who takes rows where they are made; those that may be there. A tile takes from one, and hands to one."""
    found: list[tuple[Role, Role]] = []
    sources, takers = set[Role](), set[Role]()
    for link in links:
        (a, source), (b, to) = link.source, link.to
        free = link.source not in sources and link.to not in takers and a in parts and b in parts
        if free and parts[b].put(to, parts[a].at.get(source, source)):
            found.append((link.source, link.to))
            sources.add(link.source)
            takers.add(link.to)
    return found


class _Search:
    """The segments as the tables of :mod:`cimc.codegen.anneal`."""

    def __init__(self, parts: Mapping[int, Exchange], linked: Sequence[tuple[Role, Role]]) -> None:
        self.parts = parts
        self.chip = next(iter(parts.values())).chip
        self.names: list[Role] = []
        for i, part in parts.items():
            self.names += ((i, t) for t in sorted({*part.roles, *chain.from_iterable(part.groups)}))
        self.number = {name: n for n, name in enumerate(self.names)}
        self.linked: list[list[int]] = [[] for _ in self.names]
        for a, b in linked:
            if a in self.number and b in self.number:
                self.linked[self.number[a]].append(self.number[b])
                self.linked[self.number[b]].append(self.number[a])

    def run(self, share: float) -> None:
        """Try a share of pairs, and note where the work of tiles is done then."""
        from cimc.analog.rng import Streams  # with all of the physics: most compiles need none of it
        from cimc.codegen.anneal import anneal  # numba takes half a second to import

        load = self._load()
        board = self._board(share, load.max(axis=1))
        moving = self._moving(board, load)
        if most := int(board.trials.max()):
            draws = Streams(0).generator("exchange").random((most, 4))
            draws[:, 3] = [-math.log(max(luck, 1e-9)) for luck in draws[:, 3].tolist()]
            anneal(board, moving, draws, HEAT, COOLING, NEAR)
        for (i, tile), place in zip(self.names, moving.at.tolist(), strict=True):
            self.parts[i].at[tile] = place

    def _load(self) -> Ints:
        """By segment and link, the cycles that it is taken for."""
        found = np.zeros((len(self.parts), noc.mesh(self.chip)[2] + 2 * self.chip.chips), np.int64)
        for k, part in enumerate(self.parts.values()):
            for link, cycles in part.load.items():
                found[k, link] = cycles
        return found

    def _board(self, share: float, top: Ints) -> Board:
        """What stays. ``top``: what the fullest link of each segment carries."""
        from cimc.codegen.anneal import Board

        chip, mesh, ports = self.chip, noc.mesh(self.chip), noc.memory_ports(self.chip)
        groups, group_of = self._groups()
        movable = [[n for n in of if len(groups[group_of[n]]) > 1] for of in self._sending()]
        segments = {i: k for k, i in enumerate(self.parts)}
        return Board(
            np.array([*mesh, chip.tile_count, mesh[2] + 2 * chip.chips], np.int64),
            np.array([noc.nearest(chip, t, ports) for t in range(chip.tile_count)], np.int64),
            *self._messages(),
            np.array([segments[i] for i, _ in self.names], np.int64),
            *_table(self.linked),
            *_table(movable),
            group_of,
            *_near(chip, groups),
            np.array([int(share * min(TRIALS, EACH * len(of))) for of in movable], np.int64),
            (BASE * top).astype(np.int64),
        )

    def _moving(self, board: Board, load: Ints) -> Moving:
        """What changes, as it is at the beginning."""
        from cimc.codegen.anneal import COUNTS, NOBODY, Moving

        count, links = load.shape
        at = np.array([self.parts[i].at.get(t, t) for i, t in self.names], np.int64)
        work = np.full((count, self.chip.tile_count), NOBODY, np.int64)
        free = np.array([t > BOUND for _, t in self.names])
        work[board.segment[free], at[free]] = np.arange(len(at))[free]
        return Moving(
            at,
            work.ravel(),
            load.ravel(),
            np.zeros(count * links, np.int64),
            np.zeros((count * links, 2), np.int64),
            np.zeros(count * links, np.int64),
            np.zeros(len(board.sender), np.int64),
            np.zeros(len(board.movable), np.int64),
            np.zeros(count, np.int64),
            np.zeros(count, np.int64),
            load.max(axis=1).astype(np.float64) ** 4,
            np.zeros(COUNTS, np.int64),
        )

    def _sending(self) -> list[list[int]]:
        """By segment, the roles that send or take messages."""
        return [[self.number[i, t] for t in part.roles] for i, part in self.parts.items()]

    def _groups(self) -> tuple[list[tuple[int, ...]], Ints]:
        """Groups of places, and of each role the one that it may be in; one with its own place only if there is no other."""
        numbers: dict[tuple[int, ...], int] = {}
        found: list[int] = []
        for i, tile in self.names:
            mine = next((tuple(g) for g in self.parts[i].groups if tile in g), (self.parts[i].at.get(tile, tile),))
            found.append(numbers.setdefault(mine, len(numbers)))
        return list(numbers), np.array(found, np.int64)

    def _messages(self) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints]:
        """The columns of Board about messages."""
        senders: list[int] = []
        cycles: list[int] = []
        takers: list[list[int]] = []
        sent: list[list[int]] = []
        of: list[list[int]] = [[] for _ in self.names]
        for i, part in self.parts.items():
            sent.append([])
            for source, to, by in part.messages:
                number = len(senders)
                sent[-1].append(number)
                senders.append(self.number.get((i, source), MEMORY))
                takers.append([self.number.get((i, t), MEMORY) for t in to])
                cycles.append(by)
                for role in {senders[-1], *takers[-1]} - {MEMORY}:
                    of[role].append(number)
        ends = np.array(senders, np.int64), np.array(cycles, np.int64)
        return *ends, *_table(takers), *_table(sent), *_table(of)


def _table(lists: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """Where the part of each begins, and all of them in a row."""
    begin = np.cumsum([0, *map(len, lists)])
    return begin.astype(np.int64), np.array(list(chain.from_iterable(lists)), np.int64)


def _near(chip: ChipSpec, groups: Sequence[tuple[int, ...]]) -> tuple[Ints, Ints, Ints, Ints]:
    """The columns of Board about groups: how many places there are, which is which, and by how near they are to each other."""
    index = np.full((len(groups), chip.tile_count), -1, np.int64)
    rows: list[Ints] = []
    for k, group in enumerate(groups):
        tiles = np.array(sorted(group), np.int64)
        index[k, tiles] = np.arange(len(tiles))
        y, x = np.divmod(tiles, chip.columns)
        hops = np.abs(x[:, None] - x) + np.abs(y[:, None] - y)
        rows.append(tiles[np.argsort(hops, axis=1, kind="stable")].ravel())
    begin = np.cumsum([0, *map(len, rows)])
    return np.array([len(g) for g in groups], np.int64), index, begin.astype(np.int64), np.concatenate(rows)
