"""Running a program: values, time, or both."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec
from cimc.isa.program import Program, Weights
from cimc.isa.verify import verify
from cimc.sim.memory import State
from cimc.sim.result import Progress, RunResult, Timing
from cimc.sim.tally import Tally
from cimc.sim.values import Analog, Numerics, Prepared, run_values

Array = NDArray[np.generic]


def run(
    program: Program,
    weights: Weights,
    chip: ChipSpec,
    *,
    inputs: Mapping[str, Array] | None = None,
    numerics: Numerics = "float",
    seed: int = 0,
    values: bool = True,
    timing: bool = True,
    trace: bool = False,
    params: Mapping[str, int] | None = None,
    state: State | None = None,
    progress: Progress | None = None,
    verified: bool = False,
    analog: Analog | None = None,
    prepared: Prepared | None = None,
) -> RunResult:
    """Run a program on a chip.

    ``inputs`` by the model's names, in the program's types and shapes; needed for values only. ``params`` are the
    runtime parameters, ``state`` what earlier runs left (changed in place), ``seed`` keys the random streams of analog
    numerics. ``trace`` keeps every executed instruction in ``timing.events``. ``analog`` says what of the
    device analog numerics model. ``prepared`` makes further runs of the same program with the same options shorter.
    ``verified``: somebody has verified the program already.

    Raises CimcError: what the verifier finds, bad inputs (exit 2), a program that fails as it runs (exit 4).
    """
    if not verified:
        verify(program, chip, weights if values else None)
    how = analog or Analog()
    begun = perf_counter()
    outputs, counts = None, {}
    if values:
        outputs, counts = run_values(
            program,
            weights,
            inputs or {},
            chip,
            numerics=numerics,
            seed=seed,
            param_values=params,
            state=state,
            progress=progress,
            analog=how,
            prepared=prepared,
        )
    between = perf_counter()
    told = _timed(program, chip, params, trace, progress) if timing else None
    return _result(outputs, told, (between - begun, perf_counter() - between), counts, how.tally)


def _timed(
    program: Program, chip: ChipSpec, params: Mapping[str, int] | None, trace: bool, progress: Progress | None
) -> Timing:
    # numba takes a second to import: only when time is asked for.
    from cimc.sim.timing import run_timing

    return run_timing(program, chip, param_values=params, trace=trace, progress=progress)


def _result(
    outputs: Mapping[str, Array] | None,
    timing: Timing | None,
    seconds: tuple[float, float],
    counts: Mapping[str, int],
    tally: Tally,
) -> RunResult:
    """The result, with what was counted by weight. ``seconds``: of values, of timing."""
    layers = {name: layer.counts() for name, layer in tally.layers.items()}
    faults = {name: layer.faults for name, layer in tally.layers.items() if layer.faults.weights}
    reads = sum(layer.table_reads for layer in tally.layers.values())
    return RunResult(outputs, timing, *seconds, counts, layers, faults, reads)
