"""From a column's sum to a code: range, rounding, clipping.

A partial sum ``S`` is counted in levels times input steps. The ideal converter is

    index = clip(rint(S / step - low), 0, top)        code = low + index        value = code * step

with ties to the even ``index`` (relative to the lowest code, as CrossSim's converters round). All arithmetic is in the
precision of ``S``: float64, or float32 for the fast core, whose sums are exact in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AdcConfig, AnalogConfig, refuse


@dataclass(frozen=True)
class Transfer:
    """An ADC's transfer for one row block and slice: ``step`` levels per code, ``low`` the first code, ``top`` the
    highest index. ``low`` is a whole number unless a calibrated range does not start on a code."""

    step: float
    low: float
    top: int
    gain: float = 1.0
    offset: float = 0.0
    inl: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether codes times step are integers, so that recombination is exact."""
        return float(self.step).is_integer() and float(self.low).is_integer()

    @property
    def ideal(self) -> bool:
        """Whether the converter only rounds and clips."""
        return self.gain == 1.0 and self.offset == 0.0 and self.inl == 0.0


def index_of(
    sums: NDArray[np.floating], transfer: Transfer, noise: NDArray[np.floating] | None = None
) -> NDArray[np.floating]:
    """The unclipped index of each sum, a whole number in the dtype of ``sums``."""
    kind = sums.dtype.type
    position = sums / kind(transfer.step)
    if not transfer.ideal:
        middle = kind(transfer.low + transfer.top / 2)
        half = kind(max(transfer.top / 2, 1.0))
        bow = kind(1) - ((position - middle) / half) ** 2
        position = position * kind(transfer.gain) + kind(transfer.offset) + kind(transfer.inl) * bow
    if noise is not None:
        position = position + noise
    return np.rint(position - kind(transfer.low))


def codes_of(index: NDArray[np.floating], transfer: Transfer) -> NDArray[np.floating]:
    """Codes after clipping, in the dtype of ``index``."""
    kind = index.dtype.type
    return np.clip(index, kind(0), kind(transfer.top)) + kind(transfer.low)


def saturated(index: NDArray[np.floating], transfer: Transfer) -> int:
    """How many conversions were clipped."""
    return int(np.count_nonzero(index < 0) + np.count_nonzero(index > transfer.top))


def transfers(config: AnalogConfig, inputs: int) -> tuple[tuple[Transfer, ...], ...] | None:
    """The transfer of every row block and slice; None without an ADC."""
    if config.adc is None:
        return None
    slices = len(config.weights.slice_bits)
    if config.adc.ranges and len(config.adc.ranges) not in (1, slices):
        raise refuse(
            "adc_ranges", f"{len(config.adc.ranges)} ranges for {slices} slices", "give one range, or one per slice"
        )
    return tuple(
        tuple(_transfer(config, config.adc, b - a, s) for s in range(slices)) for a, b in config.blocks(inputs)
    )


def common_step(table: tuple[tuple[Transfer, ...], ...] | None) -> float | None:
    """The step of all converters if they share one: codes are then added first and multiplied once. None otherwise."""
    if table is None:
        return 1.0
    steps = {transfer.step for row in table for transfer in row}
    return steps.pop() if len(steps) == 1 else None


def _transfer(config: AnalogConfig, adc: AdcConfig, rows: int, s: int) -> Transfer:
    if adc.rule == "LSB":
        low, step, top = float(adc.code_min), adc.lsb_units, adc.code_max - adc.code_min
        return Transfer(step, low, top, adc.gain, adc.offset_lsb, adc.inl_lsb)
    if adc.rule == "CALIBRATED":
        low, high = adc.ranges[min(s, len(adc.ranges) - 1)]
    else:
        low, high = named_range(config, adc, rows, s)
    # Ranges are in units of Gmax times a full input; sums in levels times input steps.
    magnitude = config.inputs.bits - config.inputs.signed
    unit = ((1 << config.weights.slice_bits[s]) - 1) * ((1 << min(config.inputs.dac_bits, magnitude)) - 1)
    top = adc.levels - 1
    step = (high - low) * unit / top
    first = low * unit / step
    if abs(first - round(first)) < 1e-9 * max(1.0, abs(first)):
        first = float(round(first))
    return Transfer(step, first, top, adc.gain, adc.offset_lsb, adc.inl_lsb)


def named_range(config: AnalogConfig, adc: AdcConfig, rows: int, s: int) -> tuple[float, float]:
    """The range of a named rule, in units of Gmax times a full input.

    The rules are CrossSim 3.2's (simulator/circuits/adc/iadc.py). ``MAX``: the largest possible column current, rows
    brought to a power of two for an offset column. ``GRANULAR``: one code per smallest cell current. Both carry the
    correction ``2**n / (2**n - 1)`` for inputs of n bits, as CrossSim does although bit-serial currents do not.
    """
    signed = config.inputs.signed
    differential = config.weights.kind == "differential"
    magnitude = config.inputs.bits - 1 if signed else config.inputs.bits
    correction = 2.0**magnitude / (2.0**magnitude - 1)
    cell = 2.0 ** config.weights.slice_bits[s]
    if adc.rule == "MAX":
        if differential:
            return -float(rows), float(rows)
        codes = 2.0**adc.bits
        high = 2.0 ** round(math.log2(rows)) * cell / (cell - 1) * correction
        if signed:
            high *= (codes - 2) / codes
            return -high, high
        return 0.0, high * (codes - 1) / codes
    unsliced = differential and len(config.weights.slice_bits) == 1
    smallest = 2.0**-config.weights.bits if unsliced else 1 / (cell - 1)
    smallest *= correction
    if signed or differential:
        high = smallest * (2.0 ** (adc.bits - 1) - 1)
        return -high, high
    return 0.0, smallest * (2.0**adc.bits - 1)
