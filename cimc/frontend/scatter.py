"""Spellings of operators that write elements by index."""

from __future__ import annotations

import math

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.frontend.call import Call, NeedsHost, spelling
from cimc.frontend.record import Array
from cimc.isa.operands import Element

MAX_WRITES = 64
MAX_RUNS = 64
REDUCE = {"none": "", "add": "add", "mul": "mul", "max": "max", "min": "min"}
"""How a write joins what is there: the op of the IR, or nothing where it replaces it."""


@spelling("ScatterElements", "Scatter", note="up to 64 writes along the axis, each a select; more are left to the host")
def scatter_elements(c: Call) -> Value:
    """``y[index[i][j]][j] = updates[i][j]`` for axis 0: write after write, each selects where its index points."""
    b, x, index, updates = c.b, c.x(0), c.x(1), c.x(2)
    axis, reduction = c.axis(c.int("axis", 0), x.rank), c.text("reduction", "none")
    if index.rank != x.rank or updates.shape != index.shape or reduction not in REDUCE:
        raise Impossible(f"scatter of {updates.type} by {index.type} into {x.type}")
    others = [a for a in range(x.rank) if a != axis]
    writes = index.shape[axis]
    if any(index.shape[a] != x.shape[a] for a in others) or writes > MAX_WRITES:
        raise NeedsHost(f"{writes} writes along an axis, or writes into a part of the tensor")
    if not writes:
        return x
    n = x.shape[axis]
    places, new = (f.move_axis(b, v, axis, -1) for v in (f.cast(b, index, Element.I64), updates))
    y = f.move_axis(b, x, axis, -1)
    negative = f.binary(b, "lt", places, b.scalar(0, Element.I64))
    places = f.select(b, negative, f.shifted(b, places, n), places)
    numbers = b.constant(np.arange(n, dtype=np.int64))
    for i in range(writes):
        y = _written(b, y, f.binary(b, "eq", numbers, f.part(b, places, -1, i, 1)), f.part(b, new, -1, i, 1), reduction)
    return f.move_axis(b, y, -1, axis)


def _written(b: Builder, y: Value, hit: Value, value: Value, reduction: str) -> Value:
    """y where nothing hits, else ``value``, or both joined."""
    op = REDUCE[reduction]
    return f.select(b, hit, f.binary(b, op, y, value) if op else f.expand(b, value, y.shape), y)


