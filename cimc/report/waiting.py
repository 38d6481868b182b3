"""What instructions waited for, by tile and by layer: where a program loses its time, and to what.

Cycles are summed over instructions, of which a tile has up to 64 in flight: they tell where waiting is, not how much
shorter the run would be."""

from __future__ import annotations

from collections.abc import Mapping

from cimc.report import units
from cimc.report.figures import RunFigures
from cimc.report.render import Block, Facts, Table

CAUSES: Mapping[str, str] = {
    "issue": "64 instructions in flight, the oldest not done: long ones in front of many short ones",
    "operand": "results of the same tile: its own chain of instructions",
    "unit": "the unit, busy with earlier instructions (a host call: the host)",
    "message": "a message or token that another tile sends later",
    "channel": "room at the receiver (noc.channel_bytes), who takes messages late",
    "link": "links taken by other packets, on the whole way",
    "memory": "the queue of global memory, or of a tile that holds a resident array",
}
"""Cause → what it is, so that a person sees what to change."""


def blocks(run: RunFigures, shown: int) -> list[Block]:
    """The tiles and the layers that waited most, ``shown`` of each; nothing for a run without timing."""
    tiles = {f"tile {tile}": causes for tile, causes in run.tile_stalls.items()}
    layers = {name or "(no layer)": layer.stalls for name, layer in run.layers.items()}
    found = [_table("tiles", "stream", tiles, shown), _table("layers", "layer", layers, shown)]
    return [table for table in found if table is not None]


def one(causes: Mapping[str, int]) -> list[Block]:
    """The causes of one tile or one layer, each with what it is."""
    total = sum(causes.values())
    if not total:
        return []
    order = sorted(causes.items(), key=lambda kv: -kv[1])
    rows = [
        (cause, f"{units.whole(n)} cycles, {units.percent(n / total)}", CAUSES.get(cause, "")) for cause, n in order
    ]
    return [Facts("Waiting", rows)]


def _table(what: str, column: str, waits: Mapping[str, Mapping[str, int]], shown: int) -> Table | None:
    """Those that waited most; None if nobody did."""
    ranked = sorted(((name, sum(causes.values()), causes) for name, causes in waits.items()), key=lambda r: -r[1])
    ranked = [row for row in ranked if row[1]]
    if not ranked:
        return None
    known = [c for c in CAUSES if any(causes.get(c) for _, _, causes in ranked)]
    rows = [
        (name, units.whole(total), *(units.percent(causes.get(c, 0) / total) for c in known))
        for name, total, causes in ranked[:shown]
    ]
    title = f"Waiting: the {len(rows)} of {len(waits)} {what} that waited most"
    return Table(title, (column, ">cycles", *(f">{c}" for c in known)), rows)
