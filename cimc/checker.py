"""``check``: compile, run, the same inputs through onnxruntime, compare."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from cimc import errors, mixed, npz, study
from cimc import inputs as input_files
from cimc.arch.spec import ChipSpec
from cimc.compiler import Compiled, compile_model
from cimc.device import device_calibrates
from cimc.frontend.halves import HALVES
from cimc.ir.evaluate import evaluate_all
from cimc.ir.graph import Graph, Node
from cimc.layers import Layers, compare_layers
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.passes.copies import Copies
from cimc.passes.pipeline_text import parse_pipeline
from cimc.reference import Reference
from cimc.report.beside import Known, run_figures
from cimc.report.check import CheckReport, CheckSeconds, LayerNotes, NotFinite
from cimc.report.compare import Tolerance, compare
from cimc.report.figures import HostNode
from cimc.report.jsontext import JsonObject
from cimc.report.mapping_file import capacity_of, work_of
from cimc.report.mixed import MixedReport, Outcome, Sensitivity
from cimc.report.progress import follow, stage
from cimc.session import Numerics
from cimc.sim.interpreter import run
from cimc.sim.kept import Kept
from cimc.sim.result import RunResult
from cimc.sim.values import Analog
from cimc.study import DeviceOptions, DeviceStudy

Array = NDArray[np.generic]
MOVES = frozenset(("cast", "copy", "reshape", "transpose", "slice", "expand"))
"""Ops that compute nothing."""


@dataclass(frozen=True)
class CheckOptions:
    """How to run and compare. ``inputs`` None: drawn from ``seed``. ``layers``: compare the values inside too.
    ``calibration``: inputs (or several, along a first axis) that ADC ranges are calibrated on, and what the compile
    measures; None: the run's own."""

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
    mixed: MixedReport | None = None

    def to_json(self) -> JsonObject:
        """The object of ``check --json``."""
        found = self.report.to_json()
        if self.device is not None:
            found["device"] = self.device.to_json()
        if self.mixed is not None:
            found["mixed"] = self.mixed.to_json()
        return found


@dataclass(frozen=True)
class _Run:
    """A check before the studies beside it."""

    checked: Checked
    subject: study.Subject
    analog: Analog


@dataclass
class _Known:
    """What the programs of one check share: programmed cores, and the reference's outputs."""

    kept: Kept | None
    reference: Reference | None = None
    wanted: Mapping[str, Array] = field(default_factory=dict[str, Array])

    def refer(self, compiled: Compiled, inputs: Mapping[str, Array]) -> tuple[Reference, Mapping[str, Array]]:
        """The reference and its outputs, run again only for other inputs."""
        old = self.reference
        same = old is not None and old.inputs.keys() == inputs.keys()
        if old is None or not same or not all(np.array_equal(old.inputs[n], v) for n, v in inputs.items()):
            graph = compiled.imported
            with stage("reference (onnxruntime)"):
                self.reference = old = Reference.of(compiled.model, inputs)
                self.wanted = old.outputs(graph.output_names or graph.outputs)
        return old, self.wanted


def check_model(model: str, options: Options | None = None, how: CheckOptions | None = None) -> Checked:
    """Compile, run and compare with onnxruntime. Raises CimcError; differing outputs are no error but a failed report."""
    how = how or CheckOptions()
    if options is not None and options.lengths is not None:
        raise options.lengths.unchecked()
    found: MixedReport | None = None
    budget = None if how.device is None or how.numerics != "analog" else how.device.budget
    copies = _middle(options, budget)
    base = replace(options or Options(), copies="") if copies else options
    several = how.device is not None and (how.device.budget is not None or how.device.trials > 0)
    known = _Known(Kept() if several else None)
    made = _check(model, base, how, known)
    if budget is not None and made.analog.device is not None:
        within = _with_copies if copies else _within
        made, found = within(model, options, how, budget, (made, known))
    if how.device is None or made.analog.device is None:
        return made.checked
    beside = how.device.study(made.subject, made.analog.device, made.analog.samples, made.checked.result)
    return replace(made.checked, device=beside, mixed=found)


