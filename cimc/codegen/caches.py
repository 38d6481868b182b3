"""Which tiles keep which heads of the KV caches: those that hold least first, of these the nearest (``--cache``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.codegen.context import Context
from cimc.codegen.held import Held, HeldSegment, Kept
from cimc.codegen.spread import Spread
from cimc.ir.graph import Graph, Node
from cimc.mapping.allocate import aligned
from cimc.mapping.caches import Cache, Heads, caches, spread
from cimc.mapping.json_value import Json
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Segment
from cimc.mapping.segment import Range
from cimc.ops import OPS, Access

SHARES = (0.875, 0.75, 0.5, 0.25)
"""Of a tile's local memory, what caches may take: the first share that leaves code generation room for blocks of one row."""

FREE = 8
"""One in so many tiles holds no caches where some find no room: it does the products of those, which it loads."""


@dataclass(frozen=True)
class _Reading:
    """How a segment's heads reach a cache: offsets of the first and the last element of each operand, and strides over the
    cut axes."""

    cache: Cache
    reaches: tuple[tuple[int, tuple[int, ...]], ...]

    def units(self, share: tuple[Range, ...]) -> tuple[int, int]:
        """The units [low, high) that a share of the cut axes touches."""
        lows = [o + sum(r.low * s for r, s in zip(share, strides, strict=False)) for o, strides in self.reaches]
        tops = [
            o + sum((r.low + r.count - 1) * s for r, s in zip(share, strides, strict=False))
            for o, strides in self.reaches
        ]
        return min(lows) // self.cache.unit, max(tops) // self.cache.unit + 1


