"""Views of an array as views of a larger one, of which the array is the corner: what has index (i, j, …) keeps it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cimc.isa.operands import View, dense_strides
from cimc.isa.ranges import Box

Index = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A view by the indices of its array, a number per axis: of its first element, of a step along each of its extents
    (none where that has one element), and of what each variable of its offset counts."""

    first: Index
    along: tuple[Index, ...]
    terms: tuple[tuple[str, Index], ...]


def steps_of(view: View, shape: tuple[int, ...], box: Box) -> Steps | None:
    """A view with known extents of an array of this shape; None if it goes backwards, or over the end of an axis into the
    next row. ``box``: the least and greatest value of each variable."""
    extents = [n for n in view.shape if isinstance(n, int)]
    if min((*view.strides, view.offset.constant, *(c for _, c in view.offset.terms)), default=0) < 0:
        return None
    dense = dense_strides(shape)
    found = Steps(
        _index(view.offset.constant, dense),
        tuple(_index(s if n > 1 else 0, dense) for s, n in zip(view.strides, extents, strict=True)),
        tuple((name, _index(c, dense)) for name, c in view.offset.terms),
    )
    most = [n - 1 for n in extents] + [box[name][1] for name, _ in found.terms]
    last = list(found.first)
    for by, times in zip((*found.along, *(by for _, by in found.terms)), most, strict=True):
        for axis, n in enumerate(by):
            last[axis] += n * max(0, times)
    return found if all(at < n for at, n in zip(last, shape, strict=True)) else None


def _index(elements: int, dense: Sequence[int]) -> Index:
    """So many elements of a row-major array by its axes; what is too much for the first axis counts there."""
    found: list[int] = []
    for stride in dense:
        at, elements = divmod(elements, stride) if stride else (0, elements)
        found.append(at)
    return tuple(found)
