"""How near programs come to the bound, and what each part of the mapping is worth: ``python -m benchmarks.attainment``.

Each model runs on floorplans of the presets stretched so that its weights take about 55 % of the cores
(``-c layout=ROWSxCOLUMNS``). The ablation begins with a plain mapping, layer by layer, every value through global memory, one
copy of the weights, one tile for each vector stage, one set of buffers, and adds one part after the other.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.figures import CHIPS, Section, minilm, show, verdict
from cimc.arch.load import load
from cimc.compiler import compile_model
from cimc.errors import CimcError
from cimc.mapping.choices import DEFAULT, Choices
from cimc.options import Options
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing
from models.graph import save
from models.small import RECIPES, build

COMMAND = "python -m benchmarks.attainment"
FILL = 0.55
ROOMY = "layout=48x32"
"""Holds every model below; the least that does is measured on it."""
COLUMNS = 16
TARGET = 0.6
TARGET_STREAMED = 0.8
BATCH = 64
PLAIN = Choices(
    replicas=1, lanes=1, rotation=1, residence=False, parts=False, aside=False, sums="one", push=False, exchange=False
)


def _steps() -> Iterator[tuple[str, Choices]]:
    """What a mapping is called, and its choices: the plain one, then with one part more each."""
    yield "plain", (now := PLAIN)
    yield "+ values stay in tiles' memory", (now := replace(now, residence=True))
    yield "+ two sets of buffers", (now := replace(now, rotation=DEFAULT.rotation))
    yield "+ tiles take turns in vector stages", (now := replace(now, lanes=DEFAULT.lanes))
    yield "+ copies of weights in free cores", (now := replace(now, replicas=DEFAULT.replicas))
    yield "+ values cut by columns or rows over tiles", (now := replace(now, parts=True))
    yield "+ quantised where the columns are", (now := replace(now, aside=True))
    yield "+ partial sums added in trees", (now := replace(now, sums=DEFAULT.sums))
    yield "+ keys and values sent as they are made", (now := replace(now, push=True))
    yield "+ tiles change places", replace(now, exchange=True)


STEPS = tuple(_steps())


@dataclass(frozen=True)
class Model:
    """A model and its dims."""

    name: str
    path: Path
    dims: dict[str, int]


@dataclass(frozen=True)
class Run:
    """A model on a chip of its size."""

    model: str
    chip: str
    layout: str
    fill: float  # of the cores, by one copy of the weights
    cpu: float  # seconds of the compile
    timing: Timing

    @property
    def attainment(self) -> float:
        """Bound over cycles."""
        return self.timing.bound.cycles / self.timing.cycles


def models(folder: Path) -> list[Model]:
    """The trained model, and published shapes with random weights."""
    shapes = {
        "bert-base": {"batch": 1, "sequence": 128},
        "vit-base": {"batch": 1},
        "gpt2-small": {"batch": 1, "sequence": 256},
    }
    found = [Model("MiniLM, 128 tokens", minilm(), {"batch": 1, "sequence": 128})]
    for name, dims in shapes.items():
        path = folder / f"{name}.onnx"
        save(build(RECIPES[name].config), path)
        rows = f", {dims['sequence']} tokens" if "sequence" in dims else ""
        found.append(Model(f"{name}{rows}", path, dims))
    return found


def layout(model: Model, chip: str) -> tuple[str, float]:
    """The floorplan of which the model's weights fill the wanted part of the cores, and the part they fill."""
    made = compile_model(model.path, Options(chip, (ROOMY,), model.dims, choices=Choices(replicas=1)))
    assert made is not None
    roomy = made.hardware.spec
    totals = made.mapping["totals"]
    assert isinstance(totals, dict)
    used, whole = totals["crossbars_used"], totals["crossbars"]
    assert isinstance(used, int)
    assert isinstance(whole, int)
    cores = sum(roomy.tile(t).cores for t in range(roomy.tile_count)) * used / whole

    def fill(rows: int) -> float:
        spec = load(chip, (f"layout={rows}x{COLUMNS}",)).spec
        return cores / sum(spec.tile(t).cores for t in range(spec.tile_count))

    rows = min(range(4, 96), key=lambda n: abs(fill(n) - FILL))
    return f"layout={rows}x{COLUMNS}", fill(rows)


def ran(model: Model, chip: str, size: str, fill: float, choices: Choices) -> Run:
    """Compile and time."""
    before = time.process_time()
    made = compile_model(model.path, Options(chip, (size,) if size else (), model.dims, choices=choices))
    spent = time.process_time() - before
    assert made is not None
    return Run(model.name, chip, size, fill, spent, run_timing(made.program, made.hardware.spec))


