"""One MVM, one cell and one bit at a time: the definition. Never optimised.

For every input vector, row block, slice and input plane, a column sums ``drive * conductance`` over its rows, one ADC
converts the sum, and codes are shifted and added:

    A[b, s] = sum over planes k of  weight[k] * code[b, s, k]
    Y       = sum over b, s of      step[b, s] * 2**shift[s] * A[b, s]       (multiplied last where all steps are equal)

then the unit column, the leak of a finite on/off ratio and the digital offset are taken off. The codes of a slice's
redundant copies become one before they are added (redundancy.py).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cimc.analog.adc import Transfer, codes_of, common_step, index_of, saturated, transfers
from cimc.analog.config import AnalogConfig
from cimc.analog.crossbar import Cells, read_cells, sum_dtype
from cimc.analog.encoding import Plane, drive, planes
from cimc.analog.redundancy import top_config
from cimc.analog.rng import Streams, conversion_noise


def reference_mvm(
    inputs: NDArray[np.int64], cells: Cells, config: AnalogConfig, streams: Streams, first_read: int = 0
) -> tuple[NDArray[np.float64], int]:
    """``inputs`` (vectors, in) through programmed ``cells``: results (vectors, out) and the clipped conversions.

    ``first_read`` is the number of vectors this core has seen before: it keys the read noise.
    """
    columns = cells.shape[2]
    results = np.zeros((len(inputs), columns))
    clipped = 0
    for v, vector in enumerate(inputs):
        for column in range(columns):
            results[v, column], more = _column(vector, column, v + first_read, cells, config, streams)
            clipped += more
    step = common_step(transfers(config, inputs.shape[1]))
    return _finish(results * (1.0 if step is None else step), inputs, config), clipped


def _column(
    vector: NDArray[np.int64], column: int, read: int, cells: Cells, config: AnalogConfig, streams: Streams
) -> tuple[float, int]:
    total, clipped = 0.0, 0
    table = transfers(config, len(vector))
    common = common_step(table)
    for b, (first, past) in enumerate(config.blocks(len(vector))):
        in_block = 0.0
        for s, shift in enumerate(config.weights.shifts):
            transfer = None if table is None else table[b][s]
            added = 0.0
            copies = _copies(s, cells, config, streams)
            mean = config.redundancy.combine == "mean"
            for k, plane in enumerate(planes(config.inputs)):
                driven = drive(vector[first:past], plane)
                position = (read, k, len(planes(config.inputs)))
                codes: list[float] = []
                for part, held, own, own_streams in copies:
                    at = (b, first, past, part)
                    code, over = _code(driven, plane, at, column, position, transfer, held, own, own_streams)
                    codes.append(code)
                    clipped += over
                added += plane.weight * (sum(codes) if mean else sorted(codes)[len(codes) // 2])
            if mean and len(copies) > 1:
                added /= len(copies)
            in_block += (1.0 if transfer is None or common is not None else transfer.step) * 2.0**shift * added
        total += in_block
    return total, clipped


def _copies(
    s: int, cells: Cells, config: AnalogConfig, streams: Streams
) -> list[tuple[int, Cells, AnalogConfig, Streams]]:
    """Who holds slice ``s``: the core itself and, of the top slices, their redundant copies; each with the slice's number
    there, its cells, configuration and streams."""
    found = [(s, cells, config, streams)]
    below = len(config.weights.slice_bits) - config.redundancy.slices
    for number, copy in enumerate(cells.copies if s >= below else (), start=1):
        found.append((s - below, copy, top_config(config), replace(streams, copy=number)))
    return found


def _code(
    driven: NDArray[np.int64],
    plane: Plane,
    at: tuple[int, int, int, int],
    column: int,
    position: tuple[int, int, int],
    transfer: Transfer | None,
    cells: Cells,
    config: AnalogConfig,
    streams: Streams,
) -> tuple[float, int]:
    """One conversion of the crossbar ``at`` (block, its rows, slice): its code, and whether it was clipped."""
    b, first, past, s = at
    crossbar = b * len(config.weights.slice_bits) + s
    sides = _column_cells((first, past), s, column, crossbar, position, cells, config, streams)
    summed = 0.0
    for row in range(past - first):
        for bit in range(plane.bits):
            sign = 1 if driven[row] >= 0 else -1
            summed += sign * ((abs(int(driven[row])) >> bit) & 1) * 2**bit * sides[row]
    sigma = None if cells.read_sigma is None else cells.read_sigma[b, s, column]
    noise = _noise(driven, sigma, position, crossbar, column, cells, config, streams, transfer)
    return _convert(summed, noise, transfer, config, cells.shape[1])


def _column_cells(
    rows: tuple[int, int],
    s: int,
    column: int,
    crossbar: int,
    position: tuple[int, int, int],
    cells: Cells,
    config: AnalogConfig,
    streams: Streams,
) -> list[float]:
    """What each cell of the column conducts in this cycle: plus minus minus."""
    read, k, count = position
    per_cell = config.device.read is not None and config.device.read_mode == "cell"
    found = [0.0] * (rows[1] - rows[0])
    for sign, levels in cells.sides(s, rows):
        if per_cell:
            number = crossbar * 2 + (sign < 0)
            levels = read_cells(levels, s, number, read * count + k, config, streams, cells.grid_bits)
        found = [old + sign * float(level) for old, level in zip(found, levels[:, column], strict=True)]
    return found


def _noise(
    driven: NDArray[np.int64],
    sigma: np.float32 | None,
    position: tuple[int, int, int],
    crossbar: int,
    column: int,
    cells: Cells,
    config: AnalogConfig,
    streams: Streams,
    transfer: Transfer | None,
) -> NDArray[np.float32] | None:
    """Noise of this conversion in LSB: read noise summed over the driven cells, and the converter's own."""
    own = 0.0 if config.adc is None else config.adc.noise_lsb
    if sigma is None and own == 0.0:
        return None
    read, k, count = position
    step = np.float32(1.0 if transfer is None else transfer.step)
    drive_root = np.float32(np.sqrt(np.sum(driven.astype(np.float64) ** 2)))
    spread = drive_root * (np.float32(0.0) if sigma is None else sigma / step)
    if own:
        spread = np.sqrt(spread * spread + np.float32(own) * np.float32(own))
    number = (read * count + k) * cells.shape[2] + column
    return spread * conversion_noise(streams.key("conversion", crossbar), number, 1)


def _convert(
    summed: float, noise: NDArray[np.float32] | None, transfer: Transfer | None, config: AnalogConfig, inputs: int
) -> tuple[float, int]:
    """Code of one sum, and whether it was clipped. Without an ADC: the sum itself."""
    if transfer is None:
        return summed + (0.0 if noise is None else float(noise[0])), 0
    value = np.array([summed], dtype=sum_dtype(config, inputs))
    index = index_of(value, transfer, noise)
    return float(codes_of(index, transfer)[0]), saturated(index, transfer)


def _finish(results: NDArray[np.float64], inputs: NDArray[np.int64], config: AnalogConfig) -> NDArray[np.float64]:
    """Unit column, leak and offset taken off."""
    encoding, leak = config.weights, config.device.gmin_norm
    sums = inputs.sum(axis=1, dtype=np.float64)[:, None]
    if encoding.unit_column:
        return (results[:, :-1] - results[:, -1:]) / (1.0 - leak)
    if encoding.kind == "differential":
        return results / (1.0 - leak) if leak else results
    if leak:
        weight = sum(leak * top * 2.0**shift for top, shift in zip(encoding.max_levels, encoding.shifts, strict=True))
        results = (results - weight * sums) / (1.0 - leak)
    return results - encoding.offset * sums
