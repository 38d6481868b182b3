"""What the repairs of the device cost, and what they have gained where that is known without another run: placing weights
around stuck cells, spare columns, redundant copies of slices, calibration."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.arch.units import TileUnits, area_um2, energy_pj, leakage_mw
from cimc.device import Device
from cimc.isa.program import Program
from cimc.report import units
from cimc.report.jsontext import JsonObject
from cimc.report.render import Block, Facts
from cimc.sim.calibration import calibrations
from cimc.sim.result import RunResult
from cimc.sim.tally import FaultTally

Fact = tuple[str, str] | tuple[str, str, str]


@dataclass(frozen=True)
class Faults:
    """Stuck cells under the weights. ``before`` and ``after``: RMS error of a weight through them, in codes, in order and
    as placed. ``table_pj`` and ``table_um2`` are estimated: tables in local buffers, all of a matrix's read once for
    every vector, at the hardware file's cost of a buffer's byte and KiB."""

    mode: str
    stuck: int
    before: float
    after: float
    moved: int
    spare: int
    table_bits: int
    table_pj: float
    table_um2: float


@dataclass(frozen=True)
class Extra:
    """What hardware that a repair needs adds to a run and to the chip: ``cells`` under weights; on the whole chip
    ``um2``."""

    cells: int
    conversions: int | None
    pj: float | None
    um2: float


@dataclass(frozen=True)
class Calibration:
    """What the ``calibrate`` instructions of one run of the program take: ``cycles`` are those of the longest, as cores
    calibrate side by side; ``leakage_pj`` is what the whole chip leaks meanwhile. ``interval``: inferences that share
    one calibration, ``age`` its seconds at the time of the run."""

    matrices: int
    vectors: int
    conversions: int
    pj: float
    cycles: int
    leakage_pj: float
    interval: int
    age: float

    @property
    def per_inference(self) -> tuple[float, float]:
        """(pJ, leakage included, and cycles) that one inference bears."""
        return (self.pj + self.leakage_pj) / self.interval, self.cycles / self.interval


@dataclass(frozen=True)
class Repairs:
    """None for what is not in use."""

    faults: Faults | None
    spare: Extra | None
    copies: Extra | None
    calibration: Calibration | None
    core: CoreSpec | None

    def to_json(self) -> JsonObject:
        """The object ``device.repairs``."""
        f, bar = self.faults, self.core.crossbar if self.core else None
        faults: JsonObject | None = f and {
            "remap": f.mode,
            "stuck_cells": f.stuck,
            "weight_error_in_order": f.before,
            "weight_error": f.after,
            "lines_moved": f.moved,
            "spare_columns_used": f.spare,
            "table_bits": f.table_bits,
            "table_energy_pj": f.table_pj,
            "table_area_um2": f.table_um2,
        }
        spare: JsonObject | None = self.spare and {
            "columns_per_crossbar": bar.spare_cols if bar else 0,
            "area_um2": self.spare.um2,
            "energy_pj": self.spare.pj,
        }
        copies: JsonObject | None = self.copies and {
            "copies": self.core.msb_copies if self.core else 1,
            "slices": self.core.msb_slices if self.core else 1,
            "combine": self.core.msb_combine if self.core else "",
            "cells": self.copies.cells,
            "adc_conversions": self.copies.conversions,
            "energy_pj": self.copies.pj,
            "area_um2": self.copies.um2,
        }
        c = self.calibration
        calibration: JsonObject | None = c and {
            "matrices": c.matrices,
            "vectors": c.vectors,
            "adc_conversions": c.conversions,
            "energy_pj": c.pj,
            "cycles": c.cycles,
            "leakage_pj": c.leakage_pj,
            "interval": c.interval,
            "energy_pj_per_inference": c.per_inference[0],
            "cycles_per_inference": c.per_inference[1],
            "age_seconds": c.age,
        }
        return {"faults": faults, "spare_columns": spare, "msb_copies": copies, "calibration": calibration}

    def blocks(self) -> list[Block]:
        """The same as text; nothing where no repair is in use."""
        rows = [*self._fault_rows(), *self._extra_rows()]
        return [Facts("Repairs", rows)] if rows else []

    def _fault_rows(self) -> list[Fact]:
        f = self.faults
        if f is None:
            return []
        rows: list[Fact] = [("stuck cells under weights", units.whole(f.stuck), f"RMS error of a weight {f.after:.3g}")]
        if f.mode != "none":
            spare = f", {units.whole(f.spare)} on spare columns" if f.spare else ""
            rows.append((f"remapped ({f.mode})", f"{units.whole(f.moved)} lines", f"in order {f.before:.3g}{spare}"))
            cost = f"{units.energy_pj(f.table_pj)} a run, {f.table_um2 / 1e6:.3g} mm2 (estimated)"
            rows.append(("index tables", units.size_bytes(f.table_bits / 8), cost))
        return rows

    def _extra_rows(self) -> list[Fact]:
        rows: list[Fact] = []
        if self.spare is not None and self.core is not None:
            area = f"{self.spare.um2 / 1e6:.3g} mm2 of the chip"
            rows.append(("spare columns", f"{self.core.crossbar.spare_cols} a crossbar", area))
        if self.copies is not None and self.core is not None:
            core, extra = self.core, self.copies
            what = f"{core.msb_copies} of {core.msb_slices} slices, {core.msb_combine}"
            spent = f"{units.whole(extra.conversions)} conversions, {units.energy_pj(extra.pj)}"
            about = f"{units.whole(extra.cells)} cells, {spent}, {extra.um2 / 1e6:.3g} mm2 more"
            rows.append(("copies of top slices", what, about))
        c = self.calibration
        if c is not None:
            spent = f"{units.energy_pj(c.pj)} and {units.energy_pj(c.leakage_pj)} leakage"
            once = f"{units.whole(c.conversions)} conversions, {spent}, {units.whole(c.cycles)} cycles"
            share = f", shared by {units.whole(c.interval)} inferences" if c.interval > 1 else " in every inference"
            rows.append(("calibration", f"{units.whole(c.matrices)} matrices, {c.vectors} vectors", once + share))
        return rows


def repairs(program: Program, chip: ChipSpec, device: Device, result: RunResult, cells: int) -> Repairs:
    """What is in use. ``cells``: those that hold weights, copies of slices included."""
    core = next((t.core for t in chip.tiles.values() if t.core and t.core.adc), None)
    if core is None:
        return Repairs(None, None, None, None, None)
    faults = _faults(chip, device, result.faults.values(), result.table_reads) if result.faults else None
    extra = _spare(chip, core, result), _copies(chip, core, result, cells)
    return Repairs(faults, *extra, _calibration(program, chip, device), core)


def _calibration(program: Program, chip: ChipSpec, device: Device) -> Calibration | None:
    """The bill of the program's calibrations."""
    found = [(use.tile, use.matrix, use.vectors, use.times) for use in calibrations(program)]
    if not found:
        return None
    conversions, spent, longest = 0, 0.0, 0
    for tile, matrix, vectors, times in found:
        unit = TileUnits(chip, tile)
        did = unit.calibrate_actions([(b.row_end - b.row, b.col_end - b.col) for b in matrix.blocks], vectors)
        conversions += times * did.get("adc.convert", 0)
        spent += times * sum(count * energy_pj(chip, action) for action, count in did.items())
        longest = max(longest, times * unit.calibrate_cycles(vectors))
    most = max(vectors for _, _, vectors, _ in found)
    interval, age = device.calibration_interval, device.calibration_age
    leaked = leakage_mw(chip) * longest / chip.clock_ghz  # mW · ns
    return Calibration(len(found), most, conversions, spent, longest, leaked, interval, age)


