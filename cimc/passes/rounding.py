"""Rounding weights so that products come out right on measured inputs, instead of each weight to its nearest code."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cimc.isa.kernels import codes_by
from cimc.passes.measured import Rows

Float = NDArray[np.float64]

DAMPING = 0.01
"""Added to the diagonal of the inputs' second moments, in units of its mean: GPTQ's, section 3.3."""
BLOCK = 128
"""Inputs whose errors are handed on together, as GPTQ's."""
COLUMNS = 2048
"""Columns rounded together: they do not see each other, and a vocabulary's are many."""
LEAST_GAIN = 0.9
"""A column keeps its nearest codes unless its error on rows that were not fitted to falls below this share of theirs."""


class Moments:
    """Second moments of measured inputs, in the form that :func:`fitted` needs; the last one asked for is kept, since layers
    that read one value come one after another."""

    def __init__(self, rows: dict[str, Rows]) -> None:
        self.rows = rows
        self._last: tuple[str, Float] | None = None

    def factor(self, value: str) -> Float:
        """U, upper triangular (k × k), with UᵀU the inverse of XᵀX + damping, over the even rows X of a value."""
        if self._last is None or self._last[0] != value:
            x = self.rows[value][::2].astype(np.float64)
            h = x.T @ x
            mean = float(np.mean(np.diag(h)))
            h[np.diag_indices_from(h)] += DAMPING * mean if mean > 0 else 1.0
            found: Float = np.linalg.cholesky(np.linalg.inv(h)).T.astype(np.float64, copy=False)
            self._last = (value, found)
            return found
        return self._last[1]


def fitted(w: Rows, steps: Rows, bits: int, moments: Moments, value: str) -> Rows:
    """Codes (k × n, whole numbers) of weights w (k × n) with steps (n), for inputs as those measured of ``value``.

    GPTQ (Frantar et al., ICLR 2023, arXiv:2210.17323, algorithm 1): input by input, weights are rounded to the nearest code,
    and what the inputs to come can undo of the error is added to theirs. Even rows are fitted to; a column whose error on the
    odd rows does not fall by a tenth keeps its nearest codes."""
    found = codes_by(w, steps, bits)
    if len(moments.rows[value]) < 2:
        return found
    factor, rest = moments.factor(value), moments.rows[value][1::2]
    for first in range(0, w.shape[1], COLUMNS):
        part = slice(first, first + COLUMNS)
        nearest, other = found[:, part], _compensated(w[:, part], steps[part], bits, factor)
        before, after = (_errors(rest, codes, w[:, part], steps[part]) for codes in (nearest, other))
        found[:, part] = np.where(after < LEAST_GAIN * before, other, nearest)
    return found


def _errors(rows: Rows, codes: Rows, w: Rows, steps: Rows) -> Rows:
    """The squared error of each column's product with the rows."""
    return np.sum(np.square(rows @ (codes * steps - w)), axis=0)


def _compensated(w: Rows, steps: Rows, bits: int, factor: Float) -> Rows:
    k = len(w)
    rest, codes = w.astype(np.float64), np.empty(w.shape, np.float32)
    for start in range(0, k, BLOCK):
        end = min(start + BLOCK, k)
        errors = np.empty((end - start, w.shape[1]))
        for i in range(start, end):
            codes[i] = codes_by(rest[i].astype(np.float32), steps, bits)
            errors[i - start] = (rest[i] - codes[i].astype(np.float64) * steps) / factor[i, i]
            rest[i + 1 : end] -= np.outer(factor[i, i + 1 : end], errors[i - start])
        rest[end:] -= factor[start:end, end:].T @ errors
    return codes
