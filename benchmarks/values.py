"""What values of 16 bits between products cost and bring: ``python -m benchmarks.values``.

The models of :mod:`benchmarks.attainment`, on the floorplans of ``sram-digital`` that it takes: cycles, energy and bytes, and how
far ``integer`` numerics are from onnxruntime, with values of each type.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import get_args

import numpy as np
import onnx

from benchmarks.accuracy import Array, cosine, reference, sentence
from benchmarks.attainment import Model, layout, models
from benchmarks.figures import Section, minilm, show
from cimc.compiler import Compiled, compile_model
from cimc.options import Options, Values
from cimc.session import InferenceSession
from cimc.sim.timing import run_timing
from models.inputs import sample_inputs

COMMAND = "python -m benchmarks.values"
CHIP = "sram-digital"
KINDS: tuple[Values, ...] = get_args(Values)


def relative_error(found: Array, wanted: Array) -> float:
    """Root mean square of the differences over that of what is wanted."""
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    return float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))


def errors(made: Compiled, model: Model, wanted: dict[str, Array], inputs: dict[str, Array]) -> tuple[float, float]:
    """Of the output that is furthest from onnxruntime's, in ``integer`` numerics: cosine similarity, relative error."""
    session = InferenceSession(made, "integer", timing=False)
    found = dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))
    cosines = {name: cosine(found[name], wanted[name]) for name in wanted}
    worst = min(cosines, key=lambda name: cosines[name])
    return cosines[worst], relative_error(found[worst], wanted[worst])


def rows_of(model: Model) -> list[tuple[str, ...]]:
    """A model with values of every type."""
    size, _ = layout(model, CHIP)
    tokens = model.dims.get("sequence", 0)
    inputs = sentence(tokens) if model.path == minilm() else sample_inputs(onnx.load(str(model.path)), model.dims)
    wanted = reference(model.path, inputs)
    rows: list[tuple[str, ...]] = []
    wide = 0
    for kind in KINDS:
        made = compile_model(model.path, Options(CHIP, (size,), model.dims, values=kind))
        assert made is not None
        found = run_timing(made.program, made.hardware.spec)
        wide = wide or found.cycles
        near, error = errors(made, model, wanted, inputs)
        traffic = found.traffic_bytes
        rows.append(
            (
                *(model.name, f"`-c {size}`", kind, f"{found.cycles:,}", f"{wide / found.cycles:.2f}×"),
                *(f"{found.bound.cycles / found.cycles:.1%}", f"{sum(found.energy_pj.values()) / 1e9:.2f}"),
                *(f"{traffic['noc'] / 1e6:.0f}", f"{traffic['local_buffer'] / 1e6:.0f}"),
                *(f"{near:.6f}", f"{error:.4f}"),
            )
        )
    return rows


def sections() -> list[Section]:
    """Everything measured here."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models(Path(folder)):
            rows += rows_of(model)
    header = (
        *("model", f"`--hw {CHIP}`", "`--values`", "cycles", "faster", "attainment", "energy, mJ"),
        *("NoC, MB · hops", "local buffers, MB", "cosine", "relative error"),
    )
    remarks = (
        "One inference at a time. Cosine and relative error (root mean square) are those of `integer` numerics against "
        "onnxruntime, of the output that is furthest from it. In front of every product are codes of 8 bits; beside them the 11 "
        "bits of f16 in between cannot be seen, the 8 bits of bf16 can, hardly. MiniLM's weights are trained ones, its input is "
        "a sentence; the others' are drawn. What stays in 32 bits: partial sums of products, what is inside an op, inputs and "
        "outputs of the model.",
    )
    return [Section("Narrower values", COMMAND, "", header, tuple(rows), remarks=remarks)]


if __name__ == "__main__":
    show(sections())