def _faults(chip: ChipSpec, device: Device, layers: Iterable[FaultTally], reads: int) -> Faults:
    total = FaultTally()
    for layer in layers:
        total.add(layer)
    size = max(total.weights, 1)
    kib = chip.costs.area_um2.get("buffer", 0.0)
    return Faults(
        device.remap,
        total.stuck,
        math.sqrt(total.before / size),
        math.sqrt(total.after / size),
        total.moved,
        total.spare,
        total.table_bits,
        reads / 8 * energy_pj(chip, "buffer.read_byte"),
        total.table_bits / 8 / 1024 * kib,
    )


def _spare(chip: ChipSpec, core: CoreSpec, result: RunResult) -> Extra | None:
    """Area and wordline energy of the spare columns."""
    bar = core.crossbar
    if not bar.spare_cols:
        return None
    without = _with_cores(chip, {"crossbar": bar.model_copy(update={"spare_cols": 0})})
    more = energy_pj(chip, "crossbar.step") - energy_pj(without, "crossbar.step")
    steps = None if result.timing is None else result.timing.actions.get("crossbar.step", 0)
    return Extra(0, None, None if steps is None else steps * more, area_um2(chip) - area_um2(without))


def _copies(chip: ChipSpec, core: CoreSpec, result: RunResult, cells: int) -> Extra | None:
    """What of the run the copies did: every slice is driven and converted alike."""
    if core.msb_copies == 1:
        return None
    share = (core.converted_slices - core.slices) / core.converted_slices
    area = area_um2(chip) - area_um2(_with_cores(chip, {"msb_copies": 1}))
    if result.timing is None:
        return Extra(round(cells * share), None, None, area)
    did = result.timing.actions
    conversions = round(did.get("adc.convert", 0) * share)
    spent = conversions * (energy_pj(chip, "adc.convert") + energy_pj(chip, "shift_add.op"))
    spent += share * sum(did.get(name, 0) * energy_pj(chip, name) for name in ("crossbar.step", "dac.drive"))
    return Extra(round(cells * share), conversions, spent, area)


def _with_cores(chip: ChipSpec, update: dict[str, object]) -> ChipSpec:
    """The chip with other analog cores."""
    tiles = {
        name: tile.model_copy(update={"core": tile.core.model_copy(update=update)})
        if tile.core is not None and tile.core.adc is not None
        else tile
        for name, tile in chip.tiles.items()
    }
    return chip.model_copy(update={"tiles": tiles})
