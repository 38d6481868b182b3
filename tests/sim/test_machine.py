"""The timing loop's machine code: there once for a process, and on disk."""

from __future__ import annotations

from numba.core.dispatcher import Dispatcher

from cimc.sim import machine
from cimc.sim.timing import run_timing
from tests.sim.chips import chip, program, tile


def test_a_process_compiles_or_loads_the_loop_once_and_tells():
    def told() -> list[str]:
        seen: list[str] = []
        run_timing(program(tile(0)), chip(), progress=lambda engine, done, total: seen.append(engine))
        return seen

    expected = ["timing"] if machine.compiled() else ["compile", "timing"]
    assert told() == expected
    assert machine.compiled()
    assert told() == ["timing"]


def test_the_loop_is_kept_on_disk():
    assert isinstance(machine.advance, Dispatcher)
    assert machine.advance.stats.cache_path
