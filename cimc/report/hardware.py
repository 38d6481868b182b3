"""What a chip is made of, for people (`cimc hw list`, `cimc hw show`) and for scripts (``--json``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import cast

from rich.console import Console

from cimc.arch.actions import component
from cimc.arch.load import DEFAULT, Hardware, load, presets
from cimc.arch.spec import ChipSpec
from cimc.arch.units import (
    TileUnits,
    area_by_part,
    energy_pj,
    leakage_by_part,
    mvm_interval_ns,
    part_counts,
    peak_power_mw,
    peak_tops,
)
from cimc.report.jsontext import Json

_MAX_WIDTH = 48  # of a column; a longer cell pushes the rest of its line to the right
_INPUT_BITS = 8  # at which intervals and peaks are told


def summary(hardware: Hardware) -> dict[str, Json]:
    """The chip in figures, JSON-able. Keys: ``name``, ``description``, ``technology``, ``clock_ghz``, ``chips``, ``layout``,
    ``overrides``, ``tiles`` (kind → count, sizes, units, core), ``totals`` (unit in each key), ``no_figure`` (costs
    that the file leaves out and that count as nothing). The rate of MVMs and the peaks are those of 8-bit inputs."""
    chip = hardware.spec
    return {
        "name": hardware.name,
        "description": chip.description,
        "technology": chip.technology,
        "clock_ghz": chip.clock_ghz,
        "chips": chip.chips,
        "layout": list(chip.layout),
        "overrides": list(hardware.overrides),
        "tiles": {kind: _tile(chip, kind) for kind in chip.tiles},
        "totals": _totals(chip),
        "no_figure": [*_missing(chip, "area_um2"), *_missing(chip, "leakage_mw")],
    }


def catalogue() -> list[dict[str, Json]]:
    """The presets, sorted by name: ``name``, ``description``, sizes, and whether it is the ``default``."""
    rows: list[dict[str, Json]] = []
    for name in presets():
        chip = load(name).spec
        totals = _totals(chip)
        rows.append(
            {
                "name": name,
                "default": name == DEFAULT,
                "technology": chip.technology,
                "tiles": chip.tile_count,
                "cores": totals["cores"],
                "weights": totals["weights"],
                "description": chip.description,
            }
        )
    return rows


def _tile(chip: ChipSpec, kind: str) -> dict[str, Json]:
    tile = chip.tiles[kind]
    about: dict[str, Json] = {
        "letter": tile.letter,
        "count": chip.count(tile),
        "local_bytes": tile.local_bytes,
        "cores": tile.cores,
        "vector_lanes": tile.vector.lanes if tile.vector else 0,
        "special_lanes": tile.special.lanes if tile.special else 0,
        "matmul": f"{tile.matmul.rows}x{tile.matmul.cols}" if tile.matmul else None,
        "memory_port": tile.memory_port,
        "area_mm2": sum(area_by_part(chip, kind).values()) / 1e6,
    }
    if tile.core:
        core = tile.core
        about["core"] = {
            "weights": f"{core.rows}x{core.cols}",
            "weight_bits": core.weight_bits,
            "encoding": core.encoding,
            "crossbars": core.crossbars,
            "cell_bits": core.crossbar.cell_bits,
            "devices_per_cell": core.crossbar.devices,
            "active_rows": core.crossbar.active_rows,
            "dac_bits": core.dac_bits,
            "adc_bits": core.adc_bits or None,
            "adcs": core.adcs,
            "interval_ns": mvm_interval_ns(core, _INPUT_BITS),
            **(_mvm(chip, kind) if chip.count(tile) else {}),
        }
    return about


def _totals(chip: ChipSpec) -> dict[str, Json]:
    cores = [(chip.count(t) * t.cores, t.core) for t in chip.tiles.values() if t.core]
    tops, watts = peak_tops(chip, _INPUT_BITS), sum(peak_power_mw(chip, _INPUT_BITS).values()) / 1000
    mm2 = sum(area_by_part(chip).values()) / 1e6
    return {
        "tiles": chip.tile_count,
        "cores": sum(n for n, _ in cores),
        "crossbars": sum(n * core.crossbars for n, core in cores),
        "weights": sum(n * core.rows * core.cols for n, core in cores),
        "peak_tops": tops,
        "peak_power_mw": 1000 * watts,
        "area_mm2": mm2,
        "leakage_mw": sum(leakage_by_part(chip).values()),
        "tops_per_w": tops / watts if watts else None,
        "tops_per_mm2": tops / mm2 if mm2 else None,
    }


def _mvm(chip: ChipSpec, kind: str) -> dict[str, Json]:
    """One MVM of a full block on one core: its time and energy, and the converters' share of the energy (None where the
    file gives them none of their own)."""
    tile = next(i for i in range(chip.tile_count) if chip.kind(i) == kind)
    units = TileUnits(chip, tile)
    actions = units.mvm_actions([(units.core.rows, units.core.cols)], 1, _INPUT_BITS)
    parts = {a: n * energy_pj(chip, a) for a, n in actions.items()}
    total = sum(parts.values())
    adc = sum(pj for a, pj in parts.items() if component(a) == "adc")
    macs = units.core.rows * units.core.cols
    return {
        "mvm_latency_ns": units.mvm_cycles(1, _INPUT_BITS) / chip.clock_ghz,
        "mvm_energy_pj": total,
        "mac_energy_pj": total / macs,
        "adc_energy_share": adc / total if adc else None,
    }


def _missing(chip: ChipSpec, table: str) -> list[str]:
    """Parts the chip has and the file gives no figure for."""
    given = {"area_um2": chip.costs.area_um2, "leakage_mw": chip.costs.leakage_mw}[table]
    names = {key.split("@", 1)[0] for key in given}
    return [f"{table}.{part}" for part in part_counts(chip) if part not in names]


# --- for people --------------------------------------------------------------------------------


def show_catalogue(console: Console) -> None:
    """Print the presets, one a line."""
    rows: list[Sequence[str]] = [("name", "technology", "tiles", "cores", "weights", "description")]
    for row in catalogue():
        name = f"{row['name']} (default)" if row["default"] else str(row["name"])
        sizes = [f"{_number(row[key]):,.0f}" for key in ("tiles", "cores", "weights")]
        rows.append((name, str(row["technology"]), *sizes, str(row["description"])))
    _print(console, rows)


def show(hardware: Hardware, console: Console) -> None:
    """Print a chip: what it is, its layout, its tiles and cores, totals, and every key with its value and source."""
    chip, about = hardware.spec, summary(hardware)
    _line(console, f"{hardware.name}: {chip.description}", "bold")
    chips = f" on {chip.chips} chips" if chip.chips > 1 else ""
    _line(console, f"technology {chip.technology}, clock {chip.clock_ghz:g} GHz, {chip.tile_count} tiles{chips}")
    for override in hardware.overrides:
        _line(console, f"overridden: {override}")
    _line(console, "\nLayout" + (" of each chip" if chip.chips > 1 else ""), "bold")
    for row in chip.layout:
        _line(console, f"  {row}")
    _show_tiles(cast("Mapping[str, Mapping[str, Json]]", about["tiles"]), console)
    _show_mvm(cast("Mapping[str, Mapping[str, Json]]", about["tiles"]), console)
    _show_totals(cast("Mapping[str, Json]", about["totals"]), console)
    missing = cast("list[str]", about["no_figure"])
    if missing:
        _line(console, f"no figure given, counted as 0: {', '.join(missing)}")
    _line(console, "\nEvery key (change one with -c KEY=VALUE)", "bold")
    given = [(key, json.dumps(v), hardware.sources.get(key, "")) for key, v in keys(hardware).items()]
    _print(console, [("key", "value", "source"), *given])


def _show_tiles(tiles: Mapping[str, Mapping[str, Json]], console: Console) -> None:
    rows: list[Sequence[str]] = [
        ("kind", "", "count", "cores", "local KiB", "vector", "special", "matmul", "memory port", "area mm2")
    ]
    cores: list[Sequence[str]] = [
        (
            "kind",
            "weights",
            "bits",
            "encoding",
            "crossbars",
            "cell bits",
            "devices",
            "active rows",
            "DAC",
            "ADCs",
            "ns a row",
        )
    ]
    for kind, t in tiles.items():
        lanes = [str(t[key] or "-") for key in ("vector_lanes", "special_lanes", "matmul")]
        port, area = "yes" if t["memory_port"] else "-", f"{_number(t['area_mm2']):.2f}"
        kib = f"{_number(t['local_bytes']) / 1024:g}"
        rows.append((kind, str(t["letter"]), str(t["count"]), str(t["cores"] or "-"), kib, *lanes, port, area))
        core = cast("Mapping[str, Json] | None", t.get("core"))
        if core:
            adc = f"{core['adcs']} x {core['adc_bits']} b" if core["adc_bits"] else "digital"
            sizes = [str(core[k]) for k in ("crossbars", "cell_bits", "devices_per_cell", "active_rows")]
            head = (kind, str(core["weights"]), str(core["weight_bits"]), str(core["encoding"]))
            cores.append((*head, *sizes, f"{core['dac_bits']} b", adc, f"{_number(core['interval_ns']):g}"))
    _line(console, "\nTiles", "bold")
    _print(console, rows)
    if len(cores) > 1:
        _line(console, "\nCores (time of a row for 8-bit inputs)", "bold")
        _print(console, cores)


def _show_mvm(tiles: Mapping[str, Mapping[str, Json]], console: Console) -> None:
    rows: list[Sequence[str]] = [("kind", "first row", "rows after it", "energy", "a MAC", "ADC's share")]
    for kind, t in tiles.items():
        core = cast("Mapping[str, Json]", t.get("core") or {})
        if "mvm_energy_pj" in core:
            share = core["adc_energy_share"]
            rows.append(
                (
                    kind,
                    f"{_number(core['mvm_latency_ns']):,.4g} ns",
                    f"{_number(core['interval_ns']):,.4g} ns",
                    f"{_number(core['mvm_energy_pj']) / 1000:,.4g} nJ",
                    f"{1000 * _number(core['mac_energy_pj']):,.4g} fJ",
                    "-" if share is None else f"{100 * _number(share):.1f} %",
                )
            )
    if len(rows) > 1:
        _line(console, "\nAn MVM of a full block on one core (8-bit inputs; counted actions x energies)", "bold")
        _print(console, rows)


def _show_totals(totals: Mapping[str, Json], console: Console) -> None:
    forms = {
        "cores": ("cores", "{:,.0f}", "tiles x cores of a tile"),
        "crossbars": ("crossbars", "{:,.0f}", "cores x slices (x 2 for differential pairs)"),
        "weights": ("weights", "{:,.0f}", "cores x rows x columns"),
        "peak, 8-bit inputs": ("peak_tops", "{:.4g} TOPS", "2 x weights / time from one row to the next"),
        "peak power": (
            "peak_power_mw",
            "{:,.0f} mW",
            "sum of actions a ns x energies: cores, MACs, lanes (not buffers, NoC, memory, host)",
        ),
        "efficiency": ("tops_per_w", "{:.4g} TOPS/W", "peak / peak power"),
        "leakage": ("leakage_mw", "{:,.1f} mW", "sum of parts x leakages"),
        "area": ("area_mm2", "{:.2f} mm2", "sum of parts x areas"),
        "density": ("tops_per_mm2", "{:.4g} TOPS/mm2", "peak / area"),
    }
    rows: list[Sequence[str]] = [("", "", "")]
    rows += [(label, form.format(_number(totals[k])), formula) for label, (k, form, formula) in forms.items()]
    _line(console, "\nTotals", "bold")
    _print(console, rows)


def keys(hardware: Hardware) -> dict[str, Json]:
    """Every key of the resolved hardware by its dotted path, in the file's order."""
    return dict(_flat(cast("Mapping[str, Json]", hardware.spec.model_dump(mode="json", exclude_none=True)), ""))


def _flat(data: Mapping[str, Json], prefix: str) -> list[tuple[str, Json]]:
    rows: list[tuple[str, Json]] = []
    for key, value in data.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _line(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _print(console: Console, rows: Sequence[Sequence[str]]) -> None:
    """Rows in aligned columns under their header, never cut: rich's own tables shorten cells to fit the terminal."""
    widths = [min(max(len(row[i]) for row in rows), _MAX_WIDTH) for i in range(len(rows[0]))]
    for index, row in enumerate(rows):
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        if text:
            _line(console, f"  {text}", "dim" if index == 0 else "")
