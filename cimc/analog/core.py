"""One logical MVM core, programmed once and read many times; and the one-call form of it.

``AnalogMatrix`` chooses, per row block, the fastest path that gives the reference's answer bit for bit: one exact
product where the ADC provably loses nothing, table kernels for whole levels, GEMM plus converter otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import transfers
from cimc.analog.config import AnalogConfig, refuse
from cimc.analog.crossbar import program, sum_dtype
from cimc.analog.encoding import check_inputs, planes
from cimc.analog.exact import exact_product, lossless_columns, merged_weights
from cimc.analog.iomodel import IoMatrix, IoModel
from cimc.analog.network import is_network, network_mvm
from cimc.analog.planewise import PlaneCore
from cimc.analog.rng import Streams

# A mapping with one of these speaks of aihwkit's single-pass I/O model.
IO_KEYS = {"inp_res", "out_res", "inp_bound", "out_bound", "noise_management", "bound_management", "w_noise", "out_noise"}


@dataclass
class Counts:
    """What a core did since it was programmed. ``conversions`` are ADC conversions, ``saturated`` those that clipped,
    ``crossbar_reads`` cycles of single crossbars, ``cell_reads`` the cells in them; ``cells`` are cells in use."""

    vectors: int = 0
    conversions: int = 0
    saturated: int = 0
    crossbar_reads: int = 0
    cell_reads: int = 0
    cells: int = 0


class AnalogMatrix:
    """A weight block in cells: ``codes`` are integers (in, out), ``key`` is (tile, core) for the random streams.

    Raises ``CimcError`` for a contradictory configuration, weights that the cells cannot hold, or a fault map of
    another shape.
    """

    def __init__(
        self,
        codes: NDArray[np.integer],
        config: AnalogConfig | Mapping[str, object],
        seed: int = 0,
        key: tuple[int, int] = (0, 0),
    ) -> None:
        self.config = config if isinstance(config, AnalogConfig) else AnalogConfig.from_mapping(config)
        weights = _integers("weights", codes)
        self.inputs, self.outputs = weights.shape
        self.streams = Streams(seed, *key)
        self.cells = program(weights, self.config, self.streams)
        self.blocks = self.config.blocks(self.inputs)
        self.table = transfers(self.config, self.inputs)
        self.counts = Counts(cells=self.cells.cells)
        self._choose_paths()

    def mvm(self, inputs: NDArray[np.integer]) -> NDArray[np.int32]:
        """``inputs`` (vectors, in) through the core: (vectors, out), rounded where the converter's step is no integer."""
        values = self.values(inputs)
        return np.rint(values).astype(np.int32)

    def values(self, inputs: NDArray[np.integer]) -> NDArray[np.floating]:
        """As ``mvm``, unrounded."""
        x = _integers("inputs", inputs)
        if x.shape[1] != self.inputs:
            raise refuse("inputs", f"{x.shape[1]} values per vector for {self.inputs} rows", "give (vectors, in)")
        check_inputs(x, self.config.inputs)
        first = self.counts.vectors
        self._count(len(x))
        if self._product is not None and self._whole_product:
            return self._product(x)
        total = np.zeros((len(x), self.cells.plus.shape[2]))
        for b, bounds in enumerate(self.blocks):
            part, clipped = self._general.block(x, b, bounds, first)
            total += part
            self.counts.saturated += clipped
        return self._finish(total, x)

    @property
    def exact(self) -> bool:
        """Whether results are integers: whole levels and whole steps, or conversions in whole steps."""
        if self.table is None:
            return self.cells.whole
        whole = all(t.whole for row in self.table for t in row)
        leak = self.config.device.gmin_norm
        return whole and leak == 0.0

    def _choose_paths(self) -> None:
        config, cells = self.config, self.cells
        self._product = None
        self._whole_product = False
        self._general = PlaneCore(cells, config, self.table, self.streams, sum_dtype(config, self.inputs))
        if not cells.whole or (config.adc is not None and not config.adc.ideal):
            return
        lossless = lossless_columns(cells.net, self.table, config)
        if lossless.all():
            merged = merged_weights(cells, config)
            if config.weights.unit_column:
                merged = merged[:, :-1] - merged[:, -1:]
            self._product = exact_product(merged - config.weights.offset * (not config.weights.unit_column), self._reach)
            self._whole_product = True

    @property
    def _reach(self) -> int:
        return max(-self.config.inputs.low, self.config.inputs.high)

    def _count(self, vectors: int) -> None:
        counts, per_block = self.counts, len(planes(self.config.inputs)) * len(self.config.weights.slice_bits)
        sides = 1 if self.cells.minus is None else 2
        columns = self.cells.plus.shape[2]
        counts.vectors += vectors
        counts.crossbar_reads += vectors * per_block * len(self.blocks) * sides
        counts.cell_reads += vectors * per_block * self.inputs * columns * sides
        if self.config.adc is not None:
            counts.conversions += vectors * per_block * len(self.blocks) * columns

    def _finish(self, results: NDArray[np.float64], x: NDArray[np.int64]) -> NDArray[np.float64]:
        encoding, leak = self.config.weights, self.config.device.gmin_norm
        sums = x.sum(axis=1, dtype=np.float64)[:, None]
        if encoding.unit_column:
            return (results[:, :-1] - results[:, -1:]) / (1.0 - leak)
        if encoding.kind == "differential":
            return results / (1.0 - leak) if leak else results
        if leak:
            weight = sum(
                leak * top * 2.0**shift for top, shift in zip(encoding.max_levels, encoding.shifts, strict=True)
            )
            results = (results - weight * sums) / (1.0 - leak)
        return results - encoding.offset * sums


def _integers(key: str, values: NDArray[np.integer]) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise refuse(key, f"an array of shape {array.shape}", "give a matrix")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f" and np.all(np.isfinite(array)) and np.all(array == np.rint(array)):
        return array.astype(np.int64)
    raise refuse(key, f"values of type {array.dtype} that are no integers", "quantize them first; no NaN, no infinity")


def mvm(
    weights: NDArray[np.integer],
    inputs: NDArray[np.integer],
    config: Mapping[str, object] | AnalogConfig,
    seed: int = 0,
) -> NDArray[np.int64] | NDArray[np.floating]:
    """One product on one core: ``weights`` (out, in) times ``inputs`` (in, batch) gives (out, batch).

    A mapping with keys of aihwkit's I/O model (``inp_res`` ...) is computed by that model, one with wire resistances and
    no bits by the exact network: both take and return floats. Integers where every conversion step is whole (or nothing is analog), float64 otherwise. ``config`` has the keys of
    docs/analog.md. Raises ``CimcError`` (exit code 2) naming the key that is wrong.
    """
    if not isinstance(config, AnalogConfig):
        if IO_KEYS & set(config):
            return IoMatrix(weights, IoModel.from_mapping(config), seed).mvm(np.asarray(inputs).T).T
        if is_network(config):
            return network_mvm(weights, inputs, config)
    resolved = config if isinstance(config, AnalogConfig) else AnalogConfig.from_mapping(config, grid="fine")
    w, x = _integers("weights", weights), _integers("inputs", inputs)
    if w.shape[1] != x.shape[0]:
        raise refuse("inputs", f"{x.shape[0]} rows for weights of {w.shape[1]} inputs", "give (in, batch)")
    core = AnalogMatrix(w.T, resolved, seed)
    values = core.values(x.T).T
    return values.astype(np.int64) if core.exact else values.astype(np.float64)
