"""A lower bound on a program's cycles on its hardware, per resource class: work over capacity.

The classes' names are those of the utilization (:mod:`cimc.sim.account`), which leaves out ``noc`` and ``chain``; its
``memory``, a tile's path to both kinds of memory, has no bound of its own. Every bound holds for any schedule of the
program's work on the whole chip, so none is above the simulated cycles:

- ``core``: core-cycles of all MVMs and writings (cycles the matrix is taken · its cores) over all the cores of the chip
- ``adc``: conversions · the time of one on the tile's kind of core, over all the converters of the chip. A core's
  conversions of a row fit its interval, as each converter's columns do
- ``matmul``, ``vector``, ``special``: cycles of their instructions over all such units of the chip
- ``port``, ``receive``: cycles that packets take to leave or to be taken in, over all tiles
- ``noc``: link occupation (cycles · hops) over all directed links of the mesh within the chips
- ``link``: of all directed links from chip to chip: the occupation of the one with most of it
- ``bisection``: of all straight cuts through the mesh and both ways across: occupation of the links that cross, over
  their number. Which packets cross follows from the tiles they go between
- ``global_memory``: the longest sum of a chain up to an access of global memory, the cycles of the queue, which all tiles
  share, for all accesses whose chain is at least as long, and the latency of one: the bound for one machine and jobs
  with release dates (Carlier, EJOR 11(1), 1982). So what is stored at the end of a model does not count as if it could be stored
  all along. Chains are rounded down to a part in 2048 of the longest, at least, which makes the bound smaller
- ``remote_buffer``: cycles of the tiles' queues for resident buffers, over all tiles
- ``host``: cycles of all host calls
- ``chain``: the longest chain of instructions of which each reads what the one before wrote, in the same tile or by
  a message, or waits for its token, every one as fast as if it were alone; products with the same matrix follow each
  other in it, because its cells take one row after the other. Chains through writes more than the window
  (64 instructions) back are not followed, which can only make the bound smaller
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil

import numpy as np

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.sim.job import Action
from cimc.sim.result import Bound
from cimc.sim.state import CHAIN, STEP, State
from cimc.sim.tables import (
    R_OP,
    R_TREE,
    R_TREE_END,
    R_WAY,
    V_CROSS,
    V_CROSS_BACK,
    V_CYCLES,
    V_REQUEST,
    V_RESPONSE,
    Ints,
    Layout,
    Price,
)


def capacity(chip: ChipSpec) -> dict[str, int]:
    """How many units of each class the chip has."""
    kinds = [(t, chip.count(t)) for t in chip.tiles.values()]
    tiles, rows, columns = chip.tile_count, chip.tile_count // chip.columns, chip.columns
    return {
        "core": sum(t.cores * n for t, n in kinds),
        "adc": sum(t.cores * t.core.adcs * n for t, n in kinds if t.core),
        "matmul": sum(n for t, n in kinds if t.matmul),
        "vector": sum(n for t, n in kinds if t.vector),
        "special": sum(n for t, n in kinds if t.special),
        "port": tiles,
        "receive": tiles,
        "noc": 2 * ((columns - chip.chips) * rows + (rows - 1) * columns),
        "global_memory": 1,
        "remote_buffer": tiles,
        "host": 1,
    }


def bound(layout: Layout, chip: ChipSpec, state: State) -> Bound:
    """The bound of a simulated program: its executions are counted in ``state``, the chain was followed on the way."""
    units = capacity(chip)
    work = dict.fromkeys(units, 0)
    converted: Counter[str] = Counter()  # by kind of tile
    for price, times in zip(layout.prices, executions(layout, state).tolist(), strict=True):
        if times:
            _add(work, price, times)
            converted[price.kind] += times * price.job.actions.get("adc.convert", 0)
    if work["global_memory"]:
        work["global_memory"] = _in_turn(state) + chip.memory.latency_cycles
    work["adc"] = _conversion_cycles(chip, converted)
    occupied, between = occupation(layout, chip, state), noc.first_chip_link(chip)
    work["noc"] = int(occupied[:between].sum())
    resources = {name: ceil(n / units[name]) for name, n in work.items() if n}
    if crossing := _bisection(chip, occupied):
        resources["bisection"] = crossing
    if fullest := int(occupied[between:].max(initial=0)):
        resources["link"] = fullest
    resources["chain"] = int(state.scalar[CHAIN])
    by = max(resources, key=lambda name: resources[name])
    return Bound(resources[by], by, resources)


def _in_turn(state: State) -> int:
    """Cycles after which global memory can have served all accesses, each not before its chain."""
    places = np.flatnonzero(state.due)
    left = np.cumsum(state.due[places][::-1])[::-1]
    return int(((places << int(state.scalar[STEP])) + left).max(initial=0))


def executions(layout: Layout, state: State) -> Ints:
    """How often each of the layout's costs was paid."""
    found = np.zeros(len(layout.prices), np.int64)
    np.add.at(found, layout.variant_cost, state.executions)
    return found


