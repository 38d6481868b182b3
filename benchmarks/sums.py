"""What adding partial sums in a tree, in a chain, or in the network, is worth: ``python -m benchmarks.sums``.

Where the row blocks of a matrix lie on several tiles, its partial sums have to be added. How often they do depends on how many
cores a tile has: the presets' tiles are large, so floorplans with the same cores in smaller tiles stand beside them. Routers
add on all of them (``-c noc.reduce=...``), so that only the mapping differs (``-m sums=...``).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.attainment import Model, models
from benchmarks.figures import Section, show
from cimc.arch.load import load
from cimc.arch.units import area_by_part, area_um2
from cimc.compiler import Compiled, compile_model
from cimc.errors import CimcError
from cimc.isa.steps import walk
from cimc.mapping.choices import Choices
from cimc.mapping.sums import SumsAt
from cimc.options import Options
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing

COMMAND = "python -m benchmarks.sums"
ADDERS = "noc.reduce={lanes: 8, cycles: 1}"
"""As many adders as a link brings 32-bit elements each cycle; one cycle for them, where Tiwari et al. (arXiv 2209.10056) need
none: estimated, on the careful side."""
COLUMNS = 16
WAYS: tuple[SumsAt, ...] = ("one", "tree", "chain", "network", "auto")


@dataclass(frozen=True)
class Study:
    """A model on a preset whose cores are dealt into tiles of several sizes. ``rows``: of the preset's floorplan that its
    weights half fill."""

    model: int  # of benchmarks.attainment's
    chip: str
    rows: int
    cores: tuple[int, ...]  # in a tile, the preset's first
    batch: int = 1


STUDIES = (
    Study(0, "sram-digital", 5, (16, 4, 2, 1)),
    Study(0, "isaac", 4, (24, 6, 2, 1)),
    Study(1, "sram-digital", 42, (16, 4)),
    Study(1, "isaac", 28, (24, 6)),
    Study(3, "sram-digital", 61, (16, 4)),
    Study(0, "sram-digital", 10, (16, 4), batch=16),
)


@dataclass(frozen=True)
class Run:
    """A model on a floorplan, its sums added in one way."""

    what: str
    options: str
    way: SumsAt
    timing: Timing
    collected: int  # sums that routers add, in the text


def _options(study: Study, cores: int) -> tuple[str, ...]:
    rows = study.rows * study.cores[0] // cores
    size = f"layout={rows}x{COLUMNS}"
    return (size, ADDERS) if cores == study.cores[0] else (size, f"tiles.cim.cores={cores}", ADDERS)


def _compiled(model: Model, study: Study, cores: int, way: SumsAt) -> Compiled:
    choices = Choices(sums=way, optimize="throughput" if study.batch > 1 else "latency")
    dims = {**model.dims, "batch": study.batch} if study.batch > 1 else model.dims
    made = compile_model(model.path, Options(study.chip, _options(study, cores), dims, choices=choices))
    assert made is not None
    return made


def _runs(model: Model, study: Study) -> Iterator[Run]:
    for cores in study.cores:
        for way in WAYS:
            made = _compiled(model, study, cores, way)
            count = Counter(s.mnemonic for t in made.program.tiles for s in walk(t.steps))["collect"]
            timing = run_timing(made.program, made.hardware.spec)
            what = f"{model.name}, a batch of {study.batch}" if study.batch > 1 else model.name
            yield Run(what, " ".join((study.chip, *_options(study, cores)[:-1])), way, timing, count)


def _row(run: Run, first: Timing) -> tuple[str, ...]:
    timing = run.timing
    return (
        run.what,
        f"`{run.options}`",
        run.way,
        f"{timing.cycles:,}",
        f"{first.cycles / timing.cycles:.2f}×",
        f"{sum(timing.energy_pj.values()) / 1e6:,.0f}",
        f"{timing.energy_pj['noc'] / 1e6:,.1f}",
        f"{timing.traffic_bytes['noc'] / 1e6:,.1f}",
        f"{run.collected:,}",
    )


HEAD = ("Model", "Chip", "Sums", "Cycles", "Against one", "Energy, µJ", "of the NoC", "NoC, MB · hops", "collect")


def _area() -> str:
    spec = load("sram-digital", (ADDERS,)).spec
    part = area_by_part(spec)["adder"]
    return f"{part / 1e6:.2f} mm² of {area_um2(spec) / 1e6:.1f} mm² ({part / area_um2(spec):.2%})"


def _gathered(folder: Path, *, progress: bool = False) -> Iterator[tuple[str, ...]]:
    found = models(folder)
    for study in STUDIES:
        first: Timing | None = None
        try:
            for run in _runs(found[study.model], study):
                first = run.timing if run.way == WAYS[0] or first is None else first
                row = _row(run, first)
                if progress:
                    print(" | ".join(row), flush=True)
                yield row
        except CimcError as error:
            yield found[study.model].name, study.chip, error.code, *[""] * (len(HEAD) - 3)


def sections(*, progress: bool = False) -> list[Section]:
    """The table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = tuple(_gathered(Path(folder), progress=progress))
    about = (
        f"Routers add on all of these chips (`-c '{ADDERS}'`: {_area()} on sram-digital), and `-m sums=` says whether they are "
        "used.\n\n`one`: all partial sums go to one tile, which adds them. `tree`: tiles add in pairs. `chain`: each adds "
        "its own to what the one before it hands on. `network`: routers add those of all tiles but the one that takes the sum. "
        "`auto`: what the mapping takes, sum by sum."
    )
    notes = (
        "Of two tiles one adds in any case: where no sum comes from three, all rows are the same program.",
        "`auto` estimates each sum by itself, on links that nothing else uses: for all of them together another way may be a "
        "little faster.",
        "Only the rows of one chip are to be compared: smaller tiles come with more digital tiles, links and ports too.",
    )
    return [Section("Partial sums: one tile, a tree, a chain, the network", COMMAND, about, HEAD, rows, remarks=notes)]


if __name__ == "__main__":
    show(sections(progress=True))
