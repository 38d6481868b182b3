"""From what the timing loop counted to a report: energy, traffic, utilization, layers, stalls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec
from cimc.arch.units import component, energy_pj, leakage_mw
from cimc.sim.bound import executions
from cimc.sim.job import Action
from cimc.sim.result import Bound, Cost, Event, Timing, Writing
from cimc.sim.state import BUSY, FINAL, FIRST, ISSUE, ISSUED, LAST, LINK, OTHER, Q_BUSY, STALLS, UNIT, State
from cimc.sim.tables import DERIVE, LOOP, R_OP, R_UNIT, Ints, Layout

HOPS, CROSSINGS = "noc.byte_hop", "link.byte"
"""Actions of bytes that are carried over links: the only ones that depend on where a tile is."""


def timing(layout: Layout, chip: ChipSpec, state: State, bound: Bound, events: tuple[Event, ...]) -> Timing:
    """The account of a finished simulation."""
    cycles = int(state.scalar[LAST])
    nanoseconds = cycles / chip.clock_ghz
    times = executions(layout, state).tolist()
    jobs = [(price.job, n) for price, n in zip(layout.prices, times, strict=True) if n]
    billed = _billed(layout, state)
    actions = billed.total()
    remote = sum(job.remote_bytes * times for job, times in jobs)
    energy = energy_of(chip, actions)
    names, of = _classes(layout)
    waited = _waited(layout, state)
    energy["leakage"] = energy.get("leakage", 0.0) + leakage_mw(chip) * nanoseconds  # 1 mW for 1 ns is 1 pJ
    return Timing(
        cycles=cycles,
        latency_ns=nanoseconds,
        instructions=int(state.scalar[ISSUED]),
        energy_pj=energy,
        actions=actions,
        utilization=_utilization(layout, state, cycles, names, of),
        traffic_bytes={
            "core_registers": sum(j.core_bytes * n for j, n in jobs),
            "local_buffer": actions.get("buffer.read_byte", 0) + actions.get("buffer.write_byte", 0) - remote,
            "remote_buffer": remote,
            "noc": actions.get("noc.byte_hop", 0),
            **({"chip_links": actions.get("link.byte", 0)} if chip.chips > 1 else {}),
            "global_memory": actions.get("memory.read", 0) + actions.get("memory.write", 0),
            "host": actions.get("host.byte", 0),
        },
        macs={
            "static": sum(j.static_macs * n for j, n in jobs),
            "dynamic": actions.get("matmul.mac", 0) + sum(j.written_macs * n for j, n in jobs),
        },
        layers=_layers(layout, state, billed.energy(chip), waited, names, of),
        bound=bound,
        host_cycles=int(state.spent[layout.flat.rows[:, R_OP] == Action.HOST, BUSY].sum()),
        stalls=_causes(waited.sum(axis=0).tolist()),
        tile_stalls=_tile_stalls(layout, waited),
        writings=tuple(_writings(layout, state)),
        events=events,
    )


def _writings(layout: Layout, state: State) -> Iterator[Writing]:
    """When cells were written, by row."""
    for row in layout.writers.tolist():
        if state.spent[row, FINAL]:
            matrix = next(o for o in layout.instruction(row).operands if isinstance(o, str))
            first, last = state.spent[row, FIRST], state.spent[row, FINAL]
            yield Writing(layout.tiles[layout.row_tile[row]], matrix, int(first), int(last))


def energy_of(chip: ChipSpec, actions: Mapping[str, int]) -> dict[str, float]:
    """Energy in pJ per component: counts · energies, added up in the order of the actions' names."""
    energy: defaultdict[str, float] = defaultdict(float)
    for name in sorted(actions):
        energy[component(name)] += actions[name] * energy_pj(chip, name)
    return dict(energy)


