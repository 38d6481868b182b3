"""A core's design choices side by side: encoding, bits of a cell, rows at a time, bits of the converter. For each the error
of a product under the device, and what it costs in conversions, energy, time and area. No model is needed: weights and
inputs are normal numbers with the spread they have in a trained transformer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogMatrix, calibrate_range, drift_factor
from cimc.analog.config import MOST_DEVICES, refuse
from cimc.analog.rng import Streams
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.arch.spec import CoreSpec
from cimc.arch.units import TileUnits, area_by_part, energy_pj, mvm_interval_ns, part_counts
from cimc.device import Device
from cimc.errors import CimcError
from cimc.report.tradeoff import Setting, Variant
from cimc.sim.analog import InputKind, config

INPUTS = 384  # of the matrix that designs are compared on: one of MiniLM's, several crossbars tall
OUTPUTS = 128
VECTORS = 32
WEIGHT_RMS, INPUT_RMS = 30, 20
"""Codes of 8 bits: about what MiniLM's matrices hold and are given (docs/device.md)."""

ENCODINGS = ("offset", "differential")
CELL_BITS = (1, 2, 4)
MOST_VARIANTS = 400


@dataclass(frozen=True)
class Choices:
    """What is varied. Without ``active_rows``: all rows, and down by fours. Without ``adc_bits``: as many as whole levels
    need, and one less; 0 stands for that number. Without ``devices`` (of a cell): as the hardware has."""

    encodings: tuple[str, ...] = ENCODINGS
    cell_bits: tuple[int, ...] = CELL_BITS
    active_rows: tuple[int, ...] = ()
    adc_bits: tuple[int, ...] = ()
    devices: tuple[int, ...] = ()


def setting(hardware: str, device: Device) -> Setting:
    """What the designs are compared on."""
    return Setting(hardware, device.technology, device.seconds, INPUTS, OUTPUTS, WEIGHT_RMS, INPUT_RMS)


def variants(
    hardware: str,
    overrides: Sequence[str] = (),
    choices: Choices | None = None,
    device: Device | None = None,
    seeds: Sequence[int] = (0,),
) -> list[Variant]:
    """Every design that the hardware file has costs for. ``device``: None for the chip's own.

    Raises ANALOG_CONFIG if the chip has no analog core or there are more than :data:`MOST_VARIANTS`, and what loading the
    hardware raises."""
    base = hardware_files.load(hardware, overrides)
    core = _core(base)
    if core is None:
        raise refuse("hardware", f"'{base.name}' has no analog core to vary", "choose one that has converters")
    wanted = list(_combinations(core, choices or Choices()))
    if len(wanted) > MOST_VARIANTS:
        raise refuse("choices", f"{len(wanted)} designs", f"name fewer values: at most {MOST_VARIANTS} together")
    for encoding in (choices or Choices()).encodings:
        if encoding not in ENCODINGS:
            raise refuse("encoding", f"there is no '{encoding}'", f"one of {', '.join(ENCODINGS)}")
    for devices in (choices or Choices()).devices:
        if not 1 <= devices <= MOST_DEVICES:
            raise refuse("devices", f"{devices} is outside 1..{MOST_DEVICES}", "give the devices of one cell")
    found: list[Variant] = []
    for settings in wanted:
        try:
            varied = hardware_files.load(hardware, (*overrides, *settings))
        except CimcError:
            continue  # no costs for converters of so many bits, or more rows than there are
        found.append(_variant(varied, core, device or Device.of(varied.spec), seeds))
    if not found:
        raise refuse("choices", "the hardware has costs for none of them", "`cimc hw show` tells its ADC bits and rows")
    return found


def _core(found: Hardware) -> CoreSpec | None:
    return next((t.core for t in found.spec.tiles.values() if t.core is not None and t.core.adc is not None), None)


