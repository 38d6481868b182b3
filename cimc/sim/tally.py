"""What analog cores did, layer by layer, and what their inputs looked like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogMatrix
from cimc.isa.program import MatrixDecl

Array = NDArray[np.generic]
_COUNTS = ("vectors", "conversions", "saturated", "crossbar_reads", "cell_reads")
MOST_SAMPLES = 64  # input vectors kept per matrix part; ranges hardly move beyond


@dataclass
class FaultTally:
    """Stuck cells under a weight's blocks, and what placing its rows and columns around them has gained.

    ``stuck``: such cells, copies included. ``weights``: in how many weights. ``before`` and ``after``: sums of squared
    weight errors (in codes) in order and as placed. ``moved``: rows and columns that do not lie in order, ``spare`` of
    them on spare columns. ``table_bits``: of the index tables that say where they lie."""

    stuck: int = 0
    weights: int = 0
    before: float = 0.0
    after: float = 0.0
    moved: int = 0
    spare: int = 0
    table_bits: int = 0

    def add(self, other: FaultTally) -> None:
        """Count another block's as well."""
        self.stuck += other.stuck
        self.weights += other.weights
        self.before += other.before
        self.after += other.after
        self.moved += other.moved
        self.spare += other.spare
        self.table_bits += other.table_bits


@dataclass
class LayerTally:
    """The cores that hold one weight: what they counted and, if measured, how far from the exact product they are.

    ``past`` are the counts of cells that have been written anew since.
    ``error`` and ``size`` are sums of squares of (analog - exact) and of exact, over the inputs the run had."""

    cells: int = 0
    built: list[AnalogMatrix] = field(default_factory=list[AnalogMatrix])
    error: float = 0.0
    size: float = 0.0
    faults: FaultTally = field(default_factory=FaultTally)
    tables: list[tuple[AnalogMatrix, int]] = field(default_factory=list[tuple[AnalogMatrix, int]])  # bits of each
    past: dict[str, int] = field(default_factory=dict[str, int])
    past_table_reads: int = 0

    def retire(self, matrices: Sequence[AnalogMatrix]) -> None:
        """Keep only the counts of cores whose cells are written anew: a run writes them any number of times."""
        gone = {id(m) for m in matrices}
        for matrix in matrices:
            for name in _COUNTS:
                self.past[name] = self.past.get(name, 0) + int(getattr(matrix.counts, name))
        self.past_table_reads += sum(m.counts.vectors * bits for m, bits in self.tables if id(m) in gone)
        self.built = [m for m in self.built if id(m) not in gone]
        self.tables = [(m, bits) for m, bits in self.tables if id(m) not in gone]

    def counts(self) -> dict[str, int]:
        """The counts of all cores together."""
        found = {name: self.past.get(name, 0) for name in _COUNTS}
        for matrix in self.built:
            for name in found:
                found[name] += int(getattr(matrix.counts, name))
        return {**found, "cells": self.cells}

    @property
    def table_reads(self) -> int:
        """Bits read from index tables: all of a matrix's for every vector."""
        return self.past_table_reads + sum(matrix.counts.vectors * bits for matrix, bits in self.tables)

    def measure(self, x: Array, codes: Array, got: NDArray[np.int32]) -> None:
        """Compare one product with the exact one (integers below 2^53: exact in float64)."""
        exact = x.astype(np.float64) @ codes.astype(np.float64)
        self.error += float(np.square(got - exact).sum())
        self.size += float(np.square(exact).sum())

    @property
    def relative_error(self) -> float:
        """RMS of the cores' own error over the RMS of the exact product, on the inputs they were given."""
        return math.sqrt(self.error / self.size) if self.size else 0.0


@dataclass
class Tally:
    """Layers by the key of their weights. ``measured``: every product is compared with the exact one."""

    measured: bool = False
    layers: dict[str, LayerTally] = field(default_factory=dict[str, LayerTally])

    def layer(self, key: str) -> LayerTally:
        """The tally of a weight, made when first asked for."""
        return self.layers.setdefault(key, LayerTally())


class Samples:
    """Input vectors seen by every part of a weight in a run, the first ``most`` of them: what ADC ranges are calibrated
    on."""

    def __init__(self, most: int = MOST_SAMPLES) -> None:
        self.most = most
        self._seen: dict[tuple[object, ...], list[Array]] = {}
        self._count: dict[tuple[object, ...], int] = {}

    def add(self, decl: MatrixDecl, x: Array) -> None:
        """Keep the first vectors."""
        key = _part(decl)
        room = self.most - self._count.get(key, 0)
        if room > 0:
            self._seen.setdefault(key, []).append(np.array(x[:room]))
            self._count[key] = self._count.get(key, 0) + min(room, len(x))

    def of(self, decl: MatrixDecl) -> Array | None:
        """The vectors (n, inputs) a part saw; None if none."""
        seen = self._seen.get(_part(decl))
        return None if seen is None else np.concatenate(seen)


def _part(decl: MatrixDecl) -> tuple[object, ...]:
    return (decl.key, decl.row_offset, decl.col_offset, decl.rows, decl.cols)
