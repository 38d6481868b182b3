"""``cimc inspect``: the chip map, the table of layers, one layer or one tile in detail; as text, JSON and CSV."""

from __future__ import annotations

import csv
import io

from cimc import errors
from cimc.report import baseline, units, waiting
from cimc.report.jsontext import Json, JsonObject
from cimc.report.layers import SYNCHRONISATION, SYNCHRONISED, Inspection, Layer, load
from cimc.report.mapping_file import Block, TilePlace
from cimc.report.palette import layer_colour
from cimc.report.render import Block as ReportBlock
from cimc.report.render import Facts, Lines, Span, Table, text

__all__ = ["csv_text", "find_layer", "find_tile", "layer_report", "load", "report", "tile_report", "to_json"]

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_MANY = "#"  # layers beyond the letters
_FILLS = "▁▂▃▄▅▆▇█"
_SHOWN_BLOCKS = 200
_SHOWN_WAITING = 16


def report(inspection: Inspection) -> list[ReportBlock]:
    """Totals, a map per chip, the table of layers."""
    mapping, totals = inspection.mapping, inspection.mapping.totals
    share = totals.crossbars_used / totals.crossbars if totals.crossbars else 0.0
    used = f"{units.whole(totals.crossbars_used)} of {units.whole(totals.crossbars)}"
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("directory", str(inspection.directory)),
        ("hardware", mapping.hardware),
        ("chips", str(mapping.chips)),
        ("tiles used", f"{units.whole(totals.tiles_used)} of {units.whole(len(mapping.tiles))}"),
        ("crossbars used", used, units.percent(share)),
        ("cell utilization", units.percent(totals.cell_utilization), "cells that hold weight bits"),
    ]
    run = inspection.run
    if run is not None:
        rows += [
            ("latency", units.time_ns(run.latency_ns), f"{units.whole(run.cycles)} cycles"),
            ("energy", units.energy_pj(run.total_pj)),
        ]
    beside = baseline.blocks(run) if run is not None else []
    maps = [_map(inspection, chip) for chip in sorted({t.chip for t in mapping.tiles})]
    waits = waiting.blocks(run, _SHOWN_WAITING) if run is not None else []
    return [
        Facts("Mapping", rows),
        *beside,
        *maps,
        _table(inspection),
        *_explained(inspection),
        *_alternatives(inspection),
        *waits,
    ]


def _alternatives(inspection: Inspection) -> list[ReportBlock]:
    """What the products of activations would cost each way."""
    found = inspection.mapping.attention
    rows = [
        (
            f"{one.how} (chosen)" if one.chosen else one.how,
            units.whole(one.cycles) if one.cycles is not None else "-",
            units.energy_pj(one.energy_pj) if one.energy_pj is not None else "-",
            units.whole(one.cell_writes) if one.cell_writes is not None else "-",
        )
        for one in found
    ]
    header = ("--attention", ">cycles", ">energy", ">cell writes")
    return [Table("Products of activations, each way (units alone, estimated)", header, rows)] if rows else []


def letter(inspection: Inspection, layer: Layer) -> str:
    """The letter that stands for a layer on the map; nothing for a layer that lies on no tile."""
    number = inspection.coloured.get(layer.name)
    if number is None:
        return ""
    return _LETTERS[number] if number < len(_LETTERS) else _MANY


def _map(inspection: Inspection, chip: int) -> Lines:
    tiles = {(t.x, t.y): t for t in inspection.mapping.tiles if t.chip == chip}
    width, height = max(x for x, _ in tiles) + 1, max(y for _, y in tiles) + 1
    by_row: dict[int, dict[int, TilePlace]] = {}
    for (x, y), tile in tiles.items():
        by_row.setdefault(y, {})[x] = tile
    lines: list[tuple[Span, ...]] = []
    for y in sorted(by_row):
        row = by_row[y]
        spans = [Span(f"{y:>3} ")]
        spans += [_cell(inspection, row[x]) if x in row else Span("   ") for x in range(max(row) + 1)]
        lines.append(tuple(spans))
    key = (
        "letter: the layer with most crossbars of the tile (see the table); bar: crossbars used",
        "~ products of activations only   · nothing on it   - nothing on it, no crossbars",
    )
    lines += [(Span(f"    {line}", "dim"),) for line in key]
    name = f"Chip {chip}" if inspection.mapping.chips > 1 else "Chip"
    return Lines(f"{name}: {height} rows of {width} tiles", tuple(lines))


def _cell(inspection: Inspection, tile: TilePlace) -> Span:
    """Three characters of the map: letter, bar, space."""
    layer = inspection.main_layer(tile)
    if layer is None:
        return Span("·  " if tile.crossbars else "-  ", "dim")
    colour = layer_colour(inspection.coloured[layer.name], len(inspection.coloured))
    if not tile.crossbars_used:
        return Span("~  ", colour)
    return Span(f"{letter(inspection, layer)}{_FILLS[min(7, int(tile.fill * 8))]} ", colour)


