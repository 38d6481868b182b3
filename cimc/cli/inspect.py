"""``cimc inspect``."""

from __future__ import annotations

from pathlib import Path

import click

from cimc.cli import options as opt
from cimc.cli import put


@click.command("inspect")
@click.argument("directory", type=opt.PATH, metavar="DIR")
@click.option("--html", type=opt.OUT_FILE, metavar="FILE", help="Write one self-contained page.")
@click.option("--csv", "csv_path", type=opt.OUT_FILE, metavar="FILE", help="Write the table of layers.")
@click.option("--layer", metavar="NAME", help="One layer: its blocks, where they lie, what they cost.")
@click.option("--tile", type=int, metavar="ID", help="One tile: what lies on it.")
@opt.json_option
@opt.verbosity
def command(
    directory: Path,
    html: Path | None,
    csv_path: Path | None,
    layer: str | None,
    tile: int | None,
    json_target: str | None,
    verbose: bool,
    quiet: bool,
) -> None:
    """Show what a compile put where: chip map, table of layers; with times and energy once `cimc run DIR` has run.

    \b
    Example:
      cimc inspect out/model --html out/model.html
    """
    del verbose
    from cimc import bundle
    from cimc.report import html as page
    from cimc.report import inspect, jsontext, layers
    from cimc.report.manifest_file import read_manifest

    found = bundle.read(directory)
    inspection = layers.load(directory, found.hardware.spec)
    one = inspect.find_layer(inspection, layer) if layer is not None else None
    place = inspect.find_tile(inspection, tile) if tile is not None else None
    if html:
        jsontext.write_text(page.page(inspection, read_manifest(directory / bundle.MANIFEST)), html)
    if csv_path:
        jsontext.write_text(inspect.csv_text(inspection), csv_path)
    if json_target:
        put.as_json(inspect.to_json(inspection, one, place), json_target)
    if json_target == "-":
        return
    blocks = inspect.layer_report(inspection, one) if one is not None else []
    blocks += inspect.tile_report(inspection, place) if place is not None else []
    if blocks or not (html or csv_path):
        put.show(blocks or inspect.report(inspection))
    for path in (html, csv_path):
        if path and str(path) != "-" and not quiet:
            click.echo(f"wrote {path}")
