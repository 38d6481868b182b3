"""From a program to flat integer arrays (:mod:`cimc.sim.tables`).

Programs repeat themselves: the same instruction on operands of the same shapes, in many places and tiles. Their text is
listed row by row (:mod:`cimc.sim.listing`) and decoded mnemonic by mnemonic (:mod:`cimc.sim.decode`); what rows cost is made
out once for all that are alike (:class:`cimc.sim.job.Foreman`). Here the pieces are put into the order of the rows."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

import numpy as np

from cimc import errors
from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.isa.program import Program
from cimc.sim.decode import Decoder
from cimc.sim.job import Action
from cimc.sim.listing import Listing
from cimc.sim.pool import Pool, distinct
from cimc.sim.relations import ends_last, related
from cimc.sim.tables import (
    COST_COLUMNS,
    DERIVED_COLUMNS,
    END,
    N_INPUTS,
    N_PLACE,
    N_TOTAL,
    R_CHANNEL,
    R_DEST,
    R_DEST_END,
    R_OP,
    R_RANGE,
    R_SLOT,
    R_TARGET,
    R_TREE,
    R_TREE_END,
    R_TRIPS,
    R_UNIT,
    R_VARIANT,
    V_SIZE,
    VARIANT_BOUNDS,
    Flat,
    Ints,
    Layout,
    lined,
)
from cimc.sim.varying import decode_varying

MAX_MESSAGES = 1 << 25


def flatten(program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> Layout:
    """The program as arrays, for the runtime parameters in ``bound``. Raises TIMING_TOO_LARGE."""
    pool, listing = Pool(program, chip, bound), Listing(program, bound)
    decoder = Decoder(pool, listing)
    decoder.run()
    decode_varying(decoder)
    units = _units(decoder)
    cost, owner = _costs(decoder)
    flat = _tables(decoder, cost, owner)
    columns, travels = decoder.columns, decoder.travels
    layer, links, crossings = np.zeros((3, listing.rows), np.int64)
    layer[listing.at], links[listing.at], crossings[listing.at] = columns.layer, travels.links, travels.crossings
    return Layout(
        flat,
        tuple(decoder.names.tiles),
        listing.row_tile,
        layer,
        listing.steps,
        listing.at,
        links,
        crossings,
        tuple(columns.layers),
        tuple(pool.prices),
        cost,
        owner,
        tuple(columns.units),
        units,
        listing.at[columns.writers],
        listing.depth,
        ranges=int(decoder.local_views.max(initial=1)),
        widest=int((flat.rows[:, R_TREE_END] - flat.rows[:, R_TREE]).max(initial=1)),
        links_of_chip=noc.link_count(chip),
        met=_met(flat),
        homes=tuple(home for home in travels.servers if home >= 0),
    )


def _met(flat: Flat) -> int:
    """Places for sums under way, in all routers together."""
    if not len(flat.routers):
        return 0
    last = flat.routers[-1]
    return int(last[N_PLACE] + np.diff(flat.ring_ptr)[last[N_TOTAL]])


def _ints(values: array[int], columns: int = 0) -> Ints:
    """An array of the numbers collected, in rows of ``columns`` if given."""
    found = np.array(values, np.int64)
    return found.reshape(-1, columns) if columns else found


def _before(counts: Ints) -> Ints:
    """Where each begins if they follow each other."""
    return np.cumsum(counts) - counts


def _units(decoder: Decoder) -> Ints:
    """Number the units of each tile, in the place of all names in the rows; those of all rows."""
    listing, columns = decoder.listing, decoder.columns
    first, of = distinct(listing.tile * len(columns.units) + columns.unit)
    tiles = listing.tile[first]  # ascending
    decoder.rows[listing.at, R_UNIT] = (np.arange(len(first)) - np.searchsorted(tiles, tiles))[of]
    found = np.zeros(listing.rows, np.int64)
    found[listing.at] = columns.unit
    return found


def _costs(decoder: Decoder) -> tuple[Ints, Ints]:
    """Of all variants, row by row: cost and row."""
    counts = decoder.variants
    begin = _before(counts)
    decoder.rows[:-1, R_VARIANT] = np.where(counts > 0, begin, 0)
    owner = np.repeat(np.arange(len(counts)), counts)
    cost = decoder.cost[owner]
    for row, (costs, _) in decoder.varying.items():
        cost[begin[row] : begin[row] + len(costs)] = costs
    return cost, owner


def _tables(decoder: Decoder, cost: Ints, owner: Ints) -> Flat:
    pool, listing, rows = decoder.pool, decoder.listing, decoder.rows
    controls = np.array(listing.controls, np.int64).reshape(-1, 5)
    for i, column in enumerate((R_OP, R_SLOT, R_TARGET, R_TRIPS)):
        rows[controls[:, 0], column] = controls[:, i + 1]
    rows[-1, R_OP] = END
    rows[:, R_RANGE] = _before(decoder.local_views)
    ranges = decoder.ranges
    costs = np.array(pool.priced, np.int64).reshape(-1, COST_COLUMNS)
    variants = np.column_stack((cost, _before(decoder.local_views[owner])))
    listing.affines.affine.extend((0, len(listing.affines.terms) // 2))
    last = ends_last(rows, costs[cost], owner, listing.row_tile)
    short = lined(*rows.shape, np.int32)
    short[:] = rows  # all of them numbers of things in memory
    begin, relations = related(short, ranges, decoder.bounds, last, decoder.variants, listing.row_tile)
    travels = decoder.travels
    rings = _rings(decoder, costs[cost, V_SIZE])
    return Flat(
        tile_start=np.array(listing.start, np.int64),
        rows=short,
        variants=variants,
        costs=costs,
        ranges=ranges,
        bounds=_bounds(decoder, variants),
        affine=_ints(listing.affines.affine, 2),
        terms=_ints(listing.affines.terms, 2),
        derived=_ints(listing.derived, DERIVED_COLUMNS),
        dests=travels.dests,
        trees=travels.trees,
        way_part=travels.ways.begin,
        way_link=travels.ways.links,
        routers=_places(travels.routers, rings),
        ring_ptr=rings,
        related_begin=begin,
        related=relations,
    )


def _places(routers: Ints, rings: Ints) -> Ints:
    """Routers of sums with the places for what meets in them: as many as sums can be under way, where several meet."""
    length = np.where(routers[:, N_INPUTS] > 1, np.diff(rings)[routers[:, N_TOTAL]], 0)
    found = routers.copy()
    found[:, N_PLACE] = _before(length)
    return found


def _bounds(decoder: Decoder, variants: Ints) -> Ints:
    """The bounds of all variants."""
    if not decoder.varying:
        return decoder.bounds
    rows, views = decoder.rows, decoder.local_views
    found = np.zeros((int((views[:-1] * decoder.variants).sum()), 2), np.int64)
    owner = np.repeat(np.arange(len(views)), views)
    place = np.arange(len(owner)) - rows[owner, R_RANGE]
    found[variants[rows[owner, R_VARIANT], VARIANT_BOUNDS] + place] = decoder.bounds
    for row, (_, bounds) in decoder.varying.items():
        if views[row]:
            first = int(variants[rows[row, R_VARIANT], VARIANT_BOUNDS])
            found[first : first + len(bounds) * int(views[row])] = [pair for of in bounds for pair in of]
    return found


def _rings(decoder: Decoder, size: Ints) -> Ints:
    """Per channel, where its ring of messages begins: room for all that can be in it at once. ``size``: of the message of
    every variant."""
    rows, listing, travels = decoder.rows, decoder.listing, decoder.travels
    which = np.flatnonzero((travels.action == Action.SEND) | (travels.action == Action.REDUCE))
    sends = listing.at[which]
    parts = rows[sends, R_DEST_END] - rows[sends, R_DEST]
    places = np.arange(int(parts.sum())) + np.repeat(rows[sends, R_DEST] - _before(parts), parts)
    channels, times = travels.dests[places, 0], listing.times(which)
    sizes = size[rows[sends, R_VARIANT]]
    for row, (costs, _) in decoder.varying.items():
        sizes[sends == row] = min(decoder.pool.prices[c].job.bytes for c in costs)
    messages = np.zeros(travels.channel_count, np.int64)
    smallest = np.full(travels.channel_count, 1 << 60)
    np.add.at(messages, channels, np.repeat(times, parts))
    np.minimum.at(smallest, channels, np.repeat(sizes, parts))
    fit = decoder.pool.chip.noc.channel_bytes // np.maximum(smallest, 1) + 2
    room = np.where(smallest > 0, np.minimum(messages, fit), messages)
    parts = listing.at[np.flatnonzero(travels.action == Action.REDUCE)]
    np.maximum.at(room, rows[parts, R_CHANNEL], room[travels.dests[rows[parts, R_DEST], 0]])  # of the sums themselves
    begin = np.concatenate(([0], np.cumsum(np.maximum(room, 1))))
    if begin[-1] > MAX_MESSAGES:
        raise errors.TIMING_TOO_LARGE(what="messages in all channels", need=int(begin[-1]), have=MAX_MESSAGES)
    return begin
