"""Addresses of a tile's buffers by liveness: buffers whose lives do not overlap may share bytes."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from heapq import heappop, heappush
from itertools import accumulate

from cimc.isa.instruction import LOCAL, Kind, Repeat, Step, kinds
from cimc.isa.lives import Repeats, life
from cimc.isa.operands import View
from cimc.isa.program import Buffer, TileProgram
from cimc.isa.ranges import Span
from cimc.isa.visit import walk_tile

ALIGN = 64  # bytes; keeps every element type aligned and rows on whole buffer words


def lives(steps: Sequence[Step], buffers: Sequence[Buffer], ends: Sequence[int] = ()) -> dict[str, Span]:
    """How long each buffer that the steps use must keep its contents: the rule of isa/SPEC.md that the verifier checks.
    With ``ends``, ascending numbers of steps, a life is stretched over all of the steps between two of them that it meets."""
    walk = walk_tile(TileProgram(0, tuple(buffers), (), tuple(steps)), {})
    accesses: dict[str, list[tuple[int, Kind]]] = {}
    for index, visit in enumerate(walk.visits):
        step = visit.step
        if not step.operands:
            continue
        for kind, operand in zip(kinds(step), step.operands, strict=True):
            if kind in LOCAL and isinstance(operand, View):
                known = accesses.get(operand.buffer)
                if known is None:
                    known = accesses[operand.buffer] = []
                known.append((index, kind))
    last, repeats = len(walk.visits) - 1, Repeats(walk.repeats)
    found = {b.name: life(b, accesses.get(b.name, ()), repeats, last) for b in buffers}
    spans = {name: span for name, span in found.items() if span is not None}
    return _stretched(spans, steps, ends) if ends else spans


def _stretched(spans: Mapping[str, Span], steps: Sequence[Step], ends: Sequence[int]) -> dict[str, Span]:
    counts = list(accumulate(_count(s) for s in steps))  # instructions up to the end of each step
    borders = [0, *(counts[e - 1] for e in ends)]

    def stretch(span: Span) -> Span:
        first, last = bisect_right(borders, span.first) - 1, bisect_right(borders, span.last) - 1
        return Span(borders[first], borders[min(last + 1, len(borders) - 1)] - 1) if last < len(ends) else span

    return {name: stretch(span) for name, span in spans.items()}


def _count(step: Step) -> int:
    return sum(map(_count, step.body)) if isinstance(step, Repeat) else 1


def aligned(size: int) -> int:
    """A size rounded up to the allocation's grain."""
    return -(-size // ALIGN) * ALIGN


def allocate(sizes: Mapping[str, int], spans: Mapping[str, Span], base: int) -> tuple[dict[str, int], int]:
    """First-fit addresses from ``base`` on, in order of birth (ties: larger first, then name), and the peak. Buffers nobody
    accesses get no bytes."""
    order = sorted((n for n in sizes if n in spans), key=lambda n: (spans[n].first, -sizes[n], n))
    free = _Gaps(base)
    living: list[tuple[int, int, int]] = []  # (last position, address, end)
    addresses: dict[str, int] = {}
    peak = base
    for name in order:
        span, size = spans[name], aligned(sizes[name])
        while living and living[0][0] < span.first:
            _, low, high = heappop(living)
            free.give(low, high)
        address = addresses[name] = free.take(size)
        if size:
            heappush(living, (span.last, address, address + size))
        peak = max(peak, address + size)
    return addresses, peak


class _Gaps:
    """Free bytes from an address on: gaps in ascending order, the last without end."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.lows: list[int] = [base]
        self.highs: list[float] = [math.inf]

    def take(self, size: int) -> int:
        """The lowest address with room, taken."""
        if size == 0:
            return self.base
        at = next(i for i, (low, high) in enumerate(zip(self.lows, self.highs, strict=True)) if low + size <= high)
        address = self.lows[at]
        if address + size == self.highs[at]:
            del self.lows[at], self.highs[at]
        else:
            self.lows[at] = address + size
        return address

    def give(self, low: int, high: int) -> None:
        """Bytes that are free again."""
        at = bisect_left(self.lows, low)
        if at < len(self.lows) and self.lows[at] == high:
            self.lows[at] = low
        else:
            self.lows.insert(at, low)
            self.highs.insert(at, high)
        if at and self.highs[at - 1] == low:
            self.highs[at - 1] = self.highs[at]
            del self.lows[at], self.highs[at]
