"""The figures of a run with all that is told beside them: a von-Neumann machine, KV caches in tiles, reloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cimc.arch.spec import ChipSpec
from cimc.isa.program import Program
from cimc.report import figures
from cimc.report.baseline import with_baseline
from cimc.report.cache import with_cache
from cimc.report.figures import HostNode, RunFigures
from cimc.report.mapping_file import Work
from cimc.report.reload import with_reload
from cimc.sim.result import RunResult


@dataclass(frozen=True)
class Known:
    """What a compile tells of its program: what the model multiplies, for how many tokens of KV caches there is room (None:
    not known), and the nodes the host controller runs."""

    work: Work | None = None
    capacity_tokens: int | None = None
    host: Sequence[HostNode] = ()


def run_figures(
    result: RunResult,
    program: Program,
    chip: ChipSpec,
    known: Known,
    rate: float = 1.0,
    params: Mapping[str, int] | None = None,
) -> RunFigures:
    """The figures of a run that has just ended. ``rate``: inferences a second; ``params``: the values of the program's
    parameters."""
    given = params or {}
    work = known.work.at(given) if known.work else None
    told = with_baseline(figures.from_result(result, known.host), work, chip).model_copy(update={"params": dict(given)})
    told = with_cache(told, program, known.capacity_tokens, given)
    return with_reload(told, program, result.timing, chip, rate, params)