def attained(runs: list[Run]) -> Section:
    """Every model on its chips."""
    rows = tuple(
        (
            r.model,
            f"`--hw {r.chip} -c {r.layout}`",
            f"{r.fill:.0%}",
            f"{r.timing.cycles:,}",
            f"{r.timing.bound.cycles:,}",
            r.timing.bound.by,
            f"{r.attainment:.1%}",
            verdict(r.attainment >= TARGET),
            f"{r.cpu:.1f}",
        )
        for r in runs
    )
    header = (
        "model",
        "chip",
        "cores filled",
        "cycles",
        "bound",
        "set by",
        "attainment",
        f"≥ {TARGET:.0%}",
        "compile, CPU s",
    )
    remarks = (
        "One inference at a time (latency). The chain is the program's own: its copies of weights and blocks of rows, as if "
        "nothing but its cells were contended.",
    )
    return Section("Attainment of the bound", COMMAND, "", header, rows, remarks=remarks)


def streamed(models: list[Model], runs: list[Run]) -> Section:
    """A batch that streams, on the floorplans of :func:`attained` and, where that has too few digital tiles, as it comes."""
    rows: list[tuple[str, ...]] = []
    for run in runs:
        model = next(m for m in models if m.name == run.model)
        for size in (run.layout, ""):
            flags = f"`--hw {run.chip}{f' -c {size}' if size else ''}`"
            try:
                one, two = (_batch(model, replace(run, layout=size), n) for n in (BATCH, 2 * BATCH))
            except CimcError as error:
                rows.append((model.name, flags, error.code, *["–"] * 9))
                continue
            t, each = one.timing, one.timing.cycles // BATCH
            more, least = two.timing.cycles - t.cycles, two.timing.bound.cycles - t.bound.cycles
            gain = f"{run.timing.cycles / each:.2f}×" if size else "–"
            verdicts = (f"{one.attainment:.1%}", verdict(one.attainment >= TARGET_STREAMED))
            rows.append(
                (
                    *(model.name, flags, f"{t.cycles:,}", f"{each:,}", gain, f"{t.bound.cycles:,}", t.bound.by),
                    *(*verdicts, f"{more // BATCH:,}", f"{least / more:.1%}", f"{one.cpu:.1f}"),
                )
            )
            break
    header = ("model", "chip", "cycles", "a sample", "one alone / a sample", "bound", "set by", "attainment")
    remarks = (
        f"{BATCH} samples, `--optimize throughput`: one copy of what streams; what comes before it may have more, or work "
        "sample by sample beside it. "
        "*One alone* is the latency above, on the same "
        "floorplan, which may use free cores for copies. The first sample fills the "
        "pipeline of layers and the last drains it; both count.",
        f"*One more*: cycles of {2 * BATCH} samples less those of {BATCH}, for each of them, and what the bound grows by in "
        "parts of that: filling the pipeline is in neither, if both go through in blocks of as many rows. "
        "Attention waits for the keys and values of a whole sample, so "
        f"each of its layers adds at least the time of one sample to filling: where all steps take as long, {BATCH} samples "
        f"through 12 layers attain {BATCH / (BATCH + 12):.0%} of that at most.",
    )
    return Section(
        "A batch that streams",
        COMMAND,
        "",
        (*header, f"≥ {TARGET_STREAMED:.0%}", "one more", "its attainment", "compile, CPU s"),
        tuple(rows),
        remarks=remarks,
    )


def _batch(model: Model, run: Run, samples: int) -> Run:
    """So many samples of a model on a run's floorplan."""
    many = replace(model, dims={**model.dims, "batch": samples})
    return ran(many, run.chip, run.layout, run.fill, Choices(optimize="throughput"))


def ablation(steps: list[tuple[str, Run]]) -> Section:
    """What each part is worth."""
    plain = {r.chip: r.timing.cycles for name, r in steps if name == STEPS[0][0]}
    rows = tuple(
        (
            f"`--hw {r.chip} -c {r.layout}`",
            name,
            f"{r.timing.cycles:,}",
            f"{plain[r.chip] / r.timing.cycles:.2f}×",
            f"{sum(r.timing.energy_pj.values()) / 1e9:.2f}",
        )
        for name, r in steps
    )
    header = ("chip", "mapping", "cycles", "faster than plain", "energy, mJ")
    return Section(
        "What each part of the mapping is worth", COMMAND, "MiniLM, 128 tokens, one inference.", header, rows
    )


def sections() -> list[Section]:
    """Everything measured here."""
    runs: list[Run] = []
    steps: list[tuple[str, Run]] = []
    with tempfile.TemporaryDirectory() as folder:
        found = models(Path(folder))
        for model in found:
            for chip in CHIPS:
                size, fill = layout(model, chip)
                runs.append(ran(model, chip, size, fill, Choices()))
                if model.path == minilm():
                    steps += [(name, ran(model, chip, size, fill, choices)) for name, choices in STEPS]
        batch = streamed(found, runs)
    return [attained(runs), batch, ablation(steps)]


if __name__ == "__main__":
    show(sections())
