"""What the quantisation is fitted to: runs of calibration inputs, given or drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cimc.inputs import Tokens, calibration, draw_calibration
from cimc.ir.graph import Array, Graph
from cimc.passes.contract import Pass
from cimc.pipeline import fits, measures, with_calibration


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
    """The passes with the runs of the calibration inputs, without what is compiled in; drawn ones if nobody gave any and they
    will do, and a note that says so."""
    if not given and fits(passes):
        note = "fitted to drawn inputs; --calibration FILE gives the model's own"
        return with_calibration(passes, (draw_calibration(graph, tokens),)), Calibration(1, ""), (note,)
    if not measures(passes):
        return tuple(passes), None, ()
    types = {name: graph.types[name] for name in graph.inputs}
    runs: list[Mapping[str, Array]] = []
    for arrays in given:
        runs += calibration(types, {n: a for n, a in arrays.items() if n not in fixed})
    return with_calibration(passes, runs), Calibration(len(runs), _digest(runs)), ()


def _digest(runs: Sequence[Mapping[str, Array]]) -> str:
    found = hashlib.sha256()
    for run in runs:
        for name in sorted(run):
            array = np.ascontiguousarray(run[name])
            found.update(f"{name} {array.dtype} {array.shape} ".encode())
            found.update(array.tobytes())
    return found.hexdigest()
