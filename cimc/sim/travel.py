"""The ways of messages and of accesses to memory: channels, trees of links, ways there and back, and who serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Value
from cimc.sim import noc
from cimc.sim.columns import Columns, Names
from cimc.sim.job import Action
from cimc.sim.listing import Listing
from cimc.sim.pool import Form, Numbers, Words, distinct, looked_up, numbers
from cimc.sim.tables import Ints

Channel = tuple[Value, int, Value, bool]  # source, destination, tag, token


@dataclass(frozen=True, slots=True)
class Parted:
    """A list of links in parts: part i is ``links[begin[i] : begin[i + 1]]``."""

    begin: Ints
    links: Ints


class Travels:
    """Where everything of a listing goes. Per instruction: ``channel`` of a receiver, ``way`` (-1: stays in its tile) and
    ``server`` of an access, the parts of ``dests`` and ``trees`` (from, to) of a send in ``sent``, links within chips and
    ``crossings`` between them."""

    def __init__(self, chip: ChipSpec, listing: Listing, names: Names, columns: Columns) -> None:
        self._chip, self._mesh = chip, noc.mesh(chip)
        self._columns, self._tile, self._own = columns, listing.tile, numbers(names.tiles)
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
        self._accesses(np.flatnonzero(self.action == Action.MEMORY))

    def _alike(self, at: Ints) -> tuple[list[tuple[Form, Words, int]], Ints, Ints]:
        """Of some instructions, what is different in mnemonic, keywords and tile; where each stands first; which each is."""
        columns = self._columns
        words, tiles = len(columns.words), len(self._own)
        first, of = distinct((columns.form[at] * words + columns.word[at]) * tiles + self._tile[at])
        some = at[first]
        lines = zip(columns.form[some].tolist(), columns.word[some].tolist(), self._tile[some].tolist(), strict=True)
        own = self._own.tolist()
        return [(columns.forms[f], columns.words[w], own[t]) for f, w, t in lines], some, of

    def _sends(self, at: Ints) -> None:
        """Enter the channels and trees of sends."""
        alike, _, of = self._alike(at)
        sources = [tile for _, _, tile in alike]
        targets = [t if isinstance(t := form.value(words, "to"), tuple) else () for form, words, _ in alike]
        tags = [form.value(words, "tag") for form, words, _ in alike]
        tree, leaves = self._trees(sources, targets)
        counts = numbers([len(t) for t in targets])
        ends = np.cumsum(counts)
        channels = [
            self.channels[source, to, tag, form.token]
            for (form, _, source), several, tag in zip(alike, targets, tags, strict=True)
            for to in several
        ]
        self.dests = np.column_stack((numbers(channels), leaves))
        self.sent[at] = np.column_stack((ends - counts, ends, tree[:, :2]))[of]
        self.links[at], self.crossings[at] = tree[of, 2], tree[of, 3]

    def _trees(self, sources: Sequence[int], targets: Sequence[tuple[int, ...]]) -> tuple[Ints, Ints]:
        """Enter the trees of sends: where each begins and ends, its links within chips and between; and the last link to
        every destination, one after the other."""
        single = [t[0] if len(t) == 1 else s for s, t in zip(sources, targets, strict=True)]
        links, lengths = noc.ways(self._mesh, numbers(sources), numbers(single))
        ends = np.cumsum(lengths)
        lone = np.column_stack((links, np.arange(len(links)) - np.repeat(ends - lengths, lengths) - 1))
        crossings = self._crossings(links, lengths)
        found = np.column_stack((ends - lengths, ends, lengths - crossings, crossings))
        parts, total, last = [lone], len(links), [[n] for n in (lengths - 1).tolist()]
        for i, to in enumerate(targets):
            if len(to) == 1:
                continue
            tree = noc.multicast(self._mesh, sources[i], to)
            crossing = noc.crossings(self._mesh, tree.links)
            found[i] = total, total + len(tree.links), len(tree.links) - crossing, crossing
            parts.append(np.array([tree.links, tree.parents], np.int64).T)
            total, last[i] = total + len(tree.links), list(tree.leaves)
        self.trees = np.concatenate(parts)
        return found, numbers([leaf for of in last for leaf in of])

    def _receivers(self, at: Ints) -> None:
        """Enter the channels from which messages and tokens are taken."""
        alike, _, of = self._alike(at)
        channels = self.channels
        found = [channels[f.value(w, "source"), tile, f.value(w, "tag"), f.token] for f, w, tile in alike]
        self.channel[at] = numbers(found)[of]

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
        self.ways = Parted(np.concatenate(([0], np.cumsum(lengths))), links)
        crossings = self._crossings(links, lengths)[::2]
        self.way[at] = np.where(homes[first] == mine, -1, np.arange(len(first)))[of]
        self.links[at], self.crossings[at] = (lengths[::2] - crossings)[of], crossings[of]
        kept, which = distinct(homes)
        self.server[at] = looked_up(self.servers, homes[kept].tolist())[which]

    def _crossings(self, links: Ints, lengths: Ints) -> Ints:
        """How many links of each way lead from chip to chip."""
        ends = np.cumsum(lengths)
        before = np.concatenate(([0], np.cumsum(links >= self._mesh[2])))
        return before[ends] - before[ends - lengths]
