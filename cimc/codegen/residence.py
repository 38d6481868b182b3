"""Values that cross segments, kept in the local memory of tiles where it has room: they need not travel to global memory."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

from cimc.arch.spec import ChipSpec
from cimc.isa.program import GlobalBuffer, TileProgram
from cimc.mapping.allocate import aligned


def settle(
    buffers: Sequence[GlobalBuffer], movable: frozenset[str], tiles: Sequence[TileProgram], chip: ChipSpec
) -> tuple[GlobalBuffer, ...]:
    """The global buffers, those of ``movable`` in the tiles with most room left (ties: lowest number), in the order given;
    what fits nowhere stays in global memory. Their addresses follow the tile's own buffers."""
    used = {t.tile: max((aligned(b.address + b.bytes) for b in t.buffers), default=0) for t in tiles}
    room = [(used.get(t, 0) - chip.tile(t).local_bytes, t) for t in range(chip.tile_count)]
    heapq.heapify(room)
    found: list[GlobalBuffer] = []
    for buffer in buffers:
        free, tile = room[0]
        if buffer.name not in movable or aligned(buffer.bytes) > -free:
            found.append(buffer)
            continue
        heapq.heapreplace(room, (free + aligned(buffer.bytes), tile))
        found.append(replace(buffer, tile=tile, address=chip.tile(tile).local_bytes + free))
    return tuple(found)
