"""How far two arrays are apart, and whether that is near enough.

The figures, with *e = got − want* over the comparable elements, all in float64:

=====================  ==============================================================================================
max_abs_error          max |e|; infinite if some element is not comparable (see below), 0 for empty arrays
rms_error              sqrt(mean e²)
cosine_similarity      got·want / (|got| |want|); 1 if both are all zero, 0 if only one is
sqnr_db                10 log10(Σ want² / Σ e²), clamped to ±320 dB: beyond that float64 (53 bits) resolves nothing
argmax_agreement       share of rows along the last axis whose largest element of ``got`` is a largest one of ``want``
=====================  ==============================================================================================

Not every element is comparable. NaN matches NaN; an infinity matches an infinity of the same sign, and so does any
magnitude from 1e30 on, because exporters write "minus infinity" of attention masks as the lowest float. Matching
elements of that kind leave the figures untouched; one that does not match fails the comparison.

The rules, in this order:

1. A different shape fails, and so does a different kind of dtype (floating against integer or bool); a different width
   of the same kind does not.
2. An element that is not comparable and does not match fails.
3. Integers and bools (token ids, masks): all equal under ``float`` numerics; under ``integer`` and ``analog`` a share
   of at least ``min_equal`` (default 0.9) is equal, because near-ties may fall either way.
4. ``float`` numerics: max_abs_error ≤ max(atol, rtol · max |want|); by default atol is 1e-5 and rtol 1e-3, or four units
   in the last place of the reference's dtype where that is more (float16: 3.9e-3, bfloat16: 3.1e-2): it rounds too.
   An output that the model casts from such a type counts as of that type.
5. ``integer`` and ``analog`` numerics: cosine_similarity ≥ min_cosine, 0.98 by default; and if the caller gave ``atol``
   or ``rtol`` himself, rule 4 as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from cimc.sim.values import Numerics

Rule = Literal["shape", "dtype", "non-finite", "equal", "max_abs_error", "cosine_similarity"]

HUGE = 1e30  # stands for infinity from here on: the lowest float32 and float64 do, nothing computed does
SQNR_LIMIT_DB = 320.0  # 20 log10(2^53) = 319 dB


@dataclass(frozen=True)
class Tolerance:
    """How far apart is near enough; the module's docstring says how each field is used."""

    numerics: Numerics = "float"
    atol: float | None = None  # None: 1e-5, and rule 4 applies to float numerics only
    rtol: float | None = None  # None: 1e-3, likewise
    min_cosine: float = 0.98
    min_equal: float = 0.9

    @property
    def bounds_error(self) -> bool:
        """Whether rule 4 applies."""
        return self.numerics == "float" or self.atol is not None or self.rtol is not None

    @property
    def bounds_cosine(self) -> bool:
        """Whether rule 5 applies."""
        return self.numerics != "float"

    @property
    def equal_share(self) -> float:
        """The share of integers that has to be equal (rule 3)."""
        return 1.0 if self.numerics == "float" else self.min_equal

    def error_limit(self, largest: float, resolution: float = 0.0) -> float:
        """The largest error allowed where ``largest`` = max |want| (rule 4); ``resolution``: the relative spacing of the
        reference's dtype."""
        if self.numerics != "float" and self.atol is None:
            return (self.rtol or 0.0) * largest
        if self.numerics != "float" and self.rtol is None:
            return self.atol or 0.0
        rtol = max(1e-3, 4 * resolution) if self.rtol is None else self.rtol
        return max(1e-5 if self.atol is None else self.atol, rtol * largest)


@dataclass(frozen=True)
class Verdict:
    """The rule that came nearest to failing, or failed first: its figure, its limit, in a sentence if it failed."""

    rule: Rule
    figure: float
    limit: float
    passed: bool
    why: str = ""

    @property
    def strain(self) -> float:
        """How much of the allowance is used up: above 1 fails, infinite for what has no allowance."""
        allowance, used = self.limit, self.figure
        if self.rule in ("cosine_similarity", "equal"):
            allowance, used = 1.0 - self.limit, 1.0 - self.figure
        if not math.isfinite(used):
            return math.inf
        if allowance > 0:
            return used / allowance
        return 0.0 if self.passed else math.inf