def _combinations(core: CoreSpec, choices: Choices) -> Iterator[tuple[str, ...]]:
    rows = choices.active_rows or tuple(r for r in (core.rows >> s for s in range(0, 8, 2)) if r >= 1)
    many = choices.devices or (core.crossbar.devices,)
    for encoding, cell, row, devices in itertools.product(choices.encodings, choices.cell_bits, rows, many):
        bar = f"crossbar.cell_bits={cell}", f"crossbar.devices={devices}"
        least = 2 if encoding == "differential" else 1
        need = max(least, _need(core, cell, row))
        for adc in dict.fromkeys(b or need for b in choices.adc_bits or (need, max(least, need - 1))):
            yield f"core.encoding={encoding}", *bar, f"active_rows={row}", f"adc.bits={adc}"


def _need(core: CoreSpec, cell_bits: int, rows: int) -> int:
    """Bits of a converter that tells whole levels apart: of the largest sum, in the upper half of which there is nothing
    for pairs (a sign) and hardly anything for offset columns."""
    return (rows * ((1 << cell_bits) - 1) * ((1 << core.dac_bits) - 1)).bit_length()


def _variant(made: Hardware, chosen: CoreSpec, device: Device, seeds: Sequence[int]) -> Variant:
    core = _core(made)
    assert core is not None
    chip = made.spec
    tile = next(i for i in range(chip.tile_count) if chip.tile(i).core == core)
    actions = TileUnits(chip, tile).mvm_actions([(core.rows, core.cols)], 1, 8)
    spent = {name: n * energy_pj(chip, name) for name, n in actions.items()}
    total, macs = sum(spent.values()), core.rows * core.cols
    runs = [_error(core, device, seed) for seed in seeds]
    return Variant(
        encoding=core.encoding,
        cell_bits=core.crossbar.cell_bits,
        active_rows=core.crossbar.active_rows,
        adc_bits=core.adc_bits,
        error=sum(e for e, _ in runs) / len(runs),
        saturated=sum(s for _, s in runs) / len(runs),
        cells=core.devices,
        devices=core.crossbar.devices,
        conversions=actions.get("adc.convert", 0) / macs,
        energy_fj=1000 * total / macs,
        adc_share=spent.get("adc.convert", 0.0) / total if total else 0.0,
        row_ns=mvm_interval_ns(core, 8),
        area_um2=_area(made, core),
        chosen=core == chosen,
    )


def _area(made: Hardware, core: CoreSpec) -> float:
    kind = next(name for name, t in made.spec.tiles.items() if t.core == core)
    parts, count = area_by_part(made.spec, kind), part_counts(made.spec, kind)
    cores = count["crossbar"] / core.crossbars
    return sum(parts[p] for p in ("crossbar", "adc", "dac", "shift_add")) / (cores * core.rows * core.cols)


def _error(core: CoreSpec, device: Device, seed: int) -> tuple[float, float]:
    """Relative error of one product, and the share of conversions that clipped."""
    weights, x = _codes((INPUTS, OUTPUTS), WEIGHT_RMS, 0), _codes((VECTORS, INPUTS), INPUT_RMS, 1)
    physics = config(core, device, InputKind())
    if physics.adc is not None and device.calibrated:
        per = "slice" if device.adc_range == "calibrated_slice" else "core"
        physics = calibrate_range(weights, physics, x, device.adc_coverage, per)
    matrix = AnalogMatrix(weights, physics, seed, (0, 0))
    if device.drift_compensation != "none" and physics.device.ages:
        per = "core" if device.drift_compensation == "global" else "column"
        matrix.gain = drift_factor(weights, physics, seed, (0, 0), per)
    want = (x @ weights).astype(np.float64)
    got = matrix.mvm(x.astype(np.int8))
    clipped = matrix.counts.saturated / matrix.counts.conversions if matrix.counts.conversions else 0.0
    return float(np.sqrt(np.mean((got - want) ** 2) / np.mean(want**2))), clipped


def _codes(shape: tuple[int, int], rms: float, which: int) -> NDArray[np.int64]:
    """Normal 8-bit codes, always the same."""
    drawn = Streams(0, which, 0).generator("programming").standard_normal(shape)
    return np.clip(np.rint(drawn * rms), -127, 127).astype(np.int64)