HEADER = (
    "",
    "layer",
    "place",
    "shape",
    "precision",
    ">blocks",
    ">replicas",
    ">tiles",
    ">crossbars",
    ">cell util.",
    ">cycles",
    ">energy",
)


def _table(inspection: Inspection) -> Table:
    rows = [
        (
            letter(inspection, layer),
            layer.name,
            f"host ({layer.op_type})" if layer.place == "host" else layer.place,
            layer.shape or units.NOTHING,
            layer.precision or units.NOTHING,
            units.whole(len(layer.blocks) or None),
            units.whole(layer.replicas or None),
            units.whole(len(layer.tiles) or None),
            units.whole(layer.crossbars or None),
            units.percent(layer.cell_utilization),
            units.whole(layer.cycles),
            units.energy_pj(layer.energy_pj),
        )
        for layer in inspection.layers
    ]
    return Table("Layers", HEADER, rows)


def _explained(inspection: Inspection) -> list[ReportBlock]:
    """What the row of no layer is, where there is one."""
    there = any(layer.name == SYNCHRONISATION for layer in inspection.layers)
    return [text("", f"  {SYNCHRONISED}")] if there else []


def find_layer(inspection: Inspection, name: str) -> Layer:
    """The layer of that name, or the only one with it as a part of its name. Raises UNKNOWN_LAYER."""
    names = [layer.name for layer in inspection.layers]
    exact = next((layer for layer in inspection.layers if layer.name == name), None)
    if exact is not None:
        return exact
    parts = [layer for layer in inspection.layers if name and name.lower() in layer.name.lower()]
    if len(parts) == 1:
        return parts[0]
    known = [layer.name for layer in parts] or names
    shown = ", ".join(known[:10]) + (f" and {len(known) - 10} more" if len(known) > 10 else "")
    suggestion = "" if parts else errors.did_you_mean(name, names)
    path = inspection.directory / "mapping.json"
    raise errors.UNKNOWN_LAYER(name=name, path=path, suggestion=suggestion, known=shown or "none")


def find_tile(inspection: Inspection, number: int) -> TilePlace:
    """The tile of that id. Raises UNKNOWN_TILE."""
    tile = inspection.mapping.tile(number)
    if tile is None:
        ids = [t.id for t in inspection.mapping.tiles]
        known = f"{min(ids)} to {max(ids)}" if ids else "none"
        raise errors.UNKNOWN_TILE(path=inspection.directory / "mapping.json", tile=number, known=known)
    return tile


def layer_report(inspection: Inspection, layer: Layer) -> list[ReportBlock]:
    """One layer: what it is, what it took, where each of its blocks lies."""
    rows = [("layer", layer.name), ("place", layer.place), ("tiles", _ranges(layer.tiles) or units.NOTHING)]
    if layer.matrices:
        rows += [
            ("weights", ", ".join(m.weight for m in layer.matrices)),
            ("shape", layer.shape),
            ("precision", layer.precision),
            ("crossbars", units.whole(layer.crossbars)),
            ("replicas", units.whole(layer.replicas)),
            ("cell utilization", units.percent(layer.cell_utilization)),
        ]
    blocks: list[ReportBlock] = [Facts("Layer", rows)]
    cost = layer.cost
    if cost is not None:
        busy = [(f"busy: {unit}", f"{units.whole(n)} cycles") for unit, n in cost.busy_cycles.items()]
        span = f"{units.whole(cost.first_cycle)} to {units.whole(cost.last_cycle)}"
        energy = [(f"energy: {part}", units.energy_pj(pj)) for part, pj in cost.energy_pj.items()]
        blocks.append(Facts("Cost", [("cycles", units.whole(cost.span), span), *busy, *energy]))
        blocks += waiting.one(cost.stalls)
    if layer.matrices:
        header = (">rows", ">cols", ">slices", ">replica", ">tile", "crossbars")
        cells = [_block_row(b) for b in layer.blocks[:_SHOWN_BLOCKS]]
        blocks.append(Table("Blocks", header, cells))
        blocks += _rest(len(layer.blocks))
    if layer.products:
        found = [(str(p.tile), p.unit, p.kind, units.large(p.macs, "MAC")) for p in layer.products[:_SHOWN_BLOCKS]]
        blocks.append(Table("Products of two activations", (">tile", "unit", "kind", ">work"), found))
        blocks += _rest(len(layer.products))
    return blocks


def _rest(count: int) -> list[ReportBlock]:
    left = count - _SHOWN_BLOCKS
    return [text("", f"  … and {units.whole(left)} more; --json has all of them")] if left > 0 else []


