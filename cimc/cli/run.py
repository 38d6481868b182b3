"""``cimc run``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from cimc.cli import options as opt
from cimc.cli import put
from cimc.session import Numerics

if TYPE_CHECKING:
    from cimc.bundle import Bundle
    from cimc.device import Device
    from cimc.report.figures import RunFigures
    from cimc.report.mapping_file import MappingFile
    from cimc.report.run import Setting
    from cimc.session import Array
    from cimc.sim.result import RunResult
    from cimc.sim.tally import Samples


@click.command("run")
@click.argument("program", type=opt.PATH)
@opt.run_options
@opt.hardware_options
@opt.device_options
@opt.calibration_option
@click.option("--outputs", "outputs_path", type=opt.OUT_FILE, help="Write the outputs to an .npz.")
@click.option("--param", "param_texts", multiple=True, metavar="NAME=INT", help="A runtime parameter of the program.")
@click.option("--no-values", is_flag=True, help="Timing and energy only.")
@click.option("--no-timing", is_flag=True, help="Values only.")
@opt.trace_option
@opt.json_option
@opt.verbosity
def command(
    program: Path,
    inputs_path: Path | None,
    numerics: Numerics,
    seed: int,
    hardware: str | None,
    overrides: tuple[str, ...],
    calibration_path: Path | None,
    outputs_path: Path | None,
    param_texts: tuple[str, ...],
    no_values: bool,
    no_timing: bool,
    trace: Path | None,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
    **flags: Unpack[opt.DeviceFlags],
) -> None:
    """Run PROGRAM: a folder that `cimc compile` wrote, or a .cim file (weights beside it as NAME.safetensors).

    \b
    Example:
      cimc run out/model --inputs inputs.npz --numerics integer --trace trace.json
    """
    from cimc.report import run as run_report
    from cimc.report.progress import follow, stage
    from cimc.sim.interpreter import run
    from cimc.sim.values import Analog

    _agree(no_values, no_timing, outputs_path, trace)
    asked = opt.parse_dims(param_texts, "--param")
    with put.progress(quiet, verbose):
        opened = _opened(program, hardware, overrides, numerics, flags)
        found, spec = opened.bundle, opened.bundle.hardware.spec
        params, feeds = _given(found, asked, not no_values, inputs_path, (seed, quiet))
        samples = _samples(found, opened.device, feeds, calibration_path, params)
        with stage("run"):
            result = run(
                found.program,
                found.weights,
                spec,
                inputs=feeds,
                numerics=numerics,
                seed=seed,
                values=not no_values,
                timing=not no_timing,
                trace=trace is not None,
                params=params,
                progress=follow,
                verified=True,
                analog=Analog(opened.device, samples=samples),
            )
    put.save_run(result, spec, outputs_path, trace)
    technology = opened.device.technology if opened.device else ""
    setting = run_report.Setting(str(program), found.hardware.name, "" if no_values else numerics, seed, technology)
    _told(opened, result, setting, params, (json_target, quiet))


@dataclass(frozen=True)
class _Opened:
    """What is run. ``rate``: inferences a second."""

    bundle: Bundle
    mapping: MappingFile | None
    device: Device | None
    rate: float


def _opened(
    program: Path, hardware: str | None, overrides: tuple[str, ...], numerics: Numerics, flags: opt.DeviceFlags
) -> _Opened:
    """The program, verified, and of analog numerics the device. Raises what reading and verifying raise, and a usage error
    for device options that ``run`` cannot follow."""
    from cimc import bundle
    from cimc.device import Device
    from cimc.isa.verify import verify
    from cimc.report.mapping_file import read_mapping
    from cimc.report.progress import stage

    times = opt.read_times(numerics, flags)
    if len(times) > 1:
        raise click.UsageError("run takes one --time; check compares several")
    with stage("read"):
        found = bundle.read(program, hardware, overrides)
        spec, device = found.hardware.spec, None
        if numerics == "analog":
            device = Device.of(spec, flags["device_settings"], flags["technology"], *times)
        verify(found.program, spec, found.weights)
        mapping = read_mapping(found.folder / bundle.MAPPING) if found.folder else None
    return _Opened(found, mapping, device, flags["inference_rate"])


def _told(
    opened: _Opened, result: RunResult, setting: Setting, params: dict[str, int], where: tuple[str | None, bool]
) -> None:
    """Tell the figures: in the compiled folder, as JSON, as a report. ``where``: the target of ``--json``, ``--quiet``."""
    from cimc import bundle
    from cimc.report import device_cost
    from cimc.report import run as run_report

    json_target, quiet = where
    found, device = opened.bundle, opened.device
    spec = found.hardware.spec
    told = _figures(found, result, opened.mapping, opened.rate, params)
    if found.folder and result.timing is not None:
        _keep(told, found.folder / bundle.RUN, quiet)
    spent = device_cost.cost(found.program, spec, device, result, opened.rate) if device is not None else None
    if json_target:
        put.as_json(told.to_json() | ({"device": spent.to_json()} if spent else {}), json_target)
    if json_target != "-":
        blocks = run_report.report(told, setting, spec, opened.mapping)
        put.show([*blocks, *(device_cost.blocks(spent) if spent else [])])


def _figures(
    found: Bundle, result: RunResult, mapping: MappingFile | None, rate: float, values: dict[str, int]
) -> RunFigures:
    """The figures of a run, with what stands beside them."""
    from cimc.report.beside import Known, run_figures

    known = Known(mapping.work, mapping.capacity_tokens, mapping.host) if mapping else Known()
    return run_figures(result, found.program, found.hardware.spec, known, rate, values)


def _keep(told: RunFigures, path: Path, quiet: bool) -> None:
    """Leave the figures in the folder for `inspect` and `diff`; one that may only be read is no reason to fail."""
    from cimc.errors import CimcError
    from cimc.report import jsontext

    try:
        jsontext.write(told.to_json(), path)
    except CimcError as e:
        put.note(f"{e.message}: inspect and diff will not show this run", quiet)


def _agree(no_values: bool, no_timing: bool, outputs: Path | None, trace: Path | None) -> None:
    """Refuse flags that contradict each other."""
    if no_values and no_timing:
        raise click.UsageError("--no-values and --no-timing together leave nothing to run")
    if no_values and outputs:
        raise click.UsageError("--outputs needs values; leave out --no-values")
    if no_timing and trace:
        raise click.UsageError("--trace needs timing; leave out --no-timing")


def _given(
    found: Bundle, asked: dict[str, int], wanted: bool, path: Path | None, how: tuple[int, bool]
) -> tuple[dict[str, int], dict[str, Array] | None]:
    """The program's parameters, and the inputs given or drawn, checked; none that are not wanted. ``how``: the seed, and
    whether to draw in silence. Raises PARAM_… for parameters that neither ``asked`` nor the shapes of inputs tell."""
    from cimc import inputs
    from cimc.sim.params import bind

    given = inputs.read(path) if wanted and path is not None else None
    params = bind(found.program, {**inputs.lengths(found.program, given or {}), **asked})
    types = inputs.types(found.program, params)
    if not wanted or given is not None:
        return params, None if given is None else inputs.check(types, given)
    seed, quiet = how
    if types:
        put.note(f"inputs drawn from seed {seed}", quiet)
    return params, inputs.draw(found.program, seed, inputs.tokens_of((found.manifest or {}).get("tokens")), params)


def _samples(
    found: Bundle,
    device: Device | None,
    feeds: Mapping[str, Array] | None,
    path: Path | None,
    params: Mapping[str, int],
) -> Samples | None:
    """What the converters' ranges are calibrated on, where they are."""
    from cimc import inputs, study
    from cimc.device import device_calibrates
    from cimc.report.progress import stage

    device_calibrates(device, path is not None)
    if device is None or feeds is None or not device.calibrated:
        return None
    with stage("calibrate"):
        runs = inputs.calibration(inputs.types(found.program, params), inputs.read(path)) if path else [feeds]
        return study.calibration(found.program, found.weights, found.hardware.spec, *runs, params=params)
