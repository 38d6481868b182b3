"""The report of a run: what was run on what, what it cost, and what set the pace. Every figure with its unit.

Fixed order: configuration → memory and cells → what runs where → traffic → MACs → cycles by resource → time → energy
by component → beside a von-Neumann machine → layers → bound and attainment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from cimc.arch.spec import ChipSpec
from cimc.report import baseline, cache, reload, units, waiting
from cimc.report.figures import TRAFFIC, RunFigures
from cimc.report.mapping_file import MappingFile
from cimc.report.render import Bar, Bars, Block, Facts, Table, text

TOP_LAYERS = 12
TOP_WAITING = 5


@dataclass(frozen=True)
class Setting:
    """What was run, and how: the first block of the report. Empty strings are left out. ``technology``: of analog numerics,
    where it is not the hardware's."""

    program: str
    hardware: str
    numerics: str = ""
    seed: int | None = None
    technology: str = ""


def report(
    run: RunFigures, setting: Setting, chip: ChipSpec | None = None, mapping: MappingFile | None = None
) -> list[Block]:
    """The blocks of the report; ``chip`` and ``mapping`` add what they know."""
    blocks: list[Block | None] = [
        _configuration(setting, chip, run.params),
        _memory(mapping, chip),
        _where(run, mapping),
        _traffic(run),
        _macs(run),
        _cycles(run),
        _time(run, values=bool(setting.numerics)),
        _energy(run),
        *reload.blocks(run),
        *cache.blocks(run),
        *baseline.blocks(run),
        _layers(run),
        _stalls(run),
        *waiting.blocks(run, TOP_WAITING),
        _counts(run),
        _bound(run),
    ]
    return [block for block in blocks if block is not None]


def _configuration(setting: Setting, chip: ChipSpec | None, params: Mapping[str, int]) -> Block:
    rows = [("program", setting.program), *((n, str(v)) for n, v in params.items()), ("hardware", setting.hardware)]
    if chip is not None:
        kinds = Counter(chip.kind(i) for i in range(chip.tile_count))
        rows += [
            ("technology", setting.technology or chip.technology),
            ("clock", units.si(chip.clock_ghz * 1e9, "Hz")),
            ("mesh", f"{len(chip.layout)} rows of {chip.columns} tiles: {_listed(kinds)}"),
            *([("chips", str(chip.chips))] if chip.chips > 1 else []),
        ]
    if setting.numerics:
        rows.append(("numerics", setting.numerics))
    if setting.seed is not None:
        rows.append(("seed", str(setting.seed)))
    return Facts("Configuration", rows)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _memory(mapping: MappingFile | None, chip: ChipSpec | None) -> Block | None:
    rows: list[tuple[str, str] | tuple[str, str, str]] = []
    if chip is not None:
        local = sum(chip.tile(i).local_bytes for i in range(chip.tile_count))
        rows.append(("local buffers", units.size_bytes(local), "all tiles"))
        rows.append(("global memory", units.size_bytes(chip.memory.capacity_bytes)))
    if mapping is not None:
        totals = mapping.totals
        share = totals.crossbars_used / totals.crossbars if totals.crossbars else 0.0
        used = f"{units.whole(totals.crossbars_used)} of {units.whole(totals.crossbars)}"
        rows += [
            ("crossbars used", used, units.percent(share)),
            ("cell utilization", units.percent(totals.cell_utilization), "cells that hold weight bits"),
            ("tiles used", f"{units.whole(totals.tiles_used)} of {units.whole(len(mapping.tiles))}"),
        ]
    return Facts("Memory and cells", rows) if rows else None


LEAST = {
    "chain": "steps of this program that wait for each other",
    "global_memory": "with the chains that its last accesses wait for",
    "memory": "a tile's way to buffers of others and global memory",
}
"""What the least cycles of a resource are, where it is not its work over all its units."""


def _where(run: RunFigures, mapping: MappingFile | None) -> Block | None:
    rows: list[tuple[str, str] | tuple[str, str, str]] = []
    if mapping is not None:
        blocks = [b for m in mapping.static for b in m.blocks]
        weights = sum(m.rows * m.cols for m in mapping.static)
        spread = units.counted(len({b.tile for b in blocks}), "tile")
        copies = ", copies included," if any(b.replica for b in blocks) else ""
        held = f"{units.large(weights)} weights in {units.counted(len(blocks), 'block')}{copies} on {spread}"
        rows.append(("in cells", units.counted(len(mapping.static), "matrix", "matrices"), held))
        for unit in sorted({op.unit for op in mapping.dynamic}):
            there = [op for op in mapping.dynamic if op.unit == unit]
            tiles = f"products of activations, on {units.counted(len({op.tile for op in there}), 'tile')}"
            rows.append((f"unit {unit}", units.counted(len({op.node for op in there}), "node"), tiles))
    host = run.host or (tuple(mapping.host) if mapping is not None else ())
    if host or rows:
        rows.append(("on the host", units.counted(len(host), "node"), _listed(Counter(n.op_type for n in host))))
    if run.host_cycles is not None and run.cycles:
        share = units.percent(run.host_cycles / run.cycles)
        rows.append(("host's share", share, f"{units.whole(run.host_cycles)} cycles"))
    return Facts("What runs where", rows) if rows else None