def _within(
    model: str, options: Options | None, how: CheckOptions, budget: float, before: tuple[_Run, _Known]
) -> tuple[_Run, MixedReport]:
    """The check with as many layers digital as an accuracy budget needs, and what was found on the way."""
    first, known = before
    device, samples = first.analog.device, first.analog.samples
    assert device is not None
    seeds, layers = _sensitive(first, how)
    with stage("budget"):
        found = mixed.search(first.subject, device, layers, budget, seeds, samples)
    made, count, programs = first, found.digital, 1
    base = options or Options()
    while count:
        names = tuple(layer.name for layer in layers[:count])
        made = _check(model, replace(base, digital=(*base.digital, *names)), how, known)
        programs += 1
        cosine = _outcome(made).cosine
        if cosine is None or cosine >= budget or count == len(layers):
            break
        # The cells of this program are others than those of the search: a few more layers.
        count = len(layers) if programs > mixed.MOST_PROGRAMS else min(len(layers), count + max(1, len(layers) // 16))
    told = [Sensitivity(x.name, x.weights, x.error, i < count) for i, x in enumerate(layers)]
    return made, MixedReport(budget, tuple(seeds), told, _outcome(first), _outcome(made), programs)


def _middle(options: Options | None, budget: float | None) -> Copies | None:
    """The level between analog and digital that a budget may use: copies, if any were asked for. Raises PASS_OPTION for
    layers that are named for both."""
    if options is None or not options.copies or budget is None:
        return None
    found = parse_pipeline(f"copies{{{options.copies}}}", "--copies")[0]
    assert isinstance(found, Copies)
    if found.layers != "*":
        why, fix = "--budget finds the layers by itself", "leave layers out"
        raise errors.PASS_OPTION(option="layers", name="copies", why=why, fix=fix)
    return found


def _with_copies(
    model: str, options: Options | None, how: CheckOptions, budget: float, before: tuple[_Run, _Known]
) -> tuple[_Run, MixedReport]:
    """As :func:`_within`, with copies as the level between: every try is a program compiled and run. What does not fit the
    chip does not hold."""
    base, copies = options or Options(), _middle(options, budget)
    assert copies is not None
    first, known = before
    seeds, layers = _sensitive(first, how)
    names = [layer.name for layer in layers]
    tried: dict[tuple[int, int], float] = {}

    def chosen(digital: int, copied: int) -> Options:
        named = "*" if digital + copied == len(names) else ",".join(names[digital : digital + copied])
        text = f'count={copies.count}, layers="{named}"' if copied else ""
        return replace(base, digital=(*base.digital, *names[:digital]), copies=text)

    def held(digital: int, copied: int) -> bool:
        if (digital, copied) not in tried:
            try:
                made = _check(model, chosen(digital, copied), replace(how, timing=False), known)
                tried[digital, copied] = _mean_cosine(made, seeds)
            except errors.CimcError as e:
                if e.code != errors.DOES_NOT_FIT.code:
                    raise
                tried[digital, copied] = -1.0
        return tried[digital, copied] >= budget

    with stage("budget"):
        digital, copied = mixed.levels(len(layers), held)
    made = _check(model, chosen(digital, copied), how, known)
    told = [
        Sensitivity(x.name, x.weights, x.error, i < digital, copies.count if digital <= i < digital + copied else 1)
        for i, x in enumerate(layers)
    ]
    report = MixedReport(budget, tuple(seeds), told, _outcome(first), _outcome(made), len(tried) + 1)
    return made, report


def _sensitive(first: _Run, how: CheckOptions) -> tuple[range, tuple[mixed.Layer, ...]]:
    """The seeds of a budget, and the layers of the program by their sensitivities."""
    device, samples = first.analog.device, first.analog.samples
    assert device is not None
    assert how.device is not None
    if first.subject.core is None:
        raise errors.ANALOG_CONFIG(key="--budget", why="no core of the chip is analog", fix="choose other hardware")
    seeds = range(how.seed, how.seed + max(how.device.trials, 1))
    with stage("sensitivities"):
        layers = mixed.layers_of(first.checked.compiled.graph)
        return seeds, mixed.sensitivities(first.subject, device, layers, seeds, samples)


def _mean_cosine(made: _Run, seeds: Sequence[int]) -> float:
    """The worst output's cosine, the mean of the seeds."""
    device, alone = made.analog.device, _outcome(made).cosine
    assert device is not None
    if len(seeds) == 1 and alone is not None:
        return alone
    return mixed.mean_cosine([t.errors for t in study.trials(made.subject, device, len(seeds), made.analog.samples)])


def _outcome(made: _Run) -> Outcome:
    result = made.checked.result
    timing, counts = result.timing, result.counts
    return Outcome(
        made.checked.report.least_cosine,
        timing.cycles if timing is not None else None,
        sum(timing.energy_pj.values()) if timing is not None else None,
        counts.get("conversions", 0) if counts else 0,
    )


def _check(model: str, options: Options | None, how: CheckOptions, known: _Known) -> _Run:
    """Compile, run and compare, without studies."""
    if how.device is not None and how.numerics == "analog":
        how.device.of(options)  # what is wrong with the device is told before anything is compiled
    clock = [time.perf_counter()]
    given = how.inputs
    calibration = (how.calibration,) if how.calibration is not None else (given,) if given else ()
    compiled = compile_model(model, options, inputs=given, calibration=calibration, specialize=given is not None)
    assert compiled is not None
    clock.append(time.perf_counter())
    every = given if given is not None else input_files.draw(compiled.program, how.seed, compiled.tokens)
    # Inputs that decide shapes are compiled in: the program takes them no more, the reference does.
    taken = npz.without(every, compiled.fixed)
    feeds = input_files.check(input_files.types(compiled.program), taken)
    if known.kept is not None:
        known.kept.begin()
    analog = _analog(compiled, options, how, feeds, known.kept)
    result = _run(compiled, how, feeds, analog)
    clock.append(time.perf_counter())
    reference, wanted = known.refer(compiled, every)
    clock.append(time.perf_counter())
    report = _report(model, compiled, how, result, (reference, wanted), feeds, clock)
    chip = compiled.hardware.spec
    subject = study.Subject(compiled.program, compiled.weights, chip, feeds, wanted, how.seed, analog.kept)
    return _Run(Checked(report, compiled, result, wanted), subject, analog)


def _analog(
    compiled: Compiled, options: Options | None, how: CheckOptions, feeds: Mapping[str, Array], kept: Kept | None
) -> Analog:
    """How analog numerics are to run: the device asked for, and what its converters are calibrated on."""
    device = how.device.of(options) if how.device and how.numerics == "analog" else None
    fitted = options is not None and (options.fit != "off" or options.activations == "static" or options.outliers != "")
    device_calibrates(device, how.calibration is not None and not fitted)
    if device is None or not device.calibrated:
        return Analog(device, kept=kept)
    runs: Sequence[Mapping[str, Array]] = [feeds]
    if how.calibration is not None:
        taken = npz.without(how.calibration, compiled.fixed)
        runs = input_files.calibration(input_files.types(compiled.program), taken)
    with stage("calibrate"):
        samples = study.calibration(compiled.program, compiled.weights, compiled.hardware.spec, *runs)
    return Analog(device, samples=samples, kept=kept)


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
            progress=follow,
            analog=analog,
        )


def _operand_bits(chip: ChipSpec) -> int:
    """Bits of the operands of the chip's matmul units, of the first kind of tile that has one."""
    return next((t.matmul.operand_bits for t in chip.tiles.values() if t.matmul is not None), Arithmetic.operand_bits)


def _report(
    model: str,
    compiled: Compiled,
    how: CheckOptions,
    result: RunResult,
    against: tuple[Reference, Mapping[str, Array]],
    feeds: Mapping[str, Array],
    clock: list[float],
) -> CheckReport:
    reference, wanted = against
    assert result.outputs is not None
    found = result.outputs
    graph = compiled.imported
    rounded = dict(zip(graph.output_names or graph.outputs, half_precision(graph), strict=True))
    tolerance = how.tolerance or Tolerance(how.numerics)
    host = host_nodes(compiled)
    known = Known(work_of(compiled.mapping), capacity_of(compiled.mapping), host)
    rate = how.device.rate if how.device else 1.0
    layers: Layers | None = None
    if how.layers:
        measured = result.outputs if how.numerics == "analog" else None
        with stage("layers"):
            bits = _operand_bits(compiled.hardware.spec)
            layers = compare_layers(compiled.graph, compiled.constants, reference, tolerance, measured, bits)
    return CheckReport(
        model=model,
        hardware=compiled.hardware.name,
        numerics=how.numerics,
        seed=how.seed,
        outputs=[compare(n, found[n], w, tolerance, rounded[n]) for n, w in wanted.items()],
        layers=layers.agreements if layers else None,
        fallbacks=host,
        seconds=CheckSeconds(*(after - before for before, after in pairwise(clock))),
        run=run_figures(result, compiled.program, compiled.hardware.spec, known, rate),
        command=how.command,
        reference=reference.name,
        layer_notes=_notes(layers) if layers else None,
        not_finite=_not_finite(compiled, feeds, result),
    )


def _not_finite(compiled: Compiled, feeds: Mapping[str, Array], result: RunResult) -> NotFinite | None:
    """Where NaN or infinity in the outputs comes from, in float numerics: quantising numerics refuse such activations by
    themselves. None if all outputs are finite."""
    outputs = result.outputs or {}
    if all(np.isfinite(y).all() for y in outputs.values() if np.issubdtype(y.dtype, np.floating)):
        return None
    found: list[NotFinite] = []

    def look(name: str, node: str, value: Array) -> None:
        if not found and np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            found.append(NotFinite(name, node, "NaN" if np.isnan(value).any() else "infinity"))

    for name, value in feeds.items():
        look(name, "", value)

    def watch(node: Node, name: str, value: Array) -> None:
        look(name, node.origin.node, value)

    evaluate_all(compiled.graph, compiled.constants, feeds, Arithmetic(), watch=watch)
    return found[0] if found else None


def _notes(layers: Layers) -> LayerNotes:
    jump = layers.jump
    told = None if jump is None else (jump.name, jump.op, jump.before_db, jump.after_db)
    return LayerNotes(layers.numerics, told, layers.causes)


def half_precision(graph: Graph) -> tuple[float, ...]:
    """For each output the relative spacing of the half-precision type that it is a cast of, as converters that keep the
    types of inputs and outputs write it; 0 if it is none."""
    producers = {o: n for n in graph.nodes for o in n.outputs}
    found: list[float] = []
    for name in graph.outputs:
        value = name
        while value in producers and producers[value].op in MOVES and graph.types[value].element not in HALVES:
            value = producers[value].inputs[0]
        kind = graph.types[value].element
        found.append(float(ml_dtypes.finfo(kind.dtype(exact=True)).eps) if kind in HALVES else 0.0)
    return tuple(found)


def host_nodes(compiled: Compiled) -> tuple[HostNode, ...]:
    """Nodes that run on the host controller, and why."""
    return tuple(
        HostNode(op_type=str(n.attr("op_type")), node=str(n.origin), reason=str(n.attr("reason")))
        for n in compiled.graph.nodes
        if n.op == "host"
    )
