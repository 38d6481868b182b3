"""Data movement beside a von-Neumann machine: ``python -m benchmarks.movement``."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import CHIPS, Section, minilm, show
from cimc.arch.load import load
from cimc.compiler import Compiled, compile_model
from cimc.mapping.choices import CacheHome, Choices
from cimc.options import Options
from cimc.report import figures, units
from cimc.report.baseline import assumptions, with_baseline
from cimc.report.figures import BaselineFigures, RunFigures
from cimc.report.mapping_file import work_of
from cimc.sim.interpreter import run
from models import small
from models.graph import save

COMMAND = "python -m benchmarks.movement"
BASELINES = (
    "",
    "baseline={memory: lpddr4}",
    "baseline={memory: ddr4}",
    "baseline={batch: 32}",
    "baseline={weight_bits: 4}",
)
LEVELS = ("core_registers", "local_buffer", "remote_buffer", "noc", "global_memory", "host")


@dataclass(frozen=True)
class Ran:
    """A model on a chip."""

    model: str
    made: Compiled
    figures: RunFigures
    cache: CacheHome = "memory"

    @property
    def name(self) -> str:
        """The model, and where its cache lies if that is not global memory."""
        return self.model if self.cache == "memory" else f"{self.model}, cache in tiles"

    def beside(self, baseline: str) -> BaselineFigures:
        """The figures beside a baseline."""
        chip = load(self.made.options.hardware, [baseline] if baseline else []).spec
        found = with_baseline(self.figures, work_of(self.made.mapping), chip).baseline
        assert found is not None
        return found


def measured() -> list[Ran]:
    """MiniLM's encoder over 128 tokens, and one token of a small decoder, on each chip."""
    with tempfile.TemporaryDirectory() as folder:
        decoder = Path(folder) / "decoder.onnx"
        save(small.gpt2(layers=4, hidden=384, heads=6, vocab=1000, with_past=True), decoder)
        step = {"batch": 1, "sequence": 1, "past_sequence": 127}
        wanted: tuple[tuple[str, Path, dict[str, int], CacheHome], ...] = (
            ("MiniLM, 128 tokens", minilm(), {"batch": 1, "sequence": 128}, "memory"),
            ("GPT-2 of 4 layers, 1 token after 127", decoder, step, "memory"),
            ("GPT-2 of 4 layers, 1 token after 127", decoder, step, "resident"),
        )
        return [_ran(name, path, dims, chip, home) for name, path, dims, home in wanted for chip in CHIPS]


def _ran(name: str, path: Path, dims: dict[str, int], chip: str, cache: CacheHome) -> Ran:
    made = compile_model(path, Options(hardware=chip, dims=dims, choices=Choices(cache=cache)))
    assert made is not None
    result = run(made.program, made.weights, made.hardware.spec, values=False)
    return Ran(name, made, figures.from_result(result), cache)


def traffic(found: list[Ran]) -> Section:
    """Bytes by level."""
    rows = tuple(
        (
            r.name,
            f"`{r.made.options.hardware}`",
            *(units.size_bytes((r.figures.traffic_bytes or {})[n]) for n in LEVELS),
        )
        for r in found
    )
    remark = (
        "`noc` counts bytes times hops; `core_registers` are inputs into cores and 32-bit sums out of them. Caches in tiles "
        "(`--cache resident`) are read where they lie: see the section on them."
    )
    return Section(
        "Bytes moved by level", COMMAND, "One inference.", ("model", "chip", *LEVELS), rows, remarks=(remark,)
    )


def comparison(found: list[Ran]) -> Section:
    """Ratios."""
    rows: list[tuple[str, ...]] = []
    for ran in found:
        for text in BASELINES:
            beside = ran.beside(text)
            ratios = (units.ratio(beside.ratio[key]) for key in ("bytes", "latency", "energy"))
            cells = (units.size_bytes(beside.bytes["total"]), units.time_ns(beside.latency_ns))
            energy = units.energy_pj(beside.energy_pj["total"])
            name = text.removeprefix("baseline=").strip("{}") or "as it is"
            rows.append((ran.name, f"`{ran.made.options.hardware}`", name, *cells, energy, *ratios))
    about = (
        f"The baseline as it is: {assumptions(found[0].beside(''))}. In its favour: every operand moves at most once, all of it "
        "overlaps, only matrix products are counted. Ratios are the baseline's figure over the chip's: above 1 the chip "
        "takes less. Bytes are those off chip; of a cache the baseline reads the earlier rows and writes the new ones."
    )
    head = ("model", "chip", "baseline", "bytes", "latency", "energy", "bytes ratio", "latency ratio", "energy ratio")
    return Section("Beside a von-Neumann machine", COMMAND, about, head, tuple(rows))


def sections() -> list[Section]:
    """Everything measured here."""
    found = measured()
    return [traffic(found), comparison(found)]


if __name__ == "__main__":
    show(sections())
