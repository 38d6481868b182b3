"""``check``: compile, run, the same inputs through onnxruntime, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc import inputs as input_files
from cimc import study
from cimc.compiler import Compiled, Options, compile_model
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
    """How to run and compare. ``inputs`` None: drawn from ``seed``. ``layers``: compare the values inside too."""

    numerics: Numerics = "float"
    seed: int = 0
    inputs: Mapping[str, Array] | None = None
    tolerance: Tolerance | None = None
    timing: bool = True
    trace: bool = False
    command: str = ""
    layers: bool = False
    device: DeviceOptions | None = None


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
    start = time.perf_counter()
    device = how.device.of(options) if how.device and how.numerics == "analog" else None
    calibration = (how.inputs,) if how.inputs and options and options.activations == "static" else ()
    compiled = compile_model(model, options, inputs=how.inputs, calibration=calibration)
    assert compiled is not None
    compiled_at = time.perf_counter()
    feeds = how.inputs if how.inputs is not None else input_files.draw(compiled.program, how.seed)
    feeds = input_files.check(input_files.types(compiled.program), feeds)
    samples = None
    if device is not None and device.calibrated:
        with stage("calibrate"):
            samples = study.calibration(compiled.program, compiled.weights, compiled.hardware.spec, feeds)
    with stage(f"run ({how.numerics} numerics)"):
        result = run(
            compiled.program,
            compiled.weights,
            compiled.hardware.spec,
            inputs=feeds,
            numerics=how.numerics,
            seed=how.seed,
            timing=how.timing,
            trace=how.trace,
            analog=Analog(device, samples=samples),
        )
    ran_at = time.perf_counter()
    graph = compiled.imported
    names = graph.output_names or graph.outputs
    with stage("reference (onnxruntime)"):
        reference = Reference.of(compiled.model, feeds)
        wanted = reference.outputs(names)
    referenced_at = time.perf_counter()
    assert result.outputs is not None
    tolerance = how.tolerance or Tolerance(how.numerics)
    layers: Layers | None = None
    if how.layers:
        measured = result.outputs if how.numerics == "analog" else None
        with stage("layers"):
            layers = compare_layers(compiled.graph, compiled.constants, reference, tolerance, measured)
    agreements = [compare(n, result.outputs[n], wanted[n], tolerance) for n in names]
    report = CheckReport(
        model=str(model),
        hardware=compiled.hardware.name,
        numerics=how.numerics,
        seed=how.seed,
        outputs=agreements,
        layers=layers.agreements if layers else None,
        fallbacks=host_nodes(compiled),
        seconds=CheckSeconds(compiled_at - start, ran_at - compiled_at, referenced_at - ran_at),
        run=figures.from_result(result, host_nodes(compiled)),
        command=how.command,
        reference=reference.name,
        layer_notes=_notes(layers) if layers else None,
    )
    if how.device is None or device is None:
        return Checked(report, compiled, result, wanted)
    subject = study.Subject(compiled.program, compiled.weights, compiled.hardware.spec, feeds, wanted, how.seed)
    return Checked(report, compiled, result, wanted, how.device.study(subject, device, samples, result))


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
