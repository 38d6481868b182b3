"""Small forms that spellings are written in: IR ops with the no-ops left out, and the usual groups of several."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cimc.frontend.builder import Builder, Impossible, Value
from cimc.isa.operands import Element

WHOLE = (Element.I8, Element.I16, Element.I32, Element.I64, Element.U8, Element.U16, Element.U32, Element.U64)


def unary(b: Builder, op: str, x: Value) -> Value:
    """``op(x)``."""
    return b.emit(op, (x,))[0]


def binary(b: Builder, op: str, x: Value, y: Value) -> Value:
    """``op(x, y)``, broadcasting."""
    return b.emit(op, (x, y))[0]


def add(b: Builder, x: Value, y: Value | None) -> Value:
    """``x + y``; x where there is no y."""
    return x if y is None else binary(b, "add", x, y)


def mul(b: Builder, x: Value, y: Value | None) -> Value:
    """``x · y``; x where there is no y."""
    return x if y is None else binary(b, "mul", x, y)


def scaled(b: Builder, x: Value, factor: float) -> Value:
    """``x · factor`` in x's element type."""
    return x if factor == 1.0 else binary(b, "mul", x, b.scalar(factor, x.element))


def shifted(b: Builder, x: Value, term: float) -> Value:
    """``x + term`` in x's element type."""
    return x if term == 0 else binary(b, "add", x, b.scalar(term, x.element))


def select(b: Builder, condition: Value, x: Value, y: Value) -> Value:
    """x where condition, else y."""
    return b.emit("select", (condition, x, y))[0]


def cast(b: Builder, x: Value, element: Element) -> Value:
    """x in another element type."""
    return x if x.element == element else b.emit("cast", (x,), to=element.value)[0]


def reshape(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    """The same elements under another shape."""
    return x if x.shape == tuple(shape) else b.emit("reshape", (x,), shape=tuple(shape))[0]


def transpose(b: Builder, x: Value, perm: Sequence[int]) -> Value:
    """Axes in the order ``perm``."""
    return x if list(perm) == list(range(x.rank)) else b.emit("transpose", (x,), perm=tuple(perm))[0]


def swap(b: Builder, x: Value, i: int, j: int) -> Value:
    """Two axes exchanged."""
    perm = list(range(x.rank))
    perm[i], perm[j] = perm[j], perm[i]
    return transpose(b, x, perm)


def move_axis(b: Builder, x: Value, source: int, target: int) -> Value:
    """One axis moved to another place, the others in their order."""
    perm = [a for a in range(x.rank) if a != source % x.rank]
    perm.insert(target % x.rank, source % x.rank)
    return transpose(b, x, perm)


def expand(b: Builder, x: Value, shape: Sequence[int]) -> Value:
    """x broadcast to a shape."""
    return x if x.shape == tuple(shape) else b.emit("expand", (x,), shape=tuple(shape))[0]


def concat(b: Builder, values: Sequence[Value], axis: int) -> Value:
    """Values one after another; operands without elements are left out where others have some."""
    if not values or any(v.rank <= axis for v in values):
        raise Impossible(f"concatenation of {', '.join(str(v.type) for v in values)} along axis {axis}")
    kept = [v for v in values if v.shape[axis]] or [values[0]]
    return kept[0] if len(kept) == 1 else b.emit("concat", kept, axis=axis % values[0].rank)[0]


def part(b: Builder, x: Value, axis: int, start: int, size: int, step: int = 1) -> Value:
    """``size`` elements from ``start`` along one axis."""
    starts, sizes, steps = [0] * x.rank, list(x.shape), [1] * x.rank
    starts[axis], sizes[axis], steps[axis] = start, size, step
    return cut(b, x, starts, sizes, steps)


def cut(b: Builder, x: Value, start: Sequence[int], size: Sequence[int], step: Sequence[int]) -> Value:
    """A regular part along all axes."""
    if tuple(size) == x.shape and all(s == 1 or n <= 1 for s, n in zip(step, size, strict=True)):
        return x
    return b.emit("slice", (x,), start=tuple(start), size=tuple(size), step=tuple(step))[0]


def pad(b: Builder, x: Value, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Value:
    """A constant border; negative widths cut."""
    start = [max(-n, 0) for n in before]
    size = [n + min(p, 0) + min(q, 0) for n, p, q in zip(x.shape, before, after, strict=True)]
    if min(size, default=0) < 0:
        raise Impossible(f"padding {tuple(before)}, {tuple(after)} takes more away than {x.type} has")
    x = cut(b, x, [s if n else 0 for s, n in zip(start, size, strict=True)], size, [1] * x.rank)
    low, high = tuple(max(n, 0) for n in before), tuple(max(n, 0) for n in after)
    if not any((*low, *high)):
        return x
    number = float(value) if x.floating else int(value)
    return b.emit("pad", (x,), before=low, after=high, value=number)[0]


def on_last(b: Builder, x: Value, axis: int, apply: Callable[[Value], Value]) -> Value:
    """``apply`` with ``axis`` as the last axis, put back afterwards."""
    if axis == x.rank - 1:
        return apply(x)
    return move_axis(b, apply(move_axis(b, x, axis, -1)), -1, axis)


def reduce(b: Builder, op: str, x: Value, axes: Sequence[int], *, keep: bool) -> Value:
    """A reduction over several axes: they are moved last and taken as one."""
    if not axes:
        return x
    rest = [a for a in range(x.rank) if a not in axes]
    y = transpose(b, x, [*rest, *sorted(axes)])
    count = math.prod(x.shape[a] for a in axes)
    y = reshape(b, y, (*(x.shape[a] for a in rest), count))
    y = b.emit(op, (y,))[0]
    shape = [1 if a in axes else n for a, n in enumerate(x.shape)] if keep else [x.shape[a] for a in rest]
    return reshape(b, y, shape)


def matmul(b: Builder, x: Value, y: Value, scale: float = 1.0) -> Value:
    """NumPy's ``matmul``: vectors get an axis for the time of the product, leading axes broadcast."""
    if not x.rank or not y.rank:
        raise Impossible(f"matmul of {x.type} and {y.type}")
    left = reshape(b, x, (1, *x.shape)) if x.rank == 1 else x
    right = reshape(b, y, (*y.shape, 1)) if y.rank == 1 else y
    if scale == 1.0:
        z = b.emit("matmul", (left, right))[0]
    else:
        z = b.emit("matmul", (left, right), scale=float(scale))[0]
    shape = list(z.shape)
    if y.rank == 1:
        shape.pop()
    if x.rank == 1:
        shape.pop(-1 if y.rank == 1 else -2)
    return reshape(b, z, shape)


def squeeze(b: Builder, x: Value, axes: Sequence[int]) -> Value:
    """Without the given axes, which have extent 1."""
    if any(x.shape[a] != 1 for a in axes):
        raise Impossible(f"squeeze of axes {tuple(axes)} of {x.type}")
    return reshape(b, x, [n for a, n in enumerate(x.shape) if a not in axes])


def unsqueeze(b: Builder, x: Value, axis: int) -> Value:
    """With an axis of extent 1 put in at ``axis``."""
    at = axis % (x.rank + 1)
    return reshape(b, x, (*x.shape[:at], 1, *x.shape[at:]))
