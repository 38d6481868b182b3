"""The fast engine does what the reference does, on random programs; the bound is below both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cimc.arch.spec import ChipSpec
from cimc.arch.units import leakage_mw
from cimc.errors import CimcError
from cimc.isa.instruction import Step
from cimc.isa.operands import Affine, Element, Extent
from cimc.isa.program import Block, GlobalBuffer, MatrixDecl, Program
from cimc.sim.account import energy_of
from cimc.sim.reference import Executed, Reference
from cimc.sim.result import Event, Timing
from cimc.sim.state import STALLS
from cimc.sim.timing import run_timing
from tests.sim.chips import buffers, chip, chips, do, matrix, program, repeat, tile, view
from tests.sim.strategies import programs

# Without shrinking: a failing example is short enough to read, and shrinking a program takes minutes.
CHECKS = settings(
    max_examples=90,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    derandomize=True,
)


MACHINES = {  # of four tiles each: links between chips that are slower and faster than those within
    "one chip": partial(chip, ("tp", "tt"), memory_tile=False),
    "two chips": partial(chips, ("p", "t"), 2, bytes_per_cycle=1.5, latency=7, memory_tile=False),
    "two chips in a row": partial(chips, ("tp",), 2, bytes_per_cycle=0.25, latency=1, memory_tile=False),
    "four chips": partial(chips, ("p",), 4, bytes_per_cycle=16.0, latency=1, memory_tile=False),
}


def _reference(program: Program, machine: ChipSpec) -> Reference | str:
    """A simulation that has run, or why it failed."""
    simulation = Reference(program, machine)
    try:
        simulation.run()
    except CimcError as error:
        return error.message
    return simulation


def _cycles(reference: Reference) -> int:
    return max((e.end for e in reference.executed), default=0)


def _actions(executed: Iterable[Executed]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for e in executed:
        total.update(e.job.actions)
    return {name: n for name, n in total.items() if n}


def _stalls(reference: Reference, place: int) -> dict[object, dict[str, int]]:
    """Stalls by tile (place 0) or by layer (place 1)."""
    found: dict[object, Counter[str]] = defaultdict(Counter)
    for key, cycles in reference.stalls.items():
        found[key[place]][key[2]] += cycles
    return {name: {cause: counts[cause] for cause in STALLS} for name, counts in found.items()}


def _rows(executed: list[Executed]) -> list[tuple[int, int, int, str]]:
    return sorted((e.tile, e.start, e.end, e.instruction.mnemonic) for e in executed)


def _events(events: tuple[Event, ...]) -> list[tuple[int, int, int, str]]:
    return sorted((e.tile, e.start, e.end, e.mnemonic) for e in events)


def _agree(got: Timing, reference: Reference, machine: ChipSpec) -> None:
    """Everything the fast engine tells of a program is what the reference did."""
    assert got.cycles == _cycles(reference)
    assert got.instructions == len(reference.executed)
    assert got.actions == _actions(reference.executed)
    energy = energy_of(machine, _actions(reference.executed))
    energy["leakage"] = energy.get("leakage", 0.0) + leakage_mw(machine) * got.latency_ns
    assert got.energy_pj == energy
    assert got.macs["static"] == sum(e.job.static_macs for e in reference.executed)
    assert got.traffic_bytes.get("chip_links", 0) == got.actions.get("link.byte", 0)
    assert got.traffic_bytes["remote_buffer"] == sum(e.job.remote_bytes for e in reference.executed)
    assert got.tile_stalls == {t: _stalls(reference, 0).get(t, dict.fromkeys(STALLS, 0)) for t in reference.tiles}
    layers: dict[str, list[Executed]] = defaultdict(list)
    for e in reference.executed:
        if e.instruction.mnemonic not in ("halt", "wait"):
            layers[e.instruction.origin.node if e.instruction.origin else ""].append(e)
    assert set(got.layers) == set(layers)
    for name, executed in layers.items():
        assert got.layers[name].energy_pj == energy_of(machine, _actions(executed))
        assert got.layers[name].last_cycle == max(e.end for e in executed)
        assert got.layers[name].stalls == _stalls(reference, 1)[name]


A, B, C = view("a", 8), view("b", 8), view("c", 8)
LOCAL = buffers(*((name, Element.F32, (64,)) for name in "abc"), ("q", Element.Q8, (8, 8)), ("r", Element.Q32, (4, 8)))
SHARED = (GlobalBuffer("g", Element.F32, (64,)), GlobalBuffer("h", Element.F32, (64,), tile=0, address=1024))
APART = MatrixDecl("V", Element.Q8, 8, 16, "w", 0, 0, (Block(0, 0, 8, 0, 8), Block(2, 0, 8, 8, 16)))
TURNS = (matrix("W", 8, 8), APART, matrix("U", 8, 8, core=1), matrix("T", 8, 8, core=2))
WRITE = do("program", "V", view("q", 8, 16, strides=(0, 0)))
MOVING = Affine(0, (("i", 8),))


def mvm(name: str, rows: Extent) -> Step:
    """A product of so many rows."""
    return do("mvm", view("r", rows, 8, strides=(8, 1)), name, view("q", rows, 8, strides=(8, 1)))


@pytest.mark.parametrize(
    "steps",
    [
        # the global access is under way when the one at home has ended
        (do("load", A, view("g", 8)), do("load", B, view("h", 8)), do("add", C, A, B)),
        (do("store", view("g", 8), A), do("store", view("h", 8), A), do("fill", A, value=0.0)),
        (
            repeat("i", 2, do("load", view("a", 8, offset=MOVING), view("g", 8))),
            do("load", B, view("h", 8)),
            repeat("i", 2, do("add", C, view("a", 8, offset=MOVING), B)),
        ),
        # a product without rows, or a calibration of a digital core, ends before the last row of the one before is out
        (mvm("W", 2), mvm("W", 0), WRITE),
        (mvm("W", 2), do("calibrate", "W", vectors=4), WRITE),
        (repeat("i", 3, mvm("W", Affine(2, (("i", -1),)))), WRITE, repeat("i", 3, mvm("V", Affine(0, (("i", 1),))))),
        # T lies on V's second span of cores, U between the two
        (WRITE, mvm("U", 1), mvm("T", 1), WRITE, mvm("V", 1), mvm("W", 2)),
    ],
    ids=["loads", "stores", "repeats", "no rows", "calibrate", "fewer rows", "cores apart"],
)
def test_what_ends_sooner_than_the_one_before_on_its_unit(steps: tuple[Step, ...]):
    p = program(tile(0, *steps, buffers=LOCAL, matrices=TURNS), globals=SHARED)
    machine = chip(("tp", "tt"), memory_tile=False, adc_bits=None)
    reference = _reference(p, machine)
    assert not isinstance(reference, str)
    got = run_timing(p, machine, trace=True)
    assert _events(got.events) == _rows(reference.executed)
    _agree(got, reference, machine)


def test_operands_far_behind_matter_too():
    """Instructions of many operands cost what all of these say, the last one as well."""
    few, many = ([view("g", 1)] * 6 + [view("g", n)] for n in (1, 60))
    calls = [do("host", *operands, call="k", outputs=1) for operands in (few, many, few)]
    p = program(tile(0, *calls, buffers=LOCAL), globals=SHARED)
    machine = chip(("tp", "tt"), memory_tile=False)
    reference = _reference(p, machine)
    assert not isinstance(reference, str)
    got = run_timing(p, machine, trace=True)
    assert _events(got.events) == _rows(reference.executed)
    lengths = [e.end - e.start for e in got.events if e.mnemonic == "host"]
    assert lengths[0] == lengths[2] < lengths[1]
    _agree(got, reference, machine)


@pytest.mark.parametrize("rows", [5, 70])
def test_hazards_are_found_across_the_bytes_of_a_large_buffer(rows: int):
    """However finely the bytes are divided to look for hazards: neighbours, far apart, and over all of them."""
    at = Affine(0, (("i", 96),))
    steps = (
        do("fill", view("a", 4096), value=0.0),
        *(do("abs", view("a", 8, offset=57 * n), view("a", 8, offset=57 * n + 7)) for n in range(rows)),
        repeat("i", 40, do("exp", view("a", 8, offset=at), view("a", 8, offset=4088))),
        do("exp", view("b", 4), view("a", 4, strides=(1300,))),
    )
    p = program(tile(0, *steps, buffers=buffers(("a", Element.F32, (4096,)), ("b", Element.F32, (4,)))))
    machine = chip()
    reference = _reference(p, machine)
    assert not isinstance(reference, str)
    got = run_timing(p, machine, trace=True)
    assert _events(got.events) == _rows(reference.executed)
    _agree(got, reference, machine)


@CHECKS
@given(programs(), st.sampled_from([1, 40, 1000]), st.sampled_from(sorted(MACHINES)))
def test_every_start_and_end_agrees(program: Program, capacity: int, which: str):
    machine = MACHINES[which](channel_bytes=capacity)
    reference = _reference(program, machine)
    assert not isinstance(reference, str)
    got = run_timing(program, machine, trace=True)
    assert _events(got.events) == _rows(reference.executed)
    _agree(got, reference, machine)


@CHECKS
@given(programs(sound=False), st.sampled_from([1, 40, 1000]), st.sampled_from(sorted(MACHINES)))
def test_programs_that_fail_fail_alike(program: Program, capacity: int, which: str):
    machine = MACHINES[which](channel_bytes=capacity)
    reference = _reference(program, machine)
    if not isinstance(reference, str):
        assert run_timing(program, machine).cycles == _cycles(reference)
        return
    with pytest.raises(CimcError) as caught:
        run_timing(program, machine)
    assert caught.value.exit == 4
    assert caught.value.message == reference


@CHECKS
@given(programs(), st.sampled_from(sorted(MACHINES)))
def test_the_bound_is_never_above_the_cycles(program: Program, which: str):
    timing = run_timing(program, MACHINES[which]())
    assert 0 <= timing.bound.cycles <= timing.cycles
    assert timing.bound.cycles == max(timing.bound.resources.values())
