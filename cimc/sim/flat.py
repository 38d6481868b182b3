"""From a program to flat integer arrays (:mod:`cimc.sim.tables`).

Programs repeat themselves: the same instruction on operands of the same shapes, in many places and tiles. Its job is made
out once (:class:`cimc.sim.job.Foreman`); per instruction, only what differs is looked at: where its operands lie, its
channels and its ways (:mod:`cimc.sim.decode`)."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from cimc import errors
from cimc.arch.spec import ChipSpec
from cimc.isa.program import Program
from cimc.sim import noc
from cimc.sim.decode import Decoder
from cimc.sim.pool import Pool
from cimc.sim.relations import related
from cimc.sim.tables import (
    DERIVED_COLUMNS,
    END,
    R_RANGE,
    R_TREE,
    R_TREE_END,
    RANGE_COLUMNS,
    ROW_COLUMNS,
    VARIANT_COLUMNS,
    Flat,
    Ints,
    Layout,
)

MAX_MESSAGES = 1 << 25


def flatten(program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> Layout:
    """The program as arrays, for the runtime parameters in ``bound``. Raises TIMING_TOO_LARGE."""
    pool = Pool(program, chip, bound)
    tiles = sorted(program.tiles, key=lambda t: t.tile)
    start: list[int] = []
    units: list[list[str]] = []
    depth = 1
    for index, tile in enumerate(tiles):
        start.append(len(pool.instructions))
        decoder = Decoder(pool, index, tile)
        decoder.rows()
        units.append(list(decoder.units))
        depth = max(depth, len(decoder.trips))
    flat = _tables(pool, start)
    return Layout(
        flat,
        tuple(t.tile for t in tiles),
        _ints(pool.row_tile),
        _ints(pool.row_layer),
        pool.instructions,
        tuple(pool.layers),
        tuple(pool.prices),
        _ints(pool.variant_cost),
        _ints(pool.variant_row),
        units,
        depth,
        ranges=int(np.diff(flat.rows[:, R_RANGE]).max(initial=1)),
        widest=int((flat.rows[:, R_TREE_END] - flat.rows[:, R_TREE]).max(initial=1)),
        links=noc.link_count(chip),
        homes=tuple(home for home in pool.servers if home >= 0),
    )


def _ints(values: array[int], columns: int = 0) -> Ints:
    """An array of the numbers collected, in rows of ``columns`` if given."""
    found = np.array(values, np.int64)
    return found.reshape(-1, columns) if columns else found


def _tables(pool: Pool, start: list[int]) -> Flat:
    pool.rows.extend((END, *[0] * (R_RANGE - 1), len(pool.ranges) // RANGE_COLUMNS, *[0] * (ROW_COLUMNS - R_RANGE - 1)))
    pool.affine.extend((0, len(pool.terms) // 2))
    rows, ranges = _ints(pool.rows, ROW_COLUMNS), _ints(pool.ranges, RANGE_COLUMNS)
    begin, relations, moving = related(rows, ranges)
    return Flat(
        tile_start=np.array(start, np.int64),
        rows=rows,
        variants=_ints(pool.variants, VARIANT_COLUMNS),
        ranges=ranges,
        bounds=_ints(pool.bounds, 2),
        affine=_ints(pool.affine, 2),
        terms=_ints(pool.terms, 2),
        derived=_ints(pool.derived, DERIVED_COLUMNS),
        dests=_ints(pool.dests, 2),
        trees=_ints(pool.trees, 2),
        way_part=_ints(pool.way_part),
        way_link=_ints(pool.way_link),
        ring_ptr=_rings(pool),
        related_begin=begin,
        related=relations,
        moving=moving,
    )


def _rings(pool: Pool) -> Ints:
    """Per channel, where its ring of messages begins: room for all that can be in it at once."""
    begin = [0]
    for channel in range(len(pool.channels)):
        messages, smallest = pool.traffic.get(channel, [1, 0])
        if smallest > 0:
            messages = min(messages, pool.chip.noc.channel_bytes // smallest + 2)
        begin.append(begin[-1] + max(1, messages))
    if begin[-1] > MAX_MESSAGES:
        raise errors.TIMING_TOO_LARGE(what="messages in all channels", need=begin[-1], have=MAX_MESSAGES)
    return np.array(begin, np.int64)
