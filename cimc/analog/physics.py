"""What its devices (devices.py), faults, wires and the noise of reads make of the cells of one crossbar."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, DeviceConfig
from cimc.analog.curve import FRACTION, Curve, beside
from cimc.analog.devices import Float, Physics, Recipe
from cimc.analog.irdrop import attenuation
from cimc.analog.kernels.program import fast_moments
from cimc.analog.noise import find_model
from cimc.analog.rng import Streams, fixed_quantile
from cimc.analog.technology import Cell, CellModel

# A noisy cell may exceed Gmax; conductances are cut at this multiple of it, so that sums stay exact.
HEADROOM = 2.0
QUANTILES = 1024  # draws that a cell's moments are averaged over


def per_cell_reads(config: AnalogConfig) -> bool:
    """Whether every read draws noise for every cell."""
    read = config.device.read
    if read is None or config.device.read_mode != "cell":
        return False
    return find_model("read_noise", read.name).read_per_cycle


def program_side(
    levels: NDArray[Any], faults: NDArray[np.int8] | None, side: int, config: AnalogConfig, streams: Streams
) -> tuple[Float, Float | None]:
    """One side's conductances in levels, (slices, in, columns), crossbar by crossbar, each with its own stream; and,
    where read noise is drawn per conversion, the summed variance of a read of each column, (blocks, slices, columns).
    The conductances then are the mean of a read."""
    physics = Physics.of(config)
    tops = config.weights.max_levels
    recipes = [Recipe.of(physics, top) for top in tops]
    blocks = config.blocks(levels.shape[1])
    result = np.empty(levels.shape, dtype=physics.kind)
    moments = physics.read is not None and physics.read.read_per_cycle and config.device.read_mode == "conversion"
    variance = np.empty((len(blocks), len(levels), levels.shape[2]), dtype=physics.kind) if moments else None
    read = physics.cell(config.device.read)
    curves = [moment_curves(physics.read, read, top) for top in tops] if moments else []
    for index, (a, b) in enumerate(blocks):
        for s, recipe in enumerate(recipes):
            crossbar = (index * len(levels) + s) * 2 + side
            stuck = None if faults is None else faults[s, a:b]
            at = (streams, crossbar)
            found = _cells(levels[s, a:b], stuck, recipe, at, result[s, a:b])
            if variance is not None:
                _read_moments(found, variance[index, s], result[s, a:b], curves[s])
    return result, variance


def _cells(
    levels: NDArray[Any],
    faults: NDArray[np.int8] | None,
    recipe: Recipe,
    at: tuple[Streams, int],
    out: Float,
) -> list[Float]:
    """The cells of one crossbar, in ``out``, and every device of them (``out`` itself where there is one to a cell): a cell
    conducts the mean of its devices, in levels. ``at``: streams and the crossbar's number."""
    (streams, crossbar), config, top = at, recipe.physics.device, recipe.top
    count = config.devices
    found = [out if count == 1 else np.empty_like(out) for _ in range(count)]
    for number, device in enumerate(found):
        own = streams if number == 0 else replace(streams, device=number)
        recipe.conduct(levels, own, crossbar, device)
        if faults is not None:
            _stick(device, faults, config.gmin_norm * top, top)
    if count > 1:
        _mean(found, out)
    if _wired(config):
        left = _wires(out / top, config)
        for device in found if count == 1 else (*found, out):
            device *= left
    return found


def _mean(parts: list[Float], out: Float) -> None:
    """``out`` becomes the mean, added up in order."""
    np.add(parts[0], parts[1], out=out)
    for part in parts[2:]:
        out += part
    out *= out.dtype.type(1.0 / len(parts))


def _stick(cells: Float, faults: NDArray[np.int8], low: float, high: float) -> None:
    """Put faults into the columns that have them: all but a unit column."""
    part = cells[:, : faults.shape[1]]
    part[faults == 1] = low
    part[faults == 2] = high


def _wired(device: DeviceConfig) -> bool:
    return device.gmax_us is not None and (device.row_ohm > 0 or device.col_ohm > 0)


def _wires(cells: Float, device: DeviceConfig) -> Float:
    """What is left of each cell's current after the IR drop of one crossbar's wires."""
    siemens = (device.gmax_us or 0.0) * 1e-6 * device.devices
    left = attenuation(cells.astype(np.float64), device.row_ohm * siemens, device.col_ohm * siemens)
    return left.astype(cells.dtype)


def read_once(
    levels: Float, top: int, crossbar: int, read: int, config: AnalogConfig, streams: Streams
) -> NDArray[np.float64] | None:
    """One crossbar side as one cycle sees it, (rows, columns) in levels: per-cycle read noise drawn for every cell;
    None if the device has none."""
    physics = Physics.of(config)
    model, asked = physics.read, config.device.read
    if model is None or model.read is None or not model.read_per_cycle:
        return None
    g = np.asarray(levels, dtype=np.float64) / top * physics.gmax
    devices, total = config.device.devices, np.zeros(g.shape)
    for number in range(devices):  # the cell is the mean of its devices; each reads as if it were as the cell is
        draws = replace(streams, device=number).draws("read", crossbar, read + 1)
        total += model.read(g, g, physics.cell(asked), draws)
    return total / devices / physics.gmax * top


def _read_moments(devices: list[Float], variance: Float, out: Float, curves: tuple[Curve, Curve]) -> None:
    """The cells (rows, columns) become the mean of one read of every cell, ``variance`` those of a column added up."""
    if len(devices) == 1:
        _moments(devices[0], variance, curves)
        return
    total = np.zeros_like(variance)
    for cells in devices:
        _moments(cells, variance, curves)
        total += variance
    _mean(devices, out)
    variance[:] = total * variance.dtype.type(1.0 / len(devices) ** 2)


def _moments(levels: Float, variance: Float, curves: tuple[Curve, Curve]) -> None:
    """``levels`` (rows, columns) become the mean of one read of every device, ``variance`` those of a column added up."""
    mean, var = curves
    if levels.dtype == np.float32 and fast_moments(levels, beside(mean, var), mean.lowest, FRACTION, variance):
        return
    narrow = np.ascontiguousarray(levels, dtype=np.float32)
    levels[:], spreads = mean(narrow), var(narrow)
    variance[:] = spreads.astype(levels.dtype, copy=False).sum(axis=0)


@lru_cache(maxsize=256)
def moment_curves(model: CellModel | None, cell: Cell, top: int) -> tuple[Curve, Curve]:
    """Mean and variance of a read as curves of the level: the model's transfer averaged over its quantiles."""
    points = Curve.points(top)
    if model is None or model.read is None:
        return Curve.of(top, points), Curve.of(top, np.zeros_like(points))
    g = points / top * cell.gmax_us
    quantiles = [fixed_quantile((i + 0.5) / QUANTILES) for i in range(QUANTILES)]
    reads = np.stack([model.read(g, g, cell, quantile) for quantile in quantiles]) / cell.gmax_us * top
    return Curve.of(top, reads.mean(0)), Curve.of(top, reads.var(0))