def _block_row(block: Block) -> tuple[str, ...]:
    rows, cols = (f"{a}–{b - 1}" for a, b in (block.rows, block.cols))
    return rows, cols, str(block.slices), str(block.replica), str(block.tile), _ranges(block.crossbars)


def _ranges(numbers: tuple[int, ...] | list[int]) -> str:
    """``0–7, 9``: runs of consecutive numbers."""
    runs: list[list[int]] = []
    for n in sorted(set(numbers)):
        if runs and runs[-1][1] == n - 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    return ", ".join(f"{a}–{b}" if b > a else str(a) for a, b in runs)


def tile_report(inspection: Inspection, tile: TilePlace) -> list[ReportBlock]:
    """One tile: where it is, how full, what lies on it."""
    used = f"{units.whole(tile.crossbars_used)} of {units.whole(tile.crossbars)}"
    rows = [
        ("tile", str(tile.id)),
        ("kind", tile.kind),
        ("place", f"chip {tile.chip}, x {tile.x}, y {tile.y}"),
        ("crossbars used", used, units.percent(tile.fill) if tile.crossbars else ""),
    ]
    content = inspection.contents.get(tile.id, ())
    waits = waiting.one(_stalls(inspection, tile))
    if not content:
        return [Facts("Tile", rows), *waits, text("", "  nothing lies on it")]
    blocks: list[ReportBlock] = [Facts("Tile", rows), *waits]
    cells = [(c.layer.name, *_block_row(b)) for c in content for b in c.blocks]
    if cells:
        header = ("layer", ">rows", ">cols", ">slices", ">replica", ">tile", "crossbars")
        blocks.append(Table("Blocks", header, cells))
    products = [(c.layer.name, p.unit, p.kind, units.large(p.macs, "MAC")) for c in content for p in c.products]
    if products:
        blocks.append(Table("Products of two activations", ("layer", "unit", "kind", ">work"), products))
    return blocks


def _stalls(inspection: Inspection, tile: TilePlace) -> dict[str, int]:
    """What the stream of a tile waited for in the last run."""
    return inspection.run.tile_stalls.get(str(tile.id), {}) if inspection.run else {}


def to_json(inspection: Inspection, layer: Layer | None = None, tile: TilePlace | None = None) -> JsonObject:
    """The same as an object: the whole chip, or one layer, or one tile."""
    if layer is not None:
        return _layer_json(layer, detailed=True)
    if tile is not None:
        return _tile_json(inspection, tile)
    mapping = inspection.mapping
    return {
        "hardware": mapping.hardware,
        "chips": mapping.chips,
        "totals": mapping.totals.model_dump(),
        "tiles": [_tile_json(inspection, t) for t in mapping.tiles],
        "layers": [_layer_json(found, detailed=False) for found in inspection.layers],
        "run": inspection.run.to_json() if inspection.run else None,
    }


def _layer_json(layer: Layer, *, detailed: bool) -> JsonObject:
    found: JsonObject = {
        "layer": layer.name,
        "place": layer.place,
        "op_type": layer.op_type,
        "shapes": [[m.rows, m.cols] for m in layer.matrices],
        "precision": layer.precision,
        "blocks": len(layer.blocks),
        "replicas": layer.replicas,
        "tiles": list(layer.tiles),
        "crossbars": layer.crossbars,
        "cell_utilization": layer.cell_utilization,
        "cycles": layer.cycles,
        "energy_pj": layer.energy_pj,
    }
    if detailed:
        found["static"] = [m.model_dump() for m in layer.matrices]
        found["dynamic"] = [p.model_dump() for p in layer.products]
        found["cost"] = layer.cost.model_dump() if layer.cost else None
    return found


def _tile_json(inspection: Inspection, tile: TilePlace) -> JsonObject:
    parts: list[Json] = [
        {
            "layer": c.layer.name,
            "crossbars": c.crossbars,
            "blocks": [b.model_dump() for b in c.blocks],
            "products": [p.model_dump() for p in c.products],
        }
        for c in inspection.contents.get(tile.id, ())
    ]
    return {**tile.model_dump(), "content": parts, "stalls": dict(_stalls(inspection, tile))}


def csv_text(inspection: Inspection) -> str:
    """The table of layers as CSV with a header: plain numbers in the units their names say, empty where unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ("layer", "place", "op_type", "precision", "blocks", "replicas", "crossbars", "cell_utilization", "cycles")
    writer.writerow((*keys, "energy_pj", "shape", "tiles"))
    for layer in inspection.layers:
        found = _layer_json(layer, detailed=False)
        cells = ["" if found[k] is None else found[k] for k in (*keys, "energy_pj")]
        writer.writerow((*cells, layer.shape, " ".join(map(str, layer.tiles))))
    return out.getvalue()