@spelling(
    "ScatterND",
    note="indices known: regions are put together; known only at run time: up to 64 writes, each a select; else on the host",
)
def scatter_nd(c: Call) -> Value:
    """Slices replaced by index tuples: if those are known, old and new runs of rows one after another."""
    b, x, updates = c.b, c.x(0), c.x(2)
    tuples = c.b.array(c.x(1))
    if tuples is None:
        return _at_run_time(c, x, c.x(1), updates)
    if c.text("reduction", "none") != "none":
        raise NeedsHost(f"reduction {c.text('reduction')}")
    depth = tuples.shape[-1] if tuples.ndim else 0
    if not 0 < depth <= x.rank or updates.shape != (*tuples.shape[:-1], *x.shape[depth:]):
        raise Impossible(f"ScatterND of {updates.type} into {x.type} by tuples of {depth}")
    rows = _row_numbers(x, tuples, depth)
    row = math.prod(x.shape[depth:])
    runs = _runs(rows, math.prod(x.shape[:depth]))
    if len(runs) > MAX_RUNS or not x.type.size:
        raise NeedsHost(f"{len(runs)} separate regions")
    old = f.reshape(b, x, (x.type.size // row, row))
    new = f.reshape(b, updates, (updates.type.size // row, row))
    parts = [f.part(b, new if fresh else old, 0, at, n) for fresh, at, n in runs]
    return f.reshape(b, f.concat(b, parts, 0), x.shape)


def _at_run_time(c: Call, x: Value, tuples: Value, updates: Value) -> Value:
    """Write after write, each selects the row that its tuple points at."""
    b, reduction = c.b, c.text("reduction", "none")
    depth = tuples.shape[-1] if tuples.rank else 0
    if not 0 < depth <= x.rank or updates.shape != (*tuples.shape[:-1], *x.shape[depth:]) or reduction not in REDUCE:
        raise Impossible(f"ScatterND of {updates.type} into {x.type} by tuples of {depth}")
    writes, rows, row = tuples.type.size // depth, math.prod(x.shape[:depth]), math.prod(x.shape[depth:])
    if writes > MAX_WRITES:
        raise NeedsHost(f"{writes} writes at indices known only at run time")
    if not writes or not x.type.size:
        return x
    extents = np.array(x.shape[:depth], np.int64)
    steps = np.array([math.prod(x.shape[a + 1 : depth]) for a in range(depth)], np.int64)
    at = f.reshape(b, f.cast(b, tuples, Element.I64), (writes, depth))
    negative = f.binary(b, "lt", at, b.scalar(0, Element.I64))
    at = f.mul(b, f.select(b, negative, f.add(b, at, b.constant(extents)), at), b.constant(steps))
    places = f.reduce(b, "reduce_sum", at, (1,), keep=True)
    y, new = f.reshape(b, x, (rows, row)), f.reshape(b, updates, (writes, row))
    numbers = b.constant(np.arange(rows, dtype=np.int64).reshape(rows, 1))
    for i in range(writes):
        y = _written(b, y, f.binary(b, "eq", numbers, f.part(b, places, 0, i, 1)), f.part(b, new, 0, i, 1), reduction)
    return f.reshape(b, y, x.shape)


@spelling("TensorScatter", note="up to 64 new tokens a sample, each a select")
def tensor_scatter(c: Call) -> Value:
    """A cache with new tokens along ``axis`` from an index of each sample on, or from 0; circular: past its end, from its
    start."""
    b, x, new, first = c.b, c.x(0), c.x(1), c.opt(2)
    axis = c.axis(c.int("axis", -2), x.rank)
    fits = x.rank > 1 and new.rank == x.rank and all(new.shape[a] == x.shape[a] for a in range(x.rank) if a != axis)
    if axis == 0 or not fits or c.text("mode", "linear") not in ("linear", "circular"):
        raise Impossible(f"{new.type} into a cache {x.type} along axis {axis}")
    writes, n = new.shape[axis], x.shape[axis]
    if writes > MAX_WRITES:
        raise NeedsHost(f"{writes} new tokens")
    ones = (1,) * (x.rank - 1)
    zero = b.constant(np.zeros(x.shape[0], np.int64))
    start = f.reshape(b, zero if first is None else f.cast(b, first, Element.I64), (x.shape[0], *ones))
    numbers = b.constant(np.arange(n, dtype=np.int64).reshape(n, *(1,) * (x.rank - axis - 1)))
    for i in range(writes):
        place = f.shifted(b, start, i)
        if c.text("mode", "linear") == "circular":
            place = f.binary(b, "mod", place, b.scalar(n, Element.I64))
        x = _written(b, x, f.binary(b, "eq", numbers, place), f.part(b, new, axis, i, 1), "none")
    return x


def _row_numbers(x: Value, tuples: Array, depth: int) -> list[int]:
    extents = np.array(x.shape[:depth], np.int64)
    index = tuples.reshape(-1, depth).astype(np.int64)
    if ((index < -extents) | (index >= extents)).any():
        raise Impossible(f"an index outside {x.type}")
    steps = np.array([math.prod(x.shape[a + 1 : depth]) for a in range(depth)], np.int64)
    return [int(v) for v in (np.where(index < 0, index + extents, index) * steps).sum(axis=1)]


def _runs(rows: list[int], count: int) -> list[tuple[bool, int, int]]:
    """The result's rows as runs (new or old, first row there, length); the last write to a row stays."""
    source = dict(zip(rows, range(len(rows)), strict=True))
    if len(source) > 1 << 20 or count > 1 << 22:
        raise NeedsHost(f"{len(source)} writes into {count} rows")
    runs: list[tuple[bool, int, int]] = []
    for r in range(count):
        fresh = r in source
        at = source[r] if fresh else r
        if runs and runs[-1][0] == fresh and runs[-1][1] + runs[-1][2] == at:
            runs[-1] = (fresh, runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((fresh, at, 1))
    return runs
