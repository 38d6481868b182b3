"""What the analog cores cost: conversions and their share of the energy, cells, cell writes and wear."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cimc.analog.technology import Fact, Technology
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.arch.units import TileUnits
from cimc.device import EFFECTS, Device
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Step
from cimc.isa.program import Program
from cimc.isa.steps import executed
from cimc.report import units
from cimc.report.jsontext import Json, JsonObject
from cimc.report.render import Block, Facts, Table
from cimc.report.repairs import Repairs, repairs
from cimc.sim.result import RunResult

SHOWN_LAYERS = 12


@dataclass(frozen=True)
class Layer:
    """Conversions of the cores that hold one weight, how many of them saturated, and the cells it takes (copies in
    several tiles included)."""

    name: str
    conversions: int
    saturated: int
    cells: int


@dataclass(frozen=True)
class Wear:
    """Pulses on the cells. ``programming``: to write all weights once. ``inference``: in this run; 0 where the weights
    stay. ``busiest``: of these, on the cell that gets most. ``sram``: writes of digital cores beside cells of another
    kind, in this run. ``tokens``: of this run's input; None if it has no integer input.
    ``rate``: runs per second. ``endurance``: pulses a cell bears, None where the technology gives no figure."""

    programming: int
    inference: int
    busiest: int
    sram: int
    tokens: int | None
    rate: float
    endurance: Fact | None

    @property
    def per_token(self) -> float | None:
        """Pulses per token."""
        return None if not self.tokens else self.inference / self.tokens

    def years(self, endurance: float) -> float | None:
        """Years until the first cell has had ``endurance`` pulses; None: never."""
        if not self.inference or not self.busiest:
            return None
        return endurance / (self.busiest * self.rate) / units.YEAR


@dataclass(frozen=True)
class Cost:
    """The whole report. ``conversions`` and ``adc_energy`` (share of all energy) are None without timing and values."""

    device: Device
    core: CoreSpec | None
    conversions: int | None
    saturated: int | None
    adc_energy: float | None
    cells: int
    layers: Sequence[Layer]
    wear: Wear
    repairs: Repairs

    def to_json(self) -> JsonObject:
        """The object ``device`` of ``run --json`` and ``check --json``."""
        w, end = self.wear, self.wear.endurance
        active = self.device.active(self.core) if self.core else ()
        wear: JsonObject = {
            "programming_writes": w.programming,
            "writes_per_inference": w.inference,
            "writes_per_token": w.per_token,
            "writes_of_busiest_cell": w.busiest,
            "sram_writes_per_inference": w.sram,
            "tokens": w.tokens,
            "inferences_per_second": w.rate,
            "endurance_writes": None if end is None else [end.low, end.high],
            "endurance_source": None if end is None else end.source,
            "years_to_wear_out": None if end is None else [w.years(end.low), w.years(end.high)],
        }
        layers: Json = [
            {"weight": x.name, "conversions": x.conversions, "saturated": x.saturated, "cells": x.cells}
            for x in self.layers
        ]
        return {
            "technology": self.device.technology,
            "model": self.device.model.model.name,
            "model_source": self.device.model.model.source,
            "seconds": self.device.seconds,
            "temperature_c": self.device.temperature_c,
            "temperature_source": self.device.model.model.thermal or None,
            "effects": {name: name in active for name in EFFECTS},
            "adc_range": self.device.adc_range,
            "drift_compensation": self.device.drift_compensation,
            "adc_conversions": self.conversions,
            "adc_saturated": self.saturated,
            "adc_energy_share": self.adc_energy,
            "cells_used": self.cells,
            "encodings": _encodings(self.core),
            "layers": layers,
            "wear": wear,
            "repairs": self.repairs.to_json(),
        }


def cost(program: Program, chip: ChipSpec, device: Device, result: RunResult, rate: float) -> Cost:
    """From a run: whatever of values and timing it has."""
    core = next((t.core for t in chip.tiles.values() if t.core and t.core.adc), None)
    layers = [Layer(k, c["conversions"], c["saturated"], c["cells"]) for k, c in result.layer_counts.items()]
    timing, counts = result.timing, result.counts
    conversions = counts.get("conversions") if counts else None
    if conversions is None and timing is not None:
        conversions = timing.actions.get("adc.convert", 0)
    total = sum(timing.energy_pj.values()) if timing is not None else 0.0
    cells = _cells(program, chip)
    return Cost(
        device=device,
        core=core,
        conversions=conversions,
        saturated=counts.get("saturated") if counts else None,
        adc_energy=timing.energy_pj.get("adc", 0.0) / total if timing is not None and total else None,
        cells=cells,
        layers=layers,
        wear=_wear(program, chip, device.model, result, rate),
        repairs=repairs(program, chip, device, result, cells),
    )


def _wear(program: Program, chip: ChipSpec, tech: Technology, result: RunResult, rate: float) -> Wear:
    pulses = 0
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        if core is not None:
            kept = sum(m.rows * m.cols for m in tile.matrices if m.key)
            pulses += kept * cells_per_weight(core) * core.verify_iterations
    actions = result.timing.actions if result.timing is not None else {}
    writes, sram = actions.get("cell.write", 0), actions.get("digital.write", 0)
    end = next((f for f in tech.facts if f.name == "endurance"), None)
    return Wear(pulses, int(writes), _busiest(program, chip), int(sram), _tokens(program), rate, end)


def cells_per_weight(core: CoreSpec) -> int:
    """Physical cells of one weight, each device of them counted: one per slice and copy of one, twice that for differential
    pairs."""
    return core.devices


def _cells(program: Program, chip: ChipSpec) -> int:
    """Cells that hold weights, all copies, or operands that are written as the program runs."""
    total = 0
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        if core is not None:
            total += sum(m.rows * m.cols for m in tile.matrices) * cells_per_weight(core)
    return total


def _busiest(program: Program, chip: ChipSpec) -> int:
    """Pulses in a run on the cell that gets most of them, digital cores with writes of their own left out."""
    most = 0
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        if core is not None and "cell.write" in TileUnits(chip, tile.tile).program_actions([(1, 1)]):
            times = written_matrices(tile.steps)
            most = max(most, max(times.values(), default=0) * core.verify_iterations)
    return most


def written_matrices(steps: Iterable[Step]) -> dict[str, int]:
    """The matrices whose cells a stream writes, by name, and how often. A repeat whose count is known only when a run starts
    counts once."""
    found: dict[str, int] = {}
    for step, times in executed(steps):
        if _writes_cells(step):
            for name in (o for o in step.operands if isinstance(o, str)):
                found[name] = found.get(name, 0) + times
    return found


def _writes_cells(step: Instruction) -> bool:
    return INSTRUCTIONS[step.mnemonic].writes_cells


def _tokens(program: Program) -> int | None:
    """Elements of the first integer input: the token ids of a language model."""
    buffers = {b.name: b for b in program.globals}
    for port in program.inputs:
        buffer = buffers[port.buffer]
        if buffer.element.dtype(exact=False).kind in "iu":
            return buffer.size
    return None


def _encodings(core: CoreSpec | None) -> Json:
    """Cells of a weight, and the ADC bits that lose nothing, for the encodings this array could have."""
    if core is None:
        return []
    found: list[JsonObject] = []
    for kind in ("offset", "differential"):
        for bits in (1, 2, 4):
            bar = core.crossbar.model_copy(update={"cell_bits": bits})
            adc = core.adc.model_copy(update={"bits": 0}) if core.adc else None
            other = core.model_copy(update={"encoding": kind, "crossbar": bar, "adc": adc})
            signed = 1 if kind == "differential" else 0
            chosen = kind == core.encoding and bits == core.crossbar.cell_bits
            found.append(
                {
                    "encoding": kind,
                    "cell_bits": bits,
                    "cells_per_weight": other.devices,
                    "lossless_adc_bits": other.adc_bits + signed,
                    "conversions_per_weight_column": other.slices,
                    "chosen": chosen,
                }
            )
    return found


def blocks(found: Cost) -> list[Block]:
    """The report as text."""
    device, wear = found.device, found.wear
    active = device.active(found.core) if found.core else ()
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("technology", device.technology, f"{device.model.model.name}: {device.model.model.source}"),
        ("effects", ", ".join(active) or "none", f"{units.age(device.seconds)} after programming"),
        *_temperature(device),
        ("cells used", units.whole(found.cells), f"{cells_per_weight(found.core)} a weight" if found.core else ""),
    ]
    if found.conversions is not None:
        clipped = "" if found.saturated is None else f"{units.whole(found.saturated)} saturated"
        rows.append(("ADC conversions", units.whole(found.conversions), clipped))
    if found.adc_energy is not None:
        rows.append(("ADC share of energy", units.percent(found.adc_energy)))
    return [
        Facts("Device", rows),
        *found.repairs.blocks(),
        Facts("Wear", _wear_rows(wear)),
        *_layer_table(found.layers),
    ]


def _temperature(device: Device) -> list[tuple[str, str, str]]:
    if device.temperature_c is None:
        return []
    return [("temperature", f"{device.temperature_c:g} °C", device.model.model.thermal)]


def _wear_rows(wear: Wear) -> list[tuple[str, str] | tuple[str, str, str]]:
    rows: list[tuple[str, str] | tuple[str, str, str]] = [
        ("cell writes to load the weights", units.whole(wear.programming), "once"),
        ("cell writes per inference", units.whole(wear.inference)),
    ]
    if wear.sram:
        rows.append(("SRAM cell writes per inference", units.whole(wear.sram)))
    if wear.inference:
        rows.append(("writes of the busiest cell", units.whole(wear.busiest), "per inference"))
    if wear.per_token is not None:
        rows.append(("cell writes per token", f"{wear.per_token:.4g}"))
    end = wear.endurance
    if end is None:
        return [*rows, ("endurance", "no figure for this technology")]
    rows.append(("endurance", f"{end.low:.3g} to {end.high:.3g} writes", end.source))
    low, high = wear.years(end.low), wear.years(end.high)
    told = (
        "never: weights stay where they are"
        if low is None or high is None
        else f"{units.years(low)} to {units.years(high)}"
    )
    return [*rows, ("worn out", told, f"at {wear.rate:g} inferences a second")]


def _layer_table(layers: Sequence[Layer]) -> list[Block]:
    clipped = sorted((x for x in layers if x.saturated), key=lambda x: (-x.saturated / max(x.conversions, 1), x.name))
    if not clipped:
        return []
    rows = [
        (x.name, units.whole(x.conversions), units.whole(x.saturated), units.percent(x.saturated / x.conversions))
        for x in clipped[:SHOWN_LAYERS]
    ]
    header = ("weight", ">conversions", ">saturated", ">share")
    return [Table(f"ADC saturation by weight ({len(rows)} of {len(clipped)} that saturate)", header, rows)]
