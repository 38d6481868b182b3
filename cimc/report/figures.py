"""The figures of a run: the object of ``run --json``, made from a :class:`~cimc.sim.result.RunResult` or read back.

Every report of a run works on :class:`RunFigures`, so what a command prints, what it writes as JSON and what
``inspect`` and ``diff`` read from a directory later are one and the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from cimc import errors, files
from cimc.report import units
from cimc.report.jsontext import JsonObject
from cimc.sim.result import Cost, RunResult, Timing

MAX_FILE_BYTES = 512 * 2**20  # larger than any report; keeps a stray file from filling the memory

Cycles = Annotated[int, Field(ge=0, le=2**62)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=4096)]


NEAR = 0.02
"""Resources whose own bound is less than this share below the bound are named beside the one that sets it."""

TRAFFIC = {
    "core_registers": "inputs into cores, sums out of them",
    "local_buffer": "read and written by the tile itself",
    "remote_buffer": "buffers of other tiles",
    "noc": "bytes × hops",
    "chip_links": "from chip to chip",
}
"""What the bytes of a level are, where its name does not say it all."""


def _has_total(energy: dict[str, float]) -> dict[str, float]:
    if "total" not in energy:
        raise ValueError("'total' is missing")
    return energy


Energy = Annotated[dict[Name, Amount], AfterValidator(_has_total)]  # component → pJ, with "total"


class Record(BaseModel):
    """Base: immutable; keys of newer versions are let through."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class BoundFigures(Record):
    """A lower bound on cycles, the resource that sets it, bound / cycles, and every resource's own bound."""

    cycles: Cycles
    by: Name
    attainment: Amount
    resources: dict[Name, Cycles] = {}

    @property
    def setters(self) -> str:
        """What sets the bound, and what would a little below it, as text: to relieve the first alone gains little."""
        near = {k: v for k, v in self.resources.items() if k != self.by and v >= (1 - NEAR) * self.cycles > 0}
        least = sorted(near.items(), key=lambda kv: (-kv[1], kv[0]))
        others = ", ".join(f"{k} ({units.percent(1 - v / self.cycles)} less)" for k, v in least)
        return f"{self.by}; nearly as long: {others}" if others else self.by

    @property
    def what(self) -> str:
        """What takes so long, as text: a chain of instructions belongs to this program, what a resource needs to the work
        and the hardware."""
        return "this program's longest chain of dependences" if self.by == "chain" else f"the work on {self.by}"


class LayerFigures(Record):
    """What one ONNX node took. Cycles are busy cycles per unit class, between its first and its last cycle."""

    busy_cycles: dict[Name, Cycles] = {}
    energy_pj: Energy
    first_cycle: Cycles
    last_cycle: Cycles
    stalls: dict[Name, Cycles] = {}  # cause → cycles its instructions waited, without causes of 0

    @property
    def span(self) -> int:
        """Cycles from the start of its first instruction to the end of its last."""
        return max(0, self.last_cycle - self.first_cycle)

    @property
    def unit(self) -> str:
        """The unit class that was busy longest on it."""
        return max(sorted(self.busy_cycles), key=lambda u: self.busy_cycles[u], default="")


class HostNode(Record):
    """An ONNX node that no tile unit could do, and why: ``fallbacks`` of ``check --json``, ``host`` of a run."""

    op_type: Name
    node: Name
    reason: str


class BaselineFigures(Record):
    """The same model on a von-Neumann machine (:mod:`cimc.report.baseline`). ``bytes`` by what is moved through its
    memory, with ``total``, and ``cache``; ``cycles`` are those of the chip's clock. ``ratio``: baseline over this run,
    None where the run has none; ``assumptions``: every number that went in, ``sources`` where it is from."""

    bytes: dict[Name, Amount]
    cycles: Cycles
    latency_ns: Amount
    energy_pj: Energy
    limit: Literal["memory", "compute"]
    ratio: dict[Name, Amount | None]
    assumptions: dict[Name, float | str]
    sources: dict[Name, str] = {}


class ReloadFigures(Record):
    """What weights that take turns in cells cost (:mod:`cimc.report.reload`), per inference. ``cores``: that are written;
    ``writes_per_cell``: pulses on the cell that gets most; ``bytes``: of weights, from global memory, which they keep busy
    for ``moving_cycles``; ``writing_cycles``: in which some cell is written; ``exposed_cycles``: that the run takes longer
    than with all weights in cells; ``hidden``: the share of the longer one of moving and writing that it does not.
    ``energy_pj``: ``writing`` cells, ``moving`` weights. Years, [low, high] as the endurance, until the first cell has had
    its writes; None where none is known."""

    matrices: Cycles
    cores: Cycles
    writes_per_cell: Cycles
    cell_writes: Cycles
    bytes: Cycles
    moving_cycles: Cycles
    writing_cycles: Cycles
    exposed_cycles: Cycles
    hidden: Amount
    energy_pj: Energy
    endurance_writes: tuple[Amount, Amount] | None
    endurance_source: str | None
    inferences_per_second: Amount
    years_to_wear_out: tuple[Amount, Amount] | None
    years_back_to_back: tuple[Amount, Amount] | None


class CacheFigures(Record):
    """KV caches in tiles (:mod:`cimc.report.cache`). ``bytes``: of the states of ``tiles`` tiles; ``given_bytes``: of inputs
    put there before the run, ``read_bytes``: of outputs read from there after it, neither charged; ``added_bytes``: of the
    rows that the run adds; ``capacity_tokens``: rows for which the chip has room, None if not known."""

    bytes: Cycles
    tiles: Cycles
    fullest_tile_bytes: Cycles
    given_bytes: Cycles
    read_bytes: Cycles
    added_bytes: Cycles
    capacity_tokens: Cycles | None


