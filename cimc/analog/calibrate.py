"""Repairs that need no new hardware: ADC ranges fitted to data, and digital factors against drift."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, refuse
from cimc.analog.core import AnalogMatrix
from cimc.analog.encoding import drive, planes

SMALLEST = 1e-4  # aihwkit 1.2 inference/compensation/drift.py clamps the read-out here


def partial_sums(core: AnalogMatrix, samples: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Every column sum that ``samples`` (vectors, in) produce, in levels times input steps: one flat array per
    slice."""
    net = core.cells.net.astype(np.float64)
    found: list[list[NDArray[np.float64]]] = [[] for _ in net]
    for first, past in core.blocks:
        for plane in planes(core.config.inputs):
            driven = drive(samples[:, first:past].astype(np.int64), plane).astype(np.float64)
            for s, part in enumerate(net):
                found[s].append((driven @ part[first:past]).ravel())
    return [np.concatenate(parts) for parts in found]


def calibrate_range(
    codes: NDArray[Any],
    config: AnalogConfig,
    samples: NDArray[Any],
    coverage: float = 1.0,
    per: Literal["core", "slice"] = "core",
) -> AnalogConfig:
    """``config`` with the ADC's range fitted to what ``samples`` (vectors, in) produce on weights ``codes`` (in, out).

    ``coverage`` is the share of conversions that must not clip. ``core``: the smallest whole number of levels per code
    that covers it, for all slices (whole steps keep results integer and the kernels in use). ``slice``: a range of its
    own for each slice, to the last code. Refused without an ADC, without samples, or for a coverage outside 0..1.
    """
    if config.adc is None:
        raise refuse("adc", "there is no converter to calibrate", "give adc: {bits: ...}")
    if len(samples) == 0:
        raise refuse("samples", "no vector to calibrate on", "give at least one input vector")
    if not 0 < coverage <= 1:
        raise refuse("coverage", f"{coverage} is outside 0..1", "give the share of conversions that must not clip")
    sums = partial_sums(AnalogMatrix(codes, config), samples)
    adc = config.adc
    full = (1 << adc.bits) - 1
    high = full // 2 if adc.signed else full
    if per == "core":
        reach = max(_reach(part, coverage, adc.signed) for part in sums)
        step = max(math.ceil(reach / high), 1)
        lsb = replace(
            adc, rule="LSB", lsb_units=float(step), code_min=-high if adc.signed else 0, code_max=high, ranges=()
        )
        return replace(config, adc=lsb)
    magnitude = config.inputs.bits - config.inputs.signed
    drive_top = (1 << min(config.inputs.dac_bits, magnitude)) - 1
    ranges: list[tuple[float, float]] = []
    for part, top in zip(sums, config.weights.max_levels, strict=True):
        reach = max(_reach(part, coverage, adc.signed), 1.0) / (top * drive_top)
        ranges.append((-reach if adc.signed else 0.0, reach))
    levels = full if adc.signed else full + 1
    return replace(config, adc=replace(adc, rule="CALIBRATED", ranges=tuple(ranges), levels=levels))


def _reach(sums: NDArray[np.float64], coverage: float, signed: bool) -> float:
    """The magnitude that ``coverage`` of the sums stay within."""
    values = np.abs(sums) if signed else np.maximum(sums, 0.0)
    return float(np.quantile(values, coverage, method="higher"))


def drift_factor(
    codes: NDArray[Any],
    config: AnalogConfig,
    seed: int = 0,
    key: tuple[int, int] = (0, 0),
    per: Literal["core", "column"] = "core",
) -> NDArray[np.float64]:
    """What to multiply a core's column sums by at ``config.device.seconds``, (columns,): read-out at 0 s over read-out
    now.

    The read-out drives one row at a time and averages the magnitudes of the columns (aihwkit's global drift
    compensation, Joshi et al., Nat. Commun. 2020), over the whole core or per column. It is measured on the programmed
    cells, noise and faults included; assign it to ``AnalogMatrix.gain``. A unit column gets its own entry.
    """
    early = replace(config, device=replace(config.device, seconds=0.0))
    before = _read_out(AnalogMatrix(codes, early, seed, key))
    now = _read_out(AnalogMatrix(codes, config, seed, key))
    if per == "core":
        before, now = (np.full_like(part, part.mean()) for part in (before, now))
    return before / np.maximum(now, SMALLEST)


def _read_out(core: AnalogMatrix) -> NDArray[np.float64]:
    """Mean magnitude of each column over all rows, the leak of a finite on/off ratio taken off."""
    encoding, leak = core.config.weights, core.config.device.gmin_norm
    total = np.zeros(core.cells.shape[1:])
    for part, shift, top in zip(core.cells.net, encoding.shifts, encoding.max_levels, strict=True):
        total += (part - (leak * top if encoding.kind == "offset" else 0.0)) * 2.0**shift
    return np.abs(total).mean(axis=0)