@dataclass(frozen=True)
class Agreement:
    """The comparison of one value. ``shape`` and ``dtype`` are those of the reference."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    max_abs_error: float
    rms_error: float
    cosine_similarity: float
    sqnr_db: float
    argmax_agreement: float
    worst_index: tuple[int, ...] | None  # where |e| is largest, or the first element that does not match
    worst_got: float
    worst_want: float
    max_abs_want: float
    verdict: Verdict

    @property
    def passed(self) -> bool:
        """Whether the value is near enough."""
        return self.verdict.passed

    @property
    def needed_atol(self) -> float:
        """The smallest ``atol`` with which rule 4 would pass whatever ``rtol`` is."""
        return self.max_abs_error

    @property
    def needed_rtol(self) -> float:
        """The smallest ``rtol`` with which rule 4 would pass whatever ``atol`` is; infinite if no such number is."""
        if self.max_abs_error == 0:
            return 0.0
        return self.max_abs_error / self.max_abs_want if self.max_abs_want > 0 else math.inf


def compare(
    name: str,
    got: NDArray[np.generic],
    want: NDArray[np.generic],
    tolerance: Tolerance | None = None,
    resolution: float = 0.0,
) -> Agreement:
    """Compare ``got`` with the reference ``want`` (any shape, float, integer or bool) by the rules above.
    ``resolution``: relative spacing of a narrower type that the reference was rounded to, if it was."""
    tolerance = tolerance or Tolerance()
    if got.shape != want.shape:
        return _refused(name, want, "shape", f"shape {list(got.shape)} instead of {list(want.shape)}")
    if _discrete(got) != _discrete(want):
        return _refused(name, want, "dtype", f"dtype {got.dtype} instead of {want.dtype}")
    x, y = np.asarray(got, np.float64), np.asarray(want, np.float64)
    odd = ~(_ordinary(x) & _ordinary(y))
    clash = odd & ~_matching(x, y)
    x, y = np.where(odd, 0.0, x), np.where(odd, 0.0, y)
    e = np.abs(x - y)
    clashes = int(np.count_nonzero(clash))
    worst = _first(clash) if clashes else _largest(e)
    largest = float(np.max(np.abs(y), initial=0.0))
    error = math.inf if clashes else float(np.max(e, initial=0.0))
    cosine = _cosine(x, y)
    if clashes:
        verdict = _clash_verdict(clashes)
    elif _discrete(want):
        verdict = _equal_verdict(_equal_share(got, want), tolerance)
    else:
        verdict = _verdict(error, cosine, largest, tolerance, max(_resolution(want), resolution))
    return Agreement(
        name=name,
        shape=tuple(int(n) for n in want.shape),
        dtype=str(want.dtype),
        max_abs_error=error,
        rms_error=math.inf if clashes else float(np.sqrt(np.mean(e * e))) if e.size else 0.0,
        cosine_similarity=cosine,
        sqnr_db=-SQNR_LIMIT_DB if clashes else _sqnr(e, y),
        argmax_agreement=_argmax_agreement(np.asarray(got, np.float64), np.asarray(want, np.float64)),
        worst_index=worst,
        worst_got=_at(got, worst),
        worst_want=_at(want, worst),
        max_abs_want=largest,
        verdict=verdict,
    )


def _equal_share(got: NDArray[np.generic], want: NDArray[np.generic]) -> float:
    """Share of integers that are equal. Of the integers themselves: float64 does not tell 2^53 from 2^53 + 1."""
    return 1.0 - int(np.count_nonzero(got != want)) / max(1, want.size)


def _resolution(array: NDArray[np.generic]) -> float:
    """Relative spacing of a floating dtype just above a power of two."""
    return float(ml_dtypes.finfo(array.dtype).eps)


def _discrete(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind in "biu"


def _ordinary(x: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.isfinite(x) & (np.abs(x) < HUGE)


def _matching(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where both are NaN, or both are infinite (or stand for it) with the same sign."""
    both_huge = (np.abs(x) >= HUGE) & (np.abs(y) >= HUGE) & (np.sign(x) == np.sign(y))
    return (np.isnan(x) & np.isnan(y)) | both_huge


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat, shape))


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    return _index(int(np.argmax(mask)), mask.shape)