def _traffic(run: RunFigures) -> Block | None:
    if not run.traffic_bytes:
        return None
    longest = max(run.traffic_bytes.values()) or 1
    bars = [Bar(k, units.size_bytes(v), v / longest, TRAFFIC.get(k, "")) for k, v in run.traffic_bytes.items()]
    return Bars("Traffic", bars)


def _macs(run: RunFigures) -> Block | None:
    if run.macs is None:
        return None
    total = sum(run.macs.values())
    rows = [(k, units.large(v, "MAC"), units.percent(v / total if total else 0.0)) for k, v in run.macs.items()]
    return Facts("Multiply-accumulates", [*rows, ("total", units.large(total, "MAC"))])


def _cycles(run: RunFigures) -> Block | None:
    if run.utilization is None or run.bound is None:
        return None
    busy, least = run.utilization, run.bound.resources
    names = sorted({*busy, *least}, key=lambda n: (-busy.get(n, 0.0), -least.get(n, 0), n))
    rows = [(n, units.percent(busy.get(n)), units.whole(least.get(n)), LEAST.get(n, "")) for n in names]
    return Table("Cycles by resource", ("resource", ">busy (of units used)", ">cycles at least", ""), rows)


def _stalls(run: RunFigures) -> Block | None:
    if not run.stalls:
        return None
    waited = sum(run.stalls.values()) or 1
    causes = sorted(run.stalls.items(), key=lambda kv: -kv[1])
    rows = [(cause, units.whole(cycles), units.percent(cycles / waited)) for cause, cycles in causes]
    return Table("Waiting, by cause", ("cause", ">cycles of all instructions", ">share"), rows)


def _time(run: RunFigures, values: bool) -> Block | None:
    if run.cycles is None or run.latency_ns is None:
        return Facts("Time", [("values on this computer", units.seconds(run.seconds.values))])
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("cycles", units.whole(run.cycles)),
        ("latency", units.time_ns(run.latency_ns)),
        ("instructions", units.whole(run.instructions)),
    ]
    macs = sum((run.macs or {}).values())
    if run.latency_ns > 0:
        rows.append(("rate", units.large(1e9 / run.latency_ns) + " runs/s"))
        rows.append(("throughput", units.si(2 * macs / run.latency_ns * 1e9, "OPS"), "1 MAC = 2 operations"))
    computed = f"values {units.seconds(run.seconds.values)}, " if values else ""
    rows.append(("simulated in", f"{computed}timing {units.seconds(run.seconds.timing)}", "on this computer"))
    return Facts("Time", rows)


def _energy(run: RunFigures) -> Block | None:
    total = run.total_pj
    if total is None or run.latency_ns is None:
        return None
    longest = max(run.components.values(), default=0.0) or 1.0
    bars = [
        Bar(k, units.energy_pj(v), v / longest, units.percent(v / total if total else 0.0))
        for k, v in run.components.items()
    ]
    remark = ""
    macs = sum((run.macs or {}).values())
    if total > 0 and run.latency_ns > 0:
        power = units.power_w(total * 1e-12 / (run.latency_ns * 1e-9))
        remark = f"{power} on average, {units.si(2 * macs / (total * 1e-12), 'OPS/W')}"
    return Bars("Energy", [*bars, Bar("total", units.energy_pj(total), 0.0, remark)])


def _layers(run: RunFigures) -> Block | None:
    if not run.layers or run.cycles is None:
        return None
    ranked = sorted(run.layers.items(), key=lambda kv: (-kv[1].energy_pj["total"], kv[1].first_cycle, kv[0]))
    total = run.total_pj or 1.0
    rows = [
        (
            name,
            units.whole(layer.span),
            layer.unit or units.NOTHING,
            units.energy_pj(layer.energy_pj["total"]),
            units.percent(layer.energy_pj["total"] / total),
        )
        for name, layer in ranked[:TOP_LAYERS]
    ]
    rest = len(ranked) - len(rows)
    title = f"Layers that take most energy ({len(rows)} of {len(ranked)})" if rest else "Layers by energy"
    return Table(title, ("layer", ">cycles first to last", "busiest unit", ">energy", ">of total"), rows)


def _counts(run: RunFigures) -> Block | None:
    if not run.counts:
        return None
    return Facts("Analog values", [(k, units.whole(v)) for k, v in run.counts.items()])


def _bound(run: RunFigures) -> Block | None:
    if run.bound is None or run.cycles is None:
        return None
    bound = run.bound
    lines = (
        f"{bound.what} takes at least {units.whole(bound.cycles)} cycles; set by: {bound.setters}",
        f"this program takes {units.whole(run.cycles)}: it attains {units.percent(bound.attainment)} of the bound",
    )
    return text("Bound", *lines)
