"""SONOS charge-trapping memory at 40 nm: programming spread, drift up to five days, read noise.

Source: CrossSim 3.2 devices/custom/SONOS.py, fits to Agrawal et al., IEDM 2022, Figs. 10 and 11. The fits are of the
cell's current in nA at 0.1 V.
"""

from __future__ import annotations

import numpy as np

from cimc.analog.config import refuse
from cimc.analog.rng import Generator
from cimc.analog.technology import Array, Cell, CellModel, Fact, Technology

SOURCE = "CrossSim 3.2 devices/custom/SONOS.py; Agrawal et al., IEDM 2022, 21.7"
DAY = 86400.0
NA_PER_US = 100.0  # a cell of 1 µS at 0.1 V carries 100 nA
# Saturating spread A (1 - exp(-I/B)) in nA, 0 to 5 days after programming.
SPREAD_A = (19.88665, 25.59102, 28.72753, 31.04318, 33.76214, 34.57909)
SPREAD_B = (176.3115, 186.85544, 193.56834, 198.90332, 204.77023, 207.34309)
READ_A, READ_B = 12.58037, 215.36557
# Mean shift in nA as a polynomial of the current, constant term first, 0 to 5 days.
SHIFT = (
    (0.0,) * 11,
    (1.72684e-01, 5.72552e-02, -6.85715e-04, 3.50271e-06, -9.37682e-09, 1.40575e-11, -1.19803e-14, 5.41293e-18,
     -8.85448e-22, -1.66869e-25, 5.95180e-29),
    (2.50712e-01, 6.62195e-02, -6.83218e-04, 2.99442e-06, -6.78255e-09, 7.70482e-12, -3.04983e-15, -2.15919e-18,
     2.94617e-21, -1.23359e-24, 1.85329e-28),
    (-1.75300e-02, 9.76883e-02, -9.63791e-04, 4.55551e-06, -1.22391e-08, 1.93786e-11, -1.85899e-14, 1.07659e-17,
     -3.58211e-21, 5.96785e-25, -3.30410e-29),
    (4.03338e-02, 1.03111e-01, -1.04740e-03, 4.83961e-06, -1.28132e-08, 1.99484e-11, -1.85139e-14, 1.00008e-17,
     -2.84944e-21, 3.01008e-25, 1.18747e-29),
    (3.19927e-01, 1.06596e-01, -1.04054e-03, 4.50290e-06, -1.10352e-08, 1.56477e-11, -1.27592e-14, 5.45513e-18,
     -7.26841e-22, -2.43893e-25, 7.14608e-29),
)  # fmt: skip


def _spread(current: Array, a: float, b: float) -> Array:
    return np.maximum(a - a * np.exp(-current / b), 0.0)


def _program(target: Array, cell: Cell, rng: Generator) -> Array:
    current = target * NA_PER_US
    noisy = current + _spread(current, SPREAD_A[0], SPREAD_B[0]) * rng.standard_normal(target.shape)
    return np.maximum(noisy, 0.0) / NA_PER_US


def _drift(programmed: Array, target: Array, cell: Cell, rng: Generator) -> Array:
    """Mean shift and widened spread, drawn anew around the target; linear between whole days."""
    days = cell.seconds / DAY
    if days > 5:
        raise refuse("seconds", f"{days:g} days exceed the 5 days that SONOS was measured", "give up to 432000 seconds")
    whole = np.arange(6)
    a, b = np.interp(days, whole, SPREAD_A), np.interp(days, whole, SPREAD_B)
    shift = [np.interp(days, whole, [row[i] for row in SHIFT]) for i in range(11)]
    current = target * NA_PER_US
    current = current + np.polynomial.polynomial.polyval(current, np.array(shift))
    noisy = current + _spread(current, float(a), float(b)) * rng.standard_normal(target.shape)
    return np.maximum(noisy, 0.0) / NA_PER_US


def _read(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
    current = g * NA_PER_US
    noisy = current + _spread(current, READ_A, READ_B) * rng.standard_normal(g.shape)
    return np.maximum(noisy, 0.0) / NA_PER_US


MODEL = CellModel(
    "SONOS", SOURCE, ("sonos_40nm",), 1.6e-6, 16.0, 18.0, program=_program, drift=_drift, read=_read,
)  # fmt: skip
FACTS = (Fact("endurance", 1e6, 1e6, "writes", "NVMExplorer 2016-2020_EnduranceSummary.csv (eFlash)"),)
TECHNOLOGIES = (Technology("sonos", "SONOS charge trap at 40 nm, on/off ratio 1e7", MODEL, FACTS, 2),)
