"""From what the timing loop counted to a report: energy, traffic, utilization, layers, stalls."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.arch.units import component, energy_pj, leakage_mw
from cimc.sim.job import Action, Job
from cimc.sim.result import Bound, Cost, Event, Timing
from cimc.sim.state import BUSY, FINAL, FIRST, ISSUED, LAST, Q_BUSY, STALLS, State
from cimc.sim.tables import LOOP, R_OP, R_UNIT, Ints, Layout


def timing(layout: Layout, chip: ChipSpec, state: State, bound: Bound, events: tuple[Event, ...]) -> Timing:
    """The account of a finished simulation."""
    cycles = int(state.scalar[LAST])
    nanoseconds = cycles / chip.clock_ghz
    jobs = [(layout.prices[price].job, times) for _, price, times in _paid(layout, state, by_layer=False)]
    actions = _actions(jobs)
    remote = sum(job.remote_bytes * times for job, times in jobs)
    energy = energy_of(chip, actions)
    energy["leakage"] = energy.get("leakage", 0.0) + leakage_mw(chip) * nanoseconds  # 1 mW for 1 ns is 1 pJ
    return Timing(
        cycles=cycles,
        latency_ns=nanoseconds,
        instructions=int(state.scalar[ISSUED]),
        energy_pj=energy,
        actions=actions,
        utilization=_utilization(layout, state, cycles),
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
        layers=_layers(layout, chip, state),
        bound=bound,
        host_cycles=int(state.spent[layout.flat.rows[:, R_OP] == Action.HOST, BUSY].sum()),
        stalls=_causes(state.stall.sum(axis=0)),
        tile_stalls=_tile_stalls(layout, state),
        events=events,
    )


def energy_of(chip: ChipSpec, actions: Mapping[str, int]) -> dict[str, float]:
    """Energy in pJ per component: counts · energies, added up in the order of the actions' names."""
    energy: defaultdict[str, float] = defaultdict(float)
    for name in sorted(actions):
        energy[component(name)] += actions[name] * energy_pj(chip, name)
    return dict(energy)


def _paid(layout: Layout, state: State, *, by_layer: bool) -> Iterator[tuple[int, int, int]]:
    """(layer, price, times) of everything that was executed; without ``by_layer`` all in layer 0."""
    layer = layout.row_layer[layout.variant_row] if by_layer else np.zeros_like(layout.variant_cost)
    keys = layer * max(1, len(layout.prices)) + layout.variant_cost
    found, place = np.unique(keys, return_inverse=True)
    times = np.zeros(len(found), np.int64)
    np.add.at(times, place, state.executions)
    for key, n in zip(found.tolist(), times.tolist(), strict=True):
        if n:
            yield key // len(layout.prices), key % len(layout.prices), n


def _actions(jobs: list[tuple[Job, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for job, times in jobs:
        for name, n in job.actions.items():
            total[name] += n * times
    return {name: n for name, n in total.items() if n}


def _classes(layout: Layout) -> tuple[list[str], Ints]:
    """The classes of units, and that of each row: units of one class are reported together. ``core:W0`` is one of
    ``core``; a host call counts as ``host`` though it occupies its tile's path to memory."""
    names: dict[str, int] = {}
    widest = max((len(u) for u in layout.units), default=0)
    of = np.zeros((len(layout.tiles), widest + 1), np.int64)
    for tile, units in enumerate(layout.units):
        for i, name in enumerate(units):
            of[tile, i] = names.setdefault(name.split(":", 1)[0], len(names))
    rows = layout.flat.rows[: len(layout.row_tile)]
    found = of[layout.row_tile, rows[:, R_UNIT]]
    found[rows[:, R_OP] == Action.HOST] = names.setdefault("host", len(names))
    return list(names), found


def _utilization(layout: Layout, state: State, cycles: int) -> dict[str, float]:
    """Busy cycles of a class over cycles · its units in use. A core's unit is a matrix; ``global_memory`` is the shared
    queue, ``remote_buffer`` the queues of the tiles that hold resident buffers, ``memory`` the tiles' paths to both."""
    names, of = _classes(layout)
    spent = state.spent[: len(of), BUSY]
    rows = np.flatnonzero(spent)
    found: dict[str, float] = {}
    for name, number in sorted((n, i) for i, n in enumerate(names)):
        mine = rows[of[rows] == number]
        units = np.unique(layout.row_tile[mine] * (1 << 32) + layout.flat.rows[mine, R_UNIT])
        if len(mine):
            found[name] = int(spent[mine].sum()) / (cycles * (1 if name == "host" else len(units)))
    shared, *homes = state.server[:, Q_BUSY].tolist()
    if shared:
        found["global_memory"] = shared / cycles
    if any(homes):
        found["remote_buffer"] = sum(homes) / (cycles * len(homes))
    return found


def _layers(layout: Layout, chip: ChipSpec, state: State) -> dict[str, Cost]:
    """Cost by layer, in the order in which the layers start. Waiting for a message or a token is no work: a ``recv``
    counts from when its message is copied in, a ``wait`` not at all."""
    jobs: defaultdict[int, list[tuple[Job, int]]] = defaultdict(list)
    for layer, price, times in _paid(layout, state, by_layer=True):
        if layout.prices[price].action not in (Action.HALT, Action.WAIT):
            jobs[layer].append((layout.prices[price].job, times))
    names, of = _classes(layout)
    ops = layout.flat.rows[: len(of), R_OP]
    spent, layers = state.spent[: len(of)], layout.row_layer
    rows = np.flatnonzero((spent[:, FINAL] > 0) & (ops < LOOP) & (ops != Action.HALT) & (ops != Action.WAIT))
    busy = np.zeros((len(layout.layers), len(names)), np.int64)
    first = np.full(len(layout.layers), 1 << 62, np.int64)
    last, stall = np.zeros_like(first), np.zeros((len(layout.layers), len(STALLS)), np.int64)
    np.add.at(busy, (layers[rows], of[rows]), spent[rows, BUSY])
    np.minimum.at(first, layers[rows], spent[rows, FIRST])
    np.maximum.at(last, layers[rows], spent[rows, FINAL])
    np.add.at(stall, layers, state.stall[: len(of)])
    found: dict[str, Cost] = {}
    for layer in sorted(jobs, key=lambda n: (first[n], last[n], layout.layers[n])):
        units = {name: n for name, n in zip(names, busy[layer].tolist(), strict=True) if n}
        energy = energy_of(chip, _actions(jobs[layer]))
        waits = _causes(stall[layer])
        found[layout.layers[layer]] = Cost(units, energy, int(first[layer]), int(last[layer]), waits)
    return found


def _causes(stalls: Ints) -> dict[str, int]:
    return dict(zip(STALLS, stalls.tolist(), strict=True))


def _tile_stalls(layout: Layout, state: State) -> dict[int, dict[str, int]]:
    """What each tile's stream waited for."""
    found = np.zeros((len(layout.tiles), len(STALLS)), np.int64)
    np.add.at(found, layout.row_tile, state.stall[: len(layout.row_tile)])
    return {tile: _causes(found[i]) for i, tile in enumerate(layout.tiles)}
