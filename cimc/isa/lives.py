"""Which local buffers are in use when: buffers may share addresses only if they never are at the same time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from heapq import heappop, heappush
from itertools import takewhile

import numpy as np

from cimc.isa.instruction import Instruction, Kind, Repeat
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Box, Span
from cimc.isa.verify_steps import Uses


class Repeats:
    """The repeats of a tile, to be looked up by the steps that they are around."""

    def __init__(self, found: Sequence[tuple[Repeat, Span, Box]]) -> None:
        """``found``: innermost first, as a walk has them."""
        self._found = found
        self._phases: dict[int, frozenset[int]] = {}  # of each by its place: stages of the phases in its body

    @cached_property
    def _begun(self) -> tuple[list[int], list[int], list[int]]:
        """In the order in which they begin, outer ones first: their first steps, their places among those found, and the one
        around each, -1: none."""
        order = sorted(range(len(self._found)), key=lambda i: (self._found[i][1].first, -i))
        outer: list[int] = []
        for at, i in enumerate(order):
            around = at - 1
            while around >= 0 and self._found[order[around]][1].last < self._found[i][1].first:
                around = outer[around]
            outer.append(around)
        return [self._found[i][1].first for i in order], order, outer

    def around(self, span: Span) -> list[int]:
        """Places of those around the first or the last step of a span, innermost first."""
        first, order, outer = self._begun
        found: set[int] = set()
        for step in {span.first, span.last}:
            at = bisect_right(first, step) - 1
            while at >= 0:
                if self._found[order[at]][1].last >= step:
                    found.add(order[at])
                at = outer[at]
        return sorted(found)

    def body(self, place: int) -> Span:
        """The steps of a body."""
        return self._found[place][1]

    def overlap(self, place: int, first: int) -> bool:
        """Whether rounds of a repeat overlap, or the instruction at step ``first`` of its body is executed in some only."""
        repeat, body, _ = self._found[place]
        stages = self._phases.get(place)
        if stages is None:
            phases = (step.phase for step in repeat.body if isinstance(step, Instruction) and step.phase is not None)
            stages = self._phases[place] = frozenset(phase.stage for phase in phases)
        if not stages:
            return False
        step = repeat.body[first - body.first]
        return any(stages) or (isinstance(step, Instruction) and step.phase is not None)


FARTHEST = 2**62
"""No address is beyond: buffers that end there are refused for it, and only compared here."""


def life(buffer: Buffer, accesses: Sequence[tuple[int, Kind]], repeats: Repeats, last: int) -> Span | None:
    """The steps over which a buffer holds something; None if it is never touched.

    From its first access to its last. A repeat runs again and again: a buffer that is also used outside its body, or
    whose first access in the body is not a write in every round, lives through all of it; and so it does where rounds
    overlap. Repeats that lie within its life as a whole change nothing. Constants and state live always."""
    if buffer.key or buffer.state:
        return Span(0, last)
    if not accesses:
        return None
    span = Span(accesses[0][0], accesses[-1][0])
    first = accesses[0][0]
    # An instruction that reads what it writes (add s, s, x) is no fresh start.
    fresh = all(kind is Kind.WRITE for _, kind in takewhile(lambda a: a[0] == first, accesses))
    for place in repeats.around(span):
        body = repeats.body(place)
        if not (body.holds(span) and fresh and not repeats.overlap(place, first)):
            span = body.join(span)
    return span


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
