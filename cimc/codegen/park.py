"""Rows that are needed long after they are made wait in tiles that have room: those of the matrices, where digital tiles, which
take them, are full. What a product's tile made itself stays there; other rows make a stop on their way."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

from cimc.arch import noc
from cimc.arch.spec import ChipSpec

LEAST = 6
"""Steps that rows must have to wait, at least: a stop takes two, and a second way (estimated)."""

CUTS = 8
"""Tiles that the columns of some rows wait in, at most: every one is a message more (estimated)."""


class Park:
    """What is left of the tiles in which rows may wait. ``room``: bytes of each."""

    def __init__(self, room: Mapping[int, int], chip: ChipSpec) -> None:
        self.left, self.chip = dict(room), chip
        self.kept: set[tuple[int, str]] = set()

    def pays(self, tile: int, wait: int) -> bool:
        """Whether rows that a tile takes so many steps after they were made had better wait elsewhere."""
        return bool(self.left) and tile not in self.left and wait >= LEAST

    def taken(self, tile: int, size: int) -> bool:
        """Let rows wait on the tile that takes them, if it has room for so many bytes."""
        if self.left.get(tile, 0) < size:
            return False
        self.left[tile] -= size
        return True

    def keep(self, buffers: Mapping[tuple[int, str], int]) -> bool:
        """Let rows wait in the buffers that they were made in, if the rings that these become have room: bytes by (tile,
        buffer)."""
        left = dict(self.left)
        for (tile, name), size in buffers.items():
            if (tile, name) not in self.kept:
                left[tile] = left.get(tile, 0) - size
        if any(left[tile] < 0 for tile, _ in buffers):
            return False
        self.left = left
        self.kept |= buffers.keys()
        return True

    def stops(self, tile: int, columns: int, column: int) -> list[tuple[int, int, int]]:
        """Where rows of so many columns may wait for a tile, in as few pieces as there is room for: tile, first column,
        columns; nothing if nowhere. ``column``: bytes that one needs."""
        near = sorted(self.left.keys() - {tile}, key=lambda at: (noc.hops(self.chip, tile, at), at))
        for cuts in range(1, min(CUTS, columns) + 1):
            each = ceil(columns / cuts)
            found = [t for t in near if self.left[t] >= each * column][:cuts]
            if len(found) == cuts:
                pieces = [
                    (t, i * each, min(each, columns - i * each)) for i, t in enumerate(found) if i * each < columns
                ]
                for at, _, count in pieces:
                    self.left[at] -= count * column
                return pieces
        return []
