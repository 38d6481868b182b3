"""Which segments get further copies of their weights, as long as there are cores for them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from cimc.mapping.placement import Segment


def further(
    segments: Sequence[Segment],
    copies: Mapping[int, int],
    cores: Mapping[int, int],
    budget: int,
    most: Mapping[int, int],
    possible: Callable[[Segment, int], int],
) -> list[tuple[int, int]]:
    """Further copies, those that save most row steps per core first, as (segment, copies it has then); ties: in order.
    With r copies a segment's cores do its rows / r: the next one saves rows / r - rows / (r + 1).

    By segment: ``copies`` it has, ``cores`` of one copy, copies at ``most``. ``budget``: cores that are left. ``possible``:
    of so many wanted copies of a segment, how many there can be."""
    heap: list[tuple[float, int, int, int]] = []
    by_index = {s.index: s for s in segments}

    def offer(segment: Segment, now: int) -> None:
        after = (n for n in range(now + 1, most[segment.index] + 1) if possible(segment, n) == n)
        count = next(after, 0)
        if count:
            saved = segment.rows / now - segment.rows / count
            cost = (count - now) * cores[segment.index]
            heapq.heappush(heap, (-saved / cost, segment.index, count, cost))

    for index in sorted(cores):
        offer(by_index[index], copies[index])
    found: list[tuple[int, int]] = []
    while heap:
        _, index, count, cost = heapq.heappop(heap)
        if cost <= budget:
            budget -= cost
            found.append((index, count))
            offer(by_index[index], count)
    return found


def grown(copies: Mapping[int, int], more: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Copies per segment after some of them got more: (segment, how many it has then)."""
    return {**copies, **dict(more)}
