"""``check``: compile, run, the same inputs through onnxruntime, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cimc import inputs as input_files
from cimc import study
from cimc.compiler import Compiled, Options, compile_model
from cimc.device import device_calibrates
from cimc.layers import Layers, compare_layers
from cimc.reference import Reference
from cimc.report import figures
from cimc.report.check import CheckReport, CheckSeconds, LayerNotes
from cimc.report.compare import Tolerance, compare
from cimc.report.figures import HostNode
from cimc.report.progress import stage
from cimc.session import Numerics
from cimc.sim.interpreter import run
from cimc.sim.result import RunResult
from cimc.sim.values import Analog
from cimc.study import DeviceOptions, DeviceStudy

Array = NDArray[np.generic]


@dataclass(frozen=True)
class CheckOptions:
    """How to run and compare. ``inputs`` None: drawn from ``seed``. ``layers``: compare the values inside too.
    ``calibration``: inputs (or several, along a first axis) that ADC ranges are calibrated on; None: the run's own."""

    numerics: Numerics = "float"
    seed: int = 0
    inputs: Mapping[str, Array] | None = None
    tolerance: Tolerance | None = None
    timing: bool = True
    trace: bool = False
    command: str = ""
    layers: bool = False
    device: DeviceOptions | None = None
    calibration: Mapping[str, Array] | None = None


@dataclass(frozen=True)
class Checked:
    """The report, and what it was made from. ``device``: what analog numerics found out besides."""

    report: CheckReport
    compiled: Compiled
    result: RunResult
    outputs: Mapping[str, Array] = field(default_factory=dict[str, Array])
    device: DeviceStudy | None = None


def check_model(model: str, options: Options | None = None, how: CheckOptions | None = None) -> Checked:
    """Compile, run and compare with onnxruntime. Raises CimcError; differing outputs are no error but a failed report."""
    how = how or CheckOptions()
    clock = [time.perf_counter()]
    given = how.inputs
    calibration = (given,) if given and options and options.activations == "static" else ()
    compiled = compile_model(model, options, inputs=given, calibration=calibration, specialize=given is not None)
    assert compiled is not None
    clock.append(time.perf_counter())
    every = given if given is not None else input_files.draw(compiled.program, how.seed, compiled.tokens)
    # Inputs that decide shapes are compiled in: the program takes them no more, the reference does.
    taken = {n: v for n, v in every.items() if n not in compiled.fixed}
    feeds = input_files.check(input_files.types(compiled.program), taken)
    analog = _analog(compiled, options, how, feeds)
    result = _run(compiled, how, feeds, analog)
    clock.append(time.perf_counter())
    graph = compiled.imported
    with stage("reference (onnxruntime)"):
        reference = Reference.of(compiled.model, every)
        wanted = reference.outputs(graph.output_names or graph.outputs)
    clock.append(time.perf_counter())
    report = _report(model, compiled, how, result, (reference, wanted), clock)
    if how.device is None or analog.device is None:
        return Checked(report, compiled, result, wanted)
    subject = study.Subject(compiled.program, compiled.weights, compiled.hardware.spec, feeds, wanted, how.seed)
    found = how.device.study(subject, analog.device, analog.samples, result)
    return Checked(report, compiled, result, wanted, found)


def _analog(compiled: Compiled, options: Options | None, how: CheckOptions, feeds: Mapping[str, Array]) -> Analog:
    """How analog numerics are to run: the device asked for, and what its converters are calibrated on."""
    device = how.device.of(options) if how.device and how.numerics == "analog" else None
    device_calibrates(device, how.calibration is not None)
    if device is None or not device.calibrated:
        return Analog(device)
    runs: Sequence[Mapping[str, Array]] = [feeds]
    if how.calibration is not None:
        taken = {n: v for n, v in how.calibration.items() if n not in compiled.fixed}
        runs = input_files.calibration(input_files.types(compiled.program), taken)
    with stage("calibrate"):
        samples = study.calibration(compiled.program, compiled.weights, compiled.hardware.spec, *runs)
    return Analog(device, samples=samples)


def _run(compiled: Compiled, how: CheckOptions, feeds: Mapping[str, Array], analog: Analog) -> RunResult:
    with stage(f"run ({how.numerics} numerics)"):
        return run(
            compiled.program,
            compiled.weights,
            compiled.hardware.spec,
            inputs=feeds,
            numerics=how.numerics,
            seed=how.seed,
            timing=how.timing,
            trace=how.trace,
            analog=analog,
        )


def _report(
    model: str,
    compiled: Compiled,
    how: CheckOptions,
    result: RunResult,
    against: tuple[Reference, Mapping[str, Array]],
    clock: list[float],
) -> CheckReport:
    reference, wanted = against
    assert result.outputs is not None
    tolerance = how.tolerance or Tolerance(how.numerics)
    layers: Layers | None = None
    if how.layers:
        measured = result.outputs if how.numerics == "analog" else None
        with stage("layers"):
            layers = compare_layers(compiled.graph, compiled.constants, reference, tolerance, measured)
    return CheckReport(
        model=model,
        hardware=compiled.hardware.name,
        numerics=how.numerics,
        seed=how.seed,
        outputs=[compare(n, result.outputs[n], w, tolerance) for n, w in wanted.items()],
        layers=layers.agreements if layers else None,
        fallbacks=host_nodes(compiled),
        seconds=CheckSeconds(*(after - before for before, after in pairwise(clock))),
        run=figures.from_result(result, host_nodes(compiled)),
        command=how.command,
        reference=reference.name,
        layer_notes=_notes(layers) if layers else None,
    )


def _notes(layers: Layers) -> LayerNotes:
    jump = layers.jump
    told = None if jump is None else (jump.name, jump.op, jump.before_db, jump.after_db)
    return LayerNotes(layers.numerics, told, layers.causes)


def host_nodes(compiled: Compiled) -> tuple[HostNode, ...]:
    """Nodes that run on the host controller, and why."""
    return tuple(
        HostNode(op_type=str(n.attr("op_type")), node=str(n.origin), reason=str(n.attr("reason")))
        for n in compiled.graph.nodes
        if n.op == "host"
    )
