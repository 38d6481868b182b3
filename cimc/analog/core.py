"""One logical MVM core, programmed once and read many times; and the one-call form of it.

``AnalogMatrix`` chooses, per row block, the fastest path that gives the reference's answer bit for bit: one exact
product where the ADC provably loses nothing, bits of columns or table kernels for whole levels, GEMM plus converter
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import common_step, transfers
from cimc.analog.config import AnalogConfig, refuse
from cimc.analog.config_keys import read_config
from cimc.analog.crossbar import Cells, sum_dtype
from cimc.analog.encoding import check_inputs, planes
from cimc.analog.exact import ExactProduct, exact_product, lossless_columns, merged_weights
from cimc.analog.iomodel import IoMatrix, IoModel
from cimc.analog.kernels.copied import CopiedCore, copied_core
from cimc.analog.kernels.lut import LutCore, lut_spec
from cimc.analog.kernels.sliced import SlicedCore, sliced_spec
from cimc.analog.kernels.subset import SubsetCore, subset_serves
from cimc.analog.kernels.vector import VectorProduct, vector_product
from cimc.analog.network import is_network, network_mvm
from cimc.analog.planewise import PlaneCore
from cimc.analog.redundancy import RedundantCore, alike, programmed
from cimc.analog.rng import Streams

# A mapping with one of these speaks of aihwkit's single-pass I/O model.
IO_KEYS = {
    "inp_res",
    "out_res",
    "inp_bound",
    "out_bound",
    "noise_management",
    "bound_management",
    "w_noise",
    "out_noise",
}

# Share of lossless (row block, column) pairs from which a product for them pays beside the tables for the others.
WORTH_A_PRODUCT = 0.4
# Batches up to this are computed with the outputs in the lanes.
FEW_VECTORS = 8
FEW_NOISY = 3  # of cells with noise, whose levels have many bits


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
    ``cells`` are what the same arguments programmed before, of another ``adc`` perhaps; None: they are programmed.

    Raises ``CimcError`` for a contradictory configuration, weights that the cells cannot hold, or a fault map of
    another shape.
    """

    def __init__(
        self,
        codes: NDArray[Any],
        config: AnalogConfig | Mapping[str, object],
        seed: int = 0,
        key: tuple[int, int] = (0, 0),
        cells: Cells | None = None,
    ) -> None:
        self.config = config if isinstance(config, AnalogConfig) else read_config(config)
        given = np.asarray(codes)
        small = given.ndim == 2 and given.dtype.name in ("int8", "int16")
        weights: NDArray[Any] = given if small else _integers("weights", given)
        self.inputs, self.outputs = weights.shape
        self.streams = Streams(seed, *key)
        self.cells = programmed(weights, self.config, self.streams) if cells is None else cells
        self.blocks = self.config.blocks(self.inputs)
        self.table = transfers(self.config, self.inputs)
        self.counts = Counts(cells=self.cells.cells * self.config.device.devices)
        signed, low, high = self.config.inputs.signed, self.config.inputs.low, self.config.inputs.high
        fits = (low, high) == ((-128, 127) if signed else (0, 255))
        self._plain = np.dtype(np.int8 if signed else np.uint8) if fits else None
        # Digital factor on each column's sum (calibrate.py); None is 1.
        self.gain: NDArray[np.float64] | None = None
        # What a column's sum is corrected by besides: a constant, and per unit of the sum of the inputs; (2, columns).
        self.bias: NDArray[np.float64] | None = None
        self._choose_paths()

    def again(self) -> AnalogMatrix:
        """The same core, its gain and bias too, as if it had read nothing yet."""
        found = copy(self)
        found.counts = Counts(cells=self.counts.cells)
        return found

    def mvm(self, inputs: NDArray[Any]) -> NDArray[np.int32]:
        """``inputs`` (vectors, in) through the core: (vectors, out), rounded where the converter's step is no
        integer."""
        values = self.values(inputs)
        return values.astype(np.int32, copy=False) if self.exact else np.rint(values).astype(np.int32)

    def values(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """As ``mvm``, unrounded: whole numbers in some dtype, or float64."""
        x = self._checked(inputs)
        first = self.counts.vectors
        self._count(len(x))
        if self._product is not None and self._tables is None and self.gain is None:
            return self._few(x) if len(x) <= FEW_VECTORS else self._product(x)
        total = self._summed(x, first)
        total = total if self.gain is None else total * self.gain
        if self.bias is not None:
            total = total + self.bias[0] + self.bias[1] * x.sum(axis=1, dtype=np.int64)[:, None]
        return self._finish(total, x)

    def sums(self, inputs: NDArray[Any]) -> NDArray[np.float64]:
        """What the columns' shift-and-adds hold, (vectors, columns), before any correction: what a calibration reads."""
        x = self._checked(inputs)
        first = self.counts.vectors
        self._count(len(x))
        total = self._summed(x, first)
        return total.astype(np.float64)

    def _summed(self, x: NDArray[Any], first: int) -> NDArray[Any]:
        """The columns' sums by the fastest path that serves."""
        if self._sliced is not None and (self._tables is None or len(x) <= self._few_vectors):
            results, clipped = self._sliced(x)
            self.counts.saturated += clipped
            return results
        if self._tables is not None:
            return self._by_tables(x, first, self._tables)
        if self._copied is None:
            return self._by_planes(x, first)
        total, clipped = self._copied(x, first)
        self.counts.saturated += clipped
        step = common_step(self.table)
        return total if step is None else total * step

    def _checked(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Inputs that fit, in as few bytes as hold them."""
        if (
            self._plain is not None
            and getattr(inputs, "dtype", None) == self._plain
            and inputs.shape[1:] == (self.inputs,)
        ):
            return inputs  # every number of its type fits: nothing to look for
        x = _inputs(inputs, self.inputs)
        check_inputs(x, self.config.inputs)
        if self.config.inputs.bits <= 8:
            x = x.astype(np.int8 if self.config.inputs.signed else np.uint8, copy=False)
        return x

    def _few(self, x: NDArray[Any]) -> NDArray[Any]:
        """The product for few vectors, from 8-bit weights where they fit."""
        assert self._product is not None
        if not self._tried:
            self._tried = True
            parts = np.concatenate([part for _, _, part in self._product.parts])
            self._vector = vector_product(parts, self._reach)
        return self._product(x) if self._vector is None else self._vector(x)

    def _by_planes(self, x: NDArray[Any], first: int) -> NDArray[np.float64]:
        """The general path over all row blocks."""
        total = np.zeros((len(x), self.cells.shape[2]))
        wide = x.astype(np.int64)
        for b, bounds in enumerate(self.blocks):
            part, clipped = self._general.block(wide, b, bounds, first)
            total += part
            self.counts.saturated += clipped
        step = common_step(self.table)
        return total if step is None else total * step

    def _by_tables(self, x: NDArray[Any], first: int, tables: LutCore | SubsetCore) -> NDArray[Any]:
        """Tables for the lossy columns, the product for the others."""
        results, clipped = tables(x, first)
        self.counts.saturated += clipped
        return results if self._product is None else results + self._product(x).astype(np.int64)

    @property
    def _few_vectors(self) -> int:
        """Batches up to this take the upright kernel where there is another one."""
        return FEW_NOISY if self.cells.fixed else FEW_VECTORS

    @property
    def exact(self) -> bool:
        """Whether results are integers: whole levels and whole steps, or conversions in whole steps."""
        if self.table is None:
            return self.cells.whole
        return self._whole_steps and self.config.device.gmin_norm == 0.0 and self.gain is None

    @cached_property
    def _whole_steps(self) -> bool:
        return self.table is not None and all(t.whole for row in self.table for t in row)

    @property
    def path(self) -> str:
        """How products of many vectors are computed: ``product`` (nothing is lost), ``bits``, ``tables``, with or without a
        product beside them, or ``planes``."""
        if self._copied is not None:
            return "tables"
        if self._tables is None:
            alone = "planes" if self._sliced is None else "bits"
            return alone if self._product is None else "product"
        return "tables" if self._product is None else "tables and product"

    @property
    def nbytes(self) -> int:
        """Bytes of cells, bits, tables and products as held."""
        parts = (self._sliced, self._tables, self._product, self._vector, self._copied)
        return self.cells.nbytes + sum(part.nbytes for part in parts if part is not None)

    def _choose_paths(self) -> None:
        """Exact products where nothing is lost, bits or tables for what they can serve, the general path for the rest."""
        config, cells = self.config, self.cells
        self._product: ExactProduct | None = None
        self._tables: LutCore | SubsetCore | None = None
        self._sliced: SlicedCore | None = None
        self._vector: VectorProduct | None = None
        self._tried = False
        general = RedundantCore if cells.copies else PlaneCore
        self._general = general(cells, config, self.table, self.streams, sum_dtype(config, self.inputs))
        self._copied: CopiedCore | None = None
        if cells.copies and not alike(cells):
            self._copied = copied_core(cells, config, self.table, self.streams)
            return
        lossless = np.zeros((len(self.blocks), cells.shape[2]), dtype=bool)
        if cells.whole and (config.adc is None or config.adc.ideal):
            lossless = lossless_columns(cells.net, self.table, config)
        if lossless.all():
            self._product = self._whole()
        elif cells.copies:
            self._copied = copied_core(cells, config, self.table, self.streams)
        else:
            self._choose_tables(lossless)

    def _whole(self) -> ExactProduct:
        """The product with all weights at once, as no conversion loses anything."""
        config = self.config
        merged = merged_weights(self.cells.net, config)
        if config.weights.unit_column:
            return exact_product(merged[:, :-1] - merged[:, -1:], self._reach)
        return exact_product(merged - config.weights.offset, self._reach)

    def _choose_tables(self, lossless: NDArray[np.bool_]) -> None:
        """Bits or tables where one step serves all conversions, and a product for the ``lossless`` columns (blocks × columns)
        if enough are."""
        config, cells, step = self.config, self.cells, common_step(self.table)
        if self.table is None or step is None or len({t for row in self.table for t in row}) > 1:
            return
        transfer = self.table[0][0]
        upright = sliced_spec(config, transfer, cells)
        if upright is not None:
            self._sliced = SlicedCore(cells, config, upright, transfer)
            if upright.alone and not cells.fixed:
                return
        if cells.fixed and subset_serves(config, transfer, cells):
            self._tables = SubsetCore(cells, config, transfer, self.streams)
            return
        spec = lut_spec(config, transfer, cells)
        if spec is None:
            return
        if lossless.mean() < WORTH_A_PRODUCT:
            lossless = np.zeros_like(lossless)
        else:
            merged = merged_weights(cells.net, config)
            for (a, b), row in zip(self.blocks, lossless, strict=True):
                merged[a:b] *= row
            self._product = exact_product(merged, self._reach)
        self._tables = LutCore(cells, config, spec, ~lossless, step)

    @property
    def _reach(self) -> int:
        return max(-self.config.inputs.low, self.config.inputs.high)

    def _count(self, vectors: int) -> None:
        counts, per_block = self.counts, len(planes(self.config.inputs)) * len(self.config.crossbar_slices)
        sides = 1 if self.cells.held_minus is None else 2
        columns = self.cells.shape[2]
        counts.vectors += vectors
        counts.crossbar_reads += vectors * per_block * len(self.blocks) * sides
        counts.cell_reads += vectors * per_block * self.inputs * columns * sides
        if self.config.adc is not None:
            counts.conversions += vectors * per_block * len(self.blocks) * columns

    def _finish(self, results: NDArray[Any], x: NDArray[Any]) -> NDArray[Any]:
        """Unit column, leak and offset taken off; integers stay integers."""
        encoding, leak = self.config.weights, self.config.device.gmin_norm
        if encoding.unit_column:
            results = results[:, :-1] - results[:, -1:]
            return results / (1.0 - leak) if leak else results
        if encoding.kind == "differential":
            return results / (1.0 - leak) if leak else results
        # Results below 2**30 are 32-bit numbers.
        narrow = results.dtype == np.int32 and encoding.offset * self._reach * self.inputs < 1 << 30
        sums = np.add.reduce(x, axis=1, dtype=np.int32 if narrow else np.int64)[:, None]
        if leak:
            weight = sum(
                leak * top * 2.0**shift for top, shift in zip(encoding.max_levels, encoding.shifts, strict=True)
            )
            results = (results - weight * sums) / (1.0 - leak)
        return results - encoding.offset * sums if encoding.offset else results


def _inputs(values: NDArray[Any], rows: int) -> NDArray[Any]:
    """Input vectors as integers, whatever their width."""
    array = np.asarray(values)
    x = array if array.ndim == 2 and array.dtype.name in ("int8", "uint8") else _integers("inputs", array)
    if x.shape[1] != rows:
        raise refuse("inputs", f"{x.shape[1]} values per vector for {rows} rows", "give (vectors, in)")
    return x


def _integers(key: str, values: NDArray[Any]) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 2:
        raise refuse(key, f"an array of shape {array.shape}", "give a matrix")
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    if array.dtype.kind == "f" and np.all(np.isfinite(array)) and np.all(array == np.rint(array)):
        return array.astype(np.int64)
    raise refuse(key, f"values of type {array.dtype} that are no integers", "quantize them first; no NaN, no infinity")


def mvm(
    weights: NDArray[Any],
    inputs: NDArray[Any],
    config: Mapping[str, object] | AnalogConfig,
    seed: int = 0,
) -> NDArray[np.int64] | NDArray[np.floating]:
    """One product on one core: ``weights`` (out, in) times ``inputs`` (in, batch) gives (out, batch).

    A mapping with keys of aihwkit's I/O model (``inp_res`` ...) is computed by that model, one with wire resistances
    and no bits by the exact network: both take and return floats. Integers where every conversion step is whole (or
    nothing is analog), float64 otherwise. ``config`` has the keys of docs/analog.md. Raises ``CimcError`` (exit code 2)
    naming the key that is wrong.
    """
    if not isinstance(config, AnalogConfig):
        if IO_KEYS & set(config):
            return IoMatrix(weights, IoModel.from_mapping(config), seed).mvm(np.asarray(inputs).T).T
        if is_network(config):
            return network_mvm(weights, inputs, config)
    resolved = config if isinstance(config, AnalogConfig) else read_config(config, grid="fine")
    w, x = _integers("weights", weights), _integers("inputs", inputs)
    if w.shape[1] != x.shape[0]:
        raise refuse("inputs", f"{x.shape[0]} rows for weights of {w.shape[1]} inputs", "give (in, batch)")
    core = AnalogMatrix(w.T, resolved, seed)
    values = core.values(x.T).T
    return values.astype(np.int64) if core.exact else values.astype(np.float64)
