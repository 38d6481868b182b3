"""Where the values of a block of rows are, in a STREAM segment, and how they move between its tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cimc.codegen.context import Context
from cimc.codegen.tilecode import columns
from cimc.isa.operands import View, static_shape
from cimc.mapping.space import Index, width
from cimc.mapping.sums import SumsAt, chain, rounds
from cimc.origin import Origin

Columns = tuple[int, int]  # first, end


@dataclass(frozen=True, slots=True)
class Shard:
    """Columns [first, last) of a value's block, on a tile."""

    tile: int
    first: int
    last: int
    view: View


@dataclass
class State:
    """Where the values of the current block are. ``full``: whole rows, by tile and value. ``shards``: by columns.
    ``sent``: shards that were sent on, by value, number and tile. ``parts``: by tile and value, columns of it in a buffer
    that begins with the column named."""

    index: Index
    homes: Sequence[int]  # tiles of the vector stages
    full: dict[tuple[int, str], View] = field(default_factory=dict[tuple[int, str], View])
    shards: dict[str, list[Shard]] = field(default_factory=dict[str, list[Shard]])
    sent: dict[tuple[str, int, int], View] = field(default_factory=dict[tuple[str, int, int], View])
    parts: dict[tuple[int, str], tuple[int, View]] = field(default_factory=dict[tuple[int, str], tuple[int, View]])
    owner: dict[str, int] = field(default_factory=dict[str, int])
    loaded: dict[int, dict[View, View]] = field(default_factory=dict[int, dict[View, View]])
    tag: int = 0


class Movement:
    """Emits what moves values. In the global order every send is directly followed by its receives."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.graph = context.graph

    def message(self, state: State, source: int, to: Iterable[int], view: View, origin: Origin) -> dict[int, View]:
        """Send a view to tiles, each into a new buffer."""
        element = self.context.code(source).rooms[view.buffer].element
        shape = static_shape(view)
        targets = {t: self.context.code(t).buffer(element, shape, "r") for t in to}
        self.transfer(state, source, view, targets, origin)
        return targets

    def transfer(self, state: State, source: int, view: View, targets: Mapping[int, View], origin: Origin) -> None:
        """Send a view to tiles, each into a view that is given."""
        tag = state.tag
        state.tag += 1
        self.context.code(source).emit("send", view, origin=origin, to=tuple(sorted(targets)), tag=tag)
        for tile, target in targets.items():
            self.context.code(tile).emit("recv", target, origin=origin, source=source, tag=tag)

    def added(self, state: State, how: SumsAt, parts: Sequence[tuple[int, View]], origin: Origin) -> None:
        """Partial sums (tile, view), added into the first: in its tile, in a tree of tiles, or by routers on the way."""
        if how == "network":
            tile, total = parts[0]
            part = self._through_routers(state, parts[1:], tile, origin)
            self.context.code(tile).emit("add", total, total, part, origin=origin)
            return
        pairs = [(0, i) for i in range(1, len(parts))]
        if how == "chain":
            pairs = chain(len(parts))
        if how == "tree":
            pairs = [pair for found in rounds(len(parts)) for pair in found]
        for to, of in pairs:
            (tile, total), (source, view) = parts[to], parts[of]
            part = self.message(state, source, [tile], view, origin)[tile]
            self.context.code(tile).emit("add", total, total, part, origin=origin)

    def _through_routers(self, state: State, parts: Sequence[tuple[int, View]], to: int, origin: Origin) -> View:
        """The sum of parts (tile, view) in a new buffer of another tile. In the global order, all of them are directly
        followed by who takes it."""
        of = tuple(tile for tile, _ in parts)
        tag = self.context.sum_tag(of, to, state.tag)
        state.tag = tag + 1
        tile, view = parts[0]
        total = self.context.code(to).buffer(
            self.context.code(tile).rooms[view.buffer].element, static_shape(view), "r"
        )
        for tile, view in parts:
            self.context.code(tile).emit("reduce", view, origin=origin, of=of, to=to, tag=tag)
        self.context.code(to).emit("collect", total, origin=origin, of=of, tag=tag)
        return total

    def bring(self, state: State, root: str, tiles: Iterable[int], origin: Origin) -> dict[int, View]:
        """Full rows of a value on each of the tiles."""
        wanted = list(dict.fromkeys(tiles))
        missing = [t for t in wanted if (t, root) not in state.full]
        if missing and root in state.owner:
            source = state.owner[root]
            view = state.full[(source, root)]
            for tile, target in self.message(state, source, missing, view, origin).items():
                state.full[(tile, root)] = target
        elif missing:
            self._collect(state, root, missing, origin)
        return {t: state.full[(t, root)] for t in wanted}

    def _collect(self, state: State, root: str, tiles: list[int], origin: Origin) -> None:
        """Put the column shards of a value together on tiles."""
        shape = (state.index.rows, width(self.graph, root))
        element = self.graph.type(root).element
        for tile in tiles:
            state.full[(tile, root)] = self.context.code(tile).buffer(element, shape, "r")
        for shard in state.shards[root]:
            targets = {t: columns(state.full[(t, root)], shard.first, 1, shard.last - shard.first) for t in tiles}
            self.put(state, shard.tile, shard.view, targets, origin)

    def put(self, state: State, source: int, view: View, targets: Mapping[int, View], origin: Origin) -> None:
        """A view into views on tiles: copied on its own, sent to the others."""
        others = dict(targets)
        own = others.pop(source, None)
        if own is not None:
            self.context.code(source).emit("copy", own, view, origin=origin)
        if others:
            self.transfer(state, source, view, others, origin)

    def shard_on(self, state: State, root: str, k: int, tile: int, origin: Origin) -> View:
        """Shard ``k`` of a value, on a tile."""
        shard = state.shards[root][k]
        if shard.tile == tile:
            return shard.view
        if (root, k, tile) not in state.sent:
            sent = self.message(state, shard.tile, [tile], shard.view, origin)
            state.sent[(root, k, tile)] = sent[tile]
        return state.sent[(root, k, tile)]

    def scatter(self, state: State, root: str, wanted: Mapping[int, Sequence[Columns]], origin: Origin) -> None:
        """Of a value in shards, to each tile the columns that it wants and no others; a piece that several want is sent to
        them together."""
        element = self.graph.type(root).element
        wanted = {t: ranges for t, ranges in wanted.items() if ranges}
        for tile, ranges in wanted.items():
            low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
            buffer = self.context.code(tile).buffer(element, (state.index.rows, high - low), "r")
            state.parts[(tile, root)] = (low, buffer)
        borders = {e for ranges in wanted.values() for r in ranges for e in r}
        for shard in state.shards[root]:
            inner = sorted({shard.first, shard.last, *(e for e in borders if shard.first < e < shard.last)})
            for first, last in pairwise(inner):
                takers = [t for t, ranges in wanted.items() if any(a <= first and last <= b for a, b in ranges)]
                targets = {t: self._room(state, t, root, first, last) for t in takers}
                if targets:
                    view = columns(shard.view, first - shard.first, 1, last - first)
                    self.put(state, shard.tile, view, targets, origin)

    def _room(self, state: State, tile: int, root: str, first: int, last: int) -> View:
        low, buffer = state.parts[(tile, root)]
        return columns(buffer, first - low, 1, last - first)
