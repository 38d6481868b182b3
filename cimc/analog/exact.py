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
    if plane.sign == "signed":
        reach = np.abs(net).sum(axis=0, dtype=np.float64) * drive
        return -reach, reach
    return np.minimum(net, 0).sum(axis=0, dtype=np.float64) * drive, np.maximum(net, 0).sum(
        axis=0, dtype=np.float64
    ) * drive


def lossless_columns(
    net: NDArray[Any], table: tuple[tuple[Transfer, ...], ...] | None, config: AnalogConfig
) -> NDArray[np.bool_]:
    """Which columns of which row block convert without loss in every slice and plane: (blocks, columns)."""
    blocks = config.blocks(net.shape[1])
    if table is None:
        return np.ones((len(blocks), net.shape[2]), dtype=bool)
    result = np.ones((len(blocks), net.shape[2]), dtype=bool)
    for b, (first, past) in enumerate(blocks):
        for s in range(len(net)):
            transfer = table[b][s]
            if transfer.step != 1.0 or not transfer.ideal or not transfer.whole:
                result[b] = False
                continue
            for plane in planes(config.inputs):
                low, high = sum_bounds(net[s, first:past], plane)
                result[b] &= (low >= transfer.low) & (high <= transfer.low + transfer.top)
    return result


def merged_weights(net: NDArray[Any], config: AnalogConfig) -> NDArray[np.float64]:
    """The integers that the columns hold, slices put together: (in, columns)."""
    total = np.zeros(net.shape[1:])
    for s, shift in enumerate(config.weights.shifts):
        total += net[s] * 2.0**shift
    return total


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
    reach = np.abs(weights) * float(max(largest_input, 1))
    parts: list[tuple[int, int, NDArray[np.floating]]] = []
    first = 0
    sums = np.zeros(weights.shape[1])
    for row in range(len(weights)):
        sums = sums + reach[row]
        if row > first and sums.max(initial=0.0) >= FLOAT32_EXACT:
            parts.append(_part(weights, first, row, reach))
            first, sums = row, reach[row].copy()
    if len(weights):
        parts.append(_part(weights, first, len(weights), reach))
    return ExactProduct(tuple(parts), weights.shape[1])


def _part(
    weights: NDArray[np.floating], first: int, past: int, reach: NDArray[np.floating]
) -> tuple[int, int, NDArray[np.floating]]:
    fits = reach[first:past].sum(axis=0).max(initial=0.0) < FLOAT32_EXACT
    return first, past, np.ascontiguousarray(weights[first:past], dtype=np.float32 if fits else np.float64)
