"""What a device does to one crossbar: programming error, drift, accumulated and per-cycle read noise, wires.

Conductances of the fast grid are computed in float32, those of the fine one in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, NoiseModel
from cimc.analog.curve import Curve
from cimc.analog.irdrop import attenuation
from cimc.analog.noise import check_range, find_model
from cimc.analog.rng import Streams, fixed_quantile
from cimc.analog.technology import Cell, CellModel

Float = NDArray[np.floating]
# A noisy cell may exceed Gmax; conductances are cut at this multiple of it, so that sums stay exact.
HEADROOM = 2.0
QUANTILES = 1024  # draws that a cell's moments are averaged over


@dataclass(frozen=True)
class Physics:
    """The parts of a configuration's device, looked up once per core: the models that are on, and the cell's range in
    µS."""

    config: AnalogConfig
    programming: CellModel | None
    drift: CellModel | None
    read: CellModel | None
    retention: CellModel | None
    gmax: float
    gmin: float

    @staticmethod
    @lru_cache(maxsize=64)
    def of(config: AnalogConfig) -> Physics:
        """Raises ``CimcError`` for models that do not exist or a conductance beyond what a source measured."""
        device = config.device
        asked = {"programming_error": device.programming, "drift": device.drift, "read_noise": device.read}
        models = [None if part is None else find_model(key, part.name) for key, part in asked.items()]
        first = next((model for model in models if model is not None), None)
        for model in models:
            if model is not None:
                check_range(model, device.gmax_us or model.gmax_us)
        gmax = device.gmax_us or (1.0 if first is None else first.gmax_us)
        kept = None if device.retention is None else find_model("retention", device.retention.name)
        return Physics(config, models[0], models[1], models[2], kept, gmax, gmax * device.gmin_norm)

    def cell(self, numbers: NoiseModel | None) -> Cell:
        """What a model is told."""
        device = self.config.device
        return Cell(self.gmin, self.gmax, device.seconds, numbers or NoiseModel("Ideal"), device.temperature_c)

    @property
    def kind(self) -> type[np.floating]:
        """The precision of conductances before they are put on the grid."""
        return np.float32 if self.config.grid == "fast" else np.float64


def per_cell_reads(config: AnalogConfig) -> bool:
    """Whether every read draws noise for every cell."""
    read = config.device.read
    if read is None or config.device.read_mode != "cell":
        return False
    return find_model("read_noise", read.name).read_per_cycle


def program_side(
    levels: NDArray[Any], faults: NDArray[np.int8] | None, side: int, physics: Physics, streams: Streams
) -> tuple[Float, Float | None]:
    """One side's conductances in levels, (slices, in, columns), crossbar by crossbar, each with its own stream; and,
    where read noise is drawn per conversion, the summed variance of a read of each column, (blocks, slices, columns).
    The conductances then are the mean of a read."""
    config = physics.config
    blocks = config.blocks(levels.shape[1])
    result = np.empty(levels.shape, dtype=physics.kind)
    moments = physics.read is not None and physics.read.read_per_cycle and config.device.read_mode == "conversion"
    variance = np.empty((len(blocks), len(levels), levels.shape[2]), dtype=physics.kind) if moments else None
    for index, (a, b) in enumerate(blocks):
        for s, top in enumerate(config.weights.max_levels):
            crossbar = (index * len(levels) + s) * 2 + side
            cells = _one_crossbar(levels[s, a:b], top, physics, streams, crossbar)
            if faults is not None:
                _stick(cells, faults[s, a:b], config.device.gmin_norm * top, top)
            cells = cells * _wires(cells / top, config) if _wired(config) else cells
            if variance is not None:
                cells, var = _read_moments(cells, top, physics)
                variance[index, s] = var.sum(axis=0)
            result[s, a:b] = cells
    return result, variance


def _stick(cells: Float, faults: NDArray[np.int8], low: float, high: float) -> None:
    """Put faults into the columns that have them: all but a unit column."""
    part = cells[:, : faults.shape[1]]
    part[faults == 1] = low
    part[faults == 2] = high


def _wired(config: AnalogConfig) -> bool:
    device = config.device
    return device.gmax_us is not None and (device.row_ohm > 0 or device.col_ohm > 0)


def _wires(cells: Float, config: AnalogConfig) -> Float:
    """What is left of each cell's current after the IR drop of one crossbar's wires."""
    device = config.device
    siemens = (device.gmax_us or 0.0) * 1e-6
    left = attenuation(cells.astype(np.float64), device.row_ohm * siemens, device.col_ohm * siemens)
    return left.astype(cells.dtype)


def _one_crossbar(levels: NDArray[Any], top: int, physics: Physics, streams: Streams, crossbar: int) -> Float:
    """Conductances of one crossbar in levels after programming, drift and accumulated read noise."""
    device = physics.config.device
    programming, drift, read = physics.programming, physics.drift, physics.read
    goal: Any = levels.astype(physics.kind)
    goal *= (1.0 - device.gmin_norm) * physics.gmax / top
    if physics.gmin:
        goal += physics.gmin
    g: Any = goal
    if programming is not None and programming.program is not None:
        rng = streams.draws("programming", crossbar)
        cell = physics.cell(device.programming)
        g = programming.program(goal, cell, rng)
        for _ in range(device.write_verify - 1):
            again = programming.program(goal, cell, rng)
            g = np.where(np.abs(again - goal) < np.abs(g - goal), again, g)
    programmed = g
    if drift is not None and drift.drift is not None and device.seconds > 0:
        g = drift.drift(g, goal, physics.cell(device.drift), streams.draws("drift", crossbar))
    if physics.retention is not None and physics.retention.retention is not None and device.seconds > 0:
        g = physics.retention.retention(g, physics.cell(device.retention))
    if read is not None and read.read is not None and not read.read_per_cycle:
        g = read.read(g, programmed, physics.cell(device.read), streams.draws("read", crossbar))
    positive = np.maximum(g, 0.0, out=g if g is not goal else None)
    positive *= top / physics.gmax
    return positive.astype(physics.kind, copy=False)


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
    noisy = model.read(g, g, physics.cell(asked), streams.draws("read", crossbar, read + 1))
    return noisy / physics.gmax * top


def _read_moments(levels: Float, top: int, physics: Physics) -> tuple[Float, Float]:
    """Mean and variance of one read of every cell, in levels."""
    mean, var = moment_curves(physics.read, physics.cell(physics.config.device.read), top)
    if levels.dtype == np.float32:
        return mean(levels), var(levels)
    narrow = np.ascontiguousarray(levels, dtype=np.float32)
    return mean(narrow).astype(np.float64), var(narrow).astype(np.float64)


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
