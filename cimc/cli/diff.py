"""``cimc diff``."""

from __future__ import annotations

from pathlib import Path

import click

from cimc.cli import options as opt
from cimc.cli import put


@click.command("diff")
@click.argument("a", type=opt.PATH, metavar="DIR_A")
@click.argument("b", type=opt.PATH, metavar="DIR_B")
@opt.json_option
@opt.silence
def command(a: Path, b: Path, json_target: str | None) -> None:
    """Put two compiles or runs side by side, with ratios.

    \b
    Example:
      cimc diff out/isaac out/sram
    """
    from cimc.report import diff

    found = diff.diff(a, b)
    if json_target:
        put.as_json(diff.to_json(found), json_target)
    if json_target != "-":
        put.show(diff.report(found))
