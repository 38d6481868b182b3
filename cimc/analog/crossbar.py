"""The cells of a core after programming: levels, faults, spread, drift, and the grid that makes sums exact.

Conductances are in levels (Gmax of a slice of b bits is ``2**b - 1``) and rounded to a binary grid fine enough not to
matter and coarse enough that every partial sum is exact, whatever the order of its additions: this is what lets the
fast core and the reference agree bit for bit under noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, NoiseModel, refuse
from cimc.analog.encoding import planes, slice_levels, stored, unit_levels
from cimc.analog.irdrop import attenuation
from cimc.analog.noise import check_range, find_model
from cimc.analog.rng import Streams, fixed_quantile
from cimc.analog.technology import Cell, CellModel

Float = NDArray[np.floating]
# A noisy cell may exceed Gmax; conductances are cut at this multiple of it, so that sums stay exact.
HEADROOM = 2.0


@dataclass(frozen=True, eq=False)
class Cells:
    """One core's cells, (slices, in, columns); the unit column, if there is one, comes last.

    ``plus`` and ``minus`` are the two sides of a differential pair (``minus`` is None for an offset column); ``net`` is
    what a column sums, ``plus - minus``. ``whole`` says that all are whole levels. ``grid_bits`` are the bits after the
    point, ``read_sigma`` the standard deviation of one read of each cell when noise is drawn per conversion, averaged
    over the rows of each block: (blocks, slices, columns). ``fixed``: the grid is coarse enough that every column sum
    is a 16-bit number of grid steps. ``copies``: redundant crossbars of the top slices (redundancy.py).
    """

    plus: NDArray[Any]
    minus: NDArray[Any] | None
    whole: bool
    grid_bits: int
    read_sigma: NDArray[np.float32] | None = None
    fixed: bool = False
    copies: tuple[Cells, ...] = ()

    @property
    def net(self) -> NDArray[Any]:
        """What a column sums: (slices, in, columns)."""
        return self.plus if self.minus is None else self.plus - self.minus

    @property
    def cells(self) -> int:
        """Physical cells, both sides of a pair counted."""
        return self.plus.size * (1 if self.minus is None else 2) + sum(copy.cells for copy in self.copies)


def grid_bits(config: AnalogConfig, inputs: int) -> int:
    """Bits after the point of the conductance grid.

    ``fast``: column sums are exact in float32 (24 bits), or in float64 where fewer than 7 bits would be left. ``fine``:
    shift-and-add over all planes is exact in float64 too.
    """
    rows = max(b - a for a, b in config.blocks(inputs))
    drive = max((1 << p.bits) - 1 for p in planes(config.inputs))
    largest = rows * max(config.weights.max_levels) * drive * HEADROOM
    if config.grid == "fast":
        bits = 24 - math.ceil(math.log2(largest + 1))
        if bits >= 7:
            return bits
    return max(52 - math.ceil(math.log2(largest + 1)) - config.inputs.bits, 0)


def sum_dtype(config: AnalogConfig, inputs: int) -> type[np.floating]:
    """The precision in which column sums and conversions are computed."""
    return np.float32 if config.grid == "fast" and grid_bits(config, inputs) <= 24 else np.float64


def level_map(
    codes: NDArray[np.int64], config: AnalogConfig, streams: Streams
) -> tuple[NDArray[np.int32], NDArray[np.int32] | None]:
    """Whole levels of both sides, faults put in: each (slices, in, columns). ``codes`` are the weights, (in, out)."""
    encoding = config.weights
    levels = slice_levels(stored(codes, encoding), encoding)
    if encoding.kind == "offset":
        plus, minus = levels, None
        if encoding.unit_column:
            unit = np.broadcast_to(np.array(unit_levels(encoding))[:, None, None], (len(levels), len(codes), 1))
            plus = np.concatenate([levels, unit.astype(np.int32)], axis=2)
    else:
        plus, minus = levels * (codes > 0), levels * (codes < 0)
    faults = fault_map(codes.shape, config, streams)
    if faults is not None:
        plus = _stick(plus, faults[0], encoding.max_levels)
        minus = None if minus is None else _stick(minus, faults[1], encoding.max_levels)
    return plus, minus


def fault_map(shape: tuple[int, ...], config: AnalogConfig, streams: Streams) -> NDArray[np.int8] | None:
    """Faults of both sides, (sides, slices, in, out), from the given map or drawn at the given rates; None if
    neither."""
    sides = 1 if config.weights.kind == "offset" else 2
    inputs, outputs = shape
    expected = (sides, len(config.weights.slice_bits), outputs, inputs)
    device = config.device
    if config.stuck is not None:
        given = config.stuck if config.stuck.ndim == 4 else config.stuck[None]
        if given.shape != expected:
            want = expected if sides == 2 else expected[1:]
            raise refuse("stuck", f"the map's shape is {config.stuck.shape}", f"give {want}: slices, out, in")
        return given.transpose(0, 1, 3, 2)
    if device.stuck_off_rate == 0 and device.stuck_on_rate == 0:
        return None
    draw = streams.generator("stuck").random(expected).transpose(0, 1, 3, 2)
    faults = np.zeros(draw.shape, dtype=np.int8)
    faults[draw < device.stuck_off_rate] = 1
    faults[draw >= 1 - device.stuck_on_rate] = 2
    return faults


def _stick(levels: NDArray[np.int32], faults: NDArray[np.int8], tops: tuple[int, ...]) -> NDArray[np.int32]:
    """Levels with stuck cells; a unit column beyond the faults' columns stays healthy."""
    result = levels.copy()
    part = result[:, :, : faults.shape[2]]
    part[faults == 1] = 0
    high = np.broadcast_to(np.array(tops, dtype=np.int32)[:, None, None], part.shape)
    part[faults == 2] = high[faults == 2]
    return result


