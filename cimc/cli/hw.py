"""``cimc hw``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cimc.cli import options as opt


@click.group("hw")
def command() -> None:
    """List, show and validate hardware.

    \b
    Example:
      cimc hw show isaac -c adc.bits=9
    """


@command.command("list")
@opt.json_option
def list_presets(json_target: str | None) -> None:
    """The presets."""
    from cimc.report import hardware, terminal

    if json_target:
        opt.put_json(hardware.catalogue(), json_target)
    if json_target != "-":
        hardware.show_catalogue(terminal.console(sys.stdout))


@command.command("show")
@click.argument("hardware")
@click.option("-c", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a hardware field.")
@opt.json_option
def show(hardware: str, overrides: tuple[str, ...], json_target: str | None) -> None:
    """Everything about a preset or hardware file, with the source of each number."""
    from cimc.arch.load import load
    from cimc.report import hardware as report
    from cimc.report import terminal

    found = load(hardware, overrides)
    if json_target:
        opt.put_json(report.summary(found), json_target)
    if json_target != "-":
        report.show(found, terminal.console(sys.stdout))


@command.command("validate")
@click.argument("file", type=click.Path(path_type=Path))
def validate(file: Path) -> None:
    """Check a hardware file."""
    from cimc.arch.load import load

    found = load(str(file))
    click.echo(f"{file}: valid, {found.spec.tile_count} tiles")
