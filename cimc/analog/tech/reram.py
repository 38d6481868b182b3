"""Resistive memory: NeuRRAM (two fits), Milo, CMO/HfOx, and ISAAC's ideal cell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cimc.analog.rng import Generator
from cimc.analog.tech import retention
from cimc.analog.technology import Array, Cell, CellModel, Fact, Spread, Technology

DAY = 86400.0
# Spread in µS as a polynomial of g/gmax: 1 s, 1 day, 2 days after programming.
WAN_SPREAD = {
    1.0: (0.348, 16.030, -43.853, 45.393, -16.815),
    DAY: (0.701, 22.086, -50.773, 47.095, -16.458),
    2 * DAY: (0.782, 20.274, -43.507, 37.062, -11.934),
}
WAN_SOURCE = "aihwkit 1.2 inference/noise/reram.py; Wan et al., Nature 608, 2022 (1 s, 1 day, 2 days)"


def wan_sigma(target: Array, gmax_us: float, seconds: float) -> Array:
    """Spread in µS at a time. Between the published times: linear in log time, ``estimated``; outside them: the
    nearest."""
    times = sorted(WAN_SPREAD)
    at = min(max(seconds, times[0]), times[-1])
    part = 0 if at <= times[1] else 1
    share = math.log(at / times[part]) / math.log(times[part + 1] / times[part])
    # A mean of polynomials is the polynomial of the mean coefficients.
    early, late = WAN_SPREAD[times[part]], WAN_SPREAD[times[part + 1]]
    total: Any = np.zeros_like(target)
    for a, b in zip(reversed(early), reversed(late), strict=True):
        total *= target
        total *= 1.0 / gmax_us
        total += a * (1 - share) + b * share
    return np.maximum(total, 0.0, out=total)


def _wan_first(target: Array, cell: Cell) -> Array:
    return wan_sigma(target, cell.gmax_us, 1.0)


def _wan_drift(programmed: Array, target: Array, cell: Cell, rng: Generator) -> Array:
    """Relaxation: the state is drawn anew around its target with the spread of the time (not a power law)."""
    if cell.seconds <= 1.0:
        return programmed
    sigma = wan_sigma(target, cell.gmax_us, cell.seconds)
    return np.maximum(target + sigma * rng.standard_normal(target.shape), 0.0)


def _wan_crosssim(target: Array, cell: Cell) -> Array:
    return np.maximum(1.536e-4 * target**3 - 1.167e-2 * target**2 + 0.2374 * target + 1.053, 0.0)


def _milo(target: Array, cell: Cell) -> Array:
    return np.maximum(-0.009107 * target + 4.782321, 0.0)


def _cmo_program(target: Array, cell: Cell, rng: Generator) -> Array:
    """Programming spread of the 0.2 % or 2 % acceptance range (``acceptance`` in percent, default 0.2)."""
    wide = cell.numbers.get("acceptance", 0.2) >= 2.0
    c0, c1 = (0.0112185391, 0.01129027418) if wide else (0.00081107, 0.00106879)
    return target + (c0 + c1 * target) * rng.standard_normal(target.shape)


def _cmo_drift(programmed: Array, target: Array, cell: Cell, rng: Generator) -> Array:
    log = math.log(cell.seconds)
    spread = max(0.04201137 * log + 0.41183342, 0.0)
    return programmed - 0.08900206 * log + spread * rng.standard_normal(target.shape)


def _cmo_read(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
    """1/f noise, then the cell's range; nothing at the moment of programming, as in aihwkit."""
    if cell.seconds <= 0:
        return g
    scale = math.sqrt(max(math.log((cell.seconds + 1e-6) / 2e-6), 0.0))
    sigma = 0.0277316483 * np.log10(np.maximum(g, 1.0)) * scale
    return np.clip(g + sigma * rng.standard_normal(g.shape), cell.gmin_us, cell.gmax_us)


# NeuRRAM's and Milo's cells are filaments in HfOx too, of other stacks.
HFOX_SOURCE = f"estimated: as Ti/HfOx/TiN, {retention.SOURCE}"
WAN = CellModel(
    "ReRamWan2022", WAN_SOURCE, ("wan2022", "ReRamWan2022NoiseModel", "neurram", "reram_wan"), 0.0, 40.0,
    program=Spread(_wan_first), drift=_wan_drift, retention=retention.hfox_retention, thermal=HFOX_SOURCE,
)  # fmt: skip
WAN_CROSSSIM = CellModel(
    "RRAMWan", "CrossSim 3.2 devices/custom/RRAM_Wan.py; Wan et al., Nature 608, 2022, Ext. Data Fig. 3 (1 s)",
    ("rram_wan",), 0.0, 39.26, 39.26, program=Spread(_wan_crosssim), retention=retention.hfox_retention, thermal=HFOX_SOURCE,
)  # fmt: skip
MILO = CellModel(
    "RRAMMilo", "CrossSim 3.2 devices/custom/RRAM_Milo.py; Milo et al., IRPS 2021, Fig. 4 (IGVVA-100)",
    ("rram_milo", "milo"), 50.0, 225.0, 225.0, program=Spread(_milo), retention=retention.hfox_retention, thermal=HFOX_SOURCE,
)  # fmt: skip
CMO = CellModel(
    "ReRamCMO", "aihwkit 1.2 inference/noise/reram.py; Falcone et al.; Lombardo et al., DRC 2024",
    ("cmo", "ReRamCMONoiseModel", "rram_cmo"), 9.0, 88.19, program=_cmo_program, drift=_cmo_drift, read=_cmo_read,
    read_per_cycle=False, parameters=("acceptance",),
)  # fmt: skip
ISAAC = CellModel(
    "IsaacIdeal",
    "Shafiee et al., ISCA 2016: ideal levels, the off state conducts nothing; 2 kΩ as in CrossSim",
    (),
    0.0,
    500.0,
)

FACTS = (
    Fact("endurance", 1e4, 1e9, "writes", "NVMExplorer 2016-2020_EnduranceSummary.csv (memristor)"),
    Fact("write_latency", 10, 8520, "ns", "NVMExplorer RRAM.cell; NeuRRAM 8.52 µs with verify (cimloop)"),
    Fact("write_energy", 0.6, 0.6, "pJ", "NVMExplorer data/cell_cfgs/RRAM.cell, each way"),
    Fact("cell_area", 4, 53, "F²", "NVMExplorer RRAM.cell: crosspoint 4, 1T1R 53"),
    Fact("stuck_off_rate", 0.0175, 0.0175, "of cells", "estimated: 1.75 % stuck at 0, quoted without a checked source"),
    Fact("stuck_on_rate", 0.0904, 0.0904, "of cells", "estimated: 9.04 % stuck at 1, quoted without a checked source"),
)
TECHNOLOGIES = (
    Technology("reram", "resistive memory, NeuRRAM's fit with relaxation up to two days", WAN, FACTS, 2, ("rram",)),
    Technology("reram_wan_crosssim", "NeuRRAM one second after programming (CrossSim's fit)", WAN_CROSSSIM, FACTS, 2),
    Technology("reram_milo", "multilevel resistive memory, 50 to 225 µS", MILO, FACTS, 2),
    Technology("reram_cmo", "analog filamentary CMO/HfOx, 9 to 88 µS", CMO, FACTS, 2),
    Technology("reram_isaac", "ISAAC's ideal two-bit cell", ISAAC, FACTS, 2),
)