def program(codes: NDArray[np.int64], config: AnalogConfig, streams: Streams) -> Cells:
    """Program a matrix of weights (in, out): levels, faults, then the device's programming error, drift and 1/f
    noise."""
    plus, minus = level_map(codes, config, streams)
    if config.device.ideal:
        return Cells(_compact(plus), None if minus is None else _compact(minus), True, 0)
    bits = grid_bits(config, len(codes))
    faults = fault_map(codes.shape, config, streams)
    sides = [side.astype(np.float64) for side in (plus, minus) if side is not None]
    done = [
        _program_side(side, None if faults is None else faults[i], i, config, streams) for i, side in enumerate(sides)
    ]
    sigma = None
    if config.device.read is not None and config.device.read_mode == "conversion":
        model = find_model("read_noise", config.device.read.name)
        if model.read_per_cycle:
            pairs = [_read_moments(side, model, config, config.device.read) for side in done]
            done = [mean for mean, _ in pairs]
            sigma = _column_sigma([var for _, var in pairs], config)
    few = None if per_cell_reads(config) else fixed_bits(done, config)
    bits = bits if few is None else few
    kind = np.float32 if bits <= 24 else np.float64
    on_grid = [to_grid(side, bits, config.weights.max_levels).astype(kind) for side in done]
    return Cells(on_grid[0], on_grid[1] if len(on_grid) > 1 else None, False, bits, sigma, few is not None)


def per_cell_reads(config: AnalogConfig) -> bool:
    """Whether every read draws noise for every cell."""
    read = config.device.read
    if read is None or config.device.read_mode != "cell":
        return False
    return find_model("read_noise", read.name).read_per_cycle


def fixed_bits(sides: list[NDArray[np.float64]], config: AnalogConfig) -> int | None:
    """Bits after the point with which every column sum fits 16 bits, for the kernels; None if fewer than 5 would be
    left,
    or the configuration asks for a finer grid."""
    if config.grid != "fast" or config.inputs.dac_bits != 1:
        return None
    signed = len(sides) == 2 or config.inputs.kind == "sign_magnitude"
    net = np.minimum(sides[0], HEADROOM * max(config.weights.max_levels)) if len(sides) == 1 else sides[0] - sides[1]
    largest, longest = 0.0, 1
    for a, b in config.blocks(net.shape[1]):
        largest = max(largest, float(np.abs(net[:, a:b]).sum(axis=1).max(initial=0.0)))
        longest = max(longest, b - a)
    limit = (32767 if signed else 65535) - 2 * longest
    if largest <= 0:
        return None
    bits = min(math.floor(math.log2(limit / largest)), 12) if limit > 0 else 0
    return bits if bits >= 5 else None


def _compact(levels: NDArray[np.int32]) -> NDArray[Any]:
    """Whole levels in as few bytes as hold them."""
    return levels.astype(np.int8 if levels.max(initial=0) <= 63 else np.int32)


def to_grid(levels: Float, bits: int, tops: tuple[int, ...]) -> NDArray[np.float64]:
    """Round to multiples of ``2**-bits`` levels and cut at ``HEADROOM`` times the slice's highest level."""
    high = np.array(tops, dtype=np.float64).reshape((-1,) + (1,) * (levels.ndim - 1)) * HEADROOM
    scale = float(1 << bits)
    return np.minimum(np.rint(np.asarray(levels, dtype=np.float64) * scale) / scale, high)


def _scale(config: AnalogConfig, model: CellModel | None) -> tuple[float, float]:
    """Gmax and Gmin of the cells in µS."""
    gmax = config.device.gmax_us or (1.0 if model is None else model.gmax_us)
    return gmax, gmax * config.device.gmin_norm


def _part(config: AnalogConfig, key: str, asked: NoiseModel | None) -> CellModel | None:
    if asked is None:
        return None
    model = find_model(key, asked.name)
    check_range(model, _scale(config, model)[0])
    return model


