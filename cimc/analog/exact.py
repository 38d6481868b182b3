"""Where the ADC provably neither clips nor rounds, bit-serial analog arithmetic is one integer product.

The proof is per row block and column: the largest and smallest sum that any input can produce, from the column's own
levels, lie inside the converter's range at one level per code, in every slice. The product runs as float32 GEMMs over
row ranges short enough that no partial sum exceeds 2**24, so it is exact in any order of additions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig
from cimc.analog.encoding import Plane, planes

FLOAT32_EXACT = 1 << 24


def sum_bounds(net: NDArray[Any], plane: Plane) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smallest and largest sum of each column of one crossbar (rows, columns) for any input of a plane."""
    drive = float((1 << plane.bits) - 1)
    # Whole levels below 2**16 and at most 2**16 rows: the sums fit.
    total = net.sum(axis=0, dtype=np.int64).astype(np.float64) * drive
    if net.size and net.min() < 0:
        reach = np.abs(net).sum(axis=0, dtype=np.int64).astype(np.float64) * drive
        return (-reach, reach) if plane.sign == "signed" else ((total - reach) / 2, (total + reach) / 2)
    return (-total if plane.sign == "signed" else np.zeros_like(total)), total


def lossless_columns(
    net: NDArray[Any], table: tuple[tuple[Transfer, ...], ...] | None, config: AnalogConfig
) -> NDArray[np.bool_]:
    """Which columns of which row block convert without loss in every slice and plane: (blocks, columns)."""
    blocks = config.blocks(net.shape[1])
    if table is None:
        return np.ones((len(blocks), net.shape[2]), dtype=bool)
    result = np.ones((len(blocks), net.shape[2]), dtype=bool)
    # Bounds differ only by how far and with which sign a plane drives.
    kinds = {(plane.bits, plane.sign): plane for plane in planes(config.inputs)}.values()
    for b, (first, past) in enumerate(blocks):
        for s in range(len(net)):
            transfer = table[b][s]
            if transfer.step != 1.0 or not transfer.ideal or not transfer.whole:
                result[b] = False
                continue
            for plane in kinds:
                low, high = sum_bounds(net[s, first:past], plane)
                result[b] &= (low >= transfer.low) & (high <= transfer.low + transfer.top)
    return result


def merged_weights(net: NDArray[Any], config: AnalogConfig) -> NDArray[np.float32]:
    """The integers that the columns hold, slices put together: (in, columns), below 2**17."""
    total = net[0].astype(np.int32)
    for s, shift in enumerate(config.weights.shifts[1:], 1):
        total += net[s].astype(np.int32) << shift
    return total.astype(np.float32)


@dataclass(frozen=True, eq=False)
class ExactProduct:
    """An integer product that is exact in floating point: weights cut into ``parts`` of rows, float32 where that
    holds."""

    parts: tuple[tuple[int, int, NDArray[np.floating]], ...]
    columns: int

    def __call__(self, inputs: NDArray[Any]) -> NDArray[np.floating]:
        """``inputs`` (vectors, in) times the weights: whole numbers (vectors, columns), float32 or float64."""
        driven = inputs.astype(np.float32)
        total: NDArray[np.floating] | None = None
        for first, past, part in self.parts:
            x = driven[:, first:past] if part.dtype == np.float32 else inputs[:, first:past].astype(np.float64)
            product = x @ part
            total = product if total is None else total + product.astype(np.float64)
        return np.zeros((len(inputs), self.columns)) if total is None else total

    @property
    def nbytes(self) -> int:
        """Bytes of the weights as held."""
        return sum(part.nbytes for _, _, part in self.parts)


def exact_product(weights: NDArray[np.floating], largest_input: int) -> ExactProduct:
    """Cut ``weights`` (in, columns; whole numbers) so that every float32 partial sum stays below 2**24."""
    largest = float(max(largest_input, 1))
    highest = np.abs(weights).max(axis=1, initial=0.0).astype(np.float64) * largest
    parts: list[tuple[int, int, NDArray[np.floating]]] = []
    first, total = 0, 0.0
    for row, reach in enumerate(highest.tolist()):
        total += reach
        if row > first and total >= FLOAT32_EXACT:
            parts.append(_part(weights, first, row, largest))
            first, total = row, reach
    if len(weights):
        parts.append(_part(weights, first, len(weights), largest))
    return ExactProduct(tuple(parts), weights.shape[1])


def _part(
    weights: NDArray[np.floating], first: int, past: int, largest: float
) -> tuple[int, int, NDArray[np.floating]]:
    reach = np.abs(weights[first:past]).sum(axis=0, dtype=np.float64) * largest
    fits = reach.max(initial=0.0) < FLOAT32_EXACT
    return first, past, np.ascontiguousarray(weights[first:past], dtype=np.float32 if fits else np.float64)
