"""Spellings of operators that look elements up by index, and that sort."""

from __future__ import annotations

import itertools
import math

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value, room
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.frontend.layout import take
from cimc.isa.operands import Element

MAX_PIECES = 64


@spelling("Gather", note="any axis; constant indices become slices")
def gather(c: Call) -> Value:
    """Slices of x along an axis by index."""
    x, index = c.x(0), c.x(1)
    if not x.rank:
        raise Impossible(f"gather from {x.type}")
    axis = c.axis(c.int("axis", 0), x.rank)
    known = c.b.array(index)
    if known is not None:
        flat = [int(i) for i in known.reshape(-1).tolist()] if known.size <= 1 << 16 else []
        if any(not -x.shape[axis] <= i < x.shape[axis] for i in flat):
            raise Impossible(
                f"index {flat} outside axis {axis} of {x.type}"
                if len(flat) < 9
                else f"an index outside axis {axis} of {x.type}"
            )
        y = _repeated(c, x, axis, flat) if index.rank == 1 else None
        if y is not None:
            return y
        y = _parts(c, x, axis, [i % x.shape[axis] for i in flat], index) if flat else None
        if y is not None:
            return y
    return gather_rows(c, x, axis, index)


def _repeated(c: Call, x: Value, axis: int, index: list[int]) -> Value | None:
    """Every element n times in a row, or all of them n times one after the other (heads for grouped queries): a view."""
    size = x.shape[axis]
    n, rest = divmod(len(index), size) if size else (0, 0)
    if n < 2 or rest or c.b.array(x) is not None:
        return None
    if index == [i // n for i in range(len(index))]:
        pairs = ((size, 1), (size, n))
    elif index == [i % size for i in range(len(index))]:
        pairs = ((1, size), (n, size))
    else:
        return None
    split, whole = ((*x.shape[:axis], *pair, *x.shape[axis + 1 :]) for pair in pairs)
    spread = f.expand(c.b, f.reshape(c.b, x, split), whole)
    return f.reshape(c.b, spread, (*x.shape[:axis], size * n, *x.shape[axis + 1 :]))


def _parts(c: Call, x: Value, axis: int, index: list[int], shape: Value) -> Value | None:
    runs = 1 + sum(b - a != index[1] - index[0] for a, b in itertools.pairwise(index))
    if runs > (1 if c.b.array(x) is not None else 8):
        return None
    y = take(c, x, axis, index)
    return f.reshape(c.b, y, (*x.shape[:axis], *shape.shape, *x.shape[axis + 1 :]))


def gather_rows(c: Call, x: Value, axis: int, index: Value) -> Value:
    """The general gather: the axis moved first, everything else one row of a table."""
    table = f.move_axis(c.b, x, axis, 0)
    rest = table.shape[1:]
    flat = f.reshape(c.b, table, (table.shape[0], math.prod(rest)))
    wide = index if index.element in (Element.I32, Element.I64) else f.cast(c.b, index, Element.I64)
    rows = c.b.emit("gather", (flat, f.reshape(c.b, wide, (wide.type.size, 1))))[0]
    y = f.reshape(c.b, rows, (*index.shape, *rest))
    # The index axes came first: they go where the axis was.
    lead = index.rank
    perm = [*range(lead, lead + axis), *range(lead), *range(lead + axis, y.rank)]
    return f.transpose(c.b, y, perm)


@spelling("GatherElements", note="as a lookup of single elements")
def gather_elements(c: Call) -> Value:
    """``y[i][j] = x[index[i][j]][j]`` for axis 0: positions in the flat tensor are computed and looked up."""
    x, index = c.x(0), c.x(1)
    axis = c.axis(c.int("axis", 0), x.rank)
    if index.rank != x.rank:
        raise Impossible(f"GatherElements of {x.type} by {index.type}")
    wide = f.cast(c.b, index, Element.I64)
    n = x.shape[axis]
    if n == 0 or index.type.size == 0:
        return c.b.constant(np.zeros(index.shape, x.dtype))
    positive = _wrapped(c, wide, n)
    steps = [math.prod(x.shape[a + 1 :]) for a in range(x.rank)]
    room(index.shape, 8)
    grid = np.zeros(index.shape, np.int64)
    for a, size in enumerate(index.shape):
        if a != axis:
            grid += np.arange(size).reshape([-1 if i == a else 1 for i in range(x.rank)]) * steps[a]
    flat = f.binary(c.b, "add", f.mul(c.b, positive, c.b.scalar(steps[axis], Element.I64)), c.b.constant(grid))
    return lookup(c, x, flat, 1, index.shape)


def _wrapped(c: Call, index: Value, n: int) -> Value:
    """Negative indices counted from the end."""
    negative = f.binary(c.b, "lt", index, c.b.scalar(0, index.element))
    return f.select(c.b, negative, f.shifted(c.b, index, n), index)


def lookup(c: Call, x: Value, index: Value, row: int, shape: tuple[int, ...]) -> Value:
    """Rows of ``row`` elements of the flat tensor, by the number of the row."""
    table = f.reshape(c.b, x, (x.type.size // row, row))
    rows = c.b.emit("gather", (table, f.reshape(c.b, index, (index.type.size, 1))))[0]
    return f.reshape(c.b, rows, shape)


@spelling("GatherND")
def gather_nd(c: Call) -> Value:
    """Slices by index tuples: the tuples become row numbers."""
    x, index, batch = c.x(0), c.x(1), c.int("batch_dims", 0)
    if not index.rank or batch > min(x.rank, index.rank - 1) or x.shape[:batch] != index.shape[:batch]:
        raise Impossible(f"GatherND of {x.type} by {index.type}")
    depth = index.shape[-1]
    if not 0 < depth <= x.rank - batch:
        raise Impossible(f"GatherND of {x.type} by tuples of {depth}")
    tail = x.shape[batch + depth :]
    shape = (*index.shape[:-1], *tail)
    if not math.prod(shape):
        return c.b.constant(np.zeros(shape, x.dtype))
    number = row_numbers(c, x, index, batch)
    return lookup(c, x, number, math.prod(tail), shape)


def row_numbers(c: Call, x: Value, index: Value, batch: int) -> Value:
    """Index tuples (… × depth) into axes from ``batch`` on, as numbers of rows of the remaining axes (… × 1)."""
    depth = index.shape[-1]
    wide = f.cast(c.b, index, Element.I64)
    extents = x.shape[batch : batch + depth]
    limit = c.b.constant(np.array(extents, np.int64))
    negative = f.binary(c.b, "lt", wide, c.b.scalar(0, Element.I64))
    positive = f.select(c.b, negative, f.binary(c.b, "add", wide, limit), wide)
    steps = np.array([math.prod(extents[a + 1 :]) for a in range(depth)], np.int64)
    number = f.mul(c.b, positive, c.b.constant(steps))
    number = c.b.emit("reduce_sum", (number,))[0]
    if batch:
        room(x.shape[:batch], 8)
        grid = np.arange(math.prod(x.shape[:batch]), dtype=np.int64) * math.prod(extents)
        grid = grid.reshape(*x.shape[:batch], *(1,) * (index.rank - batch))
        number = f.binary(c.b, "add", number, c.b.constant(grid))
    return number


@spelling("OneHot", note="the depth is known when the model is compiled")
def one_hot(c: Call) -> Value:
    """``on`` at the index, ``off`` elsewhere; indices outside the range give ``off`` everywhere."""
    index, values = c.x(0), c.x(2)
    depth = c.known_ints(1, "the depth")
    if not depth or values.shape != (2,):
        raise Impossible("the depth or the two values are missing")
    axis = c.axis(c.int("axis", -1), index.rank + 1)
    room((max(depth[0], 0), *index.shape), 8)
    wide = f.unsqueeze(c.b, _wrapped(c, f.cast(c.b, index, Element.I64), depth[0]), -1)
    hit = f.binary(c.b, "eq", wide, c.b.constant(np.arange(depth[0], dtype=np.int64)))
    off, on = (f.reshape(c.b, f.part(c.b, values, 0, i, 1), ()) for i in (0, 1))
    return f.move_axis(c.b, f.select(c.b, hit, on, off), -1, axis)


@spelling("TopK", note="k known when the model is compiled, up to 64: found one after another")
def top_k(c: Call) -> tuple[Value, ...]:
    """The k largest (or smallest) along an axis with their indices: k times the extremum, then struck out."""
    x = c.x()
    count = (c.int("k"),) if c.version < 10 else c.known_ints(1, "k")
    axis = c.axis(c.int("axis", -1), x.rank)
    largest = bool(c.int("largest", 1))
    k = count[0] if count else -1
    if not 0 <= k <= x.shape[axis]:
        raise Impossible(f"the top {k} of {x.shape[axis]}")
    if k == 0 or k > MAX_PIECES or not x.type.size:
        raise NeedsHost(f"the top {k} of {x.type}")
    work = f.move_axis(c.b, x, axis, -1)
    best: list[Value] = []
    places: list[Value] = []
    alive: Value | None = None
    for _ in range(k):
        peak, place = _best(c, work, alive, largest=largest)
        best.append(peak)
        places.append(place)
        numbers = c.b.constant(np.arange(work.shape[-1], dtype=np.int64))
        kept = f.unary(c.b, "not", f.binary(c.b, "eq", numbers, place))
        alive = kept if alive is None else f.binary(c.b, "and", alive, kept)
    return tuple(f.move_axis(c.b, f.concat(c.b, v, -1), -1, axis) for v in (best, places))


def _best(c: Call, x: Value, alive: Value | None, *, largest: bool) -> tuple[Value, Value]:
    """The extremum of each row among the elements still alive, and its first place. An element equal to what fills the
    places of the dead is still found: the place is that of a living one."""
    b = c.b
    filled = x if alive is None else f.select(b, alive, x, b.constant(_worst(x, largest=largest)))
    peak = b.emit("reduce_max" if largest else "reduce_min", (filled,))[0]
    hit = f.binary(b, "eq", x, peak)
    hit = hit if alive is None else f.binary(b, "and", hit, alive)
    return peak, b.emit("reduce_argmax", (f.cast(b, hit, Element.I32),))[0]


def _worst(x: Value, *, largest: bool) -> np.ndarray:
    if x.floating:
        return np.array(-math.inf if largest else math.inf).astype(x.dtype)
    bits, signed = 8 * x.element.bytes, x.element.value.startswith("i")
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    return np.array(low if largest else high, x.dtype)


@spelling("Compress", note="condition known when the model is compiled")
def compress(c: Call) -> Value:
    """The slices along an axis (of the flat tensor without one) for which the condition is true."""
    x, keep = c.x(0), c.known(1, "the condition")
    assert keep is not None
    if not c.has("axis"):
        x = f.reshape(c.b, x, (x.type.size,))
    axis = c.axis(c.int("axis", 0), x.rank)
    places = np.flatnonzero(keep)
    if keep.ndim != 1 or np.any(places >= x.shape[axis]):
        raise Impossible(f"a condition of {keep.shape} for axis {axis} of {x.type}")
    index = c.b.constant(places.astype(np.int64))
    y = _parts(c, x, axis, places.tolist(), index) if places.size < 2 or places.size > 1 << 16 else None
    return gather_rows(c, x, axis, index) if y is None else y


@spelling("MaxUnpool", runs="host")
def max_unpool(c: Call) -> Value:
    """Left to the host; with an output shape, which onnxruntime takes the places to be of, to the standard's own."""
    raise NeedsHost("tiles have no instruction for it", standard=c.opt(2) is not None)
