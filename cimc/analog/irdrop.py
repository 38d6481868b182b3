"""IR drop, fast: each cell's share of its current that survives the wires, for inputs that are equal.

Kirchhoff's laws are relaxed once, when the core is programmed, for an input that drives every row alike; the ratio of
actual to ideal cell voltage then scales the cell's conductance for good. The network is linear, so the mean over random
inputs of any common mean is exact; what is left is how a single input differs from its mean. This keeps one product per
read. network.py solves the same wires exactly for one input; tests say how far the two are apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SETTLED = 1e-9
"""Largest change of a step, as a share of the ideal voltage, at which it ends."""
MOST_STEPS = 2000
"""Reached only where wires leave next to nothing: 32 × 32 cells with 1 / Gmax to the next one have cells that see 0.01 % of their
voltage, and their columns' currents are within 0.2 % then of what 30,000 steps give."""


def attenuation(cells: Array, row: float, col: float) -> Array:
    """Actual over ideal voltage of every cell, (rows, columns) in 0..1.

    ``cells`` are conductances over Gmax, ``row`` and ``col`` one wire segment's resistance times Gmax. Rows are entered
    before column 0 and feed the cells; columns end in a sense node at 0 V after the last row.
    """
    voltage = np.ones_like(cells)
    for _ in range(MOST_STEPS):
        current = cells * voltage
        along = np.cumsum(current[:, ::-1], axis=1)[:, ::-1]
        down = np.cumsum(current, axis=0)
        drop = np.cumsum(row * along, axis=1) + np.cumsum((col * down)[::-1], axis=0)[::-1]
        # Written as a divider, the update stays between 0 and 1 however long the wires are.
        settled = voltage / (voltage + drop)
        change = np.abs(settled - voltage).max(initial=0.0)
        voltage = 0.5 * (voltage + settled)
        if change < SETTLED:
            break
    return voltage
