"""What values of a graph are on calibration inputs: rows of them, few enough to keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.ir.evaluate import evaluate_all
from cimc.ir.graph import Array, Constants, Graph
from cimc.ops import Arithmetic

Rows = NDArray[np.float32]

MOST_ROWS = 1024
"""Rows of a value that are kept. The sums of squares over k inputs that ``fitted`` rounds by want about as many; a
transformer's rows repeat each other, so that some hundred say most."""


def measured_rows(
    graph: Graph, constants: Constants, values: Collection[str], calibration: Sequence[Mapping[str, Array]]
) -> dict[str, Rows]:
    """Rows (at most :data:`MOST_ROWS` × the last extent, evenly spread) of each value over all calibration runs, in float
    numerics. Raises CALIBRATION without runs, and for a value that is not finite."""
    if values and not calibration:
        raise errors.CALIBRATION(why="no calibration inputs are given")
    parts: dict[str, list[Rows]] = {v: [] for v in values}
    share = max(1, MOST_ROWS // max(1, len(calibration)))

    def watch(name: str, value: Array) -> None:
        if name in parts:
            parts[name].append(_spread(name, value, share))

    for inputs in calibration:
        evaluate_all(graph, constants, inputs, Arithmetic(), watch=lambda _, name, value: watch(name, value))
        for name in graph.inputs:
            watch(name, inputs[name])
    return {name: np.concatenate(found) for name, found in parts.items() if found}


def _spread(name: str, value: Array, most: int) -> Rows:
    rows = value.reshape(-1, value.shape[-1])
    picked = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(np.int64))
    found = np.array(rows[picked], np.float32)
    if not np.isfinite(found).all():
        raise errors.CALIBRATION(why=f"value {name} reaches {float(found[~np.isfinite(found)][0])}")
    return found
