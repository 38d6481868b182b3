"""The ways of messages and of accesses to memory: channels, trees of links, ways there and back, and who serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Value
from cimc.sim.columns import Columns
from cimc.sim.job import Action
from cimc.sim.listing import Listing
from cimc.sim.pool import Numbers, distinct, looked_up, numbers, pack
from cimc.sim.tables import ROUTER_COLUMNS, Ints

Channel = tuple[Value, int, Value]  # of sums: source (of the sums themselves: all sources), destination, tag


@dataclass(frozen=True, slots=True)
class Parted:
    """A list of links in parts: part i is ``links[begin[i] : begin[i + 1]]``."""

    begin: Ints
    links: Ints


@dataclass(frozen=True, slots=True)
class Alike:
    """Instructions of which some say the same. ``values`` of keywords, and whether it is of ``tokens``: of all that say
    something else. ``which`` of these, and the ``tile``: of all that say it elsewhere. ``of``: which of these each is."""

    values: list[Sequence[Value]]
    tokens: list[bool]
    which: Ints
    tile: Ints
    of: Ints


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
        self._plain = 0  # channels of messages and of tokens; behind them come those of parts of sums and of sums
        self._parts: Numbers[Channel] = Numbers()
        self.servers: Numbers[int] = Numbers({-1: 0})  # by home
        self.dests, self.trees = np.zeros((2, 0, 2), np.int64)
        self.ways = Parted(np.zeros(1, np.int64), np.zeros(0, np.int64))
        action = numbers([f.action for f in columns.forms])
        self.action: Ints = action[columns.form]
        waits = (self.action == Action.RECEIVE) | (self.action == Action.WAIT)
        self._messages(np.flatnonzero(self.action == Action.SEND), np.flatnonzero(waits))
        self._meetings: dict[Channel, tuple[int, noc.Meeting]] = {}
        self.routers: Ints = np.zeros((0, ROUTER_COLUMNS), np.int64)
        self._sums()
        self._accesses(np.flatnonzero(self.action == Action.MEMORY))

    @property
    def channel_count(self) -> int:
        """How many channels there are."""
        return self._plain + len(self._parts)

    def _alike(self, at: Ints, *names: str) -> Alike:
        """What is different in tile, mnemonic and keywords of some instructions."""
        columns, tiles = self._columns, len(self._own)
        count = len(columns.words)
        said = columns.form[at] * count + columns.word[at]
        first, which = distinct(said)
        values: list[Sequence[Value]] = []
        tokens: list[bool] = []
        for form, word in (divmod(n, count) for n in said[first].tolist()):
            of, words = columns.forms[form], columns.forms[form].complete(columns.words[word])
            values.append([words[of.place[name]][1] for name in names])
            tokens.append(of.token)
        first, of = distinct(which * tiles + self._tile[at])
        return Alike(values, tokens, which[first], self._own[self._tile[at[first]]], of)

    def _messages(self, sends: Ints, receivers: Ints) -> None:
        """Enter the channels of messages and tokens from both ends, and the trees of sends."""
        sent, heard = self._alike(sends, "to", "tag"), self._alike(receivers, "source", "tag")
        targets = [to if isinstance(to, tuple) else () for to, _ in sent.values]
        lengths = numbers([len(to) for to in targets])
        counts = lengths[sent.which]
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(counts)), counts)
        at = np.arange(len(owner)) + ((np.cumsum(lengths) - lengths)[sent.which] - ends + counts)[owner]
        to = numbers(list(chain.from_iterable(targets)))[at]
        source = numbers([source if isinstance(source, int) else 0 for source, _ in heard.values])[heard.which]
        tags: Numbers[tuple[Value, bool]] = Numbers()
        tagged = [
            numbers([tags[tag, token] for (_, tag), token in zip(of.values, of.tokens, strict=True)])[of.which]
            for of in (sent, heard)
        ]
        pairs = ((sent.tile[owner], source), (to, heard.tile), (tagged[0][owner], tagged[1]))
        columns = [np.concatenate(pair) for pair in pairs]
        first, channel = distinct(pack([(column, 1 + int(column.max(initial=0))) for column in columns]))
        self._plain = len(first)
        tree, leaves = self._trees(sent.tile, [targets[n] for n in sent.which.tolist()], to)
        self.dests = np.column_stack((channel[: len(owner)], leaves))
        self.sent[sends] = np.column_stack((ends - counts, ends, tree[:, :2]))[sent.of]
        self.links[sends], self.crossings[sends] = tree[sent.of, 2], tree[sent.of, 3]
        self.channel[receivers] = channel[len(owner) :][heard.of]

    def _trees(self, sources: Ints, targets: Sequence[tuple[int, ...]], to: Ints) -> tuple[Ints, Ints]:
        """Enter the trees of sends: where each begins and ends, its links within chips and between; and the last link to
        every destination, one after the other, as they stand in ``to``."""
        counts = numbers([len(t) for t in targets])
        ends = np.cumsum(counts)
        alone, single = counts == 1, sources.copy()
        single[alone] = to[ends[alone] - 1]
        ways, lengths = noc.ways(self._mesh, sources, single)
        leaves = np.zeros(len(to), np.int64)
        leaves[ends[alone] - 1] = lengths[alone] - 1
        links: list[int] = []
        parents: list[int] = []
        many = np.flatnonzero(~alone)
        for i in many.tolist():  # of no length yet
            tree = noc.multicast(self._mesh, int(sources[i]), targets[i])
            links += tree.links
            parents += tree.parents
            leaves[ends[i] - counts[i] : ends[i]] = tree.leaves
            lengths[i] = len(tree.links)
        begin = np.zeros_like(lengths)
        begin[alone] = np.cumsum(lengths[alone]) - lengths[alone]
        begin[many] = len(ways) + np.cumsum(lengths[many]) - lengths[many]
        before = np.arange(len(ways)) - np.repeat(begin[alone], lengths[alone]) - 1
        self.trees = np.column_stack((np.append(ways, numbers(links)), np.append(before, numbers(parents))))
        crossings = self._crossings(begin, begin + lengths, self.trees[:, 0])
        return np.column_stack((begin, begin + lengths, lengths - crossings, crossings)), leaves

    def _sums(self) -> None:
        """Enter the parts of sums, and who takes these: the routers in which they meet, the channels, the links of which
        each part is the first to take one."""
        lines: list[tuple[int, ...]] = []
        dests: list[tuple[int, int]] = []
        trees: list[tuple[int, int]] = []
        for kind in (Action.REDUCE, Action.COLLECT):
            at = np.flatnonzero(self.action == kind)
            names = ("of", "to", "tag") if kind is Action.REDUCE else ("of", "tag")
            alike = self._alike(at, *names)
            found = np.zeros((len(alike.which), 8), np.int64)
            for i, (n, tile) in enumerate(zip(alike.which.tolist(), alike.tile.tolist(), strict=True)):
                of, *to, tag = alike.values[n]
                assert isinstance(of, tuple)
                end = to[0] if to else tile
                assert isinstance(end, int)
                total, first, meeting = self._meeting(of, end, tag, lines)
                dest, tree, mine = len(dests), len(trees), (tile,) if to else of
                dests += [(self._plain + self._parts[source, end, tag], -1) for source in mine]
                links = meeting.fresh[of.index(tile)] if to else ()
                trees += [(link, -1) for link in links]
                start = first + meeting.starts[of.index(tile)] if to else 0
                between = noc.crossings(self._mesh, links)
                found[i] = total, start, dest, len(dests), tree, len(trees), len(links) - between, between
            self.channel[at], self.way[at] = found[alike.of, 0], found[alike.of, 1]
            self.sent[at] = found[alike.of, 2:6] + [len(self.dests), len(self.dests), len(self.trees), len(self.trees)]
            self.links[at], self.crossings[at] = found[alike.of, 6], found[alike.of, 7]
        self.dests = np.concatenate((self.dests, np.array(dests, np.int64).reshape(-1, 2)))
        self.trees = np.concatenate((self.trees, np.array(trees, np.int64).reshape(-1, 2)))
        self.routers = np.array(lines, np.int64).reshape(-1, ROUTER_COLUMNS)

    def _meeting(
        self, of: tuple[int, ...], to: int, tag: Value, lines: list[tuple[int, ...]]
    ) -> tuple[int, int, noc.Meeting]:
        """The channel of a sum, the line in which its routers begin, and they, entered if they are new."""
        key = of, to, tag
        total = self._plain + self._parts[key]
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
