"""A core's design choices side by side: the table of ``cimc hw trade`` and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cimc.report import units
from cimc.report.jsontext import JsonObject
from cimc.report.render import Block, Facts, Table

HEADER = (
    "", "encoding", ">cell bits", ">devices/cell", ">rows", ">ADC bits", ">error", ">clipped", ">cells/weight",
    ">conversions/MAC", ">fJ/MAC", ">ADC share", ">ns a row", ">µm²/weight",
)  # fmt: skip


@dataclass(frozen=True)
class Variant:
    """One design. ``error``: RMS error of the product over its RMS, the mean of the seeds. ``cells``: of a weight, each of
    the ``devices`` of a cell counted. ``conversions``: of a weight's column per input vector, over the rows of a crossbar
    (per MAC). ``energy_fj``: per MAC of a core, and the converters' share of it. ``row_ns``: time of an input vector.
    ``area_um2``: of crossbars, converters, drivers and shift-and-add, per weight. ``saturated``: share of conversions that
    clipped."""

    encoding: str
    cell_bits: int
    active_rows: int
    adc_bits: int
    error: float
    saturated: float
    cells: int
    devices: int
    conversions: float
    energy_fj: float
    adc_share: float
    row_ns: float
    area_um2: float
    chosen: bool


@dataclass(frozen=True)
class Setting:
    """What the designs are compared on: the device, and a product of normal codes with these RMS."""

    hardware: str
    technology: str
    seconds: float
    inputs: int
    outputs: int
    weight_rms: int
    input_rms: int


def to_json(about: Setting, found: Sequence[Variant]) -> JsonObject:
    """The object of ``hw trade --json``."""
    return {**asdict(about), "variants": [asdict(v) for v in found]}


def blocks(about: Setting, found: Sequence[Variant], most_error: float) -> list[Block]:
    """The table, and of the designs within ``most_error`` the cheapest by energy, time and area."""
    facts: list[tuple[str, str] | tuple[str, str, str]] = [
        ("hardware", about.hardware, f"technology {about.technology}, {units.age(about.seconds)} after programming"),
        ("weights", f"{about.inputs} x {about.outputs}", f"normal 8-bit codes, RMS {about.weight_rms}"),
        ("inputs", str(about.inputs), f"normal 8-bit codes, RMS {about.input_rms}"),
    ]
    within = [v for v in found if v.error <= most_error]
    for name, key in (("energy", "energy_fj"), ("time", "row_ns"), ("area", "area_um2")):
        best = min(within, key=lambda v, key=key: float(getattr(v, key)), default=None)
        told = "none" if best is None else _name(best)
        facts.append((f"least {name}", told, f"of the designs that err by at most {100 * most_error:g} %"))
    return [Facts("Design choices of a core", facts), Table("", HEADER, [_row(v) for v in found])]


def _name(v: Variant) -> str:
    several = f" of {v.devices} devices" if v.devices > 1 else ""
    return f"{v.encoding}, {v.cell_bits}-bit cells{several}, {v.active_rows} rows, {v.adc_bits}-bit ADC"


def _row(v: Variant) -> tuple[str, ...]:
    return (
        "*" if v.chosen else "", v.encoding, str(v.cell_bits), str(v.devices), str(v.active_rows), str(v.adc_bits),
        f"{100 * v.error:.3g} %", f"{100 * v.saturated:.2g} %", str(v.cells), f"{v.conversions:.4g}",
        f"{v.energy_fj:,.0f}", f"{100 * v.adc_share:.0f} %", f"{v.row_ns:,.0f}", f"{v.area_um2:.3g}",
    )  # fmt: skip
