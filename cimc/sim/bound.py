"""A lower bound on a program's cycles on its hardware, per resource class: work over capacity.

The classes' names are those of the utilization (:mod:`cimc.sim.account`), which leaves out ``noc`` and ``chain``; its
``memory``, a tile's path to both kinds of memory, has no bound of its own. Every bound holds for any schedule of the
program's work on the whole chip, so none is above the simulated cycles:

- ``core``: core-cycles of all MVMs (cycles · cores of the matrix) over all the cores of the chip
- ``matmul``, ``vector``, ``special``: cycles of their instructions over all such units of the chip
- ``port``, ``receive``: cycles that packets take to leave or to be taken in, over all tiles
- ``noc``: link occupation (cycles · hops) over all directed links of the mesh
- ``global_memory``: cycles of the shared queue, and the latency of one access
- ``remote_buffer``: cycles of the tiles' queues for resident buffers, over all tiles
- ``host``: cycles of all host calls
- ``chain``: the longest chain of instructions of which each reads what the one before wrote, in the same tile or by
  a message, or waits for its token, every one as fast as if it were alone. Chains through writes more than the window
  (64 instructions) back are not followed, which can only make the bound smaller
"""

from __future__ import annotations

from math import ceil

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.sim.job import Action
from cimc.sim.result import Bound
from cimc.sim.state import CHAIN, State
from cimc.sim.tables import Ints, Layout, Price


def capacity(chip: ChipSpec) -> dict[str, int]:
    """How many units of each class the chip has."""
    tiles = [chip.tile(t) for t in range(chip.tile_count)]
    rows, columns = chip.tile_count // chip.columns, chip.columns
    return {
        "core": sum(t.cores for t in tiles),
        "matmul": sum(t.matmul is not None for t in tiles),
        "vector": sum(t.vector is not None for t in tiles),
        "special": sum(t.special is not None for t in tiles),
        "port": len(tiles),
        "receive": len(tiles),
        "noc": 2 * ((columns - 1) * rows + (rows - 1) * columns),
        "global_memory": 1,
        "remote_buffer": len(tiles),
        "host": 1,
    }


def bound(layout: Layout, chip: ChipSpec, state: State) -> Bound:
    """The bound of a simulated program: its executions are counted in ``state``, the chain was followed on the way."""
    work = dict.fromkeys(capacity(chip), 0)
    for price, times in zip(layout.prices, executions(layout, state).tolist(), strict=True):
        if times:
            _add(work, price, times)
    if work["global_memory"]:
        work["global_memory"] += chip.memory.latency_cycles
    units = capacity(chip)
    resources = {name: ceil(n / units[name]) for name, n in work.items() if n}
    resources["chain"] = int(state.scalar[CHAIN])
    by = max(resources, key=lambda name: resources[name])
    return Bound(resources[by], by, resources)


def executions(layout: Layout, state: State) -> Ints:
    """How often each of the layout's costs was paid."""
    found = np.zeros(len(layout.prices), np.int64)
    np.add.at(found, layout.variant_cost, state.executions)
    return found


def _add(work: dict[str, int], price: Price, times: int) -> None:
    """Count executions that cost the same towards the classes they use."""
    job, kind = price.job, price.action
    if kind is Action.COMPUTE:
        work[price.unit] += times * job.cycles * (job.cores if price.unit == "core" else 1)
    elif kind is Action.SEND:
        work["port"] += times * job.cycles
        work["noc"] += times * job.cycles * price.links
    elif kind is Action.RECEIVE:
        work["receive"] += times * job.cycles
    elif kind is Action.MEMORY:
        work["global_memory" if job.home < 0 else "remote_buffer"] += times * job.cycles
        work["noc"] += times * price.links * (price.request + price.response)
    elif kind is Action.HOST:
        work["host"] += times * job.cycles
