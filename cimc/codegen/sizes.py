"""Rows of a block of a batch that streams, and how many blocks attention's heads do at once: what to try, best first.

A sample is so many blocks and some more steps under way for every layer, so small blocks fill and drain the pipeline of layers
sooner; each step has its instructions and its messages' ways, so smaller ones cost. The more rows heads do at once, the less
often the matmul unit is loaded, and the later their results come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

FEWEST, MOST = 16, 100
"""Blocks of a sample, if its rows can be cut so: with fewer, filling the pipeline takes longest; more take long to simulate."""

WASTE = 64
"""Of so many rows one may be done twice, where a sample has no even blocks of half the rows wanted."""

TOGETHER = (32, 16, 8)
"""Rows, at most, that attention's heads do at once: the matmul unit is loaded as often as that goes into a sample."""

SLACK = 1.0
"""What the fullest tile has to do, in parts of what a tile has on average (estimated)."""

STEP = 80
"""Cycles that a step takes beside its work: ways of messages that somebody waits for (estimated)."""

WORTH = 1.03
"""Fewer, longer blocks are taken if they take no more than so many times the time: their programs are done sooner."""


@dataclass(frozen=True, slots=True)
class Size:
    """Rows of a block, and blocks that heads do at once."""

    rows: int
    group: int

    def below(self, other: Size) -> bool:
        """Whether it surely keeps less than the other."""
        return self.rows < other.rows or self.rows * self.group < other.rows * other.group


@dataclass(frozen=True, slots=True)
class Cost:
    """What a region takes with blocks of a size: steps, and cycles of a step in the cells and, on average, in the tiles for
    vector work: the root of the sum of squares over their units, as what is busy at once is never all of it."""

    steps: int
    cells: int
    tiles: float

    @property
    def cycles(self) -> float:
        """All of it."""
        return self.steps * max(self.cells, SLACK * self.tiles + STEP)

    @property
    def least(self) -> float:
        """No size takes less that takes as many steps."""
        return self.steps * max(self.cells, STEP)


def rows_of_blocks(rows: int) -> list[int]:
    """Rows of a block to try, most first: that the ``rows`` of a sample are at least ``FEWEST`` blocks; those that are none, or
    of which few are done twice."""
    most = max(1, rows // FEWEST)
    even = [n for n in range(most, 0, -1) if rows % n == 0]
    if 2 * even[0] > most:
        return even
    return [n for n in range(most, 0, -1) if (-(-rows // n) * n - rows) * WASTE <= rows]


def ranked(rows: int, least: Callable[[Size], Cost], cost: Callable[[Size], Cost]) -> list[Size]:
    """What to try for samples of so many rows, best first. ``least``: what a size costs if only cells took time, which is
    quickly known; ``cost``: with the tiles for vector work."""
    found = rows_of_blocks(rows)
    few = [n for n in found if -(-rows // n) <= MOST] or found[:1]
    wanted = list(dict.fromkeys(Size(n, _group(rows, n, together)) for n in few for together in TOGETHER))
    costs: dict[Size, float] = {}
    for size in sorted(wanted, key=lambda s: least(s).least):
        if costs and least(size).least > WORTH * min(costs.values()):
            break
        costs[size] = cost(size).cycles
    best = min(costs.values())
    good = sorted((s for s in costs if costs[s] <= WORTH * best), key=lambda s: (-s.rows, costs[s]))
    others = [Size(n, _group(rows, n, together)) for n in found for together in (*TOGETHER, n)]
    return list(dict.fromkeys((*good, *sorted(costs, key=lambda s: costs[s]), *others)))


def _group(rows: int, block: int, together: int) -> int:
    """The most blocks, of which a sample has a whole number, that are not more rows than wanted."""
    blocks = -(-rows // block)
    return max(n for n in range(1, max(1, together // block) + 1) if blocks % n == 0)
