"""``cimc compile``."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, Unpack

import click

from cimc.cli import options as opt
from cimc.cli import put
from cimc.collecting import uncollected


@click.command("compile")
@click.argument("model", type=opt.PATH)
@click.option("-o", "--output", type=opt.PATH, metavar="DIR", help="Folder to write.")
@opt.compile_options
@opt.calibrate_option
@opt.calibration_option
@click.option("--inputs", "inputs_path", type=opt.PATH, help="An .npz whose shapes bind dimensions.")
@click.option(
    "--print-after", multiple=True, metavar="PASS", help="Print the graph after a pass ('*': after every one)."
)
@click.option("--stop-after", default="", metavar="PASS", help="Stop after a pass and print the graph.")
@click.option("--dump-phases", type=opt.PATH, metavar="DIR", help="Write the graph after each pass.")
@click.option("--time-passes", is_flag=True, help="Print how long each pass took.")
@click.option("--print-pipeline", is_flag=True, help="Print the passes that ran, as text for -p.")
@opt.json_option
@opt.verbosity
@uncollected()
def command(
    model: Path,
    output: Path | None,
    calibrate: Literal["never", "start"],
    calibration_path: Path | None,
    inputs_path: Path | None,
    print_after: tuple[str, ...],
    stop_after: str,
    dump_phases: Path | None,
    time_passes: bool,
    print_pipeline: bool,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
    **flags: Unpack[opt.CompileFlags],
) -> None:
    """Lower an ONNX MODEL (a file, or a folder with model.onnx) to tile programs in the CIM ISA.

    \b
    Example:
      cimc compile model.onnx -o out/model --hw isaac --dim sequence=128
    """
    from cimc import bundle
    from cimc import inputs as input_files
    from cimc.compiler import compile_model
    from cimc.pipeline import Watch

    if output is None and not (stop_after or print_after or dump_phases):
        raise click.UsageError("name the folder to write: -o DIR (or look at passes with --print-after, --stop-after)")
    if output is not None:
        bundle.check_target(output)
    chosen = replace(opt.compile_as(flags), calibrate=calibrate)
    shown = frozenset(print_after) | ({stop_after} if stop_after else frozenset[str]())
    write = partial(click.echo, err=json_target == "-")
    watch = Watch(print_after=frozenset(shown), stop_after=stop_after, dump_phases=dump_phases, write=write)
    with put.progress(quiet, verbose):
        given = input_files.read(inputs_path) if inputs_path else None
        samples = input_files.read(calibration_path) if calibration_path else None
        calibration = (samples,) if samples is not None else (given,) if given else ()
        made = compile_model(model, chosen, inputs=given, calibration=calibration, watch=watch)
        if made is None:
            return
        for note in (*made.notes, *made.defaults):
            put.note(note, quiet)
        if output is not None:
            made.write(output)
    if time_passes:
        for name, seconds in made.seconds:
            put.note(f"{seconds * 1e3:10.1f} ms  {name}", quiet)
    if print_pipeline:
        write(made.pipeline)
    if json_target:
        put.as_json(made.mapping, json_target)  # pyright: ignore[reportArgumentType]  # a JSON object by construction
    if output is not None and json_target != "-" and not quiet:
        _summary(output)


def _summary(output: Path) -> None:
    from cimc.report import inspect, layers

    inspection = layers.load(output)
    put.show([inspect.report(inspection)[0]])
    click.echo(f"wrote {output}: look at it with `cimc inspect {output}`, run it with `cimc run {output}`")