def _largest(e: NDArray[np.float64]) -> tuple[int, ...] | None:
    return _index(int(np.argmax(e)), e.shape) if e.size and float(np.max(e)) > 0 else None


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Scaled by the largest element first, so that squares neither overflow nor vanish."""
    a, b = float(np.max(np.abs(x), initial=0.0)), float(np.max(np.abs(y), initial=0.0))
    if a == 0 or b == 0:
        return 1.0 if a == b else 0.0
    u, v = x.ravel() / a, y.ravel() / b
    return min(1.0, max(-1.0, float(u @ v) / math.sqrt(float(u @ u) * float(v @ v))))


def _sqnr(e: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    scale = max(float(np.max(e, initial=0.0)), float(np.max(np.abs(y), initial=0.0)))
    if scale == 0:
        return SQNR_LIMIT_DB
    noise, signal = float(np.sum((e / scale) ** 2)), float(np.sum((y / scale) ** 2))
    if noise == 0 or signal == 0:
        return SQNR_LIMIT_DB if noise == 0 else -SQNR_LIMIT_DB
    return min(SQNR_LIMIT_DB, max(-SQNR_LIMIT_DB, 10.0 * math.log10(signal / noise)))


def _argmax_agreement(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    if x.size == 0 or x.ndim == 0:
        return 1.0
    rows_x, rows_y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    rows = np.arange(len(rows_y))
    picked: NDArray[np.float64] = rows_y[rows, np.argmax(rows_x, axis=1)]
    best: NDArray[np.float64] = rows_y[rows, np.argmax(rows_y, axis=1)]
    same: NDArray[np.bool_] = np.equal(picked, best) | (np.isnan(picked) & np.isnan(best))
    return int(np.count_nonzero(same)) / len(rows)


def _at(array: NDArray[np.generic], index: tuple[int, ...] | None) -> float:
    return 0.0 if index is None else float(np.asarray(array[index], np.float64))


def _clash_verdict(clashes: int) -> Verdict:
    why = f"{clashes} elements are NaN or infinite here or in the reference, not in both"
    return Verdict("non-finite", clashes, 0.0, False, why)


def _equal_verdict(share: float, tolerance: Tolerance) -> Verdict:
    limit = tolerance.equal_share
    passed = share >= limit
    return Verdict("equal", share, limit, passed, "" if passed else f"{share:.2%} equal, at least {limit:.0%} needed")


def _verdict(error: float, cosine: float, largest: float, tolerance: Tolerance, resolution: float) -> Verdict:
    """The rule under the greatest strain."""
    verdicts: list[Verdict] = []
    if tolerance.bounds_error:
        limit = tolerance.error_limit(largest, resolution)
        why = "" if error <= limit else f"max abs error {error:.3g} above {limit:.3g}"
        verdicts.append(Verdict("max_abs_error", error, limit, error <= limit, why))
    if tolerance.bounds_cosine:
        limit = tolerance.min_cosine
        why = "" if cosine >= limit else f"cosine {cosine:.6f} below {limit}"
        verdicts.append(Verdict("cosine_similarity", cosine, limit, cosine >= limit, why))
    return max(verdicts, key=lambda v: (not v.passed, v.strain))


def _refused(name: str, want: NDArray[np.generic], rule: Rule, why: str) -> Agreement:
    """An array that cannot be compared at all."""
    return Agreement(
        name=name,
        shape=tuple(int(n) for n in want.shape),
        dtype=str(want.dtype),
        max_abs_error=math.inf,
        rms_error=math.inf,
        cosine_similarity=0.0,
        sqnr_db=-SQNR_LIMIT_DB,
        argmax_agreement=0.0,
        worst_index=None,
        worst_got=math.nan,
        worst_want=math.nan,
        max_abs_want=0.0,
        verdict=Verdict(rule, 1.0, 0.0, False, why),
    )
