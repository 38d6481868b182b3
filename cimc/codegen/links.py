"""What the links of the mesh carry in each phase of a program: what travels where much travels waits, however near it is.

A packet goes along the row first, then along the column; a multicast takes shared links once. Loads are in cycles that links
are occupied for. Links between chips are not told apart from others here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Step
from cimc.isa.messages import SENDING, destinations
from cimc.isa.operands import View, static_shape
from cimc.isa.steps import executed

Grid = NDArray[np.float64]  # by row and column of the mesh
SERVING = 3
"""How much dearer than a link the queue of a tile is, which serves one access after the other (1 and 9: MiniLM takes 0.4 and
0.3 % fewer cycles, BERT-base 0.3 % more)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What a tile stores into a value, or loads from it, in one phase; ``cycles`` of a link. ``burst``: all at once, not in the
    rounds of a loop."""

    tile: int
    phase: int
    cycles: float
    writes: bool
    burst: bool = False


class Links:
    """Loads of one phase: of the links that leave each tile to the east, west, south and north, and of its queue."""

    def __init__(self, chip: ChipSpec) -> None:
        self.chip = chip
        shape = (chip.tile_count // chip.columns, chip.columns)
        self.east, self.west, self.south, self.north, self.queue = (np.zeros(shape) for _ in range(5))

    def send(self, source: int, targets: Iterable[int], cycles: float) -> None:
        """A message from one tile to others."""
        x, y = self.chip.position(source)
        reach: dict[int, tuple[int, int]] = {}
        for target in targets:
            to_x, to_y = self.chip.position(target)
            low, high = reach.get(to_x, (y, y))
            reach[to_x] = (min(low, to_y), max(high, to_y))
        self._along(self.east[y], self.west[y], x, min(reach), max(reach), cycles)
        for column, (low, high) in reach.items():
            self._along(self.south[:, column], self.north[:, column], y, low, high, cycles)

    @staticmethod
    def _along(up: Grid, down: Grid, at: int, low: int, high: int, cycles: float) -> None:
        up[at : max(high, at)] += cycles
        down[min(low, at) + 1 : at + 1] += cycles

    def take(self, flow: Flow, home: int) -> None:
        """A flow to or from a value's home."""
        source, target = (flow.tile, home) if flow.writes else (home, flow.tile)
        self.send(source, (target,), flow.cycles)
        x, y = self.chip.position(home)
        self.queue[y, x] += flow.cycles

    def price(self, flow: Flow) -> Grid:
        """By home, how much a flow would add to the sum of squares of all loads."""
        x, y = self.chip.position(flow.tile)
        if flow.writes:
            across = _from(self.east[y], self.west[y], x)[None, :]
            down = _from(self.south, self.north, y)
        else:
            across = _to(self.east.T, self.west.T, x).T
            down = _to(self.south[:, x], self.north[:, x], y)[:, None]
        rows, columns = self.queue.shape
        hops = np.abs(np.arange(columns) - x)[None, :] + np.abs(np.arange(rows) - y)[:, None]
        squares = 2 * flow.cycles * (across + down + SERVING * self.queue)
        return squares + flow.cycles**2 * (hops + SERVING)


def _from(up: Grid, down: Grid, at: int) -> Grid:
    """Along the first axis, the load of all links from a place to each other one."""
    over = np.cumsum(np.concatenate([np.zeros_like(up[:1]), up]), axis=0)[:-1]
    under = np.cumsum(down, axis=0)
    return np.maximum(over - over[at], 0) + np.maximum(under[at] - under, 0)


def _to(up: Grid, down: Grid, at: int) -> Grid:
    """Along the first axis, the load of all links from each other place to one."""
    over = np.cumsum(np.concatenate([np.zeros_like(up[:1]), up]), axis=0)[:-1]
    under = np.cumsum(down, axis=0)
    return np.maximum(over[at] - over, 0) + np.maximum(under - under[at], 0)


def sent(links: Links, tile: int, steps: Sequence[Step], sizes: dict[str, int]) -> None:
    """Add all messages that a tile's steps send; ``sizes``: bytes of an element of each of its buffers."""
    width = links.chip.noc.link_bytes_per_cycle
    for step, times in executed(steps):
        if step.mnemonic in SENDING:  # as if what meets on the way of a sum shared no link
            view = step.operands[0]
            assert isinstance(view, View)
            size = sizes[view.buffer] * prod(static_shape(view))
            links.send(tile, destinations(step), times * max(1, -(-size // width)))
