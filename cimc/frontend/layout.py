"""Spellings of operators that move elements and compute shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value, room
from cimc.frontend.call import Call, spelling


@spelling("Constant", runs="folded", note="numbers; no text, no sparse values")
def constant(c: Call) -> Value:
    """A tensor or numbers given as attributes."""
    for name in ("value",):
        array = c.tensor(name)
        if array is not None:
            return c.b.constant(array)
    if c.has("value_float"):
        return c.b.constant(np.array(c.float("value_float"), np.float32))
    if c.has("value_int"):
        return c.b.constant(np.array(c.int("value_int"), np.int64))
    if c.has("value_floats"):
        return c.b.constant(np.array(c.floats("value_floats"), np.float32))
    if c.has("value_ints"):
        return c.b.constant(np.array(c.ints("value_ints"), np.int64))
    raise Unsupported("a constant of text or of sparse values")


@spelling("Shape", runs="folded")
def shape(c: Call) -> Value:
    """The static shape, from ``start`` to ``end``."""
    x = c.x()
    start, end = c.int("start", 0), c.int("end", x.rank)
    start, end = (min(max(v + x.rank if v < 0 else v, 0), x.rank) for v in (start, end))
    return c.b.constant(np.array(x.shape[start:end], np.int64))


@spelling("Size", runs="folded")
def size(c: Call) -> Value:
    """The number of elements."""
    return c.b.constant(np.array(c.x().type.size, np.int64))


@spelling("Reshape", runs="view", note="the target shape is known when the model is compiled")
def reshape(c: Call) -> Value:
    """0 keeps the extent (unless ``allowzero``), -1 takes what is left."""
    x, target = c.x(), c.known_ints(1, "the shape")
    if target is None:
        raise Impossible("the shape is missing")
    zero = bool(c.int("allowzero", 0))
    dims = list(target)
    for i, d in enumerate(dims):
        if d == 0 and not zero:
            if i >= x.rank:
                raise Impossible(f"reshape of {x.type} to {target}: 0 keeps axis {i}, which is not there")
            dims[i] = x.shape[i]
    return f.reshape(c.b, x, _fill(x, dims, target))


def _fill(x: Value, dims: list[int], target: Sequence[int]) -> list[int]:
    if dims.count(-1) > 1 or min(dims, default=0) < -1:
        raise Impossible(f"reshape of {x.type} to {tuple(target)}")
    if -1 in dims:
        rest = math.prod(d for d in dims if d != -1)
        if rest == 0 or x.type.size % rest:
            raise Impossible(f"reshape of {x.type} to {tuple(target)}")
        dims[dims.index(-1)] = x.type.size // rest
    return dims


@spelling("Flatten", runs="view")
def flatten(c: Call) -> Value:
    """The axes before ``axis`` as rows, the others as columns."""
    x = c.x()
    axis = c.axis(c.int("axis", 1), x.rank + 1) if c.int("axis", 1) >= 0 else c.axis(c.int("axis", 1), x.rank)
    return f.reshape(c.b, x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _axes_since_13(c: Call) -> tuple[int, ...] | None:
    return c.ints("axes") if c.version < 13 else c.known_ints(1, "axes")


@spelling("Squeeze", runs="view")
def squeeze(c: Call) -> Value:
    """Without the named axes, or all of extent 1."""
    x, axes = c.x(), _axes_since_13(c)
    if axes is None:
        axes = tuple(a for a, n in enumerate(x.shape) if n == 1)
    return f.squeeze(c.b, x, c.axes(axes, x.rank))


@spelling("Unsqueeze", runs="view")
def unsqueeze(c: Call) -> Value:
    """With axes of extent 1 put in."""
    x, axes = c.x(), _axes_since_13(c)
    if axes is None:
        raise Impossible("the axes are missing")
    rank = x.rank + len(axes)
    new, rest = set(c.axes(axes, rank)), iter(x.shape)
    return f.reshape(c.b, x, [1 if a in new else next(rest) for a in range(rank)])


@spelling("Transpose", runs="view")
def transpose(c: Call) -> Value:
    """Axes in another order, reversed where none is given."""
    x = c.x()
    perm = c.ints("perm")
    perm = tuple(reversed(range(x.rank))) if perm is None else c.axes(perm, x.rank)
    if len(perm) != x.rank:
        raise Impossible(f"transpose of {x.type} by {perm}")
    return f.transpose(c.b, x, perm)


@spelling("Expand", runs="view", note="the target shape is known when the model is compiled")
def expand(c: Call) -> Value:
    """Broadcast both ways between x and the shape."""
    x, target = c.x(), c.known_ints(1, "the shape")
    if target is None:
        raise Impossible("the shape is missing")
    try:
        whole = np.broadcast_shapes(x.shape, target)
    except ValueError as e:
        raise Impossible(f"expand of {x.type} to {target}") from e
    return f.expand(c.b, x, whole)


@spelling("Tile", runs="view", note="the repeats are known when the model is compiled")
def tile(c: Call) -> Value:
    """Repeats along each axis: an axis of one element is expanded, before others an axis of copies is put in and merged."""
    x = c.x()
    repeats = c.known_ints(1, "the repeats")
    if repeats is None or len(repeats) != x.rank or min(repeats, default=1) < 0:
        raise Impossible(f"repeats {repeats} of {x.type}")
    pairs = list(zip(repeats, x.shape, strict=True))
    split = [d for r, n in pairs for d in ((n,) if 1 in (r, n) else (1, n))]
    whole = [d for r, n in pairs for d in ((r * n,) if 1 in (r, n) else (r, n))]
    spread = f.expand(c.b, f.reshape(c.b, x, split), whole)
    return f.reshape(c.b, spread, [r * n for r, n in pairs])


@spelling("Concat")
def concat(c: Call) -> Value:
    """Operands one after another."""
    values = c.tensors()
    if not values:
        raise Impossible("no inputs")
    axis = c.axis(c.int("axis", 1 if c.version < 4 else None), values[0].rank)
    if any(v.rank != values[0].rank for v in values):
        raise Impossible("concat of " + " and ".join(str(v.type) for v in values))
    return f.concat(c.b, values, axis)


@spelling("Split", runs="view")
def split(c: Call) -> list[Value]:
    """Parts along an axis: sizes as attribute or input, or equal ones."""
    x = c.x()
    axis = c.axis(c.int("axis", 0), x.rank)
    sizes = c.ints("split") if c.version < 13 else c.known_ints(1, "the sizes")
    if sizes is None:
        sizes = equal_parts(x.shape[axis], c.int("num_outputs", c.outputs))
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0:
        raise Impossible(f"split of {x.type} along axis {axis} into {sizes}")
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [f.part(c.b, x, axis, a if n else 0, n) for a, n in zip(starts, sizes, strict=True)]


def equal_parts(n: int, count: int) -> tuple[int, ...]:
    """``n`` in ``count`` equal parts, the last smaller if it does not go up."""
    if not 1 <= count <= MAX_PARTS:
        raise Impossible(f"a split into {count} parts")
    each = -(-n // count)
    return tuple(max(min(each, n - i * each), 0) for i in range(count))


@spelling("Slice", runs="view", note="the bounds are known when the model is compiled")
def slice_(c: Call) -> Value:
    """From start to end by step, clamped to the axis as the standard says; attributes before opset 10."""
    x = c.x()
    if c.version < 10:
        starts, ends, axes, steps = c.ints("starts"), c.ints("ends"), c.ints("axes"), None
    else:
        starts, ends = c.known_ints(1, "starts"), c.known_ints(2, "ends")
        axes, steps = c.known_ints(3, "axes"), c.known_ints(4, "steps")
    if starts is None or ends is None or len(starts) != len(ends):
        raise Impossible("starts and ends do not pair")
    chosen = c.axes(axes if axes is not None else range(len(starts)), x.rank)
    by = steps if steps is not None else (1,) * len(starts)
    if len(chosen) != len(starts) or len(by) != len(starts) or 0 in by:
        raise Impossible(f"slice with starts {starts}, ends {ends}, axes {chosen}, steps {by}")
    start, extent, step = [0] * x.rank, list(x.shape), [1] * x.rank
    for a, s, e, d in zip(chosen, starts, ends, by, strict=True):
        begin, stop, stride = slice(s, e if not (d < 0 and e < -x.shape[a]) else None, d).indices(x.shape[a])
        start[a], step[a] = begin, stride
        extent[a] = max(0, -(-(stop - begin) // stride) if stride > 0 else -(-(begin - stop) // -stride))
        if not extent[a]:
            start[a], step[a] = 0, 1
    return f.cut(c.b, x, start, extent, step)


MAX_PARTS = 1 << 16
_MODES = ("reflect", "edge", "wrap")


@spelling("Pad", note="the widths are known when the model is compiled; reflect, edge and wrap as slices")
def pad(c: Call) -> Value:
    """A border of a constant, or of the input's own elements."""
    x = c.x()
    widths = (c.ints("pads") or c.ints("paddings")) if c.version < 11 else c.known_ints(1, "the widths")
    axes = c.known_ints(3, "axes")
    chosen = c.axes(axes, x.rank) if axes is not None else tuple(range(x.rank))
    if widths is None or len(widths) != 2 * len(chosen):
        raise Impossible(f"pads {widths} of {x.type}")
    before, after = [0] * x.rank, [0] * x.rank
    for i, a in enumerate(chosen):
        before[a], after[a] = widths[i], widths[i + len(chosen)]
    mode = c.text("mode", "constant")
    if mode == "constant":
        return f.pad(c.b, x, before, after, pad_value(c))
    if mode not in _MODES:
        raise Impossible(f"mode {mode!r}")
    for a in range(x.rank):
        if before[a] or after[a]:
            x = pad_axis(c, x, a, before[a], after[a], mode)
    return x


