"""The cells of a core after programming: levels, faults, spread, drift, and the grid that makes sums exact.

Conductances are in levels (Gmax of a slice of b bits is ``2**b - 1``) and rounded to a binary grid fine enough not to
matter and coarse enough that every partial sum is exact, whatever the order of its additions: this is what lets the
fast core and the reference agree bit for bit under noise. physics.py says what a device does to a crossbar.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import AnalogConfig, refuse
from cimc.analog.devices import Float
from cimc.analog.encoding import planes, stored, unit_levels
from cimc.analog.kernels.program import fast_steps
from cimc.analog.physics import HEADROOM, per_cell_reads, program_side, read_once
from cimc.analog.rng import Streams

ROOM_ROWS = 7  # rows of readable memory behind cells on a grid: a group of rows may begin with the last one


@dataclass(frozen=True, eq=False)
class Cells:
    """One core's cells, (slices, in, columns); the unit column, if there is one, comes last.

    ``held_plus`` and ``held_minus`` are the two sides of a differential pair (``held_minus`` is None for an offset
    column): whole levels if ``whole``, 16-bit numbers of grid steps if ``fixed``, else floating-point levels.
    ``grid_bits`` are the bits after the point, ``read_sigma`` the standard deviation of one read of each cell when
    noise is drawn per conversion, averaged over the rows of each block: (blocks, slices, columns). ``fixed``: the grid
    is coarse enough that every column sum is a 16-bit number of grid steps. ``copies``: redundant crossbars of the top
    slices (redundancy.py).
    """

    held_plus: NDArray[Any]
    held_minus: NDArray[Any] | None
    whole: bool
    grid_bits: int
    read_sigma: NDArray[np.float32] | None = None
    fixed: bool = False
    copies: tuple[Cells, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        slices, rows, columns = self.held_plus.shape
        return slices, rows, columns

    @property
    def plus(self) -> NDArray[Any]:
        """The plus side in levels."""
        return self._levels(self.held_plus)

    @property
    def minus(self) -> NDArray[Any] | None:
        """The minus side in levels."""
        return None if self.held_minus is None else self._levels(self.held_minus)

    @property
    def net(self) -> NDArray[Any]:
        """What a column sums in levels, ``plus - minus``: (slices, in, columns)."""
        return self._levels(self.held_net)

    @property
    def held_net(self) -> NDArray[Any]:
        """As ``net``, in the units that are held."""
        return self.held_plus if self.held_minus is None else self.held_plus - self.held_minus

    def sides(self, s: int, rows: tuple[int, int]) -> list[tuple[int, NDArray[Any]]]:
        """Sign and levels of each side of one crossbar, rows ``first .. past``."""
        found = [(1, self._levels(self.held_plus[s, rows[0] : rows[1]]))]
        if self.held_minus is not None:
            found.append((-1, self._levels(self.held_minus[s, rows[0] : rows[1]])))
        return found

    @property
    def cells(self) -> int:
        """Physical cells, both sides of a pair counted."""
        own = self.held_plus.size * (1 if self.held_minus is None else 2)
        return own + sum(copy.cells for copy in self.copies)

    @property
    def nbytes(self) -> int:
        """Bytes as held."""
        own = self.held_plus.nbytes + (0 if self.held_minus is None else self.held_minus.nbytes)
        return own + sum(copy.nbytes for copy in self.copies)

    def _levels(self, held: NDArray[Any]) -> NDArray[Any]:
        return held.astype(np.float32) * np.float32(2.0**-self.grid_bits) if self.fixed else held


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


def level_map(codes: NDArray[Any], config: AnalogConfig, streams: Streams) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Whole levels of both sides, faults put in: each (slices, in, columns), in as few bytes as hold them. ``codes``
    are the weights, (in, out)."""
    encoding = config.weights
    kind = np.int8 if max(encoding.max_levels) <= 63 else np.int32
    short = encoding.bits <= 8 and max(encoding.max_levels) <= 255
    value = stored(codes, encoding).astype(np.uint8 if short else np.uint16)
    unit = int(encoding.unit_column)
    plus = np.empty((len(encoding.slice_bits), value.shape[0], value.shape[1] + unit), kind)
    for s, (shift, top) in enumerate(zip(encoding.shifts, encoding.max_levels, strict=True)):
        plus[s, :, : value.shape[1]] = (value >> value.dtype.type(shift)) & value.dtype.type(top)
        plus[s, :, value.shape[1] :] = unit_levels(encoding)[s]
    minus = None
    if encoding.kind == "differential":
        plus, minus = plus * (codes > 0), plus * (codes < 0)
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


def _stick(levels: NDArray[Any], faults: NDArray[np.int8], tops: tuple[int, ...]) -> NDArray[Any]:
    """Levels with stuck cells; a unit column beyond the faults' columns stays healthy."""
    result = levels.copy()
    part = result[:, :, : faults.shape[2]]
    part[faults == 1] = 0
    high = np.broadcast_to(np.array(tops, dtype=levels.dtype)[:, None, None], part.shape)
    part[faults == 2] = high[faults == 2]
    return result


