"""The ways of messages and of accesses to memory: channels, trees of links, ways there and back, and who serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Carries, Value
from cimc.sim.columns import Columns
from cimc.sim.job import Action
from cimc.sim.listing import Listing
from cimc.sim.pool import Numbers, distinct, looked_up, numbers
from cimc.sim.tables import ROUTER_COLUMNS, Ints

Channel = tuple[Value, int, Value, int]  # source (of sums: all sources), destination, tag, what it carries


@dataclass(frozen=True, slots=True)
class Parted:
    """A list of links in parts: part i is ``links[begin[i] : begin[i + 1]]``."""

    begin: Ints
    links: Ints


class Travels:
    """Where everything of a listing goes. Per instruction: ``channel`` of a receiver or a part of a sum, ``way`` (-1: stays in
    its tile; of a part of a sum: its line in ``routers``) and
    ``server`` of an access, the parts of ``dests`` and ``trees`` (from, to) of a send in ``sent``, links within chips and
    ``crossings`` between them."""

    def __init__(self, chip: ChipSpec, listing: Listing, columns: Columns) -> None:
        self._chip, self._mesh = chip, noc.mesh(chip)
        self._columns, self._tile, self._own = columns, listing.tile, numbers(columns.names.tiles)
        n = len(listing.steps)
        self.channel, self.way, self.server, self.links, self.crossings = np.zeros((5, n), np.int64)
        self.sent: Ints = np.zeros((n, 4), np.int64)
        self.channels: Numbers[Channel] = Numbers()
        self.servers: Numbers[int] = Numbers({-1: 0})  # by home
        self.dests, self.trees = np.zeros((2, 0, 2), np.int64)
        self.ways = Parted(np.zeros(1, np.int64), np.zeros(0, np.int64))
        action = numbers([f.action for f in columns.forms])
        self.action: Ints = action[columns.form]
        self._sends(np.flatnonzero(self.action == Action.SEND))
        waits = (self.action == Action.RECEIVE) | (self.action == Action.WAIT)
        self._receivers(np.flatnonzero(waits))
        self._meetings: dict[Channel, tuple[int, noc.Meeting]] = {}
        self.routers: Ints = np.zeros((0, ROUTER_COLUMNS), np.int64)
        self._sums()
        self._accesses(np.flatnonzero(self.action == Action.MEMORY))

    def _alike(self, at: Ints, *names: str) -> tuple[list[tuple[int, bool, Sequence[Value]]], Ints]:
        """What is different in tile, mnemonic and keywords of some instructions: the tile, whether it is of tokens, the
        values of these keywords; and which one each is."""
        columns, own = self._columns, self._own.tolist()
        count = len(columns.words)
        said = columns.form[at] * count + columns.word[at]
        first, which = distinct(said)
        values: list[tuple[bool, Sequence[Value]]] = []
        for form, word in (divmod(n, count) for n in said[first].tolist()):
            of, words = columns.forms[form], columns.forms[form].complete(columns.words[word])
            values.append((of.token, [words[of.place[name]][1] for name in names]))
        first, of = distinct(which * len(own) + self._tile[at])
        pairs = zip(which[first].tolist(), self._tile[at[first]].tolist(), strict=True)
        return [(own[tile], *values[n]) for n, tile in pairs], of

    def _sends(self, at: Ints) -> None:
        """Enter the channels and trees of sends."""
        alike, of = self._alike(at, "to", "tag")
        lines = [(tile, to if isinstance(to, tuple) else (), tag, token) for tile, token, (to, tag) in alike]
        channels = self.channels
        found = [channels[tile, to, tag, token] for tile, several, tag, token in lines for to in several]
        tree, leaves = self._trees([tile for tile, *_ in lines], [to for _, to, *_ in lines])
        counts = numbers([len(to) for _, to, *_ in lines])
        ends = np.cumsum(counts)
        self.dests = np.column_stack((numbers(found), leaves))
        self.sent[at] = np.column_stack((ends - counts, ends, tree[:, :2]))[of]
        self.links[at], self.crossings[at] = tree[of, 2], tree[of, 3]

    def _trees(self, sources: Sequence[int], targets: Sequence[tuple[int, ...]]) -> tuple[Ints, Ints]:
        """Enter the trees of sends: where each begins and ends, its links within chips and between; and the last link to
        every destination, one after the other."""
        single = [t[0] if len(t) == 1 else s for s, t in zip(sources, targets, strict=True)]
        ways, lengths = noc.ways(self._mesh, numbers(sources), numbers(single))
        last = [[n] for n in (lengths - 1).tolist()]
        links: list[int] = []
        parents: list[int] = []
        many = [i for i, to in enumerate(targets) if len(to) != 1]
        for i in many:  # of no length yet
            tree = noc.multicast(self._mesh, sources[i], targets[i])
            links += tree.links
            parents += tree.parents
            last[i] = list(tree.leaves)
            lengths[i] = len(tree.links)
        alone = np.ones(len(targets), np.bool_)
        alone[many] = False
        begin = np.zeros_like(lengths)
        begin[alone] = np.cumsum(lengths[alone]) - lengths[alone]
        begin[many] = len(ways) + np.cumsum(lengths[many]) - lengths[many]
        before = np.arange(len(ways)) - np.repeat(begin[alone], lengths[alone]) - 1
        self.trees = np.column_stack((np.append(ways, numbers(links)), np.append(before, numbers(parents))))
        crossings = self._crossings(begin, begin + lengths, self.trees[:, 0])
        return np.column_stack((begin, begin + lengths, lengths - crossings, crossings)), numbers(list(chain(*last)))

    def _receivers(self, at: Ints) -> None:
        """Enter the channels from which messages and tokens are taken."""
        alike, of = self._alike(at, "source", "tag")
        channels = self.channels
        self.channel[at] = numbers([channels[source, tile, tag, token] for tile, token, (source, tag) in alike])[of]

    def _sums(self) -> None:
        """Enter the parts of sums, and who takes these: the routers in which they meet, the channels, the links of which
        each part is the first to take one."""
        lines: list[tuple[int, ...]] = []
        dests: list[tuple[int, int]] = []
        trees: list[tuple[int, int]] = []
        for kind in (Action.REDUCE, Action.COLLECT):
            at = np.flatnonzero(self.action == kind)
            names = ("of", "to", "tag") if kind is Action.REDUCE else ("of", "tag")
            alike, which = self._alike(at, *names)
            found = np.zeros((len(alike), 8), np.int64)
            for i, (tile, _, (of, *to, tag)) in enumerate(alike):
                assert isinstance(of, tuple)
                end = to[0] if to else tile
                assert isinstance(end, int)
                total, first, meeting = self._meeting(of, end, tag, lines)
                dest, tree, mine = len(dests), len(trees), (tile,) if to else of
                dests += [(self.channels[source, end, tag, Carries.PARTS], -1) for source in mine]
                links = meeting.fresh[of.index(tile)] if to else ()
                trees += [(link, -1) for link in links]
                start = first + meeting.starts[of.index(tile)] if to else 0
                between = noc.crossings(self._mesh, links)
                found[i] = total, start, dest, len(dests), tree, len(trees), len(links) - between, between
            self.channel[at], self.way[at] = found[which, 0], found[which, 1]
            self.sent[at] = found[which, 2:6] + [len(self.dests), len(self.dests), len(self.trees), len(self.trees)]
            self.links[at], self.crossings[at] = found[which, 6], found[which, 7]
        self.dests = np.concatenate((self.dests, np.array(dests, np.int64).reshape(-1, 2)))
        self.trees = np.concatenate((self.trees, np.array(trees, np.int64).reshape(-1, 2)))
        self.routers = np.array(lines, np.int64).reshape(-1, ROUTER_COLUMNS)

    def _meeting(
        self, of: tuple[int, ...], to: int, tag: Value, lines: list[tuple[int, ...]]
    ) -> tuple[int, int, noc.Meeting]:
        """The channel of a sum, the line in which its routers begin, and they, entered if they are new."""
        key: Channel = (of, to, tag, Carries.PARTS)
        total = self.channels[key]
        if key not in self._meetings:
            first, found = len(lines), noc.meeting_in(self._mesh, of, to)
            self._meetings[key] = first, found
            routers = zip(found.links, found.nexts, found.inputs, strict=True)
            lines += [(link, first + after, inputs, total, 0) for link, after, inputs in routers]
        return total, *self._meetings[key]

    def _accesses(self, at: Ints) -> None:
        """Enter the ways from tiles to where accesses are served and back."""
        homes, tiles = self._columns.home[at], self._tile[at]
        if not len(at):
            return
        ports = noc.nearest_of(self._chip, self._own, numbers(noc.memory_ports(self._chip)))
        to = np.where(homes < 0, ports[tiles], homes)
        first, of = distinct(tiles * (1 << 32) + 2 * to + (homes < 0))
        mine, there = self._own[tiles[first]], to[first]
        pairs = np.column_stack((mine, there, there, mine)).reshape(-1, 2)
        links, lengths = noc.ways(self._mesh, pairs[:, 0], pairs[:, 1])
        ends = np.cumsum(lengths)
        self.ways = Parted(np.concatenate(([0], ends)), links)
        crossings = self._crossings(ends - lengths, ends, links)[::2]
        self.way[at] = np.where(homes[first] == mine, -1, np.arange(len(first)))[of]
        self.links[at], self.crossings[at] = (lengths[::2] - crossings)[of], crossings[of]
        kept, which = distinct(homes)
        self.server[at] = looked_up(self.servers, homes[kept].tolist())[which]

    def _crossings(self, begin: Ints, end: Ints, links: Ints) -> Ints:
        """How many links of each part lead from chip to chip."""
        before = np.concatenate(([0], np.cumsum(links >= self._mesh[2])))
        return before[end] - before[begin]
