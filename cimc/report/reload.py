"""What it costs that weights take turns in cells: writes, time, energy, wear, beside the same program with all weights there.

Nothing is estimated: the program is timed once more without what brings and writes weights
(:func:`cimc.isa.reloads.without_reloads`), and the differences are the reload's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from cimc.analog.technology import Fact, technology
from cimc.arch.spec import ChipSpec
from cimc.arch.units import memory_cycles
from cimc.isa.program import Program
from cimc.isa.reloads import reloading, without_reloads
from cimc.report import units
from cimc.report.figures import ReloadFigures, RunFigures
from cimc.report.render import Block, Facts
from cimc.sim.result import Timing

COMPONENT = "cell_write"


def with_reload(
    run: RunFigures,
    program: Program,
    timing: Timing | None,
    chip: ChipSpec,
    rate: float = 1.0,
    params: Mapping[str, int] | None = None,
) -> RunFigures:
    """The figures of a run with those of its reloads; unchanged where weights stay, or time is unknown. ``rate``: inferences
    a second, for the years until cells wear out."""
    turning = {t.tile: reloading(t)[0] for t in program.tiles}
    if timing is None or not any(turning.values()):
        return run
    from cimc.sim.timing import run_timing  # numba takes a second to import

    there = run_timing(without_reloads(program), chip, param_values=params)
    most, cores = worn(program, chip)
    end = next((f for f in technology(chip.technology).facts if f.name == "endurance"), None)
    writing = covered((w.first, w.last) for w in timing.writings if w.matrix in turning.get(w.tile, ()))
    exposed = max(0, timing.cycles - there.cycles)
    moved = timing.actions.get("memory.read", 0) - there.actions.get("memory.read", 0)
    moving = memory_cycles(chip, moved)
    alone = max(writing, moving)
    energy = {k: v - there.energy_pj.get(k, 0.0) for k, v in timing.energy_pj.items() if k != "leakage"}
    found = ReloadFigures(
        matrices=len({m.key for t in program.tiles for m in t.matrices if m.name in turning[t.tile]}),
        cores=cores,
        writes_per_cell=most,
        cell_writes=timing.actions.get("cell.write", 0) - there.actions.get("cell.write", 0),
        bytes=moved,
        moving_cycles=moving,
        writing_cycles=writing,
        exposed_cycles=exposed,
        hidden=max(0.0, 1 - exposed / alone) if alone else 1.0,
        energy_pj={
            "total": sum(energy.values()),
            "writing": energy.pop(COMPONENT, 0.0),
            "moving": sum(v for k, v in energy.items() if k != COMPONENT),
        },
        endurance_writes=None if end is None else (end.low, end.high),
        endurance_source=None if end is None else end.source,
        inferences_per_second=rate,
        years_to_wear_out=_years(end, most * rate),
        years_back_to_back=_years(end, most * 1e9 / timing.latency_ns),
    )
    return run.model_copy(update={"reload": found})


def worn(program: Program, chip: ChipSpec) -> tuple[int, int]:
    """Pulses a run puts on the cell that is written most, and how many cores are written. Each matrix that takes turns is
    written once, with as many pulses as the cell needs to be verified."""
    times: Counter[tuple[int, int]] = Counter()
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        turning = reloading(tile)[0]
        pulses = core.verify_iterations if core else 1
        for block in (b for m in tile.matrices if m.name in turning for b in m.blocks):
            times[tile.tile, block.core] += pulses
    return max(times.values(), default=0), len(times)


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Cycles that lie in at least one of the spans [from, to)."""
    total, end = 0, 0
    for first, last in sorted(spans):
        total += max(0, last - max(first, end))
        end = max(end, last)
    return total


def _years(endurance: Fact | None, per_second: float) -> tuple[float, float] | None:
    if endurance is None or not per_second:
        return None
    return endurance.low / per_second / units.YEAR, endurance.high / per_second / units.YEAR


def blocks(run: RunFigures) -> list[Block]:
    """The figures for people; nothing where weights stay."""
    found = run.reload
    if found is None:
        return []
    cycles = run.cycles or 0
    energy = found.energy_pj
    turning = units.counted(found.matrices, "matrix", "matrices")
    share = units.percent(energy["total"] / run.total_pj) if run.total_pj else ""
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("written per inference", f"{units.whole(found.cell_writes)} pulses", f"{turning} in turn on "
         f"{units.counted(found.cores, 'core')}, a cell up to {found.writes_per_cell} pulses"),
        ("weights moved", units.size_bytes(found.bytes),
         f"from global memory, which they keep busy for {units.whole(found.moving_cycles)} cycles"),
        ("time writing", f"{units.whole(found.writing_cycles)} cycles", "in which some cells are written"),
        ("time it costs", f"{units.whole(found.exposed_cycles)} cycles",
         f"{units.percent(found.hidden)} of it is hidden: the run takes {units.whole(cycles)}, with all weights in cells "
         f"{units.whole(cycles - found.exposed_cycles)}"),
        ("energy", units.energy_pj(energy["total"]),
         f"{share} of the run: writing {units.energy_pj(energy['writing'])}, moving {units.energy_pj(energy['moving'])}"),
    ]  # fmt: skip
    if found.years_to_wear_out is None or found.years_back_to_back is None or found.endurance_writes is None:
        return [Facts("Reload", [*rows, ("worn out", "no endurance is known for this technology")])]
    low, high = found.endurance_writes
    rows.append(
        ("worn out", _range(found.years_to_wear_out), f"at {found.inferences_per_second:g} inferences a second")
    )
    rows.append(("", _range(found.years_back_to_back), "at one inference after the other"))
    rows.append(("endurance", f"{low:.3g} to {high:.3g} writes", found.endurance_source or ""))
    return [Facts("Reload", rows)]


def _range(years: tuple[float, float]) -> str:
    return f"after {units.years(years[0])} to {units.years(years[1])}"