def _add(work: dict[str, int], price: Price, times: int) -> None:
    """Count executions that cost the same towards the classes they use."""
    job, kind = price.job, price.action
    if kind is Action.COMPUTE:
        work[price.unit] += times * (job.busy * job.cores if price.unit == "core" else job.cycles)
    elif kind is Action.SEND or kind is Action.REDUCE:
        work["port"] += times * job.cycles
    elif kind is Action.RECEIVE or kind is Action.COLLECT:
        work["receive"] += times * job.cycles
    elif kind is Action.MEMORY:
        work["global_memory" if job.home < 0 else "remote_buffer"] += times * job.cycles
    elif kind is Action.HOST:
        work["host"] += times * job.cycles


def _conversion_cycles(chip: ChipSpec, converted: Mapping[str, int]) -> int:
    """Cycles of one converter for all conversions, by kind of tile; rounded down, as a row's interval is rounded up."""
    total = 0.0
    for kind, count in converted.items():
        core = chip.tiles[kind].core
        if core is not None and core.adc is not None:
            total += count * core.adc.conversion_ns * chip.clock_ghz
    return int(total * (1 - 1e-9))


def occupation(layout: Layout, chip: ChipSpec, state: State) -> Ints:
    """Per directed link (:mod:`cimc.sim.noc`), the cycles that packets occupied it."""
    found = _occupied(layout, state, (V_CYCLES, V_REQUEST, V_RESPONSE))
    if chip.chips > 1:
        first = noc.first_chip_link(chip)
        found[first:] = _occupied(layout, state, (V_CROSS, V_CROSS, V_CROSS_BACK))[first:]
    return found


def _occupied(layout: Layout, state: State, columns: tuple[int, int, int]) -> Ints:
    """Per link, the cycles of all packets over it: a message's, a request's and a response's stand in these columns."""
    flat = layout.flat
    found = np.zeros(layout.links_of_chip, np.int64)
    packets = np.zeros((3, len(flat.rows)), np.int64)  # per row: cycles of messages, of requests, of responses
    for i, column in enumerate(columns):
        np.add.at(packets[i], layout.variant_row, state.executions * flat.costs[layout.variant_cost, column])
    op = flat.rows[:, R_OP]
    sends = np.flatnonzero((op == Action.SEND) | (op == Action.REDUCE))
    rises = np.zeros(len(flat.trees) + 1, np.int64)  # of the occupation, from one entry of the trees to the next
    np.add.at(rises, flat.rows[sends, R_TREE], packets[0, sends])
    np.subtract.at(rises, flat.rows[sends, R_TREE_END], packets[0, sends])
    np.add.at(found, flat.trees[:, 0], np.cumsum(rises)[:-1])
    accesses = np.flatnonzero((op == Action.MEMORY) & (flat.rows[:, R_WAY] >= 0))
    ways = np.zeros(len(flat.way_part) - 1, np.int64)
    np.add.at(ways, 2 * flat.rows[accesses, R_WAY], packets[1, accesses])
    np.add.at(ways, 2 * flat.rows[accesses, R_WAY] + 1, packets[2, accesses])
    np.add.at(found, flat.way_link, np.repeat(ways, np.diff(flat.way_part)))
    return found


def _bisection(chip: ChipSpec, occupied: Ints) -> int:
    """The most that a straight cut's links have to carry in one direction, over their number."""
    rows = chip.tile_count // chip.columns
    mesh = occupied[: 4 * chip.tile_count].reshape(rows, chip.columns, 4)
    across = mesh[:, :, :2].sum(axis=0).max(initial=0)  # the links of a column to the east, to the west
    down = mesh[:, :, 2:].sum(axis=1).max(initial=0)
    return max(ceil(int(across) / rows), ceil(int(down) / chip.columns))
