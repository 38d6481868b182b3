"""A link's reservations in the fast timing engine; :class:`cimc.sim.reference.Line` is the plain definition."""

from __future__ import annotations

from cimc.sim.inner import inner
from cimc.sim.reference import RESERVATIONS
from cimc.sim.state import Ints, State


@inner
def enter(s: State, link: int, header: int, occupied: int, now: int) -> int:
    """Reserve a link from the first time on, not before ``header``, at which it is free for ``occupied`` cycles."""
    line, n, old = s.line[link], s.lines[link], 0
    while old < n and line[old, 1] <= now:
        old += 1
    n -= old
    for k in range(n if old else 0):
        line[k, 0], line[k, 1] = line[k + old, 0], line[k + old, 1]
    at, i = header, 0
    while i < n and at + occupied > line[i, 0]:
        at = max(at, line[i, 1])
        i += 1
    before = i > 0 and line[i - 1, 1] == at
    after = i < n and line[i, 0] == at + occupied
    if before and after:
        line[i - 1, 1] = line[i, 1]
        n = close(line, i, n)
    elif before:
        line[i - 1, 1] = at + occupied
    elif after:
        line[i, 0] = at
    else:
        for k in range(n, i, -1):
            line[k, 0], line[k, 1] = line[k - 1, 0], line[k - 1, 1]
        line[i, 0], line[i, 1] = at, at + occupied
        n += 1
        if n > RESERVATIONS:
            line[0, 1] = line[1, 1]
            n = close(line, 1, n)
    s.lines[link] = n
    return at


@inner
def close(line: Ints, i: int, n: int) -> int:
    """Remove the i-th of n reservations."""
    for k in range(i, n - 1):
        line[k, 0], line[k, 1] = line[k + 1, 0], line[k + 1, 1]
    return n - 1
