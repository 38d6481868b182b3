"""Spin-transfer-torque MRAM: two states, a low on/off ratio. The spreads are estimated."""

from __future__ import annotations

import numpy as np

from cimc.analog.rng import Generator
from cimc.analog.technology import Array, Cell, CellModel, Fact, Spread, Technology

SPREAD = 0.04  # estimated: relative device-to-device spread of the junction's conductance
READ = 0.005  # estimated: relative read noise per cycle
G_ON_US = 1e6 / 3e3  # NVMExplorer STTRAM.cell: 3 kΩ parallel
G_OFF_US = 1e6 / 6e3  # NVMExplorer STTRAM.cell: 6 kΩ antiparallel (TMR 100 %)


def _spread(target: Array, cell: Cell) -> float:
    return cell.numbers.get("sigma", SPREAD)


def _read(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
    sigma = cell.numbers.get("sigma", READ)
    return np.maximum(g * (1.0 + sigma * rng.standard_normal(g.shape)), 0.0)


MODEL = CellModel(
    "MramGaussian", "estimated: no measured model was found; 3 kΩ / 6 kΩ from NVMExplorer STTRAM.cell",
    ("mram_gaussian", "stt_mram"), G_OFF_US, G_ON_US, program=Spread(_spread, relative=True), read=_read, parameters=("sigma",),
)  # fmt: skip
FACTS = (
    Fact("endurance", 1e6, 1e15, "writes", "NVMExplorer 2016-2020_EnduranceSummary.csv (MRAM)"),
    Fact("write_latency", 2, 200, "ns", "NVMExplorer database"),
    Fact("write_energy", 0.6, 4.5, "pJ", "NVMExplorer database; STTRAM.cell 1 pJ"),
    Fact("cell_area", 14, 75, "F²", "NVMExplorer database; STTRAM.cell 54"),
)
TECHNOLOGIES = (Technology("mram", "STT-MRAM, one bit per cell (spreads estimated)", MODEL, FACTS, 1),)
