"""Retention of filamentary HfOx cells: how fast the low-resistance state is lost when it is warm.

Source: Lammie, Rahimi Azghadi and Ielmini, "Empirical metal-oxide RRAM device endurance and retention model for deep
learning simulations", Semicond. Sci. Technol. 36, 2021, with the coefficients of its reproduction repository
(coreylammie/SST-Reproducibility, plot_3B.py: Ti/HfOx/TiN and Ti/HfAlO/TiN at 200, 250 and 300 °C)::

    R(t) = R(0) (t / t1)^(p3 p2 k)  from  t1 = p0 exp(p2 k)  on,    k = 298 K / T

Resistances of 4.25 kΩ were measured. That other levels are lost alike is estimated, and so is every temperature below
200 °C: the fit's own extrapolation. At 25 °C t1 is 17 million years.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cimc.analog.technology import Array, Cell, CellModel, Fact, Technology

SOURCE = "Lammie et al., Semicond. Sci. Technol. 36, 2021; coreylammie/SST-Reproducibility plot_3B.py"
LRS_US = 1e6 / 4250.0  # the fit's initial resistance, 4250 Ω
ROOM_K = 298.0  # its reference temperature
ZERO_C = 273.0  # as the source converts


@dataclass(frozen=True)
class Fit:
    """Coefficients of one stack: the time ``p0`` in seconds, ``p2`` and ``p3`` without unit."""

    p0: float
    p2: float
    p3: float

    def kept(self, seconds: float, celsius: float) -> float:
        """Share of a conductance that is left after a time at a temperature. Colder than 25 °C: as at 25 °C."""
        scaled = self.p2 * min(ROOM_K / (celsius + ZERO_C), 1.0)
        first = self.p0 * math.exp(scaled)
        return 1.0 if seconds <= first else (seconds / first) ** (-self.p3 * scaled)


HFOX = Fit(1.541e-13, 63.43, 0.04)
HFALO = Fit(4.764e-17, 76.47, 0.014)


def _retained(fit: Fit, g: Array, cell: Cell) -> Array:
    if cell.celsius is None:
        return g
    return g * np.asarray(fit.kept(cell.seconds, cell.celsius), dtype=g.dtype)


def hfox_retention(g: Array, cell: Cell) -> Array:
    """Conductances of Ti/HfOx/TiN after their time at ``cell.celsius``; as they are where no temperature is given."""
    return _retained(HFOX, g, cell)


def hfalo_retention(g: Array, cell: Cell) -> Array:
    """As :func:`hfox_retention`, of Ti/HfAlO/TiN."""
    return _retained(HFALO, g, cell)


FACTS = (Fact("endurance", 1e4, 1e9, "writes", "NVMExplorer 2016-2020_EnduranceSummary.csv (memristor)"),)
TECHNOLOGIES = (
    Technology(
        "reram_hfox",
        "Ti/HfOx/TiN filaments: loss of the low-resistance state with temperature, ideal otherwise",
        CellModel("ReRamHfOx", SOURCE, ("hfox",), 0.0, LRS_US, retention=hfox_retention, thermal=SOURCE),
        FACTS,
        2,
    ),
    Technology(
        "reram_hfalo",
        "Ti/HfAlO/TiN filaments: loss of the low-resistance state with temperature, ideal otherwise",
        CellModel("ReRamHfAlO", SOURCE, ("hfalo",), 0.0, LRS_US, retention=hfalo_retention, thermal=SOURCE),
        FACTS,
        2,
    ),
)