def program(codes: NDArray[Any], config: AnalogConfig, streams: Streams) -> Cells:
    """Program a matrix of weights (in, out): levels, faults, then the device's programming error, drift and 1/f
    noise."""
    plus, minus = level_map(codes, config, streams)
    if config.device.ideal:
        return Cells(plus, minus, True, 0)
    bits = grid_bits(config, len(codes))
    faults = fault_map(codes.shape, config, streams)
    # All that fit 8 bits in 8 bits: what the kernels read.
    narrow = np.int8 if max(config.weights.max_levels) <= 127 else np.int32
    sides = [side.astype(narrow, copy=False) for side in (plus, minus) if side is not None]
    done = [
        program_side(side, None if faults is None else faults[i], i, config, streams) for i, side in enumerate(sides)
    ]
    sigma = _column_sigma([var for _, var in done], config, len(codes))
    held = [mean for mean, _ in done]
    few = None if per_cell_reads(config) else fixed_bits(held, config)
    tops = config.weights.max_levels
    if few is None:
        kind = np.float32 if bits <= 24 else np.float64
        held = [to_grid(side, bits, tops).astype(kind, copy=False) for side in held]
        return Cells(held[0], held[1] if len(held) > 1 else None, False, bits, sigma)
    steps = [_to_steps(side, few, tops) for side in held]
    return Cells(steps[0], steps[1] if len(steps) > 1 else None, False, few, sigma, True)


def fixed_bits(sides: list[Float], config: AnalogConfig) -> int | None:
    """Bits after the point with which every cell and every column sum fits 16 bits, for the kernels; None if fewer than
    5 would be left, or the configuration asks for a finer grid."""
    if config.grid != "fast" or config.inputs.dac_bits != 1:
        return None
    signed = len(sides) == 2 or config.inputs.kind == "sign_magnitude"
    cut = HEADROOM * max(config.weights.max_levels)
    largest, longest = 0.0, 1
    for a, b in config.blocks(sides[0].shape[1]):
        for s in range(len(sides[0])):
            parts = [side[s, a:b] for side in sides]
            net = parts[0] if len(parts) == 1 else np.abs(parts[0] - parts[1])
            largest = max(largest, float(net.sum(axis=0).max(initial=0.0)))
        longest = max(longest, b - a)
    limit = (32767 if signed else 65535) - 2 * longest
    if largest <= 0 or limit <= 0:
        return None
    bits = min(math.floor(math.log2(limit / largest)), math.floor(math.log2(32767 / cut)), 12)
    return bits if bits >= 5 else None


def _to_steps(levels: Float, bits: int, tops: tuple[int, ...]) -> NDArray[np.int16]:
    """``to_grid`` in whole steps; ``levels`` are used up."""
    # Readable memory behind the cells: the kernels read rows in groups, columns in vectors.
    room = ROOM_ROWS * levels.shape[2] + 64
    held = np.empty(levels.size + room, dtype=np.int16)[: levels.size].reshape(levels.shape)
    for s, top in enumerate(tops):
        if fast_steps(levels[s], bits, HEADROOM * top * 2.0**bits, held[s]):
            continue
        scaled = np.multiply(levels[s], 2.0**bits, out=levels[s])
        np.rint(scaled, out=scaled)
        held[s] = np.minimum(scaled, HEADROOM * top * 2.0**bits, out=scaled)
    return held


def to_grid(levels: Float, bits: int, tops: tuple[int, ...]) -> NDArray[np.float64]:
    """Round to multiples of ``2**-bits`` levels and cut at ``HEADROOM`` times the slice's highest level."""
    high = np.array(tops, dtype=np.float64).reshape((-1,) + (1,) * (levels.ndim - 1)) * HEADROOM
    scale = float(1 << bits)
    return np.minimum(np.rint(np.asarray(levels, dtype=np.float64) * scale) / scale, high)


def read_cells(
    levels: Float, s: int, crossbar: int, read: int, config: AnalogConfig, streams: Streams, bits: int
) -> NDArray[np.float64]:
    """One crossbar side as one cycle sees it: per-cycle read noise drawn for every cell, (rows, columns) in levels."""
    top = config.weights.max_levels[s]
    noisy = read_once(levels, top, crossbar, read, config, streams)
    return np.asarray(levels, dtype=np.float64) if noisy is None else to_grid(noisy[None], bits, (top,))[0]


def _column_sigma(
    variances: list[NDArray[np.floating] | None], config: AnalogConfig, rows: int
) -> NDArray[np.float32] | None:
    """Root of the mean variance of a column's cells, (blocks, slices, columns), from the sums; both sides of a pair add
    up."""
    found = [part for part in variances if part is not None]
    if not found:
        return None
    counts = np.array([b - a for a, b in config.blocks(rows)], dtype=np.float64)[:, None, None]
    return np.sqrt(np.sum(found, axis=0) / counts).astype(np.float32)
