"""The timing loop's machine code: compiled without wrappers, kept on disk where there is a disk to keep it on."""

from __future__ import annotations

from numba.core.dispatcher import Dispatcher

from cimc.sim import machine
from cimc.sim.inner import entry, inner
from cimc.sim.timing import run_timing
from tests.sim.chips import chip, program, tile


def _double(x: int) -> int:
    return 2 * x


def test_without_a_place_for_the_cache_a_function_is_compiled_all_the_same():
    # numba finds no file beside which, and so no folder in which, it could keep the code of what stands in no file
    space: dict[str, object] = {"double": inner(_double)}
    exec(compile("def quadruple(x):\n    return double(double(x))\n", "<nowhere>", "exec"), space)
    quadruple = entry(space["quadruple"])
    assert quadruple(3) == 12
    assert quadruple.stats.cache_path is None


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
