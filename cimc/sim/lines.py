"""A link's reservations in the fast timing engine; :class:`cimc.sim.reference.Line` is the plain definition."""

from __future__ import annotations

from cimc.native import inner
from cimc.sim.reference import RESERVATIONS
from cimc.sim.state import Ints, State


@inner
def enter(s: State, link: int, header: int, occupied: int, now: int) -> int:
    """Reserve a link from the first time on, not before ``header``, at which it is free for ``occupied`` cycles."""
    line = s.line[link]
    n, old = line[0], 0
    while old < n and line[2 + 2 * old] <= now:
        old += 1
    n -= old
    for k in range(1, 2 * n + 1 if old else 1):
        line[k] = line[k + 2 * old]
    at, i = header, 0
    while i < n and at + occupied > line[1 + 2 * i]:
        at = max(at, line[2 + 2 * i])
        i += 1
    before = i > 0 and line[2 * i] == at
    after = i < n and line[1 + 2 * i] == at + occupied
    if before and after:
        line[2 * i] = line[2 + 2 * i]
        n = close(line, i, n)
    elif before:
        line[2 * i] = at + occupied
    elif after:
        line[1 + 2 * i] = at
    else:
        for k in range(2 * n, 2 * i, -1):
            line[k + 2] = line[k]
        line[1 + 2 * i], line[2 + 2 * i] = at, at + occupied
        n += 1
        if n > RESERVATIONS:
            line[2] = line[4]
            n = close(line, 1, n)
    line[0] = n
    return at


@inner
def close(line: Ints, i: int, n: int) -> int:
    """Remove the i-th of n reservations."""
    for k in range(1 + 2 * i, 2 * n - 1):
        line[k] = line[k + 2]
    return n - 1
