"""From what the timing loop counted to a report: energy, traffic, utilization, layers."""

from __future__ import annotations

from collections import Counter, defaultdict

from cimc.arch.spec import ChipSpec
from cimc.arch.units import component, energy_pj, leakage_mw
from cimc.sim.flat import Layout
from cimc.sim.job import Action, Job, action
from cimc.sim.result import Bound, Cost, Event, Timing
from cimc.sim.state import BUSY, FINAL, FIRST, ISSUED, LAST, Q_BUSY, STALLS, State

OUTSIDE = ""  # the layer of instructions without an origin


def timing(layout: Layout, chip: ChipSpec, state: State, bound: Bound, events: tuple[Event, ...]) -> Timing:
    """The account of a finished simulation."""
    cycles = int(state.scalar[LAST])
    nanoseconds = cycles / chip.clock_ghz
    actions = _actions(layout, state)
    remote = _remote_bytes(layout, state)
    energy: defaultdict[str, float] = defaultdict(float)
    for name, count in sorted(actions.items()):
        energy[component(name)] += count * energy_pj(chip, name)
    energy["leakage"] += leakage_mw(chip) * nanoseconds  # 1 mW for 1 ns is 1 pJ
    return Timing(
        cycles=cycles,
        latency_ns=nanoseconds,
        instructions=int(state.scalar[ISSUED]),
        energy_pj=dict(energy),
        actions=actions,
        utilization=_utilization(layout, state, cycles),
        traffic_bytes={
            "core_registers": sum(
                j.core_bytes * n for j, n in zip(layout.jobs, state.executions.tolist(), strict=True)
            ),
            "local_buffer": actions.get("buffer.read_byte", 0) + actions.get("buffer.write_byte", 0) - remote,
            "remote_buffer": remote,
            "noc": actions.get("noc.byte_hop", 0),
            "global_memory": actions.get("memory.read", 0) + actions.get("memory.write", 0),
            "host": actions.get("host.byte", 0),
        },
        macs={"static": _static_macs(layout, state), "dynamic": actions.get("matmul.mac", 0)},
        layers=_layers(layout, chip, state),
        bound=bound,
        host_cycles=_host_cycles(layout, state),
        stalls={cause: int(state.stall[i]) for i, cause in enumerate(STALLS)},
        events=events,
    )


def unit_class(name: str) -> str:
    """``core`` for ``core:W0``: units of one class are reported together."""
    return name.split(":", 1)[0]


def _actions(layout: Layout, state: State) -> dict[str, int]:
    total: Counter[str] = Counter()
    for job, times in zip(layout.jobs, state.executions.tolist(), strict=True):
        if times:
            total.update({name: n * times for name, n in job.actions.items()})
    return {name: n for name, n in total.items() if n}


def _remote_bytes(layout: Layout, state: State) -> int:
    return sum(j.remote_bytes * n for j, n in zip(layout.jobs, state.executions.tolist(), strict=True))


def _static_macs(layout: Layout, state: State) -> int:
    return sum(j.static_macs * n for j, n in zip(layout.jobs, state.executions.tolist(), strict=True))


def _host_cycles(layout: Layout, state: State) -> int:
    rows = ((i, r) for r, i in enumerate(layout.instructions) if i is not None and action(i) is Action.HOST)
    return sum(int(state.spent[r, BUSY]) for _, r in rows)


def _utilization(layout: Layout, state: State, cycles: int) -> dict[str, float]:
    """Busy cycles of a class over cycles · its units in use. A core's unit is a matrix; ``global_memory`` is the shared
    queue, ``remote_buffer`` the queues of the tiles that hold resident buffers, ``memory`` the tiles' paths to both."""
    busy: Counter[str] = Counter()
    units: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for row, instruction in enumerate(layout.instructions):
        if instruction is None or not state.spent[row, BUSY]:
            continue
        name = "host" if action(instruction) is Action.HOST else unit_class(layout.unit_name(row))
        busy[name] += int(state.spent[row, BUSY])
        units[name].add((0, 0) if name == "host" else layout.unit(row))
    found = {name: n / (cycles * len(units[name])) for name, n in sorted(busy.items())}
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
    for job, row, times in zip(layout.jobs, layout.job_row, state.executions.tolist(), strict=True):
        if times:
            jobs[row].append((job, times))
    busy: defaultdict[str, Counter[str]] = defaultdict(Counter)
    energy: defaultdict[str, defaultdict[str, float]] = defaultdict(lambda: defaultdict(float))
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for row, executed in jobs.items():
        instruction = layout.instructions[row]
        if instruction is None or action(instruction) in (Action.HALT, Action.WAIT):
            continue
        layer = instruction.origin.node if instruction.origin else OUTSIDE
        unit = unit_class(layout.unit_name(row))
        if state.spent[row, BUSY]:
            busy[layer][unit] += int(state.spent[row, BUSY])
        for job, times in executed:
            for name, count in job.actions.items():
                energy[layer][component(name)] += times * count * energy_pj(chip, name)
        first[layer] = min(first.get(layer, 1 << 62), int(state.spent[row, FIRST]))
        last[layer] = max(last.get(layer, 0), int(state.spent[row, FINAL]))
    order = sorted(first, key=lambda layer: (first[layer], last[layer], layer))
    return {n: Cost(dict(busy[n]), dict(energy[n]), first[n], last[n]) for n in order}
