"""KV caches in the local memory of the tiles that multiply with them: states, what is written into them, where they are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from cimc.arch.spec import ChipSpec
from cimc.ir.graph import Node
from cimc.isa.operands import View, dense_strides
from cimc.isa.program import Piece
from cimc.mapping.caches import Cache
from cimc.mapping.segment import Range


@dataclass(frozen=True)
class Kept:
    """A cache as a segment reads it. ``units``: by share of the segment, the units [low, high) that its tile keeps."""

    cache: Cache
    number: int
    node: Node  # the concat
    units: tuple[tuple[int, int], ...]

    def name(self, share: int) -> str:
        """The state of a share, on the share's tile."""
        return f"kv{self.number}.{share}"

    def view(self, share: int, view: View) -> View:
        """A view of all of the cache, in the state of a share."""
        low, _ = self.units[share]
        return View(self.name(share), view.offset + -low * self.cache.unit, view.shape, view.strides)

    def pieces(self, rows: int, tiles: tuple[int, ...]) -> Iterator[Piece]:
        """The first ``rows`` rows of the cache, as pieces of the states."""
        cache, strides = self.cache, dense_strides(self.cache.shape)
        inner = (rows, *cache.shape[cache.axis + 1 :])
        for share, (tile, (low, high)) in enumerate(zip(tiles, self.units, strict=True)):
            for first, counts in cache.rectangles(low, high):
                offset = sum(i * s for i, s in zip(first, strides, strict=False)) - low * cache.unit
                corner = (*first, *(0 for _ in inner))
                yield Piece(tile, corner, self.name(share), offset, (*counts, *inner), strides)


@dataclass(frozen=True)
class HeldSegment:
    """A segment that reads caches where they are kept: its shares of heads with their tiles."""

    shares: tuple[tuple[int, tuple[Range, ...]], ...]
    kept: tuple[Kept, ...]

    @property
    def tiles(self) -> tuple[int, ...]:
        """The tile of each share."""
        return tuple(tile for tile, _ in self.shares)

    def view(self, present: str, share: int, view: View) -> View | None:
        """A view of a cache in the state of a share; None if it is not kept there."""
        return next((k.view(share, view) for k in self.kept if k.cache.present == present), None)


@dataclass(frozen=True)
class Held:
    """All caches in tiles, by the segments that read them. ``tokens``: the rows that would find room, of all caches that
    could be there."""

    segments: Mapping[int, HeldSegment] = field(default_factory=dict[int, HeldSegment])
    tokens: int = 0

    def of(self, segment: int) -> HeldSegment | None:
        """What a segment reads where it is kept."""
        return self.segments.get(segment)

    @property
    def values(self) -> frozenset[str]:
        """The outputs that grow in tiles."""
        return frozenset(k.cache.present for s in self.segments.values() for k in s.kept)

    def pieces(self, value: str) -> tuple[Piece, ...]:
        """The pieces of a value that is an input or output of a cache in tiles; none for others."""
        found: list[Piece] = []
        for segment in self.segments.values():
            for kept in segment.kept:
                if value in (kept.cache.past, kept.cache.present):
                    rows = kept.cache.rows if value == kept.cache.past else kept.cache.length
                    found += kept.pieces(rows, segment.tiles)
        return tuple(found)

    def roomy(self, tiles: Sequence[int], chip: ChipSpec) -> list[int]:
        """Of the tiles, those of whose local memory caches take no more than a quarter; if there are none, those that hold
        least."""
        there = self.bytes()
        roomy = [t for t in tiles if 4 * there.get(t, 0) <= chip.tile(t).local_bytes]
        least = min(there.get(t, 0) for t in tiles)
        return roomy or [t for t in tiles if there.get(t, 0) == least]

    def bytes(self) -> dict[int, int]:
        """By tile, the bytes of its states."""
        found: dict[int, int] = {}
        for segment in self.segments.values():
            for kept in segment.kept:
                for tile, (low, high) in zip(segment.tiles, kept.units, strict=True):
                    size = (high - low) * kept.cache.unit * kept.cache.element_bytes
                    found[tile] = found.get(tile, 0) + size
        return found
