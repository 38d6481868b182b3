"""What a search over placements gains: ``python -m benchmarks.search [--trials N] [--only TEXT]``.

Every work is compiled as it is, then with so many trials from that placement on; cycles are those of the timing engine.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Section, minilm, show
from cimc.compiler import Compiled, compile_model
from cimc.options import Options
from cimc.search.plan import Outcome, Plan
from models import field
from models.graph import save
from models.small import RECIPES, build

COMMAND = "python -m benchmarks.search"
PEERS = str(Path(__file__).parent / "pimcomp.yaml")
TRIALS = 60
LARGE_TRIALS = 10
"""For the model whose trial takes seconds."""


@dataclass(frozen=True)
class Work:
    """A model on a chip."""

    name: str
    hardware: str
    overrides: tuple[str, ...] = ()
    large: bool = False

    def path(self, folder: Path) -> Path:
        """The model, made if it is not there."""
        if self.name == "minilm":
            return minilm()
        path = folder / f"{self.name}.onnx"
        if not path.is_file():
            save(build(RECIPES[self.name].config) if self.name in RECIPES else field.build(self.name), path)
        return path


WORKS = (
    Work("minilm", "isaac"),
    Work("minilm", "sram-digital"),
    *(Work(name, PEERS) for name in ("mm64", "ffn64", "bertlin", "cnn_s")),
    Work("bert-base", "isaac", ("layout=48x16",), large=True),
)


def measured(work: Work, trials: int, folder: Path) -> tuple[Compiled, Outcome, float]:
    """The compile, what its search came to, and CPU seconds."""
    before = time.process_time()
    dims = {"batch": 1, "sequence": 128} if work.name in ("minilm", "bert-base") else {}
    options = Options(work.hardware, work.overrides, dims, search=Plan(trials))
    made = compile_model(work.path(folder), options)
    assert made is not None
    assert made.searched is not None
    return made, made.searched, time.process_time() - before


def _row(work: Work, made: Compiled, outcome: Outcome, cpu: float) -> tuple[str, ...]:
    kinds = ", ".join(f"{name} {k.accepted}/{k.tried}" for name, k in outcome.kinds.items())
    won = sorted(_gains(outcome), key=lambda step: -step[1])[:3]
    best = ", ".join(f"{change} ({gain:.1%})" for change, gain in won)
    chip = " ".join((made.hardware.name, *(f"`-c {o}`" for o in work.overrides)))
    gain = f"{1 - outcome.cycles / outcome.begun:.1%}"
    figures = (f"{outcome.begun:,}", f"{outcome.cycles:,}", gain, f"{outcome.trials}")
    return (work.name, chip, *figures, kinds, best, f"{cpu:.0f}")


def _gains(outcome: Outcome) -> Iterator[tuple[str, float]]:
    """The changes that were accepted, and the share of the first placement's cycles that each took away."""
    before = outcome.begun
    for step in outcome.accepted:
        yield step.change, (before - step.cycles) / outcome.begun
        before = step.cycles


HEADER = ("work", "chip", "greedy, cycles", "found", "fewer", "trials", "accepted / tried", "gained most by", "CPU s")


def sections(only: str = "", trials: int = 0) -> list[Section]:
    """Everything measured here."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for work in WORKS:
            if only in f"{work.name} {work.hardware}":
                count = trials or (LARGE_TRIALS if work.large else TRIALS)
                rows.append(_row(work, *measured(work, count, Path(folder))))
    about = "`cimc compile --search N`: from the greedy placement on, one change a trial, kept if it lowers the cycles."
    return [Section("Search over placements", COMMAND, about, HEADER, tuple(rows))] if rows else []


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="What a search over placements gains.")
    parser.add_argument("--only", default="", help="works whose name or chip contains this")
    parser.add_argument("--trials", type=int, default=0, help="in place of those of each work")
    given = parser.parse_args(arguments)
    show(sections(given.only, given.trials))
    return 0


if __name__ == "__main__":
    sys.exit(main())
