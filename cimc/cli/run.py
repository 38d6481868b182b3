"""``cimc run``."""

from __future__ import annotations

from pathlib import Path

import click

from cimc.cli import options as opt
from cimc.session import Numerics


@click.command("run")
@click.argument("program", type=click.Path(path_type=Path))
@opt.run_options
@opt.hardware_options
@opt.device_options
@click.option("--outputs", "outputs_path", type=click.Path(path_type=Path), help="Write the outputs to an .npz.")
@click.option("--param", "params", multiple=True, metavar="NAME=INT", help="A runtime parameter of the program.")
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
    device_settings: tuple[str, ...],
    technology: str | None,
    device_time: str | None,
    inference_rate: float,
    outputs_path: Path | None,
    params: tuple[str, ...],
    no_values: bool,
    no_timing: bool,
    trace: Path | None,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Run PROGRAM: a folder that `cimc compile` wrote, or a .cim file (weights beside it as NAME.safetensors).

    \b
    Example:
      cimc run out/model --inputs inputs.npz --numerics integer --trace trace.json
    """
    from cimc import bundle, study
    from cimc import inputs as input_files
    from cimc.device import Device
    from cimc.isa.verify import verify
    from cimc.report import device_cost, figures, jsontext
    from cimc.report import run as run_report
    from cimc.report.mapping_file import read_mapping
    from cimc.report.progress import stage
    from cimc.report.trace import write_trace
    from cimc.sim.interpreter import run
    from cimc.sim.values import Analog

    if no_values and no_timing:
        raise click.UsageError("--no-values and --no-timing together leave nothing to run")
    if no_values and outputs_path:
        raise click.UsageError("--outputs needs values; leave out --no-values")
    if no_timing and trace:
        raise click.UsageError("--trace needs timing; leave out --no-timing")
    times = opt.read_times(numerics, device_settings, technology, device_time)
    if len(times) > 1:
        raise click.UsageError("run takes one --time; check compares several")
    with opt.progress(quiet, verbose):
        with stage("read"):
            found = bundle.read(program, hardware, overrides)
            device = None
            if numerics == "analog":
                device = Device.of(found.hardware.spec, device_settings, technology, *times)
            verify(found.program, found.hardware.spec, found.weights)
            mapping = read_mapping(found.folder / bundle.MAPPING) if found.folder else None
        types = input_files.types(found.program)
        feeds = None
        if not no_values:
            if inputs_path is None and types:
                opt.note(f"inputs drawn from seed {seed}", quiet)
            given = input_files.read(inputs_path) if inputs_path else input_files.draw(found.program, seed)
            feeds = input_files.check(types, given)
        samples = None
        if device is not None and feeds is not None and device.calibrated:
            with stage("calibrate"):
                samples = study.calibration(found.program, found.weights, found.hardware.spec, feeds)
        with stage("run"):
            result = run(
                found.program,
                found.weights,
                found.hardware.spec,
                inputs=feeds,
                numerics=numerics,
                seed=seed,
                values=not no_values,
                timing=not no_timing,
                trace=trace is not None,
                params=opt.parse_dims(params),
                analog=Analog(device, samples=samples),
            )
    told = figures.from_result(result, mapping.host if mapping else ())
    if outputs_path and result.outputs is not None:
        opt.save_arrays(outputs_path, result.outputs)
    if trace and result.timing is not None:
        with opt.opened(trace) as stream:
            write_trace(stream, result.timing.events, found.hardware.spec.clock_ghz)
    if found.folder and result.timing is not None:
        jsontext.write(told.to_json(), found.folder / bundle.RUN)
    spent = None
    if device is not None:
        spent = device_cost.cost(found.program, found.hardware.spec, device, result, inference_rate)
    if json_target:
        opt.put_json(told.to_json() | ({"device": spent.to_json()} if spent else {}), json_target)
    if json_target != "-":
        setting = run_report.Setting(str(program), found.hardware.name, "" if no_values else numerics, seed)
        blocks = run_report.report(told, setting, found.hardware.spec, mapping)
        opt.show([*blocks, *(device_cost.blocks(spent) if spent else [])])
