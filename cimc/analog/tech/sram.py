"""SRAM: digital (exact) and analog charge-domain compute-in-memory."""

from __future__ import annotations

import math

import numpy as np

from cimc.analog.rng import Generator
from cimc.analog.technology import Array, Cell, CellModel, Fact, Spread, Technology

MISMATCH = 0.005  # estimated: relative mismatch of a unit capacitor
THERMAL = 0.002  # estimated: noise of one cell and cycle, in units of a full cell


def _mismatch(target: Array, cell: Cell) -> float:
    return cell.numbers.get("sigma", MISMATCH)


NYQUIST = (
    "Nyquist, Phys. Rev. 32, 110, 1928: the variance of a capacitor's charge is proportional to the temperature (kTC)"
)
THERMAL_K = 300.0  # estimated: the temperature that THERMAL holds at


def _thermal(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
    sigma = cell.numbers.get("sigma", THERMAL) * cell.gmax_us
    if cell.celsius is not None:
        sigma *= math.sqrt((cell.celsius + 273.15) / THERMAL_K)
    return np.maximum(g + sigma * rng.standard_normal(g.shape), 0.0)


FACTS = (
    Fact("endurance", 1e16, 1e16, "writes", "estimated: no wear is known"),
    Fact("read_energy", 1.12e-3, 1.12e-3, "pJ/bit", "MNSIM SimConfig.ini"),
    Fact("write_energy", 1.6e-3, 1.6e-3, "pJ/bit", "MNSIM SimConfig.ini"),
    Fact("cell_area", 80, 1080, "F²", "cimloop macros (CIM cells); 6T: NVMExplorer SRAM.cell 146"),
)
DIGITAL = CellModel("SramDigital", "a definition: digital adder trees are exact", ("sram_digital",), 0.0, 1.0)
ANALOG = CellModel(
    "SramAnalog", "estimated: no measured model was found", ("sram_analog",), 0.0, 1.0,
    program=Spread(_mismatch, relative=True), read=_thermal, parameters=("sigma",), thermal=NYQUIST,
)  # fmt: skip
TECHNOLOGIES = (
    Technology("sram", "digital SRAM compute-in-memory: exact", DIGITAL, FACTS, 1),
    Technology("sram_analog", "charge-domain SRAM: capacitor mismatch and thermal noise (estimated)", ANALOG, FACTS, 1),
)
