"""Values that cross segments, kept in the local memory of tiles where it has room: they need not travel to global memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.codegen.parts import Access
from cimc.isa.program import GlobalBuffer, TileProgram
from cimc.mapping.allocate import aligned

READ_WEIGHT = 2
"""A load's hops count for so many of a store's: stores leave while others work, and what loads, waits."""

QUEUE_HOPS = 4
"""A byte that a tile serves already, in the same phase, counts like a byte that travels so many hops further: accesses to one
tile queue up."""

BORDER_HOPS = 1000  # a way from chip to chip counts like so many hops within one


@dataclass(frozen=True, slots=True)
class Stored:
    """An array that tiles store and load. ``phase``: arrays of one phase are accessed at about the same time."""

    buffer: GlobalBuffer
    accesses: tuple[Access, ...]
    phase: int = 0


def settle(
    stored: Sequence[Stored],
    movable: frozenset[str],
    tiles: Sequence[TileProgram],
    chip: ChipSpec,
    pinned: Mapping[str, int | None],
) -> tuple[GlobalBuffer, ...]:
    """The global arrays in the order given, those of ``movable`` in the tiles that have room where their bytes travel least
    (ties: lowest number); what fits nowhere stays in global memory. Their addresses follow the tile's own buffers.
    ``pinned``: homes that are said, None: global memory; they are given first. Raises RESIDENT_ROOM for one without room."""
    room = _Room(tiles, chip)
    said = {s.buffer.name: room.pin(s.buffer, pinned[s.buffer.name]) for s in stored if s.buffer.name in pinned}

    def home(of: Stored) -> GlobalBuffer:
        return said.get(of.buffer.name) or (room.put(of) if of.buffer.name in movable else of.buffer)

    return tuple(home(s) for s in stored)


class _Room:
    """What is left of the tiles' local memories."""

    def __init__(self, tiles: Sequence[TileProgram], chip: ChipSpec) -> None:
        self.chip = chip
        self.size = np.array([chip.tile(t).local_bytes for t in range(chip.tile_count)])
        self.used = np.zeros_like(self.size)
        for tile in tiles:
            self.used[tile.tile] = max((aligned(b.address + b.bytes) for b in tile.buffers), default=0)
        self.served: dict[int, NDArray[np.int64]] = {}

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
        buffer = stored.buffer
        fits = self.used + aligned(buffer.bytes) <= self.size
        if not fits.any():
            return buffer
        served = self.served.setdefault(stored.phase, np.zeros_like(self.size))
        cost = self._travel(_weights(stored)) + QUEUE_HOPS * served
        tile = int(np.argmin(np.where(fits, cost, np.iinfo(np.int64).max)))
        served[tile] += sum(a.moved for a in stored.accesses) * buffer.element.bytes
        address = int(self.used[tile])
        self.used[tile] += aligned(buffer.bytes)
        return replace(buffer, tile=tile, address=address)

    def _travel(self, weights: Mapping[int, int]) -> NDArray[np.int64]:
        """By tile, Σ weight · hops from the tiles that weigh."""
        chip = self.chip
        xs, ys = np.arange(chip.columns), np.arange(chip.tile_count // chip.columns)
        across, down = np.zeros(len(xs), np.int64), np.zeros(len(ys), np.int64)
        for tile, weight in weights.items():
            x, y = chip.position(tile)
            borders = np.abs(xs // chip.chip_columns - x // chip.chip_columns)
            across += weight * (np.abs(xs - x) + BORDER_HOPS * borders)
            down += weight * np.abs(ys - y)
        return (down[:, None] + across[None, :]).reshape(-1)


def _weights(stored: Stored) -> dict[int, int]:
    found: dict[int, int] = {}
    for access in stored.accesses:
        weight = access.moved * stored.buffer.element.bytes * (1 if access.writes else READ_WEIGHT)
        found[access.tile] = found.get(access.tile, 0) + weight
    return found
