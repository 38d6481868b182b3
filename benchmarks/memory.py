"""Peak memory of compiling, against the weights' bytes: ``python -m benchmarks.memory [--model NAME]``.

Models of published sizes (recipes of ``models.small``), in one file and with the weights in an external data file, are
compiled and written by the command, each in a process of its own. Peak memory is all that the process ever had in memory at
once (VmHWM): Python and the libraries, and the pages of files that were mapped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Section, show, verdict
from benchmarks.speed import CALL, child
from models.graph import save
from models.small import RECIPES, build

COMMAND = "python -m benchmarks.memory"
ROOMY = ("-c", "tiles.cim.cores=96")
"""Four times the cores: the larger recipes do not fit the preset as it is."""
MODELS = ("gpt2-small", "smollm2-135m")
DIMS = {"batch": 1, "sequence": 16, "past_sequence": 16}
LIMIT = 1.5
"""Peak memory, in units of the weights' bytes."""


def measured(name: str, folder: Path, *, apart: bool) -> tuple[str, ...]:
    """A row: one recipe, in one file or with its weights ``apart``."""
    path = folder / f"{name}.onnx"
    model = build(RECIPES[name].config)
    weights = sum(len(t.raw_data) for t in model.graph.initializer)
    shapes = [i.type.tensor_type.shape.dim for i in model.graph.input]
    names = {d.dim_param for dims in shapes for d in dims} & DIMS.keys()
    save(model, path, external_above=0 if apart else 1 << 31)
    del model
    dims = [word for d in sorted(names) for word in ("--dim", f"{d}={DIMS[d]}")]
    done = child("-c", CALL, "compile", str(path), *dims, *ROOMY, "-q", "-o", str(folder / "out"))
    for file in folder.glob(f"{path.name}*"):
        file.unlink()
    ratio = done.peak_bytes / weights
    place = "external data" if apart else "one file"
    return (
        name,
        place,
        f"{weights / 1e6:.0f}",
        f"{done.peak_bytes / 1e6:.0f}",
        f"{ratio:.2f}",
        f"≤ {LIMIT}",
        verdict(ratio <= LIMIT),
    )


def sections(models: tuple[str, ...] = MODELS) -> list[Section]:
    """Everything measured here."""
    rows: list[tuple[str, ...]] = []
    for name in models:
        for apart in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                rows.append(measured(name, Path(folder), apart=apart))
    return [
        Section(
            "Memory of a compile",
            COMMAND,
            "`cimc compile` of models with random weights, float32: the most memory the process had at once, Python, its "
            "libraries and mapped pages of the model included.",
            ("model", "weights in", "weights, MB", "peak, MB", "peak / weights", "target", ""),
            tuple(rows),
        )
    ]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="Peak memory of compiling.")
    parser.add_argument("--model", choices=sorted(RECIPES), help="measure this one only")
    options = parser.parse_args(arguments)
    show(sections((options.model,) if options.model else MODELS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
