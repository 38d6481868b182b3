"""The fast timing engine: cycles, energy, traffic and where they go, without values.

The model is defined by :mod:`cimc.sim.reference`; the loop that follows it here is :mod:`cimc.sim.machine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.collecting import uncollected
from cimc.isa.messages import integer, parts
from cimc.isa.program import Program
from cimc.sim import account, bound, machine, params, place
from cimc.sim.flat import flatten
from cimc.sim.result import Event, Progress, Timing
from cimc.sim.state import (
    BAD,
    C_TAKEN,
    F_COST,
    F_ROW,
    ISSUED,
    M_BYTES,
    T_HEAD,
    T_TAIL,
    TRACED,
    State,
    W,
    fresh,
)
from cimc.sim.tables import R_CHANNEL, R_DEST, R_DEST_END, V_SIZE, Layout

SLICE = 1 << 19  # steps between two looks at the clock and the keyboard
TRACE_ROWS = 1 << 16  # steps between two looks at the trace buffer: each ends one instruction at most
Sink = Callable[[list[Event]], None]
"""Takes events, in the order in which their ends became known."""


@uncollected()
def run_timing(
    program: Program,
    chip: ChipSpec,
    *,
    param_values: Mapping[str, int] | None = None,
    trace: bool = False,
    sink: Sink | None = None,
    progress: Progress | None = None,
) -> Timing:
    """Simulate a program's time. ``trace`` keeps every executed instruction in ``Timing.events``; ``sink`` gets them
    instead, in pieces, so that a long trace needs no memory.

    Raises DEADLOCK, INSTRUCTION_FAILED (a message of another size than its recv's view), PARAM_…, TIMING_TOO_LARGE.
    """
    if progress and not machine.compiled():
        progress("compile", 0, 0)  # or loaded from disk, in a second
    layout = flatten(program, chip, params.bind(program, param_values))
    events: list[Event] = []
    taker = sink or (events.extend if trace else None)
    state = simulate(layout, chip, taker, progress)
    _check_ended(layout, state)
    lower = bound.bound(layout, chip, state)
    return account.timing(layout, chip, state, lower, tuple(events))


def simulate(layout: Layout, chip: ChipSpec, sink: Sink | None, progress: Progress | None) -> State:
    """Run the loop until no event is left. Raises INSTRUCTION_FAILED for a message of the wrong size."""
    state = fresh(layout, TRACE_ROWS if sink else 0)
    mesh, crossing = chip.noc, chip.link.latency_cycles if chip.link else 0
    given = (mesh.router_cycles, mesh.channel_bytes, chip.memory.latency_cycles, noc.first_chip_link(chip), crossing)
    given = (*given, mesh.reduce.cycles if mesh.reduce else 0)
    rates = np.array(given, np.int64)
    outcome = machine.MORE
    while outcome == machine.MORE:
        outcome = machine.advance(layout.flat, state, rates, TRACE_ROWS if sink else SLICE)
        if sink:
            _drain(layout, state, sink)
        if progress:
            progress("timing", int(state.scalar[ISSUED]), 0)
    if outcome == machine.MISMATCH:
        raise _mismatch(layout, state)
    return state


def _drain(layout: Layout, state: State, sink: Sink) -> None:
    found: list[Event] = []
    for tile, row, start, end in state.trace[: state.scalar[TRACED]].tolist():
        step, name = layout.instruction(row), layout.unit_name(row)
        found.append(Event(layout.tiles[tile], name, start, end, step.mnemonic, step.origin, step.line))
    state.scalar[TRACED] = 0
    sink(found)


def _mismatch(layout: Layout, state: State) -> Exception:
    flat, slot = layout.flat, int(state.scalar[BAD])
    row = int(state.flight[slot, F_ROW])
    instruction = layout.instruction(row)
    want = int(flat.costs[state.flight[slot, F_COST], V_SIZE])
    ends = flat.dests[flat.rows[row, R_DEST] : flat.rows[row, R_DEST_END], 0].tolist()
    of = parts(instruction) if ends else (integer(instruction, "source"),)
    sizes = [_next(layout, state, channel) for channel in ends or [int(flat.rows[row, R_CHANNEL])]]
    source, got = next((s, n) for s, n in zip(of, sizes, strict=True) if n != want)
    why = f"the message from tile {source} has {got} bytes, the view {want}"
    return place.failed(layout.tiles[layout.row_tile[row]], layout.step_number(row), instruction, why)


def _next(layout: Layout, state: State, channel: int) -> int:
    """Bytes of the next message of a channel."""
    begin, stop = layout.flat.ring_ptr[channel : channel + 2]
    return int(state.message[begin + state.channel[channel, C_TAKEN] % (stop - begin), M_BYTES])


def _check_ended(layout: Layout, state: State) -> None:
    """Raises DEADLOCK, with the oldest instruction of every tile that has not ended."""
    stuck: list[place.Stuck] = []
    for t, tile in enumerate(layout.tiles):
        head = int(state.tile[t, T_HEAD])
        if head == state.tile[t, T_TAIL]:
            continue
        row = int(state.flight[t * W + head % W, F_ROW])
        step = layout.instruction(row)
        stuck.append(place.Stuck(tile, layout.step_number(row), step, place.waits(step)))
    if stuck:
        raise place.deadlock(stuck, len(layout.tiles))
