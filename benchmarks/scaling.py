"""What compiling costs as models and chips grow, and on published shapes: ``python -m benchmarks.scaling [--only TEXT]``.

Growth: CPU seconds of compiling and writing at four points each of layers, width, sequence and cores, and the exponent of
the growth over n·log n, where n is what the point multiplies: layers, weights (width squared), rows, cores. Shapes: CPU
seconds and peak memory of the command, in a process of its own, and the size of the program's text.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import Section, minilm, show, verdict
from benchmarks.passes import exponent
from benchmarks.speed import CALL, child
from cimc.compiler import compile_model
from cimc.options import Options
from models import small
from models.graph import save

COMMAND = "python -m benchmarks.scaling"
CORES = "tiles.cim.cores={}"
ROOMY = "tiles.cim.local_bytes=1048576"
"""With more cores per tile go more constants and buffers."""
REPEATS = 2
LIMIT = 1.1
"""Of the exponent over n·log n: 1, and 10 % for noise and for caches that grow too small."""
BASE = {"layers": 4, "hidden": 256, "heads": 4, "ffn": 1024, "vocab": 512, "positions": 1024}
SEQUENCE = 64


@dataclass(frozen=True)
class Point:
    """A compile to measure: the model's sizes, its rows, cores per tile; ``size`` is the n of its curve."""

    size: int
    sizes: dict[str, int]
    sequence: int = SEQUENCE
    cores: int = 96


def curves() -> dict[str, list[Point]]:
    """Four points each."""
    widths = (128, 256, 512, 1024)
    return {
        "layers": [Point(n, {**BASE, "layers": n}) for n in (4, 8, 16, 32)],
        "width (n: weights)": [Point(w * w, {**BASE, "hidden": w, "ffn": 4 * w}, cores=192) for w in widths],
        "sequence": [Point(n, BASE, sequence=n) for n in (64, 128, 256, 512)],
        "cores (n: per tile)": [Point(n, BASE, cores=n) for n in (24, 48, 96, 192)],
    }


def seconds(point: Point) -> float:
    """CPU seconds of compiling and writing, the least of several runs."""
    model = small.bert(**point.sizes)
    options = Options("isaac", (CORES.format(point.cores), ROOMY), {"batch": 1, "sequence": point.sequence})
    found = math.inf
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        for _ in range(REPEATS):
            begun = time.process_time()
            made = compile_model(path, options)
            assert made is not None
            made.write(Path(folder) / "out")
            found = min(found, time.process_time() - begun)
    return found


def growth(only: str = "") -> Section:
    """The table of the curves."""
    rows: list[tuple[str, ...]] = []
    for name, points in curves().items():
        if only not in name:
            continue
        found = [seconds(p) for p in points]
        sizes = [p.size * math.log(p.size) for p in points]
        slope = exponent(sizes, found)
        cells = (f"{p.size:,}: {s:.2f}" for p, s in zip(points, found, strict=True))
        rows.append((name, *cells, f"{slope:.2f}", verdict(slope <= LIMIT)))
    return Section(
        "Growth of a compile",
        COMMAND,
        f"A BERT of {BASE['layers']} layers, width {BASE['hidden']}, {SEQUENCE} tokens, on `isaac` with more cores per tile; one "
        "of them grows. Entries are *n: CPU seconds* of compiling and writing; the exponent is that of n·log n.",
        ("what grows", "", "", "", "", "exponent", f"≤ {LIMIT}"),
        tuple(rows),
    )


@dataclass(frozen=True)
class Shape:
    """A published shape and its targets: CPU seconds, peak memory in units of the weights' bytes (0: none), bytes of text."""

    name: str
    sequence: int
    cpu_seconds: float
    memory: float = 1.5
    text_bytes: int = 5_000_000


SHAPES = (
    Shape("minilm", 128, 5, 0),
    Shape("bert-base", 128, 20),
    Shape("gpt2-small", 256, 20),
)


def measured(shape: Shape, folder: Path) -> tuple[str, ...]:
    """The row of a shape."""
    path = minilm() if shape.name == "minilm" else folder / f"{shape.name}.onnx"
    if shape.name != "minilm":
        save(small.build(small.RECIPES[shape.name].config), path)
    weights = path.stat().st_size
    words = ("--dim", "batch=1", "--dim", f"sequence={shape.sequence}", "-c", CORES.format(96), "-q")
    runs = [child("-c", CALL, "compile", str(path), *words, "-o", str(folder / "out")) for _ in range(REPEATS)]
    done = min(runs, key=lambda r: r.cpu_seconds)
    text = (folder / "out" / "program.cim").stat().st_size
    memory = done.peak_bytes / weights
    held = done.cpu_seconds <= shape.cpu_seconds and text <= shape.text_bytes
    held = held and (not shape.memory or memory <= shape.memory)
    return (
        shape.name,
        f"{shape.sequence}",
        f"{done.cpu_seconds:.1f} (≤ {shape.cpu_seconds:g})",
        f"{done.peak_bytes / 1e6:.0f} MB = {memory:.2f} ×" + (f" (≤ {shape.memory:g})" if shape.memory else ""),
        f"{text / 1e6:.2f} MB (≤ {shape.text_bytes / 1e6:g})",
        verdict(held),
    )


def shapes(only: str = "") -> Section:
    """The table of published shapes."""
    rows: list[tuple[str, ...]] = []
    for shape in SHAPES:
        if only in shape.name:
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(shape, Path(folder)))
    return Section(
        "Compiling published shapes",
        COMMAND,
        "`cimc compile` on `isaac` with 96 cores per tile, in a process of its own, Python's start included; memory is the most "
        "that was ever resident, mapped pages and libraries included, against the bytes of the model file (one file).",
        ("model", "tokens", "CPU s", "peak memory / weights", "program text", ""),
        tuple(rows),
    )


def sections() -> list[Section]:
    """Everything measured here."""
    return [shapes(), growth()]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="What compiling costs as models and chips grow.")
    parser.add_argument("--only", default="", help="curves and shapes whose name contains this")
    options = parser.parse_args(arguments)
    show([s for s in (shapes(options.only), growth(options.only)) if s.rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
