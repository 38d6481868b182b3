"""Fault-aware placement: which physical row and column of a core each row and column of a weight block takes, given the
cells that are known to be stuck when it is programmed.

A stuck cell is harmless where it is not used, or where its level is the one wanted. Rows may be exchanged among those
that are driven together (their sums are converted together), columns among all of the core, spare ones included. The
cost of a placement is the sum of squared weight errors: a stuck cell of slice ``s`` is off by ``2**shift[s]`` times its
wrong levels, and the errors of one weight's slices add up before they are squared, so the most significant slices weigh
most. Rows and columns are placed in turn, each time optimally for the other (Kuhn-Munkres, by
scipy.optimize.linear_sum_assignment), until nothing is gained; the cost never rises. The approach is that of L. Xia et
al., "Stuck-at Fault Tolerance in RRAM Computing Systems", IEEE JETCAS 2018, and of X. Zhang et al. after it: faults are
moved to where they agree with the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from cimc.analog.config import AnalogConfig, WeightEncoding, refuse
from cimc.analog.encoding import slice_levels, stored

Int = NDArray[np.int64]
Float = NDArray[np.float64]
Faults = NDArray[np.int8]
MOST_ROUNDS = 4  # of rows and columns in turn; gains beyond the second are small


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a block went. ``rows`` and ``cols``: the physical row of every row, the physical column of every column.
    ``stuck``: the faults as the block meets them, (sides, crossbars, out, in), which ``AnalogConfig.stuck`` takes.
    ``before`` and ``after``: RMS error of a weight through stuck cells, in codes, in order and as placed."""

    rows: Int
    cols: Int
    stuck: Faults
    before: float
    after: float


@dataclass(frozen=True, eq=False)
class _Stuck:
    """The positions with a fault in some crossbar: physical ``row`` and ``col`` of each, and for each of the crossbars
    (both sides of a pair, copies of a slice) whether it is stuck there (``at``) and what it then adds (``adds``)."""

    row: Int
    col: Int
    at: NDArray[np.bool_]
    adds: Float


def remap(
    codes: NDArray[Any],
    config: AnalogConfig,
    faults: Faults,
    *,
    rows: bool = True,
    columns: bool = True,
) -> Placement:
    """Place a block of weights ``codes`` (in, out) on a core whose ``faults`` are known.

    ``faults`` is the map of the whole core, (sides, crossbars, columns, rows): 0 healthy, 1 at level 0, 2 at the highest
    level; one crossbar per slice, then the copies of the most significant ones (redundancy.py). It has at least as many
    columns and rows as the block; those beyond are spare. ``rows`` and ``columns`` say what may be moved; with neither,
    the block lies in order from the first. Raises ``CimcError`` for a map that does not fit.
    """
    weights = np.asarray(codes, dtype=np.int64)
    count, outputs = weights.shape
    sides = 1 if config.weights.kind == "offset" else 2
    want = (sides, len(config.crossbar_slices))
    fits = faults.ndim == 4 and faults.shape[:2] == want and faults.shape[2] >= outputs and faults.shape[3] >= count
    if not fits:
        raise refuse(
            "stuck_map",
            f"the map's shape is {faults.shape}",
            f"give {want} crossbars of at least {outputs} columns x {count} rows",
        )
    contributions = _contributions(weights, config)
    stuck = _positions(faults, config)
    order = np.arange(count), np.arange(outputs)
    before = _error(contributions, stuck, *order, faults.shape[2:])
    row_of, col_of, after = order[0], order[1], before
    group = config.active_rows or config.rows
    for _ in range(MOST_ROUNDS if rows and columns else 1):
        best = after
        if rows:
            row_of = _assign_rows(contributions, stuck, col_of, faults.shape[3], group)
        if columns:
            col_of = _assign(_column_costs(contributions, stuck, row_of, faults.shape[2]))
        after = _error(contributions, stuck, row_of, col_of, faults.shape[2:])
        if after >= best:
            break
    seen = faults[:, :, col_of][:, :, :, row_of]
    size = max(weights.size, 1)
    return Placement(row_of, col_of, np.ascontiguousarray(seen), (before / size) ** 0.5, (after / size) ** 0.5)


def table_bits(rows: int, physical_rows: int, cols: int, physical_cols: int) -> int:
    """Bits of a core's index tables: for every row and column in use, the number of the physical one."""
    return rows * max(physical_rows - 1, 1).bit_length() + cols * max(physical_cols - 1, 1).bit_length()


def _worth(config: AnalogConfig) -> list[float]:
    """What one level of each crossbar adds to a weight; copies of a slice share its worth."""
    encoding, extra = config.weights, config.redundancy
    first = len(encoding.slice_bits) - extra.slices
    return [
        2.0**shift / (extra.copies if extra.copies > 1 and s >= first else 1)
        for s, shift in ((s, encoding.shifts[s]) for s in config.crossbar_slices)
    ]


