"""Beside PIMCOMP-NN and pimsim-nn on a chip like theirs: ``python -m benchmarks.field [--only TEXT]``.

The small workloads on 16 tiles of 16 crossbars (``pimcomp.yaml``), the networks on 144 tiles of 64. Cycles are those of the
timing engine, one a nanosecond. Compiling is a command in a process of its own.

Their figures: both tools built and run as their READMEs say, in-order cores; simulated nanoseconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Section, show, verdict
from benchmarks.speed import CALL, Child, child
from cimc import bundle
from cimc.sim.timing import run_timing
from models import field
from models.graph import save

COMMAND = "python -m benchmarks.field"
CHIP = Path(__file__).parent / "pimcomp.yaml"
ONE_AT_A_TIME = ("-c", "tiles.cim.cores=1", "-c", "crossbar.cols=2048")
"""A tile is one core of 16 crossbars side by side: one MVM at a time, as in their cores; and one matrix only, unlike them."""
ONE_CORE = ("-c", "tiles.cim.cores=1", "-c", "crossbar.rows=256", "-c", "crossbar.cols=256", "-c", "active_rows=128")
"""The matrix of mm64 in one core of 2 x 2 crossbars whose row blocks take turns: 2,585 cycles a row (theirs 2,610)."""
ALONE = ("-m", "replicas=1")
SQUARE = 128 * 128
"""Cells of one of their crossbars; wider cores here count as so many."""
LARGE = (
    "-c",
    f"layout=[{', '.join(['C' * 12] * 12)}]",
    "-c",
    "tiles.cim.cores=64",
    "-c",
    "memory.bytes_per_cycle=46.08",
)
"""Their default chip, 144 cores of 64 crossbars; memory of 0.32 bytes a cycle for each."""


@dataclass(frozen=True)
class Theirs:
    """What PIMCOMP-NN and pimsim-nn came to. Cycles of the two pipelines (0: not run), the bound of their accounting (the
    busiest core's MVMs times 1,305), crossbars (0: not told); CPU seconds and MiB of compiling for low latency."""

    latency: int
    batch: int
    bound: int
    crossbars: int = 0
    cpu_seconds: float = 0.0
    mib: float = 0.0


@dataclass(frozen=True)
class Work:
    """A row: a recipe, how it is compiled, what theirs came to."""

    recipe: str
    theirs: Theirs
    options: tuple[str, ...] = ()
    note: str = ""


MM64 = Theirs(60_766, 68_164, 20_880, 132)
FFN64 = Theirs(168_795, 186_519, 83_520, 136)
BERTLIN = Theirs(796_215, 330_803, 129_195, 142)
UNKNOWN = Theirs(0, 0, 0)
"""Theirs was not run so."""
CNN_S = Theirs(773_809, 523_984, 271_440, 141)
MM1 = Theirs(6_718, 6_614, 2_610, 4)
SMALL = (
    Work("mm1", MM1),
    Work("mm64", MM64),
    Work("mm64", Theirs(388_835, 0, 167_040, 4), ALONE, "no replication"),
    Work("mm64", Theirs(388_835, 0, 167_040, 4), (*ONE_CORE, *ALONE), "no replication, row blocks take turns"),
    Work("ffn64", FFN64),
    Work("ffn64", UNKNOWN, ALONE, "no replication"),
    Work("bertlin", BERTLIN),
    Work("bertlin", UNKNOWN, ALONE, "no replication"),
    Work("cnn_s", CNN_S),
    Work("cnn_s", UNKNOWN, ALONE, "no replication"),
    Work("mm1", MM1, ONE_AT_A_TIME, "one MVM at a time"),
    Work("mm64", MM64, ONE_AT_A_TIME, "one MVM at a time"),
    Work("ffn64", FFN64, ONE_AT_A_TIME, "one MVM at a time"),
    Work("bertlin", BERTLIN, ONE_AT_A_TIME, "one MVM at a time"),
)
RESNET = Theirs(48_200_000, 13_700_000, 2_754_000, 0, 27.5, 5_503)
SQUEEZENET = Theirs(26_700_000, 7_300_000, 1_085_000, 0, 13.3, 2_803)
AWAY = (*LARGE, "-m", "residence=off")
LARGER = (
    Work("resnet18", RESNET, LARGE),
    Work("squeezenet1.0", SQUEEZENET, LARGE),
    Work("squeezenet1.1", SQUEEZENET, LARGE),
    Work("resnet18", RESNET, AWAY, "residence=off"),
    Work("squeezenet1.0", SQUEEZENET, AWAY, "residence=off"),
    Work("squeezenet1.1", SQUEEZENET, AWAY, "residence=off"),
)


@dataclass(frozen=True)
class Ours:
    """What cimc came to."""

    cycles: int
    bound: int
    by: str
    crossbars: int
    compiling: Child


def measured(work: Work) -> Ours:
    """Compile in a process of its own, then run the clock."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / f"{work.recipe}.onnx", Path(folder) / "out"
        save(field.build(work.recipe), path)
        words = ("--hw", str(CHIP), *work.options, "-q", "-o", str(out))
        compiling = child("-c", CALL, "compile", str(path), *words)
        found = bundle.read(out)
        timing = run_timing(found.program, found.hardware.spec)
        used = int(json.loads((out / bundle.MAPPING).read_text())["totals"]["crossbars_used"])
    core = found.hardware.spec.tile(0).core
    assert core is not None
    used *= core.rows * core.cols // SQUARE
    return Ours(timing.cycles, timing.bound.cycles, timing.bound.by, used, compiling)


def _cycles(count: int) -> str:
    return f"{count:,}" if count else "–"


def _row(work: Work, ours: Ours) -> tuple[str, ...]:
    theirs = work.theirs
    beside = f"{theirs.latency / theirs.bound:.2f}" if theirs.bound else "–"
    faster = f"{theirs.latency / ours.cycles:.2f} ×" + ("" if theirs.latency > ours.cycles else " **slower**")
    return (
        work.recipe,
        work.note or "–",
        f"{ours.cycles:,}",
        f"{ours.bound:,} ({ours.by})",
        f"{ours.cycles / ours.bound:.2f}",
        f"{ours.crossbars}",
        f"{_cycles(theirs.latency)} / {_cycles(theirs.batch)}",
        beside,
        _cycles(theirs.crossbars),
        faster if theirs.latency else "–",
    )


HEADER = (
    "work", "variant", "cycles", "bound", "cycles / bound", "crossbars",
    "theirs, ns: low latency / batch", "/ their bound", "their crossbars", "theirs (low latency) / ours",
)  # fmt: skip
REMARKS = (
    "Their core does one MVM at a time, over all column blocks of one row block, and many matrices may share it; crossbars "
    "of a tile run side by side here. The format cannot say theirs. *One MVM at a time* comes near it from the other side: a "
    "tile is one core of 16 crossbars in a row, which holds one row block of one matrix only. cnn_s has 20 row blocks and "
    "does not fit 16 such tiles. *Row blocks take turns*: 4 crossbars as one core, half of its rows driven at a time.",
    "The two bounds are different things: theirs is the busiest core's MVMs times 1,305; that of the timing engine takes the "
    "least time on every resource of the whole chip, replicas possible or not, and the longest chain of instructions as "
    "they were emitted. So the quotients are not to be compared without the cycles.",
    "Activations between layers are float32 here, quantised per row where they run, and 8 bit there: four times the bytes "
    "travel, and the vector units quantise and dequantise.",
    "Links and memory contend here and do not there. The input comes from global memory and the output goes there.",
    "Their batch pipeline leaves out pooling, Add, Concat and single Relus, so it flatters rows with these; compare with "
    "low latency. Their figures are of another computer and are not measured again here.",
    "ResNet-18 and SqueezeNet: a convolution's windows are loaded from its padded map as they are needed, neighbours' shared "
    "pixels again for each, and never stored. Maps are in global memory by the compiler's own choice here, because a tile "
    "would serve them over links of 3 bytes a cycle; `-m residence=off` is beside it for that. Convolutions with windows "
    "follow each other, they do not overlap. Most tiles hold one copy of one matrix: crossbars are left, tiles are not.",
    "*No replication* beside a dash: theirs ran the work with replication only.",
    "Energies of the hardware file are made up, because the format asks for them.",
)  # fmt: skip


def cycles(works: tuple[Work, ...], found: list[Ours]) -> Section:
    """The table of cycles."""
    rows = tuple(_row(w, o) for w, o in zip(works, found, strict=True))
    about = (
        "`benchmarks/pimcomp.yaml`: 16 tiles of 16 crossbars of 128 x 128 with 8-bit cells, an MVM 1,305 cycles of 1 ns; "
        "ResNet-18 and SqueezeNet on 144 tiles of 64 (which version theirs was is not known: both stand beside it). One "
        "inference, random weights; replication as the compiler chooses unless said."
    )
    return Section("Against the field: cycles", COMMAND, about, HEADER, rows, remarks=REMARKS)


def compiling(works: tuple[Work, ...], found: list[Ours]) -> Section:
    """The table of compiles; with theirs where it is known, and the aim of a fifth of both."""
    rows: list[tuple[str, ...]] = []
    for work, ours in zip(works, found, strict=True):
        mib = ours.compiling.peak_bytes / 2**20
        theirs = work.theirs
        beside = f"{theirs.cpu_seconds} s, {theirs.mib:,.0f} MiB" if theirs.cpu_seconds else "–"
        held = 5 * ours.compiling.cpu_seconds <= theirs.cpu_seconds and 5 * mib <= theirs.mib
        judged = verdict(held) if theirs.cpu_seconds else ""
        rows.append((work.recipe, f"{ours.compiling.cpu_seconds:.1f}", f"{mib:.0f}", beside, judged))
    about = "`cimc compile` in a process of its own, Python's start and libraries included. Aim: a fifth of theirs, of both."
    head = ("work", "CPU s", "peak MiB", "theirs (low latency)", "")
    return Section("Against the field: compiling", COMMAND, about, head, tuple(rows))


def sections(only: str = "") -> list[Section]:
    """Everything measured here."""
    works = tuple(w for w in (*SMALL, *LARGER) if only in w.recipe)
    if not works:
        return []
    found = [measured(w) for w in works]
    plain = [i for i, w in enumerate(works) if not w.note]
    return [cycles(works, found), compiling(tuple(works[i] for i in plain), [found[i] for i in plain])]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Beside PIMCOMP-NN and pimsim-nn.")
    parser.add_argument("--only", default="", help="works whose name contains this")
    show(sections(parser.parse_args(arguments).only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
