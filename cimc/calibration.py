"""What the quantisation is fitted to: runs of calibration inputs, given or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from cimc import npz
from cimc.inputs import Tokens, calibration, draw_calibration
from cimc.ir.graph import Array, Graph
from cimc.passes.contract import Pass
from cimc.pipeline import measures, with_calibration

FEWEST_ROWS = 32
"""Rows of activations that drawn inputs are to come to: constants fitted to a single row clip most others. (A GPT-2 of 2
layers, one token a run, static and smoothed scales: worst cosine 0.78 of 1 row, 0.987 of 8, 0.999 of 16 and more.)"""


@dataclass(frozen=True)
class Calibration:
    """What passes measured activations on, for the manifest. ``digest``: SHA-256 of the runs' arrays with their names, element
    types and shapes; empty for drawn ones, which follow from the model."""

    runs: int
    digest: str

    def manifest(self) -> dict[str, object]:
        """As the manifest says it."""
        return {"calibration": {"runs": self.runs, "sha256": self.digest} if self.digest else "drawn"}


def calibrated(
    passes: Sequence[Pass], graph: Graph, fixed: frozenset[str], given: Sequence[Mapping[str, Array]], tokens: Tokens
) -> tuple[tuple[Pass, ...], Calibration | None, tuple[str, ...]]:
    """The passes with the runs of the calibration inputs, without what is compiled in; drawn ones if nobody gave any, and a
    note that says so."""
    if not measures(passes):
        return tuple(passes), None, ()
    if not given:
        samples = draw_calibration(graph, tokens, runs_drawn(graph))
        several = f" of {len(samples)} runs" if len(samples) > 1 else ""
        note = f"fitted to drawn inputs{several}; --calibration FILE gives the model's own"
        return with_calibration(passes, samples), Calibration(len(samples), ""), (note,)
    types = {name: graph.types[name] for name in graph.inputs}
    runs: list[Mapping[str, Array]] = []
    for arrays in given:
        runs += calibration(types, npz.without(arrays, fixed))
    return with_calibration(passes, runs), Calibration(len(runs), _digest(runs)), ()


def runs_drawn(graph: Graph) -> int:
    """How many runs are drawn: as many as come to :data:`FEWEST_ROWS` rows where most of them meet one weight; one for a
    graph without products of weights."""
    known, rows = set(graph.constants), 0
    for node in graph.nodes:
        if all(v in known for v in node.inputs if v):
            known.update(node.outputs)
        elif node.op == "matmul" and any(v in known for v in node.inputs[:2]):
            rows = max(rows, prod(graph.type(node.outputs[0]).shape[:-1]))
    return -(-FEWEST_ROWS // rows) if rows else 1


def _digest(runs: Sequence[Mapping[str, Array]]) -> str:
    found = hashlib.sha256()
    for run in runs:
        for name in sorted(run):
            array = np.ascontiguousarray(run[name])
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(array.tobytes())
    return found.hexdigest()
