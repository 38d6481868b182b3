"""Repairs of the device, each with its measured effect and cost: on a small transformer and on one matrix.

    python -m benchmarks.repairs [--seeds 3] [--matrix-only]

Errors are against integer numerics on the same inputs (RMS of the difference over the RMS of the output, and cosine),
mean over the seeds; costs are those of one inference on `isaac`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save_model

from benchmarks.figures import Section, show
from cimc import inputs as input_files
from cimc.arch.units import area_um2
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.options import Options
from cimc.report import units
from cimc.report.device import error_of
from cimc.report.device_cost import Cost, cost
from cimc.sim.interpreter import run
from cimc.sim.tally import Samples
from cimc.sim.values import Analog
from cimc.study import calibration
from models.small import bert

Arrays = Mapping[str, np.ndarray]
STUCK = ("stuck_off_rate=0.002", "stuck_on_rate=0.002")
PAIR = ("core.encoding=differential",)
SIX = ("adc.bits=6",)
HEADER = (
    "repair",
    "error",
    "cosine",
    "cells",
    "conversions",
    "energy",
    "cycles",
    "chip",
    "tables, calibration (of these)",
)
SIZES = "bert, 2 layers of 64, 8 tokens", "one 384 x 384 matrix, 8 rows"


@dataclass(frozen=True)
class Case:
    """A row: settings of ``--device`` on a technology, overrides of the hardware, and how the program calibrates.
    ``data``: ADC ranges from so many other inputs than the run's own."""

    name: str
    settings: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    calibrate: str = "never"
    data: int = 0


@dataclass(frozen=True)
class Group:
    """Cases that repair the same thing."""

    title: str
    technology: str
    settings: tuple[str, ...]
    cases: tuple[Case, ...]


GROUPS = (
    Group(
        "0.4 % of the cells stuck, ideal otherwise",
        "ideal",
        STUCK,
        (
            Case("none"),
            Case("remap=rows", ("remap=rows",)),
            Case("remap=columns", ("remap=columns",)),
            Case("remap=both", ("remap=both",)),
            Case("remap=columns, 8 spare columns", ("remap=columns",), ("crossbar.spare_cols=8",)),
            Case("3 copies of the top slice, median", (), ("core.msb_copies=3",)),
            Case("3 copies of the top slice, mean", (), ("core.msb_copies=3", "core.msb_combine=mean")),
            Case("3 copies of two slices, median", (), ("core.msb_copies=3", "core.msb_slices=2")),
        ),
    ),
    Group(
        "PCM after a day, differential pairs, drift alone",
        "pcm",
        ("seconds=1d", "programming=off", "read_noise=off", "adc=off"),
        (
            Case("none", (), PAIR),
            Case("drift_compensation=global", ("drift_compensation=global",), PAIR),
            Case("drift_compensation=column", ("drift_compensation=column",), PAIR),
            Case("--calibrate start", (), PAIR, "start"),
            Case("--calibrate start, 12 h old, for 1000 inferences",
                 ("calibration_age=12h", "calibration_interval=1000"), PAIR, "start"),
        ),
    ),
    Group(
        "PCM after a day, offset encoding, everything on",
        "pcm",
        ("seconds=1d",),
        (
            Case("none"),
            Case("drift_compensation=column", ("drift_compensation=column",)),
            Case("--calibrate start", (), (), "start"),
            Case("--calibrate start, 3 copies of two slices, mean", (),
                 ("core.msb_copies=3", "core.msb_slices=2", "core.msb_combine=mean"), "start"),
        ),
    ),
    Group(
        "PCM just programmed, offset encoding",
        "pcm",
        (),
        (
            Case("none"),
            Case("write_verify=10", ("write_verify=10",)),
            Case("3 copies of the top slice, mean", (), ("core.msb_copies=3", "core.msb_combine=mean")),
            Case("3 copies of the top slice, median", (), ("core.msb_copies=3",)),
            Case("3 copies of two slices, mean", (),
                 ("core.msb_copies=3", "core.msb_slices=2", "core.msb_combine=mean")),
        ),
    ),
    Group(
        "A 6-bit ADC, ideal cells",
        "ideal",
        (),
        (
            Case("adc_range=fixed", (), SIX),
            Case("adc_range=full", ("adc_range=full",), SIX),
            Case("calibrated on the run's own input", ("adc_range=calibrated",), SIX),
            Case("calibrated on 8 other inputs", ("adc_range=calibrated",), SIX, data=8),
            Case("a slice at a time, on 8 other inputs", ("adc_range=calibrated_slice",), SIX, data=8),
        ),
    ),
)  # fmt: skip