def _contributions(weights: Int, config: AnalogConfig) -> Float:
    """What each crossbar's cells add to a weight, (sides * crossbars, in, out)."""
    encoding = config.weights
    levels = slice_levels(stored(weights, encoding), encoding)
    each = np.stack([levels[s] * worth for s, worth in zip(config.crossbar_slices, _worth(config), strict=True)])
    if encoding.kind == "offset":
        return each
    return np.concatenate([each * (weights > 0), -(each * (weights < 0))])


def _positions(faults: Faults, config: AnalogConfig) -> _Stuck:
    encoding: WeightEncoding = config.weights
    col, row = np.nonzero(faults.any(axis=(0, 1)))
    here = faults[:, :, col, row]  # (sides, crossbars, positions)
    slices = config.crossbar_slices
    tops = np.array([encoding.max_levels[s] * w for s, w in zip(slices, _worth(config), strict=True)])
    signs = np.array([1.0, -1.0])[: len(faults)]
    adds = np.where(here == 2, tops[None, :, None] * signs[:, None, None], 0.0)
    flat = (here.shape[0] * here.shape[1], len(row))
    return _Stuck(row, col, (here > 0).reshape(flat), adds.reshape(flat))


def _errors(contributions: Float, stuck: _Stuck, positions: NDArray[np.bool_], lines: Int, axis: int) -> Float:
    """Squared error of every row (``axis`` 1; or column, 2) put on each of these stuck positions, (positions, rows),
    where the other index of each is ``lines``."""
    at, adds = stuck.at[:, positions], stuck.adds[:, positions]
    total = np.zeros((len(lines), contributions.shape[axis]))
    for part, here, added in zip(contributions, at, adds, strict=True):
        hit = np.flatnonzero(here)
        wanted = part[:, lines[hit]].T if axis == 1 else part[lines[hit]]
        total[hit] += added[hit, None] - wanted
    return total * total


def _inverse(places: Int, size: int) -> Int:
    """Which row or column lies on each physical one; -1 for a spare."""
    found = np.full(size, -1)
    found[places] = np.arange(len(places))
    return found


def _row_costs(contributions: Float, stuck: _Stuck, col_of: Int, size: int) -> Float:
    """Cost of every row on every physical row, (rows, physical rows), columns as they lie."""
    on = _inverse(col_of, int(max(stuck.col.max(initial=0), col_of.max(initial=0))) + 1)[stuck.col]
    used = on >= 0
    costs = np.zeros((size, contributions.shape[1]))
    np.add.at(costs, stuck.row[used], _errors(contributions, stuck, used, on[used], 1))
    return costs.T


def _column_costs(contributions: Float, stuck: _Stuck, row_of: Int, size: int) -> Float:
    """Cost of every column on every physical column, (columns, physical columns), rows as they lie."""
    on = _inverse(row_of, int(max(stuck.row.max(initial=0), row_of.max(initial=0))) + 1)[stuck.row]
    used = on >= 0
    costs = np.zeros((size, contributions.shape[2]))
    np.add.at(costs, stuck.col[used], _errors(contributions, stuck, used, on[used], 2))
    return costs.T


def _assign(costs: Float) -> Int:
    """The cheapest place of every line; its own where that is as cheap (costs are multiples of 1 / 225)."""
    own = np.arange(len(costs))
    costs[own, own] -= 1e-6
    lines, places = linear_sum_assignment(costs)
    found = np.empty(len(costs), np.int64)
    found[lines] = places
    return found


def _assign_rows(contributions: Float, stuck: _Stuck, col_of: Int, size: int, group: int) -> Int:
    """The cheapest physical row of every row, among the rows that are driven together with it."""
    costs = _row_costs(contributions, stuck, col_of, size)
    found = np.empty(len(costs), np.int64)
    for first in range(0, len(costs), group):
        part = costs[first : first + group, first : first + group].copy()
        found[first : first + group] = first + _assign(part)
    return found


def _error(contributions: Float, stuck: _Stuck, row_of: Int, col_of: Int, shape: tuple[int, ...]) -> float:
    """Sum of squared weight errors of a placement."""
    row, col = _inverse(row_of, shape[1])[stuck.row], _inverse(col_of, shape[0])[stuck.col]
    used = (row >= 0) & (col >= 0)
    wanted = contributions[:, row[used], col[used]]
    off = np.where(stuck.at[:, used], stuck.adds[:, used] - wanted, 0.0).sum(axis=0)
    return float(off @ off)
