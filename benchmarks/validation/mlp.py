"""PUMA's MLP 256-256-256-256-10: 7,879 cycles in its simulator, and where cimc's cycles on the ``puma`` preset go."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from benchmarks.figures import Section
from benchmarks.validation.figure import COMMAND
from benchmarks.validation.puma import HEAD
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.sim.result import Event
from cimc.sim.timing import run_timing
from models import small
from models.graph import save

PUMA_CYCLES = 7879  # puma-simulator @a206f75, run on that network: include/config.py as it stands, 1 ns a cycle
PUMA_MVMS = 4 * 1800  # its four layers one after another, 100 x (16 + 3 - 1) cycles each
KINDS = {"core": "MVMs", "special": "functions", "vector": "functions", "port": "messages", "receive": "messages"}
ORDER = ("MVMs", "functions", "messages", "memory")
SIXTEEN_BITS = "cim.core.phases=2"  # 8-bit inputs gone through twice: the 16 steps of a 16-bit input
WIDE = ("noc.link_bytes_per_cycle=32", "noc.flit_bytes=32")


@dataclass(frozen=True)
class Run:
    """Cycles of a run, split by what the machine was doing."""

    what: str
    cycles: int
    split: Counter[str]


def split(events: Sequence[Event]) -> Counter[str]:
    """Every cycle of a run goes to the first of :data:`ORDER` that is at work somewhere: layers follow each other here,
    so that MVMs, functions, messages and loads take turns. A ``recv`` counts from when it is posted."""
    points = sorted({p for e in events for p in (e.start, e.end)})
    found: Counter[str] = Counter()
    for low, high in pairwise(points):
        busy = {KINDS.get(e.unit.split(":")[0], "memory") for e in events if e.start <= low and e.end >= high}
        found[next((kind for kind in ORDER if kind in busy), "memory")] += high - low
    return found


@cache
def runs() -> tuple[Run, ...]:
    """The preset as it is; with the simulator's stages and 16 input bits; and with links as wide as PUMA's tile bus."""
    wanted = (
        ("`puma` as it is: 8-bit inputs, stages of 128 ns", ()),
        ("16 input bits, stages of 100 ns as the simulator", (SIXTEEN_BITS, *HEAD)),
        ("and links of 32 bytes a cycle", (SIXTEEN_BITS, *HEAD, *WIDE)),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mlp.onnx"
        save(small.mlp(), path)
        return tuple(_run(path, what, overrides) for what, overrides in wanted)


def _run(model: Path, what: str, overrides: tuple[str, ...]) -> Run:
    made = compile_model(model, Options(hardware="puma", overrides=overrides, dims={"batch": 1}))
    assert made is not None
    timing = run_timing(made.program, made.hardware.spec, trace=True)
    return Run(what, timing.cycles, split(timing.events))


def section() -> Section:
    """The breakdown."""
    rest = PUMA_CYCLES - PUMA_MVMS
    rows = [("PUMA's simulator", f"{PUMA_CYCLES:,}", "", f"{PUMA_MVMS:,}", f"{rest:,} for all three", "", "")]
    for run in runs():
        error = f"{100 * (run.cycles / PUMA_CYCLES - 1):+.1f} %"
        rows.append((run.what, f"{run.cycles:,}", error, *(f"{run.split[kind]:,}" for kind in ORDER)))
    _, equal, wide = runs()
    remarks = (
        "Four layers one after another: 7,200 of PUMA's cycles are its MVMs, and on equal stages they are 7,200 here too. As "
        "shipped, the preset streams 8-bit inputs (8 + 2 stages of 128 ns) and so is faster.",
        f"The rest, {rest} cycles there, is {equal.cycles - PUMA_MVMS:,} here: PUMA keeps a layer's 16-bit words in the tile, "
        "behind a 256-bit bus, and cimc sends rows of 32-bit floats from layer to layer over the mesh, whose links the preset "
        f"gives PUMA's 4 bytes a cycle. With links as wide as that bus it is {wide.cycles - PUMA_MVMS:,}.",
        "cimc quantises each row and de-quantises each product (its lanes work on floats); PUMA is 16-bit fixed point "
        "throughout. Its 922.9 nJ are not compared: it computes with 16-bit weights on 8 crossbars, the compiler here with 8-bit "
        "ones on 4.",
    )
    head = ("machine", "cycles", "against PUMA's", *ORDER)
    about = (
        "`python -m models.small mlp`, batch 1, on `puma`; overrides: "
        f"`{' '.join((SIXTEEN_BITS, *HEAD))}`, then `{' '.join(WIDE)}`."
    )
    return Section("PUMA's MLP 256-256-256-256-10", COMMAND, about, head, tuple(rows), remarks=remarks)
