"""The page of ``cimc inspect --html``: one self-contained file that needs no network and no server.

Names come from models nobody vouches for: the template escapes all of them, the data for the script stands in a JSON
element, the script writes text only, and a content security policy forbids everything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cimc.report import baseline, units
from cimc.report.chip_map import TILE, chip_shape, colour_of
from cimc.report.figures import RunFigures
from cimc.report.jsontext import Json, JsonObject
from cimc.report.layers import SYNCHRONISATION, SYNCHRONISED, Content, Inspection, Layer
from cimc.report.template import render

_UNSAID = ("", "[]", "{}", "null")
"""Values of the manifest that stand for nothing given."""


@dataclass(frozen=True)
class Card:
    """A headline figure; ``share`` draws a bar below it."""

    label: str
    value: str
    remark: str = ""
    share: float | None = None


@dataclass(frozen=True)
class LayerRow:
    """A row of the table of layers; ``left`` and ``span`` place its bar in the run, in percent."""

    index: int
    layer: Layer
    colour: str
    place: str
    cell_utilization: str
    cycles: str
    energy: str
    energy_share: float
    left: float
    span: float


@dataclass(frozen=True)
class BarRow:
    """A bar: label, value, length as a share of the longest, a remark."""

    label: str
    value: str
    share: float
    remark: str


@dataclass(frozen=True)
class BarChart:
    """Bars under a title, with a sentence that says what they are."""

    title: str
    about: str
    bars: Sequence[BarRow]


def page(inspection: Inspection, settings: Mapping[str, str] | None = None) -> str:
    """The page as text. ``settings`` (the manifest's keys and values, flat) are listed under the configuration, those that
    say something."""
    told = {units.printable(k): units.printable(v) for k, v in (settings or {}).items() if v not in _UNSAID}
    rows = _layer_rows(inspection)
    return render(
        "page.html",
        tool="cimc",
        title=inspection.mapping.hardware,
        directory=" · ".join(filter(None, (told.get("model.file"), str(inspection.directory)))),
        cards=_cards(inspection),
        chips=[chip_shape(inspection, chip) for chip in sorted({t.chip for t in inspection.mapping.tiles})],
        rows=rows,
        ran=inspection.run is not None,
        charts=_charts(inspection),
        bound=_bound(inspection),
        settings=list(told.items()),
        synchronised=SYNCHRONISED if any(r.layer.name == SYNCHRONISATION for r in rows) else "",
        host=inspection.mapping.host,
        data=_data(inspection, rows),
        tile=TILE,
    )


def _cards(inspection: Inspection) -> list[Card]:
    totals, run = inspection.mapping.totals, inspection.run
    cards: list[Card] = []
    if run is not None and run.cycles is not None:
        cards.append(Card("Latency", units.time_ns(run.latency_ns), f"{units.whole(run.cycles)} cycles"))
        seconds = (run.latency_ns or 0.0) * 1e-9
        power = units.power_w((run.total_pj or 0.0) * 1e-12 / seconds) if seconds else units.NOTHING
        cards.append(Card("Energy", units.energy_pj(run.total_pj), f"{power} on average"))
    if run is not None and run.bound is not None:
        share = run.bound.attainment
        cards.append(Card("Of the bound", units.percent(share), f"set by {run.bound.setters}", share))
    share = totals.crossbars_used / totals.crossbars if totals.crossbars else 0.0
    used = f"{units.whole(totals.crossbars_used)} of {units.whole(totals.crossbars)}"
    cards.append(Card("Crossbars used", units.percent(share), used, share))
    cells = totals.cell_utilization
    cards.append(Card("Cell utilization", units.percent(cells), "cells that hold weight bits", cells))
    tiles = len(inspection.mapping.tiles)
    share = totals.tiles_used / tiles if tiles else 0.0
    cards.append(Card("Tiles used", f"{units.whole(totals.tiles_used)}", f"of {units.whole(tiles)}", share))
    return cards


def _layer_rows(inspection: Inspection) -> list[LayerRow]:
    total = (inspection.run.cycles if inspection.run else None) or 1
    most = max((layer.energy_pj or 0.0 for layer in inspection.layers), default=0.0) or 1.0
    return [
        LayerRow(
            index=i,
            layer=layer,
            colour=colour_of(inspection, layer),
            place=f"host ({layer.op_type})" if layer.place == "host" else layer.place,
            cell_utilization=units.percent(layer.cell_utilization),
            cycles=units.whole(layer.cycles),
            energy=units.energy_pj(layer.energy_pj),
            energy_share=100.0 * (layer.energy_pj or 0.0) / most,
            left=min(100.0, 100.0 * layer.cost.first_cycle / total) if layer.cost else 0.0,
            span=min(100.0, 100.0 * layer.cost.span / total) if layer.cost else 0.0,
        )
        for i, layer in enumerate(inspection.layers)
    ]


def _charts(inspection: Inspection) -> list[BarChart]:
    run = inspection.run
    if run is None or run.cycles is None:
        return []
    energy, total = run.components, run.total_pj or 1.0
    longest = max(energy.values(), default=0.0) or 1.0
    charts = [
        BarChart(
            "Energy by component",
            f"{units.energy_pj(run.total_pj)} a run; leakage is power over the whole run.",
            [BarRow(k, units.energy_pj(v), 100 * v / longest, units.percent(v / total)) for k, v in energy.items()],
        )
    ]
    busy = sorted((run.utilization or {}).items(), key=lambda kv: -kv[1])
    if busy:
        about = "Share of the run's cycles in which the units of a class that are used at all are busy."
        bars = [BarRow(k, units.percent(v), min(100.0, 100 * v), "") for k, v in busy]
        charts.append(BarChart("Busy units", about, bars))
    if run.bound is not None and run.bound.resources:
        about = "Cycles that each resource needs at least; the longest bar is the lower bound, a full bar the run."
        least = sorted(run.bound.resources.items(), key=lambda kv: -kv[1])
        span = run.cycles or 1
        rows = [BarRow(k, units.whole(v), min(100.0, 100 * v / span), units.percent(v / span)) for k, v in least]
        charts.append(BarChart("What sets the pace", about, rows))
    traffic = sorted((run.traffic_bytes or {}).items(), key=lambda kv: -kv[1])
    if traffic:
        most = max(v for _, v in traffic) or 1
        bars = [BarRow(k, units.size_bytes(v), 100 * v / most, "") for k, v in traffic]
        charts.append(BarChart("Traffic", "Bytes moved at each level; those of noc count once for each hop.", bars))
    return [*charts, *_baseline(run)]


def _baseline(run: RunFigures) -> list[BarChart]:
    """The von-Neumann machine's bytes, time and energy, each over the run's own."""
    found = run.baseline
    if found is None:
        return []
    told = {
        "bytes": units.size_bytes(found.bytes["total"]),
        "latency": units.time_ns(found.latency_ns),
        "energy": units.energy_pj(found.energy_pj["total"]),
    }
    most = max((v or 0.0 for v in found.ratio.values()), default=0.0) or 1.0
    bars = [BarRow(k, told.get(k, ""), 100 * (v or 0.0) / most, units.ratio(v)) for k, v in found.ratio.items()]
    about = (
        f"What the same matrix products take on a machine with a memory ({baseline.assumptions(found)}; limited by "
        f"{found.limit}, every operand moves once), and how many times this run's bytes off chip, latency and energy."
    )
    return [BarChart("Beside a von-Neumann machine", about, bars)]


def _bound(inspection: Inspection) -> str:
    bound = inspection.run.bound if inspection.run else None
    if bound is None or inspection.run is None:
        return ""
    return (
        f"{bound.what[0].upper()}{bound.what[1:]} takes at least {units.whole(bound.cycles)} cycles; "
        f"this program takes {units.whole(inspection.run.cycles)}. It is set by {bound.setters}."
    )


def _data(inspection: Inspection, rows: Sequence[LayerRow]) -> JsonObject:
    """What the script shows on hover and click, as plain values."""
    index = {row.layer.name: row.index for row in rows}
    tiles: dict[str, Json] = {}
    for tile in inspection.mapping.tiles:
        parts: list[Json] = [_part(c, index) for c in inspection.contents.get(tile.id, ())]
        used = units.NOTHING
        if tile.crossbars:
            used = f"{tile.crossbars_used} of {tile.crossbars} ({units.percent(tile.fill)})"
        place = f"chip {tile.chip}, x {tile.x}, y {tile.y}"
        tiles[str(tile.id)] = {"kind": tile.kind, "place": place, "used": used, "parts": parts}
    return {"layers": [_layer_data(row) for row in rows], "tiles": tiles}


def _part(content: Content, index: Mapping[str, int]) -> JsonObject:
    blocks: list[Json] = [
        f"rows {b.rows[0]}–{b.rows[1] - 1} × cols {b.cols[0]}–{b.cols[1] - 1}"
        + (f", replica {b.replica}" if content.layer.replicas > 1 else "")
        for b in content.blocks
    ]
    blocks += [f"{p.kind} on {p.unit}: {units.large(p.macs, 'MAC')}" for p in content.products]
    return {"layer": index[content.layer.name], "crossbars": content.crossbars, "blocks": blocks}


def _layer_data(row: LayerRow) -> JsonObject:
    layer = row.layer
    facts: list[Json] = [["place", row.place]]
    if layer.matrices:
        replicas = f", {layer.replicas} replicas" if layer.replicas > 1 else ""
        facts += [
            ["weights", ", ".join(units.printable(m.weight) for m in layer.matrices)],
            ["shape", layer.shape],
            ["precision", layer.precision],
            ["blocks", f"{len(layer.blocks)}{replicas}"],
            ["crossbars", units.whole(layer.crossbars)],
            ["cell utilization", row.cell_utilization],
        ]
    energy: list[Json] = []
    if layer.cost is not None:
        span = f"{row.cycles} ({units.whole(layer.cost.first_cycle)} to {units.whole(layer.cost.last_cycle)})"
        facts += [["cycles", span], ["energy", row.energy]]
        facts += [[f"busy {unit}", f"{units.whole(n)} cycles"] for unit, n in layer.cost.busy_cycles.items()]
        parts = sorted(((k, v) for k, v in layer.cost.energy_pj.items() if k != "total"), key=lambda kv: -kv[1])
        most = max((v for _, v in parts), default=0.0) or 1.0
        energy = [[k, units.energy_pj(v), 100 * v / most] for k, v in parts]
    return {
        "name": units.printable(layer.name),
        "colour": row.colour,
        "tiles": list(layer.tiles),
        "facts": facts,
        "energy": energy,
    }
