"""The fast timing engine: cycles, energy, traffic and where they go, without values.

The model is defined by :mod:`cimc.sim.reference`; the loop that follows it here is :mod:`cimc.sim.machine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.isa.program import Program
from cimc.sim import account, bound, machine, params, place
from cimc.sim.flat import R_VARIANT, Layout, flatten
from cimc.sim.job import number
from cimc.sim.result import Event, Timing
from cimc.sim.state import BAD_BYTES, BAD_ROW, F_ROW, ISSUED, T_HEAD, T_TAIL, TRACED, State, W, fresh

Progress = Callable[[str, int, int], None]
"""``progress("timing", instructions issued, 0)``, from time to time; ``progress("compile", 0, 0)`` before the first run of
a process, in which the loop's machine code is loaded or, once on a machine, compiled."""
SLICE = 1 << 19  # events between two looks at the clock, the keyboard and the trace buffer
TRACE_ROWS = 1 << 16
Sink = Callable[[list[Event]], None]
"""Takes events, in the order in which their ends became known."""


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
    layout = flatten(program, chip, params.bind(program, param_values))
    events: list[Event] = []
    taker = sink or (events.extend if trace else None)
    state = simulate(layout, chip, taker, progress)
    _check_ended(layout, state)
    lower = bound.bound(layout, chip, state)
    return account.timing(layout, chip, state, lower, tuple(events))


def simulate(layout: Layout, chip: ChipSpec, sink: Sink | None, progress: Progress | None) -> State:
    """Run the loop until no event is left. Raises INSTRUCTION_FAILED for a message of the wrong size."""
    room = TRACE_ROWS + 2 * len(layout.tiles) * (W + 1) if sink else 0
    state = fresh(layout, room)
    noc = chip.noc
    rates = np.array(
        [noc.router_cycles, noc.link_bytes_per_cycle, noc.channel_bytes, chip.memory.latency_cycles], np.int64
    )
    if progress and not machine.compiled():
        progress("compile", 0, 0)  # or loaded from disk, in a second
    outcome = machine.MORE
    while outcome in (machine.MORE, machine.FULL):
        outcome = machine.advance(layout.flat, state, rates, SLICE)
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
        instruction = layout.instructions[row]
        if instruction is not None:
            name = layout.unit_name(row)
            found.append(
                Event(layout.tiles[tile], name, start, end, instruction.mnemonic, instruction.origin, instruction.line)
            )
    state.scalar[TRACED] = 0
    sink(found)


def _mismatch(layout: Layout, state: State) -> Exception:
    row = int(state.scalar[BAD_ROW])
    instruction = layout.instructions[row]
    assert instruction is not None
    tile = layout.row_tile[row]
    want = layout.jobs[int(layout.flat.rows[row, R_VARIANT])].bytes
    got, source = int(state.scalar[BAD_BYTES]), number(instruction, "source")
    why = f"the message from tile {source} has {got} bytes, the view {want}"
    return place.failed(layout.tiles[tile], step_number(layout, row), instruction, why)


def step_number(layout: Layout, row: int) -> int:
    """Which instruction of its tile's stream a row is, counting from 1 and leaving repeats out."""
    first = int(layout.flat.tile_start[layout.row_tile[row]])
    return sum(i is not None for i in layout.instructions[first : row + 1])


def _check_ended(layout: Layout, state: State) -> None:
    """Raises DEADLOCK, with the oldest instruction of every tile that has not ended."""
    stuck: list[place.Stuck] = []
    for t, tile in enumerate(layout.tiles):
        head = int(state.tile[t, T_HEAD])
        if head == state.tile[t, T_TAIL]:
            continue
        row = int(state.flight[t, head % W, F_ROW])
        instruction = layout.instructions[row]
        assert instruction is not None
        stuck.append(place.Stuck(tile, step_number(layout, row), instruction, place.waits(instruction)))
    if stuck:
        raise place.deadlock(stuck, len(layout.tiles))
