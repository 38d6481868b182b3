"""``cimc check``."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Unpack

import click

from cimc.cli import options as opt
from cimc.cli import put
from cimc.errors import Exit
from cimc.session import Numerics

if TYPE_CHECKING:
    from cimc.checker import Checked
    from cimc.compiler import Compiled
    from cimc.report.render import Block
    from cimc.study import DeviceOptions


class Flags(opt.CompileFlags, opt.DeviceFlags):
    """What is asked of the compile and of the device."""

    attribute: bool
    trials: int | None
    budget: float | None


@click.command("check")
@click.argument("model", type=opt.PATH)
@opt.check_options
@opt.calibrate_option
@opt.run_options
@opt.device_options
@opt.calibration_option
@click.option("--attribute", is_flag=True, help="Analog numerics: split the error by effect, switched on one by one.")
@click.option(
    "--trials", type=click.IntRange(1, 1000), help="Analog numerics: mean and spread of the error over so many seeds."
)
@click.option(
    "--budget",
    type=opt.Finite(min=0, max=1),
    metavar="COSINE",
    help="Analog numerics: keep the most sensitive layers digital until every output's cosine reaches this.",
)
@click.option("-o", "--output", type=opt.PATH, metavar="DIR", help="Keep the compiled folder.")
@click.option("--outputs", "outputs_path", type=opt.OUT_FILE, help="Write the outputs to an .npz.")
@click.option("--atol", type=opt.Finite(min=0), help="Largest absolute error allowed.")
@click.option("--rtol", type=opt.Finite(min=0), help="Largest error allowed, relative to the output's largest value.")
@click.option(
    "--min-cosine", type=opt.Finite(-1, 1), default=0.98, show_default=True, help="For integer and analog numerics."
)
@click.option("--no-timing", is_flag=True, help="Values only.")
@click.option(
    "--layers", is_flag=True, help="Compare every value inside the model too; name the first that goes wrong."
)
@opt.trace_option
@opt.json_option
@opt.verbosity
def command(
    model: Path,
    calibrate: Literal["never", "start"],
    inputs_path: Path | None,
    numerics: Numerics,
    seed: int,
    calibration_path: Path | None,
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
    **flags: Unpack[Flags],
) -> int:
    """Compile MODEL, run its tile programs, and compare the outputs with onnxruntime's on the same inputs.

    \b
    Example:
      cimc check model.onnx --dim sequence=128 --numerics integer
    """
    from cimc import bundle
    from cimc import inputs as input_files
    from cimc.checker import CheckOptions, check_model
    from cimc.report import jsontext
    from cimc.report.compare import Tolerance

    if no_timing and trace:
        raise click.UsageError("--trace needs timing; leave out --no-timing")
    if output is not None:
        bundle.check_target(output)
    device = _device(numerics, flags)
    chosen = replace(opt.compile_as(flags), calibrate=calibrate)
    with put.progress(quiet, verbose):
        given = input_files.read(inputs_path) if inputs_path else None
        how = CheckOptions(
            numerics=numerics,
            seed=seed,
            inputs=given,
            tolerance=Tolerance(numerics, atol, rtol, min_cosine),
            timing=not no_timing,
            trace=trace is not None,
            command="cimc " + shlex.join(sys.argv[1:]),
            layers=layers,
            device=device,
            calibration=input_files.read(calibration_path) if calibration_path else None,
        )
        checked = check_model(str(model), chosen, how)
        if output is not None:
            checked.compiled.write(output)
    drawn = [] if given is not None else [f"inputs drawn from seed {seed}"]
    for remark in (*drawn, *_remarks(checked.compiled)):
        put.note(remark, quiet)
    put.save_run(checked.result, checked.compiled.hardware.spec, outputs_path, trace)
    if output is not None and checked.result.timing is not None:
        jsontext.write(checked.report.run.to_json(), output / bundle.RUN)
    return _told(model.name, checked, json_target, quiet)


def _device(numerics: Numerics, flags: Flags) -> DeviceOptions:
    """What is asked about the device; a usage error for any of it without analog numerics."""
    from cimc.study import DeviceOptions

    times, trials, budget = opt.read_times(numerics, flags), flags["trials"], flags["budget"]
    asked = (("--attribute", flags["attribute"]), ("--trials", trials), ("--budget", budget is not None))
    opt.analog_only(numerics, *asked)
    return DeviceOptions(
        settings=flags["device_settings"],
        technology=flags["technology"],
        times=times,
        rate=flags["inference_rate"],
        attribute=flags["attribute"],
        trials=trials or 0,
        budget=budget,
    )


def _told(program: str, checked: Checked, json_target: str | None, quiet: bool) -> int:
    """The exit code, after the report and the line that says whether the check passed."""
    from cimc.report import check as check_report

    if json_target:
        put.as_json(checked.to_json(), json_target)
    if json_target != "-":
        put.show(_blocks(program, checked, quiet))
    click.echo(check_report.closing_line(checked.report), err=json_target == "-")
    return Exit.OK if checked.report.passed else Exit.DIFFERS


def _blocks(program: str, checked: Checked, quiet: bool) -> list[Block]:
    """The report: of the run unless quiet, of the comparison, of the device."""
    from cimc.report import check as check_report
    from cimc.report import jsontext, mixed
    from cimc.report import run as run_report
    from cimc.report.mapping_file import parse_mapping

    report = checked.report
    blocks: list[Block] = []
    if not quiet:
        mapping = parse_mapping(jsontext.dumps(checked.compiled.mapping))  # pyright: ignore[reportArgumentType]  # a JSON object
        used = checked.device.cost.device.technology if checked.device is not None else ""
        setting = run_report.Setting(program, report.hardware, report.numerics, report.seed, used)
        blocks = run_report.report(report.run, setting, checked.compiled.hardware.spec, mapping)
    blocks += check_report.report(report)
    if checked.mixed is not None:
        blocks += mixed.blocks(checked.mixed)
    return [*blocks, *(checked.device.blocks() if checked.device else [])]


def _remarks(compiled: Compiled) -> list[str]:
    """Defaults that bound dimensions, and what the frontend has to say."""
    return [*compiled.defaults, *compiled.notes]
