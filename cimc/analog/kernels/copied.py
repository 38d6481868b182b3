"""Kernels around a core whose top slices have copies: the lower slices as sums, the codes of the top ones copy by copy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import Cells
from cimc.analog.encoding import planes
from cimc.analog.kernels.subset import SubsetCore, subset_serves
from cimc.analog.redundancy import top_config
from cimc.analog.rng import Streams


def copied_core(
    cells: Cells, config: AnalogConfig, table: tuple[tuple[Transfer, ...], ...] | None, streams: Streams
) -> CopiedCore | None:
    """The kernels for a core with copies, or None where they do not serve all of its crossbars."""
    if table is None or len({transfer for row in table for transfer in row}) > 1:
        return None
    part = top_config(config)
    fits = subset_serves(config, table[0][0], cells)
    if not fits or not all(subset_serves(part, table[0][0], copy) for copy in cells.copies):
        return None
    return CopiedCore(cells, config, table[0][0], streams)


class CopiedCore:
    """One core with copies of its top slices, whose converters all have ``transfer``: redundancy.py by kernels."""

    def __init__(self, cells: Cells, config: AnalogConfig, transfer: Transfer, streams: Streams) -> None:
        slices = len(config.weights.slice_bits)
        first = slices - config.redundancy.slices
        self.low = SubsetCore(cells, config, transfer, streams, (0, first)) if first else None
        part = top_config(config)
        self.tops = [SubsetCore(cells, config, transfer, streams, (first, slices), codes=True)]
        self.tops += [
            SubsetCore(copy, part, transfer, replace(streams, copy=number), codes=True)
            for number, copy in enumerate(cells.copies, start=1)
        ]
        self.shifts = config.weights.shifts[first:]
        self.weights = [plane.weight for plane in planes(config.inputs)]
        self.mean = config.redundancy.combine == "mean"
        self.base = int(transfer.low) * sum(self.weights)

    def __call__(self, inputs: NDArray[Any], first_read: int) -> tuple[NDArray[np.float64], int]:
        """Sums in weight units over the step, (vectors, columns), and the clipped conversions."""
        found = [top.codes(inputs, first_read) for top in self.tops]
        clipped = sum(count for _, count in found)
        added = self._added(self._combined([codes for codes, _ in found]))
        blocks = np.zeros(added[:, 0].shape)
        if self.low is not None:
            lower, more = self.low.by_block(inputs, first_read)
            clipped += more
            blocks += lower
        # In the reference's order: a mean is no whole number.
        for s, shift in enumerate(self.shifts):
            blocks += 2.0**shift * added[:, s]
        total = np.zeros(blocks.shape[1:])
        for block in blocks:
            total += block
        return total, clipped

    def _combined(self, codes: list[NDArray[np.int16]]) -> NDArray[np.integer]:
        """Their median, or their sum."""
        if self.mean:
            return np.stack(codes).sum(axis=0, dtype=np.int32)
        if len(codes) == 3:
            low, high = np.minimum(codes[0], codes[1]), np.maximum(codes[0], codes[1])
            return np.maximum(low, np.minimum(high, codes[2]))
        return np.sort(np.stack(codes), axis=0)[len(codes) // 2]

    def _added(self, codes: NDArray[np.integer]) -> NDArray[np.float64]:
        """Shift-and-add over the planes: (blocks, slices, vectors, columns)."""
        total = np.zeros((*codes.shape[:3], codes.shape[4]), dtype=np.int64)
        for k, weight in enumerate(self.weights):
            total += codes[:, :, :, k].astype(np.int64) * weight
        copies = len(self.tops)
        if self.mean:
            return (total + copies * self.base) / copies
        return (total + self.base).astype(np.float64)

    @property
    def nbytes(self) -> int:
        """Bytes beside the cells."""
        return sum(part.nbytes for part in (self.low, *self.tops) if part is not None)
