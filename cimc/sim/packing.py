"""How an operand's elements lie when they are gathered: without gaps, in the order of their own addresses."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Unsuited(Exception):
    """Raised where a program does what batches cannot do, with what that is; then it is executed instruction by instruction."""


@dataclass(frozen=True)
class Packed:
    """``shape`` and ``strides`` (elements) of a view whose ``size`` different elements lie without gaps. ``order``: the axes
    that have more than one, outermost first."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    size: int
    order: tuple[int, ...]
    _plain: bool = field(default=False, compare=False)

    def flat(self, view: Array) -> Array:
        """The different elements of a view, in their order here."""
        if self._plain:
            return view.reshape(-1)
        inner = view[tuple(slice(None) if a in self.order else 0 for a in range(view.ndim))]
        kept = sorted(self.order)
        return inner.transpose([kept.index(a) for a in self.order]).reshape(-1)


@lru_cache(4096)
def packed(shape: tuple[int, ...], strides: tuple[int, ...] | None, product: bool = False) -> Packed:
    """The layout of a view with those strides (None: row-major). Raises Unsuited for views that go backwards or are empty,
    and for factors of a ``product`` which NumPy would multiply in another way when they lie without gaps."""
    known = _dense(shape) if strides is None else strides
    if any(s < 0 for s in known) or 0 in shape:
        raise Unsuited("it has a view that goes backwards or is empty")
    axes = [a for a, (e, s) in enumerate(zip(shape, known, strict=True)) if e > 1 and s]
    order = tuple(sorted(axes, key=lambda a: -known[a]))
    found = [0] * len(shape)
    size = 1
    for a in reversed(order):
        found[a] = size
        size *= shape[a]
    plain = len(order) == sum(e > 1 for e in shape) and list(order) == sorted(order)
    if not product:
        return Packed(shape, tuple(found), size, order, plain)
    for single in (size, 1, 0):
        tried = tuple(single if e == 1 else s for e, s in zip(shape, found, strict=True))
        if _blas(shape, tried) == _blas(shape, known):
            return Packed(shape, tried, size, order, plain)
    raise Unsuited("it multiplies a factor that lies in memory as no copy of it would")


def _dense(shape: tuple[int, ...]) -> tuple[int, ...]:
    found: list[int] = []
    step = 1
    for extent in reversed(shape):
        found.insert(0, step)
        step *= extent
    return tuple(found)


def _blas(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[bool, bool]:
    """Whether NumPy hands a factor (its last two extents) to BLAS as it is, and as a transposed one (``is_blasable2d`` in its
    ``matmul.c.src``)."""
    if len(shape) < 2:
        raise Unsuited("it multiplies a factor of fewer than two axes")
    (m, n), (down, along) = shape[-2:], strides[-2:]
    return along == 1 and down >= n, down == 1 and along >= m