def matrix_model() -> ModelProto:
    """One product with fixed weights."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((384, 384)).astype(np.float32) / 20
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    shape = [8, 384]
    graph = helper.make_graph(
        [node],
        "matrix",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


class Bench:
    """A model, compiled once for each hardware and calibration."""

    def __init__(self, path: Path, dims: Mapping[str, int]) -> None:
        self._path, self._dims = path, dict(dims)
        self._compile = cache(self._compiled)

    def _compiled(self, overrides: tuple[str, ...], calibrate: str) -> Compiled:
        start = "start" if calibrate == "start" else "never"
        made = compile_model(self._path, Options(overrides=overrides, dims=self._dims, calibrate=start))
        assert made is not None
        return made

    def row(self, group: Group, case: Case, seeds: int) -> tuple[str, ...]:
        """A case's row of cells."""
        on = self._compile(case.overrides, case.calibrate)
        device = Device.of(on.hardware.spec, (*group.settings, *case.settings), group.technology)
        feeds = input_files.draw(on.program, 0)
        samples = self._samples(on, device, case.data, feeds)
        want = run(on.program, on.weights, on.hardware.spec, inputs=feeds, numerics="integer", timing=False).outputs
        assert want is not None
        name = next(iter(want))
        errors: list[float] = []
        cosines: list[float] = []
        for seed in range(seeds):
            how = Analog(device, samples=samples)
            chip = on.hardware.spec
            result = run(
                on.program, on.weights, chip, inputs=feeds, numerics="analog", seed=seed, timing=seed == 0, analog=how
            )
            assert result.outputs is not None
            found = error_of(result.outputs[name], want[name], want[name])
            errors.append(found.error or 0.0)
            cosines.append(found.cosine or 0.0)
            if seed == 0:
                told, timing = cost(on.program, chip, device, result, 1.0), result.timing
        assert timing is not None
        return (
            case.name,
            f"{100 * float(np.mean(errors)):.3g} %",
            f"{float(np.mean(cosines)):.4f}",
            units.whole(told.cells),
            units.whole(timing.actions.get("adc.convert", 0)),
            units.energy_pj(sum(timing.energy_pj.values())),
            units.whole(timing.cycles),
            f"{area_um2(on.hardware.spec) / 1e6:.4g} mm2",
            extras(told),
        )

    @staticmethod
    def _samples(on: Compiled, device: Device, data: int, feeds: Arrays) -> Samples | None:
        if not device.calibrated:
            return None
        runs = [input_files.draw(on.program, seed) for seed in range(1, data + 1)] or [feeds]
        return calibration(on.program, on.weights, on.hardware.spec, *runs)


def extras(told: Cost) -> str:
    """What index tables and calibrations take."""
    faults, once = told.repairs.faults, told.repairs.calibration
    parts: list[str] = []
    if faults is not None and faults.table_bits:
        size = units.size_bytes(faults.table_bits / 8)
        parts.append(f"tables {size}, {units.energy_pj(faults.table_pj)} more (estimated)")
    if once is not None:
        share = f" / {once.interval}" if once.interval > 1 else ""
        energy = f"{units.energy_pj(once.pj)} and {units.energy_pj(once.leakage_pj)} leakage"
        parts.append(f"({energy}, {units.whole(once.cycles)} cycles){share} an inference")
    return "; ".join(parts) or "-"


def sections(seeds: int = 3, matrix_only: bool = False) -> list[Section]:
    """A table per group and model."""
    command = "python -m benchmarks.repairs"
    found: list[Section] = []
    with tempfile.TemporaryDirectory() as folder:
        small, one = Path(folder) / "bert.onnx", Path(folder) / "matrix.onnx"
        save_model(bert(layers=2, hidden=64, heads=2), small)
        save_model(matrix_model(), one)
        benches = [(SIZES[1], Bench(one, {}))]
        if not matrix_only:
            benches.insert(0, (SIZES[0], Bench(small, {"batch": 1, "sequence": 8})))
        for group in GROUPS:
            for size, bench in benches:
                print(f"{group.title}; {size} ...", file=sys.stderr, flush=True)
                rows = tuple(bench.row(group, case, seeds) for case in group.cases)
                about = (
                    f"{size}; hardware `isaac`, `{group.technology}`, mean of {seeds} seeds, against integer numerics."
                )
                found.append(Section(f"Repairs: {group.title}", command, about, HEADER, rows))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--matrix-only", action="store_true")
    chosen = parser.parse_args(arguments)
    show(sections(chosen.seeds, chosen.matrix_only))
    return 0


if __name__ == "__main__":
    sys.exit(main())
