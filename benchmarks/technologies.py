"""Which memory technology suits a transformer? One floorplan, six memories: accuracy, cycles, energy, area, wear.

    python -m benchmarks.technologies [--pairs 6] [--length 12] [--hw sram reram ...] [--time 1d] [--json FILE]

MiniLM's sentence embeddings of ``2 · pairs`` sentences (models/sentence_pairs.py) in one program per preset, in analog
numerics, seed 0, fresh and after ``--time`` where the technology drifts. ``Spearman``: of the pairs' similarities with
onnxruntime's. ``years, reloaded``: if every inference rewrote every weight once, 100 inferences a second, for the
technology's range of endurance; weights that stay in their cells never wear them out. Needs the package that
models/README.md names.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.figures import Section, minilm, show
from cimc import inputs as input_files
from cimc import study
from cimc.arch.units import area_um2
from cimc.compiler import Compiled, compile_model
from cimc.device import Device, duration
from cimc.options import Options
from cimc.report import device_cost, units
from cimc.sim.interpreter import run
from cimc.sim.values import Analog, run_values
from models import minilm as recipe
from models.sentence_pairs import cosine_similarities, some, spearman

PRESETS = ("sram", "sram-dcim", "reram", "pcm", "fefet", "mram")
OUTPUT = "sentence_embedding"
RATE = 100.0
COMMAND = "python -m benchmarks.technologies"


@dataclass(frozen=True)
class Row:
    """One technology at one time since programming."""

    preset: str
    seconds: float
    cosine: float
    spearman: float
    similarity_error: float
    cycles: int
    energy_pj: float
    adc_share: float
    conversions: int
    cells: int
    area_um2: float
    years_reloaded: tuple[float, float] | None


def feeds_of(pairs: int, length: int) -> dict[str, np.ndarray]:
    """Tokens of the first sentences, spread evenly over the list so that every grade is there."""
    return dict(recipe.tokenizer().encode(some(pairs), length).feeds())


def measure(preset: str, feeds: dict[str, np.ndarray], wanted: np.ndarray, times: Sequence[float]) -> list[Row]:
    """A preset at every time."""
    made = compile_model(minilm(), Options(preset), inputs=feeds)
    assert made is not None
    chip = made.hardware.spec
    given = input_files.check(input_files.types(made.program), feeds)
    fresh = Device.of(chip)
    core = study.analog_core(chip)
    samples = study.calibration(made.program, made.weights, chip, given) if core and fresh.calibrated else None
    first = run(
        made.program, made.weights, chip, inputs=given, numerics="analog", analog=Analog(fresh, samples=samples)
    )
    assert first.outputs is not None
    found = [row(preset, made, fresh, first.outputs[OUTPUT], wanted, first)]
    for seconds in times:
        later = fresh.at(seconds)
        if core is None or "drift" not in later.active(core):
            continue
        how = Analog(later, samples=samples)
        outputs, _ = run_values(made.program, made.weights, given, chip, numerics="analog", analog=how)
        found.append(row(preset, made, later, outputs[OUTPUT], wanted, first))
    return found


def row(preset: str, made: Compiled, device: Device, got: np.ndarray, wanted: np.ndarray, result: object) -> Row:
    """The figures of one run; cycles and energy do not depend on the time."""
    cost = device_cost.cost(made.program, made.hardware.spec, device, result, RATE)  # pyright: ignore[reportArgumentType]
    a, b = got.astype(np.float64).ravel(), wanted.astype(np.float64).ravel()
    end = cost.wear.endurance
    timing = result.timing  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    return Row(
        preset,
        device.seconds,
        float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)),
        spearman(cosine_similarities(got), cosine_similarities(wanted)),
        float(np.abs(cosine_similarities(got) - cosine_similarities(wanted)).max()),
        timing.cycles,
        sum(timing.energy_pj.values()),
        cost.adc_energy or 0.0,
        cost.conversions or 0,
        cost.cells,
        area_um2(made.hardware.spec),
        None if end is None else (end.low / RATE / units.YEAR, end.high / RATE / units.YEAR),
    )


def rows(pairs: int, length: int, presets: Sequence[str], times: Sequence[float]) -> list[Row]:
    """Every preset at every time."""
    feeds = feeds_of(pairs, length)
    session = onnxruntime.InferenceSession(str(minilm()), providers=["CPUExecutionProvider"])
    wanted = np.asarray(session.run([OUTPUT], dict(feeds))[0])
    found: list[Row] = []
    for preset in presets:
        for one in measure(preset, feeds, wanted, times):
            print(one, file=sys.stderr, flush=True)
            found.append(one)
    return found


def section(found: Sequence[Row], pairs: int, length: int) -> Section:
    """The table."""
    header = ("preset", "after", "cosine", "Spearman", "cycles", "energy", "ADC share", "conversions", "cells", "area")
    table = [
        (
            r.preset,
            f"{r.seconds:g} s",
            f"{r.cosine:.4f}",
            f"{r.spearman:.3f}",
            f"{r.cycles:,}",
            f"{r.energy_pj / 1e9:.2f} mJ",
            f"{100 * r.adc_share:.0f} %",
            f"{r.conversions / 1e6:.0f} M",
            f"{r.cells / 1e6:.1f} M",
            f"{r.area_um2 / 1e6:.0f} mm2",
            "-" if r.years_reloaded is None else f"{r.years_reloaded[0]:.2g} to {r.years_reloaded[1]:.2g}",
        )
        for r in found
    ]
    about = (
        f"all-MiniLM-L6-v2, {2 * pairs} sentences of {length} tokens in one run, seed 0, against onnxruntime. The presets are "
        "one floorplan with six memories (docs/technologies.md); the spreads of SRAM, FeFET and MRAM are estimated."
    )
    command = f"{COMMAND} --pairs {pairs} --length {length}"
    exchanged = 1 - 12 / (pairs * (pairs**2 - 1))
    remark = (
        f"Spearman of {pairs} pairs goes in steps, and two neighbours that change places make {exchanged:.3f}: it tells a "
        "ranking that is lost from one that is kept, and no more. The cosine tells the memories apart."
    )
    header = (*header, "years, reloaded")
    return Section("Memory technologies on one floorplan", command, about, header, tuple(table), remarks=(remark,))


def sections() -> list[Section]:
    """For ``benchmarks/all.py``."""
    return [section(rows(6, 12, PRESETS, (86400.0,)), 6, 12)]


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--length", type=int, default=12, help="tokens a sentence, cut and padded")
    parser.add_argument("--hw", nargs="+", default=list(PRESETS))
    parser.add_argument("--time", nargs="*", default=["1d"])
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    found = rows(chosen.pairs, chosen.length, chosen.hw, [duration(t) for t in chosen.time])
    show([section(found, chosen.pairs, chosen.length)])
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(r) for r in found], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
