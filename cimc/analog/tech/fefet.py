"""Ferroelectric FETs. No measured programming or read-noise model was found: the Gaussian ones here are estimated."""

from __future__ import annotations

import numpy as np

from cimc.analog.rng import Generator
from cimc.analog.technology import Array, Cell, CellModel, Fact, Spread, Technology

SPREAD = 0.02  # estimated: programming spread, in units of Gmax
READ = 0.005  # estimated: read noise per cycle, in units of Gmax
G_ON_US = 1e6 / 70e3  # NVMExplorer default: 70 kΩ on
G_OFF_US = 1e6 / 2e10  # NVMExplorer default: 20 GΩ off


def _spread(target: Array, cell: Cell) -> float:
    return cell.numbers.get("sigma", SPREAD) * cell.gmax_us


def _read(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
    sigma = cell.numbers.get("sigma", READ) * cell.gmax_us
    return np.maximum(g + sigma * rng.standard_normal(g.shape), 0.0)


MODEL = CellModel(
    "FeFETGaussian", "estimated: no measured model was found; 70 kΩ / 20 GΩ from NVMExplorer", ("fefet_gaussian",),
    G_OFF_US, G_ON_US, program=Spread(_spread), read=_read, parameters=("sigma",),
)  # fmt: skip
FACTS = (
    Fact(
        "endurance",
        1e4,
        1e11,
        "writes",
        "NVMExplorer 2016-2020_EnduranceSummary.csv; the survey 2406.08413 quotes 1e12",
    ),
    Fact("write_latency", 20, 1000, "ns", "NVMExplorer: 20 ns modelled, 1 µs database"),
    Fact("write_energy", 0.0002, 0.0029, "pJ", "NVMExplorer: RESET 0.2 fJ, SET 2.9 fJ (modelled)"),
    Fact("cell_area", 10, 15, "F²", "NVMExplorer: 10 at 45 nm, 15 default"),
)
TECHNOLOGIES = (Technology("fefet", "ferroelectric FET with Gaussian spreads (estimated)", MODEL, FACTS, 2),)