def pad_value(c: Call) -> float:
    """The constant that fills the border."""
    if c.version < 11:
        return c.float("value", 0.0)
    value = c.known(2, "the border's value")
    return 0.0 if value is None or not value.size else float(value.reshape(-1)[0])


def pad_axis(c: Call, x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    """One axis extended by its own elements: positions are looked up as NumPy's pad would place them, runs of
    neighbours become slices."""
    n = x.shape[axis]
    if n == 0:
        raise Impossible(f"padding {mode} of an axis without elements")
    room((n + max(before, 0) + max(after, 0),), 64)
    index = _border(n, max(before, 0), max(after, 0), mode)
    return take(c, x, axis, index[max(-before, 0) : len(index) - max(-after, 0)])


def _border(n: int, before: int, after: int, mode: str) -> list[int]:
    """Positions 0 … n-1 with those that a border of the mode repeats, as NumPy's pad has them."""
    places = range(-before, n + after)
    if mode == "edge":
        return [min(max(p, 0), n - 1) for p in places]
    if mode == "wrap":
        return [p % n for p in places]
    period = max(2 * (n - 1), 1)
    return [min(p % period, period - p % period) if n > 1 else 0 for p in places]


def take(c: Call, x: Value, axis: int, index: Sequence[int]) -> Value:
    """Elements at constant positions along an axis, as a concatenation of regular parts."""
    pieces: list[Value] = []
    at = 0
    while at < len(index):
        step = index[at + 1] - index[at] if at + 1 < len(index) else 1
        run = 1
        while at + run < len(index) and index[at + run] - index[at + run - 1] == step and step:
            run += 1
        pieces.append(f.part(c.b, x, axis, index[at], run, step if run > 1 else 1))
        at += run
    if not pieces:
        return f.part(c.b, x, axis, 0, 0)
    return f.concat(c.b, pieces, axis)


@spelling("Range", runs="folded", note="the bounds are known when the model is compiled")
def range_(c: Call) -> Value:
    """Numbers from start to limit by delta."""
    bounds = [c.known(i, what) for i, what in enumerate(("start", "limit", "delta"))]
    numbers = [b.reshape(-1)[0] for b in bounds if b is not None and b.size == 1]
    if len(numbers) != 3 or not all(math.isfinite(float(v)) for v in numbers) or not numbers[2]:
        raise Impossible("a range without start, limit and delta, or with delta 0")
    start, limit, delta = numbers
    count = max(math.ceil((float(limit) - float(start)) / float(delta)), 0)
    if count > 1 << 26:
        raise Unsupported(f"a range of {count} numbers")
    return c.b.constant((start + np.arange(count, dtype=np.int64) * delta).astype(c.x(0).dtype))


@spelling("ConstantOfShape", runs="folded", note="the shape is known when the model is compiled")
def constant_of_shape(c: Call) -> Value:
    """One number over a shape."""
    target = c.known_ints(0, "the shape")
    if target is None or min(target, default=0) < 0:
        raise Impossible(f"the shape {target}")
    value = c.tensor("value")
    number = np.zeros(1, np.float32) if value is None else value
    return f.expand(c.b, c.b.constant(number.reshape(())), target)


@spelling("EyeLike", runs="folded")
def eye_like(c: Call) -> Value:
    """Ones on a diagonal."""
    from cimc.frontend.elementwise import target_element

    x = c.x()
    if x.rank != 2:
        raise Impossible(f"EyeLike of {x.type}")
    element = target_element(c, c.int("dtype")) if c.has("dtype") else x.element
    room(x.shape, 8)
    return c.b.constant(np.eye(*x.shape, k=c.int("k", 0)).astype(element.dtype(exact=True)))


@spelling("Trilu")
def trilu(c: Call) -> Value:
    """The upper or lower triangle of the last two axes; zeros elsewhere."""
    x, diagonal = c.x(), c.known_ints(1, "the diagonal")
    if x.rank < 2:
        raise Impossible(f"Trilu of {x.type}")
    k = diagonal[0] if diagonal else 0
    k = max(min(k, x.shape[-1]), -x.shape[-2])
    room(x.shape[-2:])
    lower = np.tri(x.shape[-2], x.shape[-1], k - 1 if c.int("upper", 1) else k, dtype=np.bool_)
    mask = c.b.constant(~lower if c.int("upper", 1) else lower)
    return f.select(c.b, mask, x, c.b.scalar(0, x.element))


@spelling("DepthToSpace", runs="view")
def depth_to_space(c: Call) -> Value:
    """Blocks of channels become blocks of pixels."""
    x, s = c.x(), c.int("blocksize")
    if x.rank != 4 or s < 1 or x.shape[1] % (s * s):
        raise Impossible(f"DepthToSpace of {x.type} by {s}")
    n, ch, h, w = x.shape
    deep = ch // (s * s)
    if c.text("mode", "DCR") == "DCR":
        y = f.transpose(c.b, f.reshape(c.b, x, (n, s, s, deep, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        y = f.transpose(c.b, f.reshape(c.b, x, (n, deep, s, s, h, w)), (0, 1, 4, 2, 5, 3))
    return f.reshape(c.b, y, (n, deep, h * s, w * s))


@spelling("SpaceToDepth", runs="view")
def space_to_depth(c: Call) -> Value:
    """Blocks of pixels become channels."""
    x, s = c.x(), c.int("blocksize")
    if x.rank != 4 or s < 1 or x.shape[2] % s or x.shape[3] % s:
        raise Impossible(f"SpaceToDepth of {x.type} by {s}")
    n, ch, h, w = x.shape
    order = (0, 3, 5, 1, 2, 4) if c.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    y = f.transpose(c.b, f.reshape(c.b, x, (n, ch, h // s, s, w // s, s)), order)
    return f.reshape(c.b, y, (n, ch * s * s, h // s, w // s))