class RunSeconds(Record):
    """Wall-clock seconds the two engines took on this computer."""

    values: Amount
    timing: Amount


class RunFigures(Record):
    """``run --json``. What the timing engine computes is None after a run without it."""

    cycles: Cycles | None
    latency_ns: Amount | None
    instructions: Cycles | None
    energy_pj: Energy | None
    bound: BoundFigures | None
    utilization: dict[Name, Amount] | None
    traffic_bytes: dict[Name, Cycles] | None
    macs: dict[Name, Cycles] | None
    seconds: RunSeconds
    host_cycles: Cycles | None = None
    stalls: dict[Name, Cycles] = {}
    tile_stalls: dict[Name, dict[Name, Cycles]] = {}  # by tile, without causes of 0
    actions: dict[Name, Cycles] = {}
    counts: dict[Name, Cycles] = {}  # analog numerics: conversions, saturated ...
    layers: dict[Name, LayerFigures] = {}
    host: tuple[HostNode, ...] = ()
    baseline: BaselineFigures | None = None  # of a compiled model; None for a bare program or without timing
    reload: ReloadFigures | None = None  # where weights take turns in cells
    cache: CacheFigures | None = None  # where KV caches stay in tiles
    params: dict[Name, int] = {}  # of the program

    @property
    def total_pj(self) -> float | None:
        """Energy of the run."""
        return None if self.energy_pj is None else self.energy_pj["total"]

    @property
    def components(self) -> dict[str, float]:
        """Energy per component, largest first, without the total."""
        parts = {k: v for k, v in (self.energy_pj or {}).items() if k != "total"}
        return dict(sorted(parts.items(), key=lambda kv: (-kv[1], kv[0])))

    def to_json(self) -> JsonObject:
        """The object as the contract describes it."""
        return self.model_dump(mode="json")


def from_result(result: RunResult, host: Sequence[HostNode] = ()) -> RunFigures:
    """The figures of a run that has just ended; ``host``: the nodes the host controller ran."""
    wall = RunSeconds(values=float(result.values_seconds), timing=float(result.timing_seconds))
    counts = {k: int(v) for k, v in result.counts.items()}
    timing = result.timing
    if timing is None:
        return RunFigures(
            cycles=None,
            latency_ns=None,
            instructions=None,
            energy_pj=None,
            bound=None,
            utilization=None,
            traffic_bytes=None,
            macs=None,
            seconds=wall,
            counts=counts,
            host=tuple(host),
        )
    return RunFigures(
        cycles=int(timing.cycles),
        latency_ns=float(timing.latency_ns),
        instructions=int(timing.instructions),
        energy_pj=_with_total(timing.energy_pj),
        bound=_bound(timing),
        utilization={k: float(v) for k, v in timing.utilization.items()},
        traffic_bytes=_ints(timing.traffic_bytes),
        macs=_ints(timing.macs),
        seconds=wall,
        host_cycles=int(timing.host_cycles),
        stalls=_ints(timing.stalls),
        tile_stalls={str(tile): _waits(causes) for tile, causes in timing.tile_stalls.items()},
        actions=_ints(timing.actions),
        counts=counts,
        layers={name: _layer(cost) for name, cost in timing.layers.items()},
        host=tuple(host),
    )


def _ints(counts: Mapping[str, int]) -> dict[str, int]:
    """NumPy integers have no place in JSON."""
    return {k: int(v) for k, v in counts.items()}


def _waits(causes: Mapping[str, int]) -> dict[str, int]:
    return {cause: int(n) for cause, n in causes.items() if n}


def _with_total(energy: Mapping[str, float]) -> dict[str, float]:
    parts = {k: float(v) for k, v in energy.items() if k != "total"}
    return {"total": sum(parts.values()), **parts}


def _bound(timing: Timing) -> BoundFigures:
    cycles, bound = int(timing.cycles), int(timing.bound.cycles)
    attainment = bound / cycles if cycles else 1.0
    return BoundFigures(
        cycles=bound, by=timing.bound.by, attainment=attainment, resources=_ints(timing.bound.resources)
    )


def _layer(cost: Cost) -> LayerFigures:
    return LayerFigures(
        busy_cycles=_ints(cost.busy_cycles),
        energy_pj=_with_total(cost.energy_pj),
        first_cycle=int(cost.first_cycle),
        last_cycle=int(cost.last_cycle),
        stalls=_waits(cost.stalls),
    )


def first_fault(fault: ValidationError) -> str:
    """The first thing pydantic found, as ``key.path: why``, and how many more there are."""
    found = fault.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in found[0]["loc"])
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    message = found[0]["msg"].removeprefix("Value error, ")
    return f"{where}: {message}{more}" if where else message + more


def read_run(path: Path) -> RunFigures:
    """Read a file that ``run --json`` wrote, or the ``run`` of one that ``check --json`` wrote.

    Raises FILE_NOT_FOUND, FILE_UNREADABLE, REPORT_FILE (not JSON, keys missing, values that cannot be).
    """
    text = files.read_text(path, "run report", MAX_FILE_BYTES)
    try:
        content = json.loads(text)
        if isinstance(content, dict) and "outputs" in content and "run" in content:
            text = json.dumps(content["run"])
        return RunFigures.model_validate_json(text)
    except ValidationError as fault:
        raise errors.REPORT_FILE(what="run report", path=path, why=first_fault(fault), command="run --json") from None
    except (ValueError, RecursionError) as fault:
        raise errors.REPORT_FILE(what="run report", path=path, why=f"not JSON: {fault}", command="run --json") from None
