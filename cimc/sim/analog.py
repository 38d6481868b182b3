"""Analog cores for the values engine: from what a core is (``CoreSpec``) to what computes it (``cimc.analog``)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogConfig, AnalogMatrix
from cimc.arch.spec import CoreSpec
from cimc.isa.instruction import Matrix

Array = NDArray[np.generic]


def config(core: CoreSpec, technology: str, input_bits: int) -> AnalogConfig:
    """A core's physics: its slices, its converters, its technology's noise.

    Inputs stream in two's complement, ``dac_bits`` at a time. ``adc.bits`` 0 is a lossless converter."""
    mapping: dict[str, object] = {
        "weight_bits": core.weight_bits,
        "slice_bits": slice_bits(core),
        "weight_encoding": core.encoding,
        "input_bits": input_bits,
        "input_encoding": "twos_complement",
        "dac_bits": core.dac_bits,
        "rows": core.crossbar.rows,
        "active_rows": core.crossbar.active_rows,
        "technology": technology,
        "write_verify": core.verify_iterations,
    }
    if core.adc is not None and core.adc.bits:
        mapping["adc"] = converter(core, core.adc.bits)
    return AnalogConfig.from_mapping(mapping)


def slice_bits(core: CoreSpec) -> list[int]:
    """Bits of each slice, least significant first; the last one holds what is left."""
    bits = core.weight_bits - 1 if core.encoding == "differential" else core.weight_bits
    cell = core.crossbar.cell_bits
    return [min(cell, bits - start) for start in range(0, bits, cell)]


def converter(core: CoreSpec, bits: int) -> dict[str, object]:
    """Step and range of an ADC of ``bits``.

    The largest partial sum is active_rows · (2^cell_bits - 1) · (2^dac_bits - 1). Sums in its upper half are rare
    (about half of all cell and input bits are zero), so the range is the lower half (for differential pairs, of both
    signs), as ISAAC saves its ninth bit (Shafiee et al., ISCA 2016, section V). The step is the smallest power of two
    with which ``bits`` reach that far; what lies beyond saturates and is counted."""
    largest = core.crossbar.active_rows * ((1 << core.crossbar.cell_bits) - 1) * ((1 << core.dac_bits) - 1)
    signed = core.encoding == "differential"
    codes = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
    half = (1 << largest.bit_length()) // 2 - 1
    step = 1
    while codes * step < half - step + 1:
        step *= 2
    return {"bits": bits, "signed": signed, "lsb_units": step, "code_min": -codes if signed else 0, "code_max": codes}


@dataclass
class AnalogCores:
    """The analog cores of a run. Random streams are keyed by seed, tile and core, so they do not depend on the order in
    which tiles run."""

    technology: str
    seed: int
    built: list[AnalogMatrix] = field(default_factory=list[AnalogMatrix])

    def build(self, codes: Array, core: CoreSpec, tile: int, index: int) -> Matrix:
        """A core that holds ``codes``."""
        return AnalogCore(codes, core, (tile, index), self)

    def counts(self) -> dict[str, int]:
        """Conversions, how many of them saturated, and reads, over all cores."""
        total: Counter[str] = Counter()
        for matrix in self.built:
            total.update(vars(matrix.counts))
        return dict(total)


class AnalogCore:
    """One core: programmed when first used, once per width of its inputs (the same cells each time)."""

    def __init__(self, codes: Array, core: CoreSpec, key: tuple[int, int], cores: AnalogCores) -> None:
        self._codes, self._core, self._key, self._cores = codes, core, key, cores
        self._matrices: dict[int, AnalogMatrix] = {}

    def mvm(self, x: Array) -> Array:
        """``x`` (rows × inputs) through the crossbars: int32."""
        bits = 8 * x.dtype.itemsize
        if bits not in self._matrices:
            physics = config(self._core, self._cores.technology, bits)
            matrix = AnalogMatrix(self._codes.astype(np.int64), physics, self._cores.seed, self._key)
            self._matrices[bits] = matrix
            self._cores.built.append(matrix)
        return self._matrices[bits].mvm(x.astype(np.int64))

    def program(self, codes: Array) -> None:
        """Rewrite the cells."""
        self._codes = np.array(codes)
        self._matrices = {}
