"""The fast engine does what the reference does, on random programs; the bound is below both."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cimc.errors import CimcError
from cimc.isa.program import Program
from cimc.sim.reference import Executed, Reference
from cimc.sim.result import Event
from cimc.sim.timing import run_timing
from tests.sim.chips import chip
from tests.sim.strategies import programs

# Without shrinking: a failing example is short enough to read, and shrinking a program takes minutes.
CHECKS = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    derandomize=True,
)


def _reference(program: Program, capacity: int) -> tuple[list[Executed], int] | str:
    simulation = Reference(program, chip(("tp", "tt"), memory_tile=False, channel_bytes=capacity))
    try:
        return simulation.executed, simulation.run()
    except CimcError as error:
        return error.message


def _rows(executed: list[Executed]) -> list[tuple[int, int, int, str]]:
    return sorted((e.tile, e.start, e.end, e.instruction.mnemonic) for e in executed)


def _events(events: tuple[Event, ...]) -> list[tuple[int, int, int, str]]:
    return sorted((e.tile, e.start, e.end, e.mnemonic) for e in events)


@CHECKS
@given(programs(), st.sampled_from([1, 40, 1000]))
def test_every_start_and_end_agrees(program: Program, capacity: int):
    want = _reference(program, capacity)
    assert not isinstance(want, str)
    got = run_timing(program, chip(("tp", "tt"), memory_tile=False, channel_bytes=capacity), trace=True)
    assert got.cycles == want[1]
    assert _events(got.events) == _rows(want[0])


@CHECKS
@given(programs(sound=False), st.sampled_from([1, 40, 1000]))
def test_programs_that_fail_fail_alike(program: Program, capacity: int):
    want = _reference(program, capacity)
    machine = chip(("tp", "tt"), memory_tile=False, channel_bytes=capacity)
    if not isinstance(want, str):
        assert run_timing(program, machine).cycles == want[1]
        return
    with pytest.raises(CimcError) as caught:
        run_timing(program, machine)
    assert caught.value.exit == 4
    assert caught.value.message.split(":")[0] == want.split(":")[0]


@CHECKS
@given(programs())
def test_the_bound_is_never_above_the_cycles(program: Program):
    timing = run_timing(program, chip(("tp", "tt"), memory_tile=False))
    assert 0 <= timing.bound.cycles <= timing.cycles
    assert timing.bound.cycles == max(timing.bound.resources.values())
