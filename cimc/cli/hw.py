"""``cimc hw``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cimc.cli import options as opt
from cimc.cli import put

device_options = opt.stack(
    click.option("-c", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a hardware field."),
    click.option("--technology", metavar="NAME", help="A memory technology in place of the hardware's."),
    click.option("--time", "device_time", metavar="TIME", help="Since programming: 3600, 1h, 1d, 1mo, 1y."),
    click.option(
        "--device",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Part of the device model, as for check: drift=off.",
    ),
)


@click.group("hw")
def command() -> None:
    """List, show and validate hardware.

    \b
    Example:
      cimc hw show isaac -c adc.bits=9
    """


@command.command("list")
@opt.json_option
@opt.silence
def list_presets(json_target: str | None) -> None:
    """The presets.

    \b
    Example:
      cimc hw list --json -
    """
    from cimc.report import hardware, terminal

    if json_target:
        put.as_json(hardware.catalogue(), json_target)
    if json_target != "-":
        hardware.show_catalogue(terminal.console(sys.stdout))


@command.command("show")
@click.argument("hardware")
@click.option("-c", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a hardware field.")
@opt.json_option
@opt.silence
def show(hardware: str, overrides: tuple[str, ...], json_target: str | None) -> None:
    """Everything about a preset or hardware file, with the source of each number.

    \b
    Example:
      cimc hw show isaac -c adc.bits=9
    """
    from cimc.arch.load import load
    from cimc.report import hardware as report
    from cimc.report import terminal

    found = load(hardware, overrides)
    if json_target:
        put.as_json(report.summary(found), json_target)
    if json_target != "-":
        report.show(found, terminal.console(sys.stdout))


@command.command("validate")
@click.argument("file", type=opt.PATH)
@opt.silence
def validate(file: Path) -> None:
    """Check a hardware file.

    \b
    Example:
      cimc hw validate my-chip.yaml
    """
    from cimc.arch.load import load
    from cimc.device import Device

    found = load(str(file))
    Device.of(found.spec)  # a technology that nobody knows is told here, not by the first analog run
    click.echo(f"{file}: valid, {found.spec.tile_count} tiles")


@command.command("trade")
@click.argument("hardware")
@device_options
@click.option("--encoding", "encodings", metavar="NAME[,...]", help="offset, differential.")
@click.option("--cell-bits", metavar="N[,...]", help="Bits of a cell.")
@click.option("--rows", metavar="N[,...]", help="Rows driven at a time.")
@click.option("--adc-bits", metavar="N[,...]", help="Bits of the converters; 0: as many as whole levels need.")
@click.option("--devices", metavar="N[,...]", help="Devices side by side in a cell.")
@click.option("--seeds", type=click.IntRange(1, 100), default=1, show_default=True, help="Mean of so many seeds.")
@click.option("--most-error", type=opt.Finite(min=0), default=0.02, show_default=True, help="For the cheapest designs.")
@opt.json_option
@opt.silence
def trade(
    hardware: str,
    overrides: tuple[str, ...],
    technology: str | None,
    device_time: str | None,
    settings: tuple[str, ...],
    encodings: str | None,
    cell_bits: str | None,
    rows: str | None,
    adc_bits: str | None,
    devices: str | None,
    seeds: int,
    most_error: float,
    json_target: str | None,
) -> None:
    """Compare a core's design choices: encoding, cell bits, rows at a time, ADC bits. For each the error of a product
    under the device, conversions, energy and the ADC's share of it, time and area. `*` is the hardware as it is.

    \b
    Example:
      cimc hw trade reram --time 1d --cell-bits 1,2 --rows 128,32,16
    """
    from cimc import tradeoff
    from cimc.arch.load import load
    from cimc.device import Device, duration
    from cimc.report import tradeoff as report

    seconds = None if device_time is None else duration(device_time)
    device = Device.of(load(hardware, overrides).spec, settings, technology, seconds)
    choices = tradeoff.Choices(
        tuple(encodings.split(",")) if encodings else tradeoff.ENCODINGS,
        _numbers(cell_bits, "--cell-bits") or tradeoff.CELL_BITS,
        _numbers(rows, "--rows"),
        _numbers(adc_bits, "--adc-bits"),
        _numbers(devices, "--devices"),
    )
    about = tradeoff.setting(hardware, device)
    found = tradeoff.variants(hardware, overrides, choices, device, range(seeds))
    if json_target:
        put.as_json(report.to_json(about, found), json_target)
    if json_target != "-":
        put.show(report.blocks(about, found, most_error))


def _numbers(text: str | None, option: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    if text is None:
        return ()
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise click.BadParameter(f"'{text}' is no list of whole numbers up to 999999, as in 128,32", param_hint=option)
    return tuple(int(part) for part in parts)


@command.command("noise")
@click.argument("hardware")
@device_options
@click.option(
    "--program",
    type=opt.PATH,
    metavar="DIR",
    help="A compiled model, for its own weights, layer by layer; without it one core of Gaussian weights.",
)
@click.option("--trials", type=click.IntRange(1, 1000), default=3, show_default=True, help="Seeds to measure over.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first of them.")
@opt.json_option
@opt.silence
def noise(
    hardware: str,
    overrides: tuple[str, ...],
    technology: str | None,
    device_time: str | None,
    settings: tuple[str, ...],
    program: Path | None,
    trials: int,
    seed: int,
    json_target: str | None,
) -> None:
    """Noise to inject in hardware-aware training, measured on HARDWARE's analog cores.

    \b
    Example:
      cimc hw noise isaac --technology pcm --time 1d --program out/model --json noise.json
    """
    from cimc import bundle
    from cimc.arch.load import load
    from cimc.device import Device, durations
    from cimc.isa.verify import verify
    from cimc.report.training import training_noise, weights_of

    found = load(hardware, overrides)
    times = durations(device_time) if device_time else ()
    if len(times) > 1:
        raise click.UsageError("noise takes one --time")
    device = Device.of(found.spec, settings, technology, *times)
    layers = None
    if program is not None:
        made = bundle.read(program, hardware, overrides)
        verify(made.program, found.spec, made.weights)
        layers = weights_of(made.program, made.weights, found.spec)
    told = training_noise(found.name, found.spec, device, layers, seed=seed, trials=trials)
    if json_target:
        put.as_json(told.to_json(), json_target)
    if json_target != "-":
        put.show(told.blocks())