@dataclass(frozen=True)
class Billed:
    """What was billed: ``counts`` of the actions in ``names``, by layer (those in ``paid`` only: others executed
    nothing)."""

    names: list[str]
    counts: NDArray[np.generic]  # int64, or Python's integers where these could be too short
    paid: list[int]

    def total(self) -> dict[str, int]:
        """Of all layers together."""
        return {name: n for name, n in zip(self.names, self.counts.sum(axis=0).tolist(), strict=True) if n}

    def energy(self, chip: ChipSpec) -> dict[int, dict[str, float]]:
        """As :func:`energy_of`, of every layer."""
        order = sorted(range(len(self.names)), key=lambda i: self.names[i])
        parts = [component(self.names[i]) for i in order]
        sums = {part: np.zeros(len(self.counts)) for part in parts}
        for i, part in zip(order, parts, strict=True):
            sums[part] = sums[part] + self.counts[:, i].astype(np.float64) * energy_pj(chip, self.names[i])
        columns = {part: column.tolist() for part, column in sums.items()}
        used = (self.counts[:, order] != 0).tolist()
        return {
            layer: {part: columns[part][layer] for part, some in zip(parts, used[layer], strict=True) if some}
            for layer in self.paid
        }


def _billed(layout: Layout, state: State) -> Billed:
    """The actions of everything that was executed, by layer. What only waits or ends bills nothing."""
    layer, prices = layout.row_layer[layout.variant_row], layout.prices
    number: dict[str, int] = {}
    lines = [
        (i, number.setdefault(name, len(number)), n) for i, p in enumerate(prices) for name, n in p.job.actions.items()
    ]
    hops, crossings = (number.setdefault(name, len(number)) for name in (HOPS, CROSSINGS))
    executed = state.executions.astype(object if _long(layout, state) else np.int64)
    bills = np.zeros((len(prices), len(number)), executed.dtype)
    for price, name, n in lines:
        bills[price, name] = n
    ran = np.zeros((len(layout.layers), len(prices)), executed.dtype)
    np.add.at(ran, (layer, layout.variant_cost), executed)
    works = np.array([p.action not in (Action.HALT, Action.WAIT) for p in prices], np.bool_)
    paid = np.flatnonzero((ran[:, works] != 0).any(axis=1)).tolist()
    counts = ran @ bills
    carried = executed * np.array([p.carried for p in prices], np.int64)[layout.variant_cost]
    np.add.at(counts[:, hops], layer, carried * layout.links[layout.variant_row])
    np.add.at(counts[:, crossings], layer, carried * layout.crossings[layout.variant_row])
    return Billed(list(number), counts, paid)


def _long(layout: Layout, state: State) -> bool:
    """Whether a count of actions could exceed 64 bits."""
    over = int(max(layout.links.max(initial=0), layout.crossings.max(initial=0)))
    largest = max((max(over * p.carried, *p.job.actions.values(), 0) for p in layout.prices), default=0)
    return largest * int(state.executions.sum()) >= 1 << 62


def _classes(layout: Layout) -> tuple[list[str], Ints]:
    """The classes of units, and that of each row: units of one class are reported together. ``core:W0`` is one of
    ``core``; a host call counts as ``host`` though it occupies its tile's path to memory."""
    names: dict[str, int] = {}
    of = np.array([names.setdefault(name.split(":", 1)[0], len(names)) for name in layout.units], np.int64)
    found = of[layout.row_unit] if len(of) else np.zeros(len(layout.row_unit), np.int64)
    found[layout.flat.rows[: len(found), R_OP] == Action.HOST] = names.setdefault("host", len(names))
    return list(names), found