def _program_side(
    levels: Float, faults: NDArray[np.int8] | None, side: int, config: AnalogConfig, streams: Streams
) -> NDArray[np.float64]:
    """One side's conductances in levels, crossbar by crossbar, each with its own stream."""
    device = config.device
    result = np.zeros(levels.shape)
    slices = len(levels)
    for index, (a, b) in enumerate(config.blocks(levels.shape[1])):
        for s in range(slices):
            top = config.weights.max_levels[s]
            part = levels[s, a:b] / top
            target = device.gmin_norm + (1.0 - device.gmin_norm) * part
            crossbar = (index * slices + s) * 2 + side
            result[s, a:b] = _one_crossbar(target, config, streams, crossbar) * top
    if faults is not None:
        tops = np.array(config.weights.max_levels, dtype=np.float64)[:, None, None]
        part = result[:, :, : faults.shape[2]]
        stuck = np.where(faults == 1, device.gmin_norm * tops, tops)
        part[faults > 0] = stuck[faults > 0]
    for a, b in config.blocks(levels.shape[1]):
        for s, top in enumerate(config.weights.max_levels):
            result[s, a:b] *= _wires(result[s, a:b] / top, config)
    return result


def _wires(cells: NDArray[np.float64], config: AnalogConfig) -> NDArray[np.float64] | float:
    """What is left of each cell's current after the IR drop of one crossbar's wires."""
    device = config.device
    if device.gmax_us is None or (device.row_ohm == 0 and device.col_ohm == 0):
        return 1.0
    siemens = device.gmax_us * 1e-6
    return attenuation(cells, device.row_ohm * siemens, device.col_ohm * siemens)


def _one_crossbar(target: Float, config: AnalogConfig, streams: Streams, crossbar: int) -> NDArray[np.float64]:
    """Conductances over Gmax of one crossbar after programming, drift and accumulated read noise."""
    device = config.device
    goal = np.asarray(target, dtype=np.float64)
    programming = _part(config, "programming_error", device.programming)
    drift = _part(config, "drift", device.drift)
    read = _part(config, "read_noise", device.read)
    gmax, gmin = _scale(config, programming or drift or read)
    goal_us = goal * gmax

    def cell(numbers: NoiseModel | None) -> Cell:
        return Cell(gmin, gmax, device.seconds, numbers or NoiseModel("Ideal"))

    g = goal_us
    if programming is not None and programming.program is not None:
        rng = streams.generator("programming", crossbar)
        g = programming.program(goal_us, cell(device.programming), rng)
        for _ in range(device.write_verify - 1):
            again = programming.program(goal_us, cell(device.programming), rng)
            g = np.where(np.abs(again - goal_us) < np.abs(g - goal_us), again, g)
    programmed = g
    if drift is not None and drift.drift is not None and device.seconds > 0:
        g = drift.drift(g, goal_us, cell(device.drift), streams.generator("drift", crossbar))
    if read is not None and read.read is not None and not read.read_per_cycle:
        g = read.read(g, programmed, cell(device.read), streams.generator("read", crossbar))
    return np.maximum(g, 0.0) / gmax


def read_cells(
    levels: Float, s: int, crossbar: int, read: int, config: AnalogConfig, streams: Streams, bits: int
) -> NDArray[np.float64]:
    """One crossbar side as one cycle sees it: per-cycle read noise drawn for every cell, (rows, columns) in levels."""
    asked = config.device.read
    if asked is None:
        return np.asarray(levels, dtype=np.float64)
    model = find_model("read_noise", asked.name)
    if model.read is None or not model.read_per_cycle:
        return np.asarray(levels, dtype=np.float64)
    gmax, gmin = _scale(config, model)
    top = config.weights.max_levels[s]
    g = np.asarray(levels, dtype=np.float64) / top * gmax
    cell = Cell(gmin, gmax, config.device.seconds, asked)
    noisy = model.read(g, g, cell, streams.generator("read", crossbar, read + 1)) / gmax * top
    return to_grid(noisy[None], bits, (top,))[0]


def _read_moments(
    levels: NDArray[np.float64], model: CellModel, config: AnalogConfig, asked: NoiseModel
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance of one read of every cell, in levels: the model's transfer averaged over 256 quantiles."""
    if model.read is None:
        return levels, np.zeros_like(levels)
    gmax, gmin = _scale(config, model)
    cell = Cell(gmin, gmax, config.device.seconds, asked)
    points = np.concatenate([[0.0], np.geomspace(1e-4, HEADROOM, 256)]) * gmax
    count = 256
    reads = np.stack([model.read(points, points, cell, fixed_quantile((i + 0.5) / count)) for i in range(count)]) / gmax
    mean, var = np.empty_like(levels), np.empty_like(levels)
    for s, top in enumerate(config.weights.max_levels):
        at = levels[s] / top * gmax
        mean[s] = np.interp(at, points, reads.mean(0)) * top
        var[s] = np.interp(at, points, reads.var(0)) * top**2
    return mean, var


def _column_sigma(variances: list[NDArray[np.float64]], config: AnalogConfig) -> NDArray[np.float32]:
    """Root of the mean variance of a column's cells, (blocks, slices, columns); both sides of a pair add up."""
    total = np.sum(variances, axis=0)
    blocks = config.blocks(total.shape[1])
    return np.stack([np.sqrt(total[:, a:b].mean(axis=1)) for a, b in blocks]).astype(np.float32)
