"""``cimc asm``."""

from __future__ import annotations

from pathlib import Path

import click

from cimc.cli import options as opt


@click.command("asm")
@click.argument("program", type=opt.PATH)
@click.option("-o", "--output", type=opt.OUT_FILE, metavar="FILE.cim", help="Write the canonical text here.")
@opt.hardware_options
@opt.silence
def command(program: Path, output: Path | None, hardware: str | None, overrides: tuple[str, ...]) -> None:
    """Parse and verify PROGRAM (a .cim file), and print it back canonically.

    \b
    Example:
      cimc asm isa/examples/vector_add.cim
    """
    from cimc import bundle
    from cimc.isa.printer import print_program
    from cimc.isa.verify import verify
    from cimc.report.jsontext import write_text

    found = bundle.read(program, hardware, overrides)
    verify(found.program, found.hardware.spec, found.weights or None)
    text = print_program(found.program)
    if output:
        write_text(text, output)
    else:
        click.echo(text, nl=False)
