"""Values that cross segments, kept in the local memory of tiles where it has room: they need not travel to global memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.codegen.links import Flow, Links
from cimc.codegen.parts import Access
from cimc.isa.program import GlobalBuffer, TileProgram
from cimc.mapping.allocate import aligned

READ_WEIGHT = 2
"""A load's cycles on a link count for so many of a store's: stores leave while others work, and what loads, waits (1 and 4: less
than 0.1 % of MiniLM's cycles more)."""

BURST = (8, 2)
"""The same for loads and stores that are no part of a loop: all at once they come or leave, and what is next waits for them
(of 2 to 16; (1, 1): MiniLM takes 1.1 % more cycles, BERT-base 2.7 %; (16, 4): 1.0 and 0.5 % fewer)."""

NONE: Mapping[int, Links] = MappingProxyType({})

BORDER_HOPS = 1000
"""A way from chip to chip counts like so many hops within one: more than a mesh has, so that values stay on their chip
(estimated)."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An array that tiles store and load."""

    buffer: GlobalBuffer
    accesses: tuple[Access, ...]


def settle(
    stored: Sequence[Stored],
    movable: frozenset[str],
    tiles: Sequence[TileProgram],
    chip: ChipSpec,
    pinned: Mapping[str, int | None],
    links: Mapping[int, Links] = NONE,
) -> tuple[GlobalBuffer, ...]:
    """The global arrays in the order given, those of ``movable`` in the tiles that have room where their bytes travel least,
    over links that carry least (ties: lowest number); what fits nowhere stays in global memory. Their addresses follow the
    tile's own buffers. ``pinned``: homes that are said, None: global memory; they are given first. ``links``: by phase, what
    links carry already. Raises RESIDENT_ROOM for one without room."""
    room = _Room(tiles, chip, links)
    said = {s.buffer.name: room.pin(s.buffer, pinned[s.buffer.name]) for s in stored if s.buffer.name in pinned}

    def home(of: Stored) -> GlobalBuffer:
        return said.get(of.buffer.name) or (room.put(of) if of.buffer.name in movable else of.buffer)

    return tuple(home(s) for s in stored)


class _Room:
    """What is left of the tiles' local memories."""

    def __init__(self, tiles: Sequence[TileProgram], chip: ChipSpec, links: Mapping[int, Links]) -> None:
        self.chip = chip
        self.size = np.array([chip.tile(t).local_bytes for t in range(chip.tile_count)])
        self.used = np.zeros_like(self.size)
        for tile in tiles:
            self.used[tile.tile] = max((aligned(b.address + b.bytes) for b in tile.buffers), default=0)
        self.links = dict(links)

    def pin(self, buffer: GlobalBuffer, tile: int | None) -> GlobalBuffer:
        """The array in the tile said. Raises RESIDENT_ROOM."""
        if tile is None:
            return buffer
        address, have = int(self.used[tile]), int(self.size[tile])
        if address + aligned(buffer.bytes) > have:
            raise errors.RESIDENT_ROOM(tile=tile, need=aligned(buffer.bytes), left=have - address, have=have)
        self.used[tile] += aligned(buffer.bytes)
        return replace(buffer, tile=tile, address=address)

    def put(self, stored: Stored) -> GlobalBuffer:
        """The array in the best tile, whose room it takes."""
        buffer, chip = stored.buffer, self.chip
        fits = self.used + aligned(buffer.bytes) <= self.size
        if not fits.any():
            return buffer
        flows = _flows(stored, chip)
        cost = self._borders(flows)
        for flow in flows:
            weight = BURST[flow.writes] if flow.burst else 1 if flow.writes else READ_WEIGHT
            cost += weight * self._phase(flow.phase).price(flow)
        tile = int(np.argmin(np.where(fits, cost.reshape(-1), np.inf)))
        for flow in flows:
            self._phase(flow.phase).take(flow, tile)
        address = int(self.used[tile])
        self.used[tile] += aligned(buffer.bytes)
        return replace(buffer, tile=tile, address=address)

    def _phase(self, phase: int) -> Links:
        if phase not in self.links:
            self.links[phase] = Links(self.chip)
        return self.links[phase]

    def _borders(self, flows: Sequence[Flow]) -> NDArray[np.float64]:
        """By tile, what ways from chip to chip cost."""
        chip = self.chip
        cost = np.zeros((chip.tile_count // chip.columns, chip.columns))
        xs = np.arange(chip.columns) // chip.chip_columns
        for flow in flows if chip.chips > 1 else ():
            x, _ = chip.position(flow.tile)
            cost += flow.cycles**2 * BORDER_HOPS * np.abs(xs - x // chip.chip_columns)
        return cost


def _flows(stored: Stored, chip: ChipSpec) -> list[Flow]:
    """What each tile stores into an array, or loads, in each phase."""
    found: dict[tuple[int, int, bool, bool], float] = {}
    for a in stored.accesses:
        key = a.tile, a.phase, a.writes, not a.loops
        cycles = a.moved * stored.buffer.element.bytes / chip.noc.link_bytes_per_cycle
        found[key] = found.get(key, 0.0) + cycles
    return [Flow(tile, phase, cycles, writes, burst) for (tile, phase, writes, burst), cycles in found.items()]