def _utilization(layout: Layout, state: State, cycles: int, names: list[str], of: Ints) -> dict[str, float]:
    """Busy cycles of a class over cycles · its units in use. A core's unit is a matrix; ``global_memory`` is the shared
    queue, ``remote_buffer`` the queues of the tiles that hold resident buffers, ``memory`` the tiles' paths to both."""
    spent = state.spent[: len(of), BUSY]
    rows = np.flatnonzero(spent)
    busy = np.zeros(len(names), np.int64)
    np.add.at(busy, of[rows], spent[rows])
    width = int(layout.flat.rows[:, R_UNIT].max(initial=0)) + 1
    units = np.unique((of[rows] * len(layout.tiles) + layout.row_tile[rows]) * width + layout.flat.rows[rows, R_UNIT])
    counts = np.bincount(units // (len(layout.tiles) * width), minlength=len(names)).tolist()
    found: dict[str, float] = {}
    for name, cycles_of, count in sorted(zip(names, busy.tolist(), counts, strict=True)):
        if count:
            found[name] = cycles_of / (cycles * (1 if name == "host" else count))
    shared, *homes = state.server[:, Q_BUSY].tolist()
    if shared:
        found["global_memory"] = shared / cycles
    if any(homes):
        found["remote_buffer"] = sum(homes) / (cycles * len(homes))
    return found


def _waited(layout: Layout, state: State) -> Ints:
    """Per row, the cycles that it waited, by cause."""
    spent, op = state.spent[: len(layout.row_tile)], layout.flat.rows[: len(layout.row_tile), R_OP]
    cause = np.full(DERIVE + 1, len(STALLS))
    cause[[Action.RECEIVE, Action.WAIT, Action.COLLECT]] = STALLS.index("message")
    cause[[Action.SEND, Action.REDUCE]] = STALLS.index("channel")
    cause[Action.MEMORY] = STALLS.index("memory")
    found = np.zeros((len(spent), len(STALLS) + 1), np.int64)
    found[:, : UNIT - ISSUE + 1] = spent[:, ISSUE : UNIT + 1]
    found[:, STALLS.index("link")] = spent[:, LINK]
    found[np.arange(len(spent)), cause[op]] = spent[:, OTHER]
    return found[:, :-1]


def _layers(
    layout: Layout,
    state: State,
    energy: Mapping[int, dict[str, float]],
    waited: Ints,
    names: list[str],
    of: Ints,
) -> dict[str, Cost]:
    """Cost by layer, in the order in which the layers start. Waiting for a message or a token is no work: a ``recv``
    counts from when its message is copied in, a ``wait`` not at all."""
    ops = layout.flat.rows[: len(of), R_OP]
    spent, layers = state.spent[: len(of)], layout.row_layer
    rows = np.flatnonzero((spent[:, FINAL] > 0) & (ops < LOOP) & (ops != Action.HALT) & (ops != Action.WAIT))
    busy = np.zeros((len(layout.layers), len(names)), np.int64)
    first = np.full(len(layout.layers), 1 << 62, np.int64)
    last, stall = np.zeros_like(first), np.zeros((len(layout.layers), len(STALLS)), np.int64)
    np.add.at(busy, (layers[rows], of[rows]), spent[rows, BUSY])
    np.minimum.at(first, layers[rows], spent[rows, FIRST])
    np.maximum.at(last, layers[rows], spent[rows, FINAL])
    runs = np.flatnonzero(np.diff(layers, prepend=-1))  # of rows of the same layer
    np.add.at(stall, layers[runs], np.add.reduceat(waited, runs))
    found: dict[str, Cost] = {}
    begun, ended, cycles, waits = first.tolist(), last.tolist(), busy.tolist(), stall.tolist()
    for layer in sorted(energy, key=lambda n: (begun[n], ended[n], layout.layers[n])):
        units = {name: n for name, n in zip(names, cycles[layer], strict=True) if n}
        causes: dict[str, int] = dict(zip(STALLS, waits[layer], strict=True))
        found[layout.layers[layer]] = Cost(units, energy[layer], begun[layer], ended[layer], causes)
    return found


def _causes(stalls: list[int]) -> dict[str, int]:
    return dict(zip(STALLS, stalls, strict=True))


def _tile_stalls(layout: Layout, waited: Ints) -> dict[int, dict[str, int]]:
    """What each tile's stream waited for."""
    found = np.add.reduceat(waited, layout.flat.tile_start)
    return {tile: _causes(stalls) for tile, stalls in zip(layout.tiles, found.tolist(), strict=True)}
