"""More weights than cells, written in turns or on more chips: ``python -m benchmarks.reload``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import Section, show
from cimc.arch.units import area_um2
from cimc.compiler import Compiled, compile_model
from cimc.mapping.choices import DEFAULT
from cimc.options import Options
from cimc.report import figures, units
from cimc.report.figures import ReloadFigures, RunFigures
from cimc.report.reload import with_reload
from cimc.sim.interpreter import run
from models import small
from models.graph import save

COMMAND = "python -m benchmarks.reload"
TECHNOLOGIES = ("sram", "mram", "fefet", "reram", "pcm")
HARDWARE = """# A technology preset with 3 cores a tile in place of 16: 240 cores, and MiniLM's weights need 648. The link is
# ISAAC's (25.6 GB/s, 50 ns), its energy estimated as sram-digital's.
extends: {name}
name: {name}-240
tiles: {{cim: {{cores: 3}}}}
link: {{bytes_per_cycle: 25.6, latency_cycles: 50}}
costs: {{energy_pj: {{link.byte: 100.0}}}}
"""
DIMS = {"batch": 1, "sequence": 128}
POOLS = (120, 180, 240)


@dataclass(frozen=True)
class Ran:
    """A model as it was made to fit."""

    made: Compiled
    figures: RunFigures

    @property
    def reload(self) -> ReloadFigures | None:
        """What its reloads cost."""
        return self.figures.reload

    @property
    def area_mm2(self) -> float:
        """Of all chips."""
        return area_um2(self.made.hardware.spec) / 1e6


def ran(model: Path, options: Options) -> Ran:
    """Compiled and timed."""
    made = compile_model(model, options)
    assert made is not None
    chip = made.hardware.spec
    result = run(made.program, {}, chip, values=False)
    return Ran(made, with_reload(figures.from_result(result), made.program, result.timing, chip))


def sections() -> list[Section]:
    """Every technology both ways; pools of several sizes."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "minilm.onnx"
        save(small.bert(layers=6, hidden=384, heads=12, ffn=1536, vocab=1000, positions=128), model)
        for name in TECHNOLOGIES:
            (Path(folder) / f"{name}.yaml").write_text(HARDWARE.format(name=name))
        both = [_both(model, name) for name in TECHNOLOGIES]
        pools = [(name, cores, _pool(model, name, cores)) for name in ("sram", "reram") for cores in POOLS]
    return [_ways(both), _pools(pools)]


def _both(model: Path, hardware: str) -> tuple[str, Ran, Ran]:
    options = Options(str(model.with_name(f"{hardware}.yaml")), (), DIMS)
    turns = ran(model, replace(options, choices=replace(DEFAULT, reload=True)))
    return hardware, turns, ran(model, replace(options, auto_chips=True))


def _pool(model: Path, hardware: str, cores: int) -> Ran:
    choices = replace(DEFAULT, reload=True, pool=cores)
    return ran(model, Options(str(model.with_name(f"{hardware}.yaml")), (), DIMS, choices=choices))


def _ways(found: list[tuple[str, Ran, Ran]]) -> Section:
    rows: list[tuple[str, ...]] = []
    for name, turns, chips in found:
        for way, one in (("reload", turns), (f"{chips.made.hardware.spec.chips} chips", chips)):
            rows.append((name, way, *_figures(one), *_turns(one.reload)))
    header = (
        "preset",
        "way",
        "latency",
        "cycles",
        "energy",
        "area",
        "written",
        "moved",
        "writing",
        "costs",
        "hidden",
        "write energy",
    )
    return Section(
        "More weights than cells: reload or more chips",
        COMMAND,
        "MiniLM's shape, 128 tokens, whose weights need 648 cores, on presets with 240 (`tiles.cim.cores=3`), with ISAAC's "
        "link between chips. `--reload on` against `--chips auto`. Written: pulses per inference; writing: cycles in which "
        "some cell is; costs: cycles that the run takes longer than with all weights in cells; hidden: the share of moving or "
        "writing weights, whichever takes longer, that it does not; years until the most written cell has had the least and the "
        "most writes its technology is said to bear, at one inference a second and at one after the other.",
        (*header, "years at 1/s", "years back to back"),
        tuple(rows),
    )


def _figures(one: Ran) -> tuple[str, ...]:
    f = one.figures
    return (
        units.time_ns(f.latency_ns),
        units.whole(f.cycles or 0),
        units.energy_pj(f.total_pj),
        f"{one.area_mm2:.0f} mm²",
    )


def _turns(found: ReloadFigures | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * 8
    years = (found.years_to_wear_out, found.years_back_to_back)
    return (
        units.whole(found.cell_writes),
        units.size_bytes(found.bytes),
        units.whole(found.writing_cycles),
        units.whole(found.exposed_cycles),
        units.percent(found.hidden),
        units.energy_pj(found.energy_pj["writing"]),
        *("-" if y is None else f"{y[0]:.2g} to {y[1]:.2g}" for y in years),
    )


def _pools(found: list[tuple[str, int, Ran]]) -> Section:
    rows = tuple(
        (name, str(cores), units.whole(one.figures.cycles or 0), *_turns(one.reload)[:6]) for name, cores, one in found
    )
    return Section(
        "Reload: how many cores take turns",
        COMMAND,
        "The same model with `--mapping pool=CORES`: a small pool writes less, a large one earlier.",
        ("preset", "pool", "cycles", "written", "moved", "writing", "costs", "hidden", "write energy"),
        rows,
    )


if __name__ == "__main__":
    show(sections())
