"""The general path: one GEMM per row block and slice over all input planes, then the ADC, then shift-and-add.

Takes anything the configuration can say, noise included, and agrees with reference.py bit for bit because every column
sum is exact on the conductance grid. The kernels of kernels/ replace parts of it where they apply.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer, codes_of, common_step, index_of, saturated
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import Cells, read_cells
from cimc.analog.encoding import drive, planes
from cimc.analog.physics import per_cell_reads
from cimc.analog.rng import Streams, conversion_noise


class PlaneCore:
    """Row blocks of one core, computed plane by plane. ``dtype`` is the precision of sums and conversions."""

    def __init__(
        self,
        cells: Cells,
        config: AnalogConfig,
        table: tuple[tuple[Transfer, ...], ...] | None,
        streams: Streams,
        dtype: type[np.floating],
    ) -> None:
        self.cells = cells
        self.config = config
        self.table = table
        self.streams = streams
        self.dtype = dtype
        self.columns = cells.shape[2]
        self._planes = planes(config.inputs)
        self._common = common_step(table) is not None
        self._per_cell = per_cell_reads(config)

    @cached_property
    def _net(self) -> NDArray[np.floating] | None:
        """What columns sum, made on first use: cores that the tables serve never need it."""
        return None if self._per_cell else np.ascontiguousarray(self.cells.net, dtype=self.dtype)

    def block(
        self, inputs: NDArray[np.int64], b: int, bounds: tuple[int, int], first_read: int
    ) -> tuple[NDArray[np.float64], int]:
        """One row block: contribution (vectors, columns) in weight units (over the common step, if there is one),
        and the clipped conversions."""
        first, past = bounds
        driven = np.stack([drive(inputs[:, first:past], plane) for plane in self._planes])
        total = np.zeros((len(inputs), self.columns))
        clipped = 0
        for s, shift in enumerate(self.config.weights.shifts):
            transfer = None if self.table is None else self.table[b][s]
            added, more = self._slice(driven, bounds, (b, s), first_read)
            clipped += more
            total += (1.0 if transfer is None or self._common else transfer.step) * 2.0**shift * added
        return total, clipped

    def _slice(
        self, driven: NDArray[np.int64], bounds: tuple[int, int], at: tuple[int, int], first_read: int
    ) -> tuple[NDArray[np.float64], int]:
        """Codes of one crossbar ``at`` (block, slice), shifted and added over the planes: (vectors, columns); and the
        clipped conversions."""
        codes, clipped = self.codes(driven, bounds, at, first_read)
        return self.added(codes), clipped

    def added(self, codes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Shift-and-add over the planes of ``codes`` (planes, vectors, columns)."""
        total = np.zeros(codes.shape[1:])
        for plane, code in zip(self._planes, codes, strict=True):
            total += plane.weight * code.astype(np.float64)
        return total

    def codes(
        self, driven: NDArray[np.int64], bounds: tuple[int, int], at: tuple[int, int], first_read: int
    ) -> tuple[NDArray[np.floating], int]:
        """Codes of one crossbar ``at`` (block, slice), (planes, vectors, columns), and the clipped conversions. Without
        a converter: the sums."""
        b, s = at
        transfer = None if self.table is None else self.table[b][s]
        sums = self._sums(driven, bounds, b, s, first_read)
        noise = self._noise(driven, b, s, first_read, transfer)
        if transfer is None:
            return sums if noise is None else sums + noise.astype(np.float64), 0
        index = index_of(sums, transfer, noise)
        return codes_of(index, transfer), saturated(index, transfer)

    def _sums(
        self, driven: NDArray[np.int64], bounds: tuple[int, int], b: int, s: int, first_read: int
    ) -> NDArray[np.floating]:
        """Column sums (planes, vectors, columns) of one crossbar."""
        first, past = bounds
        count, vectors, rows = driven.shape
        if self._net is not None:
            flat = driven.reshape(count * vectors, rows).astype(self.dtype) @ self._net[s, first:past]
            return flat.reshape(count, vectors, self.columns)
        crossbar = b * len(self.config.weights.slice_bits) + s
        sums = np.zeros((count, vectors, self.columns), dtype=self.dtype)
        for v in range(vectors):
            for k in range(count):
                read = (first_read + v) * count + k
                sums[k, v] = driven[k, v].astype(self.dtype) @ self._read(bounds, crossbar, s, read)
        return sums

    def _read(self, bounds: tuple[int, int], crossbar: int, s: int, read: int) -> NDArray[np.floating]:
        bits = self.cells.grid_bits
        total: NDArray[np.floating] | float = 0.0
        for sign, levels in self.cells.sides(s, bounds):
            number = crossbar * 2 + (sign < 0)
            total = total + sign * read_cells(levels, s, number, read, self.config, self.streams, bits)
        return np.asarray(total, dtype=self.dtype)

    def _noise(
        self, driven: NDArray[np.int64], b: int, s: int, first_read: int, transfer: Transfer | None
    ) -> NDArray[np.float32] | None:
        """Noise of every conversion in LSB, (planes, vectors, columns); None if conversions are clean."""
        own = 0.0 if self.config.adc is None else self.config.adc.noise_lsb
        sigma = self.cells.read_sigma
        if sigma is None and own == 0.0:
            return None
        count, vectors, _ = driven.shape
        step = np.float32(1.0 if transfer is None else transfer.step)
        root = np.sqrt(np.sum(driven.astype(np.float64) ** 2, axis=2)).astype(np.float32)[:, :, None]
        spread = root * (np.zeros(self.columns, dtype=np.float32) if sigma is None else sigma[b, s] / step)
        if own:
            spread = np.sqrt(spread * spread + np.float32(own) * np.float32(own))
        key = self.streams.key("conversion", b * len(self.config.weights.slice_bits) + s)
        number = first_read * count * self.columns
        draw = conversion_noise(key, number, vectors * count * self.columns)
        return spread * draw.reshape(vectors, count, self.columns).transpose(1, 0, 2)
