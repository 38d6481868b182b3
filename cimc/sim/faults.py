"""The stuck cells that a matrix meets on its cores: where its rows and columns lie, and what that costs."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogConfig
from cimc.analog.faults import drawn, read_maps
from cimc.analog.remap import remap, table_bits
from cimc.arch.spec import CoreSpec
from cimc.device import Device, core_shape
from cimc.isa.program import Block
from cimc.sim.tally import FaultTally

Map = NDArray[np.int8]


class Blocks(Protocol):
    """Part of a matrix: its first row and column, and the blocks of the cores that hold it."""

    @property
    def rows(self) -> tuple[int, int]: ...

    @property
    def cols(self) -> tuple[int, int]: ...

    @property
    def held(self) -> tuple[Block, ...]: ...


def placed_faults(
    part: Blocks,
    codes: NDArray[Any],
    physics: AnalogConfig,
    core: CoreSpec,
    device: Device,
    key: tuple[int, int],
) -> tuple[Map, FaultTally]:
    """The faults as ``codes`` of a part meet them, for ``AnalogConfig.stuck``: every block on the cells of its core, in
    order or placed around them as the device says. ``key``: seed and tile."""
    shape = core_shape(core)
    stuck = np.zeros((shape.map[0], shape.map[1], codes.shape[1], codes.shape[0]), np.int8)
    tally = FaultTally()
    moves = {"rows": device.remap in ("rows", "both"), "columns": device.remap in ("columns", "both")}
    for block in part.held:
        faults = core_faults(core, device, *key, block.core)
        rows = slice(block.row - part.rows[0], block.row_end - part.rows[0])
        cols = slice(block.col - part.cols[0], block.col_end - part.cols[0])
        place = remap(codes[rows, cols], physics, faults, rows=moves["rows"], columns=moves["columns"])
        stuck[:, :, cols, rows] = place.stuck
        lines = (block.row_end - block.row, block.col_end - block.col)
        size = lines[0] * lines[1]
        row_table = (lines[0], shape.rows) if moves["rows"] else (0, 1)
        col_table = (lines[1], shape.map[2]) if moves["columns"] else (0, 1)
        away = [int(np.count_nonzero(at != np.arange(len(at)))) for at in (place.rows, place.cols)]
        tally.add(
            FaultTally(
                stuck=int(np.count_nonzero(place.stuck)),
                weights=size,
                before=place.before**2 * size,
                after=place.after**2 * size,
                moved=sum(away),
                spare=int(np.count_nonzero(place.cols >= shape.cols)),
                table_bits=table_bits(*row_table, *col_table),
            )
        )
    return (stuck if shape.sides == 2 else stuck[0]), tally


def core_faults(core: CoreSpec, device: Device, seed: int, tile: int, number: int) -> Map:
    """All faults of one core: from the device's map, or drawn at its rates."""
    shape = core_shape(core)
    if device.stuck_map:
        return read_maps(device.stuck_map).of(shape, tile, number)
    return drawn(shape, device.stuck_off_rate, device.stuck_on_rate, seed, tile, number)