@dataclass(frozen=True)
class _Wanted:
    """A segment that reads caches: its domain, of which the first ``cut`` axes may be cut, and what it reads."""

    segment: Segment
    domain: tuple[int, ...]
    cut: int
    readings: tuple[_Reading, ...]
    tiles: tuple[int, ...]  # nearest first
    order: tuple[int, ...]  # the same along the chip

    def heads(self, length: int | None = None) -> Heads:
        """What a head takes; ``length``: with so many rows in every cache."""
        extents = self.domain[: self.cut]
        total = 0
        for reading in self.readings:
            cache = reading.cache
            low, high = reading.units(tuple(Range(0, 1) for _ in extents))
            size = (high - low) * cache.unit * cache.element_bytes
            total += aligned(-(-size * (length or cache.length) // cache.length))
        return Heads(extents, total)


def plan(context: Context, chip: ChipSpec, share: float) -> Held:
    """Where the caches of a mapping lie. With ``fit``, those for which there is no room are left out. Raises CACHE_ROOM."""
    readers = _readers(context)
    if not readers:
        return Held()
    tokens = _tokens(readers, chip, share)
    dropped: set[str] = set()
    free: set[int] = set()
    while True:
        left = [_without(w, dropped, free) for w in readers]
        placed = _placed([w for w in left if w.readings], chip, share)
        if isinstance(placed, dict):
            return Held(_held(context, placed), tokens)
        if context.mapping.choices.cache == "resident":
            raise _no_room(readers, chip, share, tokens)
        dropped |= {r.cache.present for r in placed.readings}
        free |= set(placed.order[-max(1, min(prod(placed.heads().extents), len(placed.order) // FREE)) :])


def _without(wanted: _Wanted, dropped: set[str], free: set[int]) -> _Wanted:
    """A segment without some of the caches it reads, and of the tiles that are to be free of caches."""
    tiles = tuple(t for t in wanted.tiles if t not in free)
    return replace(wanted, readings=tuple(r for r in wanted.readings if r.cache.present not in dropped), tiles=tiles)


def _readers(context: Context) -> list[_Wanted]:
    """The segments that read caches whole, in order."""
    by_value = {c.present: c for c in context.mapping.caches}
    found: list[_Wanted] = []
    for segment in context.mapping.segments if by_value else ():
        reads = [
            (node, value, by_value[home.buffer])
            for node in segment.nodes
            for i, value in enumerate(node.inputs)
            if value and OPS[node.op].access(node, i) is Access.WHOLE
            for home in (context.homes[value],)
            if home.buffer in by_value
        ]
        if reads:
            found.append(_wanted(context, segment, reads))
    return found


def _wanted(context: Context, segment: Segment, reads: Sequence[tuple[Node, str, Cache]]) -> _Wanted:
    emitter = Spread(context, segment, context.tails(segment), 1)
    grouped: dict[str, list[tuple[int, int, tuple[int, ...]]]] = {}
    for node, value, cache in reads:
        reach = emitter.space.reach(node, value, Access.WHOLE)
        inner = sum(s * (n - 1) for n, s in zip(reach.inner_shape, reach.inner_strides, strict=True) if s > 0)
        grouped.setdefault(cache.present, []).append((reach.offset, inner, reach.strides))
    known = {cache.present: cache for _, _, cache in reads}
    domain = emitter.space.domain
    cut = 0
    while cut < len(domain) - 1 and all(
        strides[cut] and strides[cut] % known[present].unit == 0
        for present, reaches in grouped.items()
        for _, _, strides in reaches
    ):
        cut += 1
    readings: list[_Reading] = []
    for present, reaches in grouped.items():
        near = [(offset, strides[:cut]) for offset, _, strides in reaches]
        far = [
            (offset + inner + sum(s * (n - 1) for n, s in zip(domain[cut:], strides[cut:], strict=True)), strides[:cut])
            for offset, inner, strides in reaches
        ]
        readings.append(_Reading(known[present], (*near, *far)))
    return _Wanted(
        segment, domain, cut, tuple(readings), tuple(emitter.nearest_first()), context.placement.tiles[segment.index]
    )


Shares = tuple[tuple[int, tuple[Range, ...]], ...]


def _placed(
    readers: Sequence[_Wanted], chip: ChipSpec, share: float, length: int | None = None
) -> dict[int, tuple[_Wanted, Shares]] | _Wanted:
    """Shares and tiles of each segment, or the first that finds no room. ``length``: of all caches, in place of theirs."""
    room = {t: int(chip.tile(t).local_bytes * share) for t in range(chip.tile_count)}
    used = dict.fromkeys(room, 0)
    found: dict[int, tuple[_Wanted, Shares]] = {}
    for wanted in readers:
        heads = wanted.heads(length)
        order = sorted(wanted.tiles, key=lambda t: used[t])  # stable: the nearest of those that hold as little
        shares = spread(heads, order, room) if order else None
        if shares is None:
            return wanted
        for tile, ranges in shares:
            size = heads.bytes * prod(r.count for r in ranges)
            room[tile] -= size
            used[tile] += size
        rest = tuple(Range(0, n) for n in wanted.domain[wanted.cut :])
        found[wanted.segment.index] = (wanted, tuple((tile, (*ranges, *rest)) for tile, ranges in shares))
    return found


def _held(context: Context, placed: dict[int, tuple[_Wanted, Shares]]) -> dict[int, HeldSegment]:
    producers = context.graph.producers()
    found: dict[int, HeldSegment] = {}
    number = 0
    for index, (wanted, shares) in placed.items():
        kept: list[Kept] = []
        for reading in wanted.readings:
            units = tuple(reading.units(ranges) for _, ranges in shares)
            kept.append(Kept(reading.cache, number, producers[reading.cache.present], units))
            number += 1
        found[index] = HeldSegment(shares, tuple(kept))
    return found


def _tokens(readers: Sequence[_Wanted], chip: ChipSpec, share: float) -> int:
    """The most rows that every cache may have so that all find room."""
    low, high = 0, 1
    while isinstance(_placed(readers, chip, share, high), dict):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        fits = isinstance(_placed(readers, chip, share, middle), dict)
        low, high = (middle, high) if fits else (low, middle)
    return low


def _no_room(readers: Sequence[_Wanted], chip: ChipSpec, share: float, tokens: int) -> errors.CimcError:
    need = sum(w.heads().bytes * prod(w.domain[: w.cut]) for w in readers)
    tiles = sorted({t for w in readers for t in w.tiles})
    have = sum(int(chip.tile(t).local_bytes * share) for t in tiles)
    length = max(r.cache.length for w in readers for r in w.readings)
    kind = chip.kind(tiles[0])
    why = (
        f"{length} tokens take {need} bytes, the {len(tiles)} tiles that multiply with them have {have} for it "
        f"({share:.1%} of their local memory), room for {tokens} tokens with each head in one tile"
    )
    fix = f"--cache fit keeps the layers that find room, --cache memory none; or --chips, or a larger tiles.{kind}.local_bytes"
    return errors.CACHE_ROOM(chip=chip.name, why=why, fix=fix)


def told(graph: Graph, mapping: Mapping, held: Held, chip: ChipSpec) -> dict[str, Json] | None:
    """What became of the KV caches, as the ``cache`` of ``mapping.json``; None for a graph without any."""
    found, refused = caches(graph)
    if not found and not refused:
        return None
    there = held.bytes()
    values: list[Json] = []
    for cache in found:
        tiles = sorted({p.tile for p in held.pieces(cache.present)})
        home, why = ("tiles", "") if tiles else ("memory", "" if mapping.choices.cache == "memory" else "no room")
        values.append(_row(cache.past, cache.present, cache.bytes, cache.length, home, tiles, why))
    for name, why in refused.items():
        past = graph.producers()[name].inputs[0]
        values.append(_row(past, name, graph.type(name).bytes, None, "memory", [], why))
    return {
        "how": mapping.choices.cache,
        "capacity_tokens": held.tokens or None,
        "bytes": sum(there.values()),
        "tiles": [{"tile": t, "bytes": n, "local_bytes": chip.tile(t).local_bytes} for t, n in sorted(there.items())],
        "values": values,
    }


def _row(past: str, present: str, bytes: int, tokens: int | None, home: str, tiles: list[int], why: str) -> Json:
    row: dict[str, Json] = {"input": past, "output": present, "bytes": bytes, "tokens": tokens}
    return {**row, "home": home, "tiles": list[Json](tiles), "why": why}


def note(found: dict[str, Json] | None, how: str) -> str:
    """What became of them in a line."""
    values = found["values"] if found else None
    if found is None or not isinstance(values, list):
        return f"cache {how}: the model has no KV cache (an output that is an input with rows added)"
    rows = [v for v in values if isinstance(v, dict)]
    if how == "memory":
        return (
            f"{len(rows)} KV caches pass through global memory as inputs and outputs; --cache fit keeps them in tiles"
        )
    here = [v for v in rows if v["home"] == "tiles"]
    tiles = found["tiles"]
    count = len(tiles) if isinstance(tiles, list) else 0
    text = f"cache {how}: {len(here)} of {len(rows)} in {count} tiles, {found['bytes']} bytes"
    room = f"; {found['capacity_tokens']} tokens fit" if found["capacity_tokens"] else ""
    left = next((v for v in rows if v["home"] == "memory"), None)
    return text + room + (f"; {left['output']} in global memory: {left['why']}" if left else "")
