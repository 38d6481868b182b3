"""What a run yields: outputs, and how long it took, what it cost, where. And what it tells while it is under way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.origin import Origin
from cimc.sim.tally import FaultTally

Progress = Callable[[str, int, int], None]
"""``progress(engine, done, total)``, called from time to time: ``"values"``, tiles that have ended, of so many; ``"timing"``,
instructions that were issued, a total of 0, for it is not known; ``"compile"``, before the first run with timing of a process,
in which the loop's machine code is loaded or, once on a machine, compiled."""


@dataclass(frozen=True, slots=True)
class Event:
    """One executed instruction on the timeline; cycles are chip clock."""

    tile: int
    unit: str  # "vector", "core:W0", "port" ...
    start: int
    end: int
    mnemonic: str
    origin: Origin | None
    line: int


@dataclass(frozen=True)
class Cost:
    """What a layer (an origin) took: busy cycles per unit class, energy per component, static and dynamic MACs."""

    busy_cycles: Mapping[str, int]
    energy_pj: Mapping[str, float]
    first_cycle: int
    last_cycle: int
    stalls: Mapping[str, int] = field(default_factory=dict[str, int])  # cause → cycles its instructions waited


@dataclass(frozen=True)
class Bound:
    """A lower bound on cycles on this hardware: the largest of the resource classes' and of the dependence chain."""

    cycles: int
    by: str
    resources: Mapping[str, int]  # every class's own bound, in cycles


@dataclass(frozen=True, slots=True)
class Writing:
    """An instruction of the text that writes cells: from the start of its first execution to the end of its last."""

    tile: int
    matrix: str
    first: int
    last: int


@dataclass(frozen=True)
class Timing:
    """The timing engine's account of a run."""

    cycles: int
    latency_ns: float
    instructions: int
    energy_pj: Mapping[str, float]  # component → pJ, without the total
    actions: Mapping[str, int]
    utilization: Mapping[str, float]  # unit class → busy fraction of the units that are used
    traffic_bytes: Mapping[str, int]  # level → bytes
    macs: Mapping[str, int]  # "static", "dynamic"
    layers: Mapping[str, Cost]  # by the origin's node name
    bound: Bound
    host_cycles: int
    stalls: Mapping[str, int] = field(default_factory=dict[str, int])  # cause → cycles instructions waited
    tile_stalls: Mapping[int, Mapping[str, int]] = field(default_factory=dict[int, Mapping[str, int]])  # by tile
    writings: tuple[Writing, ...] = ()  # of cells
    events: tuple[Event, ...] = ()  # only when a trace was asked for


@dataclass(frozen=True)
class RunResult:
    """What :func:`cimc.sim.interpreter.run` returns. ``outputs`` is None without values, ``timing`` without timing."""

    outputs: Mapping[str, NDArray[np.generic]] | None
    timing: Timing | None
    values_seconds: float
    timing_seconds: float
    counts: Mapping[str, int] = field(default_factory=dict[str, int])  # analog: conversions, saturated ...
    layer_counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict[str, Mapping[str, int]])  # by weight
    faults: Mapping[str, FaultTally] = field(default_factory=dict[str, FaultTally])  # by weight
    table_reads: int = 0  # bits read from the index tables of remapped rows and columns
