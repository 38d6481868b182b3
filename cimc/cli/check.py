"""``cimc check``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

import click

from cimc.cli import options as opt
from cimc.errors import Exit
from cimc.session import Numerics


@click.command("check")
@click.argument("model", type=click.Path(path_type=Path))
@opt.compile_options
@opt.run_options
@opt.device_options
@click.option("--attribute", is_flag=True, help="Analog numerics: split the error by effect, switched on one by one.")
@click.option(
    "--trials", type=click.IntRange(1, 1000), help="Analog numerics: mean and spread of the error over so many seeds."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Keep the compiled folder.")
@click.option("--outputs", "outputs_path", type=click.Path(path_type=Path), help="Write the outputs to an .npz.")
@click.option("--atol", type=float, help="Largest absolute error allowed.")
@click.option("--rtol", type=float, help="Largest error allowed, relative to the output's largest value.")
@click.option("--min-cosine", type=float, default=0.98, show_default=True, help="For integer and analog numerics.")
@click.option("--no-timing", is_flag=True, help="Values only.")
@click.option(
    "--layers", is_flag=True, help="Compare every value inside the model too; name the first that goes wrong."
)
@opt.trace_option
@opt.json_option
@opt.verbosity
@click.pass_context
def command(
    ctx: click.Context,
    model: Path,
    hardware: str | None,
    overrides: tuple[str, ...],
    dims: tuple[str, ...],
    precision: str,
    activations: Literal["dynamic", "static"],
    passes: str,
    inputs_path: Path | None,
    numerics: Numerics,
    seed: int,
    device_settings: tuple[str, ...],
    technology: str | None,
    device_time: str | None,
    inference_rate: float,
    attribute: bool,
    trials: int | None,
    output: Path | None,
    outputs_path: Path | None,
    atol: float | None,
    rtol: float | None,
    min_cosine: float,
    no_timing: bool,
    layers: bool,
    trace: Path | None,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
) -> int:
    """Compile MODEL, run its tile programs, and compare the outputs with onnxruntime's on the same inputs.

    \b
    Example:
      cimc check model.onnx --dim sequence=128 --numerics integer
    """
    from cimc import bundle
    from cimc import inputs as input_files
    from cimc.arch.load import DEFAULT
    from cimc.checker import CheckOptions, check_model
    from cimc.compiler import Options
    from cimc.report import check as check_report
    from cimc.report import jsontext
    from cimc.report import run as run_report
    from cimc.report.compare import Tolerance
    from cimc.report.mapping_file import parse_mapping
    from cimc.report.trace import write_trace
    from cimc.study import DeviceOptions

    if no_timing and trace:
        raise click.UsageError("--trace needs timing; leave out --no-timing")
    if output is not None:
        bundle.check_target(output)
    times = opt.read_times(numerics, device_settings, technology, device_time)
    for name, asked in (("--attribute", attribute), ("--trials", trials)):
        if asked and numerics != "analog":
            raise click.UsageError(f"{name} needs --numerics analog")
    device = DeviceOptions(device_settings, technology, times, inference_rate, attribute, trials or 0)
    chosen = Options(hardware or DEFAULT, overrides, opt.parse_dims(dims), precision, activations, passes)
    with opt.progress(quiet, verbose):
        given = input_files.read(inputs_path) if inputs_path else None
        how = CheckOptions(
            numerics,
            seed,
            given,
            Tolerance(numerics, atol, rtol, min_cosine),
            not no_timing,
            trace is not None,
            "cimc " + shlex.join(sys.argv[1:]),
            layers=layers,
            device=device,
        )
        checked = check_model(str(model), chosen, how)
        if output is not None:
            checked.compiled.write(output)
    if given is None:
        opt.note(f"inputs drawn from seed {seed}", quiet)
    for binding in checked.compiled.bindings:
        if binding.source.startswith("default"):
            opt.note(f"{binding.name} = {binding.value} ({binding.source})", quiet)
    for remark in checked.compiled.notes:
        opt.note(str(remark), quiet)
    report = checked.report
    if outputs_path and checked.result.outputs is not None:
        opt.save_arrays(outputs_path, checked.result.outputs)
    if trace and checked.result.timing is not None:
        with opt.opened(trace) as stream:
            write_trace(stream, checked.result.timing.events, checked.compiled.hardware.spec.clock_ghz)
    if output is not None and checked.result.timing is not None:
        jsontext.write(report.run.to_json(), output / bundle.RUN)
    if json_target:
        found = {"device": checked.device.to_json()} if checked.device else {}
        opt.put_json(report.to_json() | found, json_target)
    if json_target != "-":
        mapping = parse_mapping(jsontext.dumps(checked.compiled.mapping))  # pyright: ignore[reportArgumentType]
        setting = run_report.Setting(model.name, report.hardware, numerics, seed)
        blocks = [] if quiet else run_report.report(report.run, setting, checked.compiled.hardware.spec, mapping)
        more = checked.device.blocks() if checked.device else []
        opt.show([*blocks, *check_report.report(report), *more])
    click.echo(check_report.closing_line(report), err=json_target == "-")
    return Exit.OK if report.passed else Exit.DIFFERS
