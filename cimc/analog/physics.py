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
from cimc.analog.curve import FRACTION, Curve, beside
from cimc.analog.irdrop import attenuation
from cimc.analog.kernels.program import fast_moments, fast_spread
from cimc.analog.noise import check_range, find_model
from cimc.analog.rng import Streams, fixed_quantile
from cimc.analog.technology import Cell, CellModel, Spread

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
            cells = _one_crossbar(levels[s, a:b], top, physics, streams, crossbar, result[s, a:b])
            if faults is not None:
                _stick(cells, faults[s, a:b], config.device.gmin_norm * top, top)
            if _wired(config):
                cells *= _wires(cells / top, config)
            if variance is not None:
                _read_moments(cells, variance[index, s], top, physics)
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


def _one_crossbar(
    levels: NDArray[Any], top: int, physics: Physics, streams: Streams, crossbar: int, out: Float
) -> Float:
    """Conductances of one crossbar in levels after programming, drift and accumulated read noise, put into ``out``."""
    device = physics.config.device
    programming, drift, read = physics.programming, physics.drift, physics.read
    drifts = drift is not None and drift.drift is not None and device.seconds > 0
    reads = read is not None and read.read is not None and not read.read_per_cycle
    unit = top / physics.gmax
    if _drawn_at_once(levels, top, physics, streams, crossbar, 1.0 if drifts or reads else unit, out):
        if not drifts and not reads:
            return out
        goal = _targets(levels, top, physics)
        g: Any = out
    else:
        g = goal = _targets(levels, top, physics)
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
    positive *= unit
    out[:] = positive
    return out


def _targets(levels: NDArray[Any], top: int, physics: Physics) -> Any:
    """What cells are to conduct, µS."""
    goal: Any = levels.astype(physics.kind)
    goal *= (1.0 - physics.config.device.gmin_norm) * physics.gmax / top
    if physics.gmin:
        goal += physics.gmin
    return goal


def _drawn_at_once(
    levels: NDArray[Any], top: int, physics: Physics, streams: Streams, crossbar: int, unit: float, out: Float
) -> bool:
    """Programming by the kernel, where it serves: ``out`` are then the cells in µS times ``unit``."""
    device, model = physics.config.device, physics.programming
    if model is None or not isinstance(model.program, Spread) or device.write_verify > 1 or out.dtype != np.float32:
        return False
    key = streams.key("programming", crossbar)
    goals, sigmas, first = _by_level(physics, model.program, top)
    return fast_spread(levels, (goals, sigmas, first, unit), model.program.relative, key, out)


@lru_cache(maxsize=256)
def _by_level(physics: Physics, program: Spread, top: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """``Spread.parts`` of every level."""
    goals, sigmas, unit = program.parts(
        _targets(np.arange(top + 1), top, physics), physics.cell(physics.config.device.programming)
    )
    narrow = goals.astype(np.float32, copy=False)
    return narrow, np.broadcast_to(np.asarray(sigmas, dtype=np.float32), goals.shape), unit


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


def _read_moments(levels: Float, variance: Float, top: int, physics: Physics) -> None:
    """``levels`` (rows, columns) become the mean of one read of every cell, ``variance`` those of a column added up."""
    mean, var = moment_curves(physics.read, physics.cell(physics.config.device.read), top)
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
