"""``cimc sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Unpack

import click

from cimc.cli import options as opt
from cimc.cli import put
from cimc.session import Numerics


@click.command("sweep")
@click.argument("model", type=opt.PATH)
@click.option(
    "--vary",
    "axes",
    multiple=True,
    required=True,
    metavar="KEY=VALUE,VALUE...",
    help="What to vary: hw, chips, precision, values, attention, optimize ..., dim.NAME, param.NAME, mapping.KEY, time, "
    "device.KEY, or a hardware field as -c names it. Several: every combination.",
)
@opt.compile_options
@opt.calibrate_option
@click.option("--inputs", "inputs_path", type=opt.PATH, help="An .npz with the model's inputs.")
@click.option(
    "--numerics",
    type=click.Choice(["none", "float", "integer", "analog"]),
    default="none",
    show_default=True,
    help="Also compute values, in this way, and compare them with onnxruntime's.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For inputs and device noise.")
@click.option("--csv", "csv_path", type=opt.OUT_FILE, metavar="FILE", help="Write a row a variant.")
@click.option("--html", type=opt.OUT_FILE, metavar="FILE", help="Write one self-contained page.")
@opt.json_option
@opt.verbosity
def command(
    model: Path,
    axes: tuple[str, ...],
    calibrate: Literal["never", "start"],
    inputs_path: Path | None,
    numerics: Numerics | Literal["none"],
    seed: int,
    csv_path: Path | None,
    html: Path | None,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
    **flags: Unpack[opt.CompileFlags],
) -> None:
    """Compile MODEL for many variants of hardware and mapping, and compare time, energy, area and accuracy. `*` marks those
    that no other variant beats.

    \b
    Example:
      cimc sweep model.onnx --hw isaac --vary adc.bits=7,8,9 --vary mapping.replicas=1,4 --csv out/sweep.csv
    """
    from dataclasses import replace

    from cimc import inputs as input_files
    from cimc.checker import CheckOptions
    from cimc.report import jsontext, sweep_page
    from cimc.report import sweep as report
    from cimc.study import DeviceOptions
    from cimc.variants import parse_axis, sweep

    if inputs_path and numerics == "none":
        raise click.UsageError("--inputs needs --numerics; sizes alone are bound by --dim")
    wanted = [parse_axis(text) for text in axes]
    base = replace(opt.compile_as(flags), calibrate=calibrate)
    with put.progress(quiet, verbose):
        how = None
        if numerics != "none":
            given = input_files.read(inputs_path) if inputs_path else None
            how = CheckOptions(numerics, seed, given, device=DeviceOptions())
        found = sweep(str(model), base, wanted, how)
    drawn = [f"inputs drawn from seed {seed}"] if how is not None and how.inputs is None else []
    for remark in (*drawn, *found.notes):
        put.note(remark, quiet)
    if csv_path:
        jsontext.write_text(report.csv_text(found), csv_path)
    if html:
        jsontext.write_text(sweep_page.page(found), html)
    if json_target:
        put.as_json(found.to_json(), json_target)
    if json_target != "-":
        put.show(report.blocks(found))
    for path in (csv_path, html):
        if path:
            put.note(f"wrote {path}", quiet)
