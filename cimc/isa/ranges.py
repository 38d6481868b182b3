"""Bounds of affine integers over boxes of their variables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cimc.isa.operands import Affine, Extent, View

Box = Mapping[str, tuple[int, int]]
"""Variable → lowest and highest value, both included."""


def bounds(value: Extent, box: Box) -> tuple[int, int]:
    """Least and greatest value, exact (variables are independent). Raises KeyError for a variable outside the box."""
    if isinstance(value, int):
        return value, value
    low = high = value.constant
    for name, coefficient in value.terms:
        a, b = coefficient * box[name][0], coefficient * box[name][1]
        low, high = low + min(a, b), high + max(a, b)
    return low, high


def reach(view: View, box: Box) -> tuple[int, int]:
    """Least and greatest element a view touches over the box, exact: ``offset + Σ stride · (extent - 1)`` is affine."""
    low = high = view.offset
    for e, stride in zip(view.shape, view.strides, strict=True):
        if stride == 0:
            continue
        span = (Affine(e) if isinstance(e, int) else e) + -1
        if stride > 0:
            high = high + span * stride
        else:
            low = low + span * stride
    return bounds(low, box)[0], bounds(high, box)[1]


def corners(box: Box, names: frozenset[str]) -> Iterator[dict[str, int]]:
    """The low corner, and from there each named variable at its highest: affine extents that agree on these points
    agree everywhere."""
    low = {name: a for name, (a, _) in box.items()}
    yield low
    for name in sorted(names):
        if box[name][1] != box[name][0]:
            yield {**low, name: box[name][1]}


@dataclass(frozen=True, slots=True)
class Span:
    """Steps [first, last], counted in program order with every body once."""

    first: int
    last: int

    def meets(self, other: Span) -> bool:
        """Whether the two have a step in common."""
        return self.first <= other.last and other.first <= self.last

    def holds(self, other: Span) -> bool:
        """Whether the other lies within."""
        return self.first <= other.first and other.last <= self.last

    def join(self, other: Span) -> Span:
        """The smallest span over both."""
        return Span(min(self.first, other.first), max(self.last, other.last))

    def __str__(self) -> str:
        return f"{self.first + 1}-{self.last + 1}"
