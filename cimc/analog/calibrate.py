"""Repairs that need no new hardware: ADC ranges fitted to data, and digital factors against drift."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, refuse
from cimc.analog.core import AnalogMatrix
from cimc.analog.crossbar import Cells
from cimc.analog.encoding import drive, planes, stored
from cimc.analog.redundancy import mean_net, programmed
from cimc.analog.rng import Streams

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
        unit = 1.0 - config.device.gmin_norm  # what neighbouring levels are apart
        step = max(math.ceil(reach / (high * unit)), 1) * unit
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
    cells: Cells | None = None,
) -> NDArray[np.float64]:
    """What to multiply a core's column sums by at ``config.device.seconds``, (columns,): read-out at 0 s over read-out
    now.

    The read-out drives one row at a time and averages the magnitudes of the columns (aihwkit's global drift
    compensation, Joshi et al., Nat. Commun. 2020), over the whole core or per column. It is measured on the programmed
    cells, noise and faults included; assign it to ``AnalogMatrix.gain``. A unit column gets its own entry. ``cells``: those
    of now, if they are programmed already.
    """
    early, streams = replace(config, device=replace(config.device, seconds=0.0)), Streams(seed, *key)
    before = _read_out(programmed(codes, early, streams), config)
    now = _read_out(programmed(codes, config, streams) if cells is None else cells, config)
    if per == "core":
        before, now = (np.full_like(part, part.mean()) for part in (before, now))
    return before / np.maximum(now, SMALLEST)


def _read_out(cells: Cells, config: AnalogConfig) -> NDArray[np.float64]:
    """Mean magnitude of each column over all rows, the leak of a finite on/off ratio taken off."""
    encoding, leak = config.weights, config.device.gmin_norm
    total = np.zeros(cells.shape[1:])
    for part, shift, top in zip(mean_net(cells), encoding.shifts, encoding.max_levels, strict=True):
        total += (part - (leak * top if encoding.kind == "offset" else 0.0)) * 2.0**shift
    return np.abs(total).mean(axis=0)


@dataclass(frozen=True, eq=False)
class Correction:
    """What makes a column's sum right: ``gain`` times it, plus ``bias[0]``, plus ``bias[1]`` times the sum of the inputs;
    ``gain`` (columns,), ``bias`` (2, columns)."""

    gain: NDArray[np.float64]
    bias: NDArray[np.float64]


def known_inputs(core: AnalogMatrix, vectors: int) -> NDArray[np.int64]:
    """The vectors that a calibration drives, (vectors, in): uniform over half the range of the inputs around a mean that
    rises from vector to vector, so that a column's response to common and to single inputs can be told apart."""
    low, high = core.config.inputs.low, core.config.inputs.high
    quarter = max((high - low + 1) // 4, 1)
    draw = core.streams.generator("calibration").integers(-quarter, quarter + 1, (vectors, core.inputs))
    middles = np.rint(np.linspace(low + quarter, high - quarter, vectors)).astype(np.int64)
    return np.clip(draw + middles[:, None], low, high)


def measure_columns(core: AnalogMatrix, codes: NDArray[Any], vectors: int) -> Correction:
    """Read known inputs through a core as it is now, converters and noise included, and fit each column to what ``codes``
    (in, out) would have given: least squares of ``wanted = gain * sum + b0 + b1 * (sum of inputs)`` over ``vectors``.

    A column that carries no signal of its own keeps a gain of 1. Refused below four vectors: three numbers are fitted.
    """
    if vectors < 4:
        raise refuse("vectors", f"{vectors} are too few to fit three numbers a column", "give 4 or more")
    x = known_inputs(core, vectors)
    read, wanted = core.sums(x), _ideal_sums(core, np.asarray(codes, np.int64), x)
    common = np.stack([np.ones(vectors), x.sum(axis=1).astype(np.float64)], axis=1)
    projected = [part - common @ np.linalg.lstsq(common, part, rcond=None)[0] for part in (read, wanted)]
    signal = np.square(projected[0]).sum(axis=0)
    alive = signal > 1e-9 * np.square(wanted).sum(axis=0) + SMALLEST
    gain = np.where(alive, (projected[0] * projected[1]).sum(axis=0) / np.where(alive, signal, 1.0), 1.0)
    bias = np.linalg.lstsq(common, wanted - gain * read, rcond=None)[0]
    return Correction(gain, bias.astype(np.float64))


def _ideal_sums(core: AnalogMatrix, codes: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.float64]:
    """What the shift-and-adds would hold with ideal cells of the same on/off ratio."""
    encoding, leak = core.config.weights, core.config.device.gmin_norm
    held = stored(codes, encoding) if encoding.kind == "offset" else codes
    if encoding.unit_column:
        held = np.concatenate([held, np.full((len(held), 1), encoding.offset)], axis=1)
    ideal: NDArray[np.float64] = (1.0 - leak) * (x @ held).astype(np.float64)
    if leak and encoding.kind == "offset":
        full = sum(top * 2.0**shift for top, shift in zip(encoding.max_levels, encoding.shifts, strict=True))
        ideal += leak * full * x.sum(axis=1)[:, None]
    return ideal
