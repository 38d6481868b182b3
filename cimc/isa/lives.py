"""Which local buffers are in use when: buffers may share addresses only if they never are at the same time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import takewhile

import numpy as np

from cimc.isa.instruction import Instruction, Kind, Repeat
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Box, Span
from cimc.isa.verify_steps import Uses

Repeats = Sequence[tuple[Repeat, Span, Box]]

FARTHEST = 2**62
"""No address is beyond: buffers that end there are refused for it, and only compared here."""


def life(buffer: Buffer, accesses: Sequence[tuple[int, Kind]], repeats: Repeats, last: int) -> Span | None:
    """The steps over which a buffer holds something; None if it is never touched.

    From its first access to its last. A repeat runs again and again: a buffer that is also used outside its body, or
    whose first access in the body is not a write in every round, lives through all of it; and so it does where rounds
    overlap. ``repeats`` innermost first. Constants and state live always."""
    if buffer.key or buffer.state:
        return Span(0, last)
    if not accesses:
        return None
    span = Span(accesses[0][0], accesses[-1][0])
    first = accesses[0][0]
    # An instruction that reads what it writes (add s, s, x) is no fresh start.
    fresh = all(kind is Kind.WRITE for _, kind in takewhile(lambda a: a[0] == first, accesses))
    for repeat, body, _ in repeats:
        if body.meets(span) and not (body.holds(span) and fresh and not _overlaps(repeat, first - body.first)):
            span = body.join(span)
    return span


def _overlaps(repeat: Repeat, first: int) -> bool:
    """Whether rounds of a repeat overlap, or an instruction of its body is executed in some of them only."""
    phases = [step.phase for step in repeat.body if isinstance(step, Instruction) and step.phase is not None]
    if not phases:
        return False
    step = repeat.body[first]
    return any(p.stage for p in phases) or (isinstance(step, Instruction) and step.phase is not None)


def lives(tile: TileProgram, uses: Uses, repeats: Repeats, last: int) -> dict[str, Span]:
    """The life of every buffer of a tile that has one."""
    found = {b.name: life(b, uses.of.get(b.name, ()), repeats, last) for b in tile.buffers}
    return {name: span for name, span in found.items() if span is not None}


def clashes(tile: TileProgram, spans: dict[str, Span]) -> Iterator[tuple[Buffer, Buffer]]:
    """Pairs of buffers that share bytes while both live."""
    if _apart(tile, spans):
        return
    buffers = [b for b in tile.buffers if b.name in spans and b.bytes]
    start = np.array([min(b.address, FARTHEST) for b in buffers], np.int64)
    end = np.array([min(b.address + b.bytes, FARTHEST) for b in buffers], np.int64)
    first = np.array([spans[b.name].first for b in buffers], np.int64)
    last = np.array([spans[b.name].last for b in buffers], np.int64)
    for i, b in enumerate(buffers[:-1]):
        rest = slice(i + 1, None)
        shared = (start[rest] < end[i]) & (start[i] < end[rest])
        for j in np.flatnonzero(shared & (first[rest] <= last[i]) & (first[i] <= last[rest])):
            yield b, buffers[i + 1 + int(j)]


def _apart(tile: TileProgram, spans: dict[str, Span]) -> bool:
    """Whether no buffers clash. In the order of birth, the living are kept in the order of their addresses: a new one can
    only meet its neighbours. So a lawful tile takes no time quadratic in its buffers."""
    born = sorted((b for b in tile.buffers if b.name in spans and b.bytes), key=lambda b: spans[b.name].first)
    living: list[tuple[int, int]] = []  # (address, end)
    deaths: list[tuple[int, int]] = []  # (last step, address)
    for b in born:
        while deaths and deaths[0][0] < spans[b.name].first:
            del living[bisect_left(living, heappop(deaths)[1], key=_start)]
        at, end = bisect_right(living, b.address, key=_start), b.address + b.bytes
        if (at and living[at - 1][1] > b.address) or (at < len(living) and living[at][0] < end):
            return False
        living.insert(at, (b.address, end))
        heappush(deaths, (spans[b.name].last, b.address))
    return True


def _start(entry: tuple[int, int]) -> int:
    return entry[0]
