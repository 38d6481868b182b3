"""Values that cross segments, kept in the local memory of tiles where it has room: they need not travel to global memory."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import INSTRUCTIONS, Kind
from cimc.isa.operands import View
from cimc.isa.printer import walk
from cimc.isa.program import GlobalBuffer, TileProgram
from cimc.mapping.allocate import aligned


def settle(
    buffers: Sequence[GlobalBuffer],
    movable: frozenset[str],
    tiles: Sequence[TileProgram],
    chip: ChipSpec,
    pinned: Mapping[str, int | None] | None = None,
) -> tuple[GlobalBuffer, ...]:
    """The global buffers, those of ``movable`` in the tiles with most room left (ties: lowest number), in the order given;
    what fits nowhere stays in global memory. Their addresses follow the tile's own buffers. Of several chips, the ones
    that write a buffer come first. ``pinned``: homes that are said, None: global memory; they are given first. Raises
    RESIDENT_ROOM for one without room."""
    used = {t.tile: max((aligned(b.address + b.bytes) for b in t.buffers), default=0) for t in tiles}
    fixed = _pinned(buffers, {n: t for n, t in (pinned or {}).items() if n in movable}, used, chip)
    room: list[list[tuple[int, int]]] = [[] for _ in range(chip.chips)]
    for t in range(chip.tile_count):
        room[chip.chip_of(t)].append((used.get(t, 0) - chip.tile(t).local_bytes, t))
    for of_chip in room:
        heapq.heapify(of_chip)
    writers = _writers(tiles, chip) if chip.chips > 1 else {}
    found: list[GlobalBuffer] = []
    for buffer in buffers:
        if buffer.name in fixed:
            found.append(fixed[buffer.name])
            continue
        near = min((room[c] for c in writers.get(buffer.name, ())), default=room[0])
        best = near if aligned(buffer.bytes) <= -near[0][0] else min(room)
        free, tile = best[0]
        if buffer.name not in movable or aligned(buffer.bytes) > -free:
            found.append(buffer)
            continue
        heapq.heapreplace(best, (free + aligned(buffer.bytes), tile))
        found.append(replace(buffer, tile=tile, address=chip.tile(tile).local_bytes + free))
    return tuple(found)


def _pinned(
    buffers: Sequence[GlobalBuffer], pinned: Mapping[str, int | None], used: dict[int, int], chip: ChipSpec
) -> dict[str, GlobalBuffer]:
    """The buffers whose homes are said, there; ``used`` grows by them."""
    found: dict[str, GlobalBuffer] = {}
    for buffer in buffers:
        if buffer.name not in pinned:
            continue
        tile = pinned[buffer.name]
        found[buffer.name] = buffer
        if tile is None:
            continue
        address, have = used.get(tile, 0), chip.tile(tile).local_bytes
        if address + aligned(buffer.bytes) > have:
            raise errors.RESIDENT_ROOM(tile=tile, need=aligned(buffer.bytes), left=have - address, have=have)
        found[buffer.name] = replace(buffer, tile=tile, address=address)
        used[tile] = address + aligned(buffer.bytes)
    return found


def _writers(tiles: Sequence[TileProgram], chip: ChipSpec) -> dict[str, set[int]]:
    """By global buffer, the chips whose tiles write it."""
    found: dict[str, set[int]] = {}
    for tile in tiles:
        for step in walk(tile.steps):
            spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
            for i, operand in enumerate(step.operands):
                if isinstance(operand, View) and spec.access(i, words) is Kind.GLOBAL_WRITE:
                    found.setdefault(operand.buffer, set()).add(chip.chip_of(tile.tile))
    return found
