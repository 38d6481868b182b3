"""Events of the fast timing engine that are still to happen, the earliest first: a binary heap of (time, key), compiled by
numba. The key orders events of the same time."""

from __future__ import annotations

from cimc.native import index, inner
from cimc.sim.state import F_ORDER, HEAP, State, W


@inner
def key_of(s: State, g: int, phase: int) -> int:
    """What orders events of the same time: tile, order, phase."""
    return ((g // W) << 46) | (s.flight[g, F_ORDER] << 2) | phase


@inner
def push(s: State, time: int, key: int) -> None:
    """Add an event."""
    i = index(s.scalar[HEAP])
    s.scalar[HEAP] = i + 1
    while i > 0:
        up = index(i - 1) >> 1
        if s.heap[up, 0] < time or (s.heap[up, 0] == time and s.heap[up, 1] <= key):
            break
        s.heap[i, 0] = s.heap[up, 0]
        s.heap[i, 1] = s.heap[up, 1]
        i = up
    s.heap[i, 0] = time
    s.heap[i, 1] = key


@inner
def drop_first(s: State) -> None:
    """Remove the earliest event."""
    n = index(s.scalar[HEAP] - 1)
    s.scalar[HEAP] = n
    time, key = s.heap[n, 0], s.heap[n, 1]
    i = 0
    while True:
        child = index(2 * i + 1)
        if child >= n:
            break
        right = index(child + 1)
        if right < n and (
            s.heap[right, 0] < s.heap[child, 0]
            or (s.heap[right, 0] == s.heap[child, 0] and s.heap[right, 1] < s.heap[child, 1])
        ):
            child = right
        if s.heap[child, 0] > time or (s.heap[child, 0] == time and s.heap[child, 1] >= key):
            break
        s.heap[i, 0] = s.heap[child, 0]
        s.heap[i, 1] = s.heap[child, 1]
        i = child
    s.heap[i, 0] = time
    s.heap[i, 1] = key
