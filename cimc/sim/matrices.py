"""Weights in the cells of a tile's cores, in the three numerics."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import Fault, Matrix
from cimc.isa.program import MatrixDecl, Weights
from cimc.mapped import release
from cimc.sim.analog import AnalogCores
from cimc.sim.memory import describe
from cimc.sim.rewrite import Strips, rewritten
from cimc.sim.tally import Samples

Array = NDArray[np.generic]
CACHED_BYTES = 2 << 30  # converted weights kept between uses; beyond it they are converted again at each use
EXACT = 2**24  # float32 holds every integer up to here, so a float32 product of integers that stays below is exact
SMALL = 1_000_000  # multiplications of a product for which OpenBLAS (0.3.17 on) copies no operand and starts no threads


def product(x: Array, weights: Array) -> Array:
    """``x`` (rows × inputs, or groups × rows × inputs) times weights: all rows × outputs.

    Groups that make small products are taken together as long as the product stays small: a larger one costs more than it
    saves, and in float32 its additions may be in another order."""
    if x.ndim == 2:
        return np.matmul(x, weights)
    groups, rows, inputs = x.shape
    outputs = weights.shape[1]
    some = max(1, min(groups, SMALL // max(rows * weights.size, 1)))
    if some == 1:
        return np.matmul(x, weights).reshape(groups * rows, outputs)
    whole = groups // some * some
    y = np.matmul(x[:whole].reshape(whole // some, some * rows, inputs), weights).reshape(whole * rows, outputs)
    if whole == groups:
        return y
    return np.concatenate((y, np.matmul(x[whole:].reshape((groups - whole) * rows, inputs), weights)))


class FloatMatrix:
    """Unrounded weights: an exact product in float32."""

    def __init__(self, weights: Array) -> None:
        self._weights = weights.astype(np.float32, copy=False)

    def mvm(self, x: Array) -> Array:
        """``x`` ([groups ×] rows × inputs) times the weights: all rows, in float32. Each group by itself, as when they come one
        after the other: BLAS adds in an order that depends on the number of rows."""
        return np.matmul(x.astype(np.float32, copy=False), self._weights).reshape(-1, self._weights.shape[1])

    def program(self, codes: Array, strips: Strips = ()) -> None:
        """Replace the weights, or some of their rows."""
        self._weights = rewritten(self._weights, np.asarray(codes, np.float32), strips)

    def calibrate(self, vectors: int) -> None:
        """Nothing: the product is exact."""


class Budget:
    """How many bytes of converted weights a run still keeps."""

    def __init__(self, size: int = CACHED_BYTES) -> None:
        self.left = size

    def take(self, size: int) -> bool:
        """Whether ``size`` bytes may be kept; they are then counted."""
        if size > self.left:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """``size`` bytes are kept no more."""
        self.left += size


class IntegerMatrix:
    """Integer codes: exact sums, by float BLAS where it is exact."""

    def __init__(self, codes: Array, budget: Budget) -> None:
        self._codes = codes
        self._budget = budget
        self._wide: dict[np.dtype[np.generic], Array] = {}

    def mvm(self, x: Array) -> Array:
        """``x`` ([groups ×] rows × inputs, integers) times the codes: int32, wrapping as the accumulators do.

        8-bit sums are taken in float32 over so many inputs at a time that they stay below 2^24 (1023 signed ones, 513
        unsigned ones), others in
        float64, so every partial sum is exact."""
        if x.dtype.itemsize == 1:
            largest = 128 if np.issubdtype(x.dtype, np.signedinteger) else 255
            step = (EXACT - 1) // (largest * 128)
            weights = self._as(np.dtype(np.float32))
            inputs = x.astype(np.float32)
            total = product(inputs[..., :step], weights[:step]).astype(np.int32)
            for start in range(step, x.shape[-1], step):
                end = start + step
                total += product(inputs[..., start:end], weights[start:end]).astype(np.int32)
            return total
        return product(x.astype(np.float64), self._as(np.dtype(np.float64))).astype(np.int64).astype(np.int32)

    def _as(self, dtype: np.dtype[np.generic]) -> Array:
        if dtype in self._wide:
            return self._wide[dtype]
        wide = self._codes.astype(dtype)
        if self._budget.take(wide.nbytes):
            self._wide[dtype] = wide
        return wide

    def program(self, codes: Array, strips: Strips = ()) -> None:
        """Replace the codes, or some of their rows."""
        self._codes = rewritten(self._codes, codes, strips)
        for wide in self._wide.values():
            self._budget.give(wide.nbytes)
        self._wide = {}

    def calibrate(self, vectors: int) -> None:
        """Nothing: sums are exact."""


class SampledMatrix:
    """Integer codes that keep the inputs they see."""

    def __init__(self, inner: IntegerMatrix, decl: MatrixDecl, samples: Samples) -> None:
        self._inner, self._decl, self._samples = inner, decl, samples

    def mvm(self, x: Array) -> Array:
        """As the matrix inside."""
        self._samples.add(self._decl, x.reshape(-1, x.shape[-1]))
        return self._inner.mvm(x)

    def program(self, codes: Array, strips: Strips = ()) -> None:
        """Replace the codes, or some of their rows."""
        self._inner.program(codes, strips)

    def calibrate(self, vectors: int) -> None:
        """Nothing: sums are exact."""


class CheckedMatrix:
    """A matrix that names a wrong extent instead of failing inside a product."""

    def __init__(self, decl: MatrixDecl, inner: Matrix) -> None:
        self._decl = decl
        self._inner = inner

    @property
    def inner(self) -> Matrix:
        """The matrix inside, the same one for replicas."""
        return self._inner

    def mvm(self, x: Array) -> Array:
        """As the matrix inside; raises Fault if x has another number of inputs."""
        if x.shape[-1] != self._decl.rows:
            raise Fault(f"x has {x.shape[-1]} inputs, matrix '{self._decl.name}' has {self._decl.rows}")
        return self._inner.mvm(x)

    def program(self, codes: Array, strips: Strips = ()) -> None:
        """As the matrix inside; raises Fault if the codes have another shape, or rows that the matrix has not."""
        rows, cols = self._decl.rows, self._decl.cols
        last = max((first + count for first, count in strips), default=len(codes))
        if codes.ndim != 2 or codes.shape[1] != cols or last > rows or (not strips and last < rows):
            raise Fault(f"codes are {describe(codes)}, matrix '{self._decl.name}' is {rows}x{cols}")
        self._inner.program(codes, strips)

    def calibrate(self, vectors: int) -> None:
        """As the matrix inside."""
        self._inner.calibrate(vectors)


@dataclass
class MatrixFactory:
    """Builds the matrices of a run. Copies of one matrix in several tiles (replicas) share memory."""

    weights: Weights
    chip: ChipSpec
    exact: bool
    analog: AnalogCores | None = None
    samples: Samples | None = None  # filled with the inputs of integer matrices
    only: frozenset[str] | None = None  # keys of the weights in analog cells, the others are exact; None: all
    budget: Budget = field(default_factory=Budget)
    _shared: dict[tuple[object, ...], Matrix] = field(default_factory=dict[tuple[object, ...], Matrix])

    def build(self, tile: int, decl: MatrixDecl, *, rewritten: bool, blank: bool = False) -> Matrix:
        """The matrix of a tile; ``rewritten`` if the program writes its cells, ``blank`` if it does before anything else.
        Raises WEIGHT_…."""
        core = self.chip.tile(tile).core
        analog = self.only is None or decl.key in self.only
        if self.analog is not None and analog and core is not None and core.adc is not None:
            codes = self._codes(tile, decl, blank=blank)
            unit = self.analog.build(codes, core, tile, decl, rewritten=rewritten)
            return CheckedMatrix(decl, unit)
        key = (decl.key, decl.row_offset, decl.col_offset, decl.rows, decl.cols)
        if not rewritten and key in self._shared:
            return CheckedMatrix(decl, self._shared[key])
        codes = self._codes(tile, decl, blank=blank)
        inner = FloatMatrix(self._aligned(codes)) if self.exact else IntegerMatrix(codes, self.budget)
        if self.samples is not None and isinstance(inner, IntegerMatrix):
            inner = SampledMatrix(inner, decl, self.samples)
        if not rewritten:
            self._shared[key] = inner
        return CheckedMatrix(decl, inner)

    def _aligned(self, weights: Array) -> Array:
        """Unrounded weights where and how products can use them: a file may have them at odd addresses, and NumPy would copy
        them for every product; a model transposed, and BLAS would add in another order than with those of a compiled
        folder. The file's pages are given back."""
        by_rows = weights.strides[1] == weights.itemsize
        if (weights.flags.aligned and by_rows) or not self.budget.take(weights.nbytes):
            return weights
        copy = np.array(weights, order="C")
        release(weights)
        return copy

    def _codes(self, tile: int, decl: MatrixDecl, *, blank: bool) -> Array:
        what = f"matrix '{decl.name}' of tile {tile}"
        unrounded = f"{decl.key}.float"
        key = unrounded if self.exact and unrounded in self.weights else decl.key
        if not decl.key or blank:
            return np.zeros((decl.rows, decl.cols), np.float32 if self.exact else np.int8)
        if key not in self.weights:
            raise errors.WEIGHT_MISSING(key=key, what=what)
        whole = self.weights[key]
        rows, cols = decl.row_offset + decl.rows, decl.col_offset + decl.cols
        fits = whole.ndim == 2 and whole.shape[0] >= rows and whole.shape[1] >= cols
        allowed = (np.float32,) if key == unrounded else (np.int8, np.int16)
        if not fits or whole.dtype not in allowed:
            want = f"{np.dtype(allowed[0])} of at least {rows}x{cols}"
            raise errors.WEIGHT_MISMATCH(key=key, got=describe(whole), what=what, want=want)
        return whole[decl.row_offset : rows, decl.col_offset : cols]
