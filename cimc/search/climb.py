"""The search: one change after another is made, lowered and timed; what lowers the cycles is kept.

The timing engine is the judge, so what comes out is never slower than what it began with. Which changes are tried depends
on the seed and on the trials before, never on the computer or on how many are still to come: a search of N trials is the
beginning of every longer one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from cimc import errors
from cimc.analog.rng import Streams
from cimc.arch.spec import ChipSpec
from cimc.codegen.lower import Lowered, lowered
from cimc.ir.graph import Graph
from cimc.mapping.allocate import aligned
from cimc.mapping.mapping import Mapping
from cimc.mapping.placement import Placement
from cimc.report.progress import tell
from cimc.search.moves import Change, Positions, Scene, shapes
from cimc.search.plan import Kind, Outcome, Plan, Step
from cimc.search.traffic import Traffic
from cimc.sim.timing import run_timing

PATIENCE = 24
"""Positions tried in vain before shapes are tried anew (estimated)."""


@dataclass(frozen=True)
class Found:
    """The best placement found, its program, and how it was found."""

    mapping: Mapping
    made: Lowered
    outcome: Outcome


@dataclass
class _Best:
    """What the search stands at."""

    placement: Placement
    made: Lowered
    cycles: int
    tried: set[tuple[object, ...]] = field(default_factory=set[tuple[object, ...]])
    positions: Positions | None = None


class _Climb:
    """One search."""

    def __init__(self, graph: Graph, mapping: Mapping, chip: ChipSpec, header: Sequence[str], plan: Plan) -> None:
        self.graph = graph
        self.mapping = mapping
        self.chip = chip
        self.header = header
        self.plan = plan
        self.rng = Streams(plan.seed).generator("search")
        self.kinds: dict[str, Kind] = {}
        self.trials = 0
        self.accepted: list[Step] = []

    def run(self, made: Lowered) -> Found:
        """The best of what was tried in the time that the plan gives, ``made`` if nothing was better."""
        begin = time.monotonic()
        placement = made.decided(self.mapping.placement)
        self.best = _Best(placement, made, run_timing(made.program, self.chip).cycles)
        self.scene = Scene(self.graph, self.mapping.segments, self.chip, placement)
        begun, out_of_time = self.best.cycles, False
        for change in self._changes():
            spent = time.monotonic() - begin
            out_of_time = self.plan.seconds is not None and spent >= self.plan.seconds
            if self.trials >= self.plan.trials or out_of_time:
                break
            self._try(change)
            tell(f"trial {self.trials:,}, {begun:,} → {self.best.cycles:,} cycles")
        out_of_time = out_of_time and self.trials < self.plan.trials
        kinds = dict(sorted(self.kinds.items()))
        outcome = Outcome(
            self.trials, self.plan.seed, begun, self.best.cycles, out_of_time, kinds, tuple(self.accepted)
        )
        return Found(replace(self.mapping, placement=self.best.placement), self.best.made, outcome)

    def _changes(self) -> Iterator[Change]:
        """What to try next, in view of what has been: a shape and a position in turn, then positions until they are in
        vain for long."""
        while True:
            fresh = self.trials
            for shape in self._shapes():
                yield shape
                yield from self._positions(1)
            yield from self._positions(PATIENCE)
            if self.trials == fresh:
                return  # nothing is left to try

    def _shapes(self) -> Iterator[Change]:
        """Shapes of the best placement, each once, begun anew with what is new whenever something was accepted."""
        seen: set[tuple[object, ...]] = set()
        fresh = True
        while fresh:
            fresh = False
            cycles = self.best.cycles
            for change in shapes(self.scene, self.best.placement):
                if change.key in seen:
                    continue
                fresh = True
                seen.add(change.key)
                yield change
                if self.best.cycles < cycles:
                    break

    def _positions(self, patience: int) -> Iterator[Change]:
        vain = 0
        while vain < patience:
            cycles = self.best.cycles
            change = self._drawn()
            if change is None:
                return
            yield change
            vain = vain + 1 if self.best.cycles == cycles else 0

    def _drawn(self) -> Change | None:
        best = self.best
        if best.positions is None:
            best.positions = Positions(self.scene, best.placement, Traffic(best.made, self.chip), self._room())
        return best.positions.best(self.rng, best.tried)

    def _room(self) -> dict[int, int]:
        """Bytes left in the local memory of the tiles."""
        left = {t: self.chip.tile(t).local_bytes for t in range(self.chip.tile_count)}
        for tile in self.best.made.program.tiles:
            left[tile.tile] -= max((aligned(b.address + b.bytes) for b in tile.buffers), default=0)
        for buffer in self.best.made.program.globals:
            if buffer.resident:
                left[buffer.tile] -= aligned(buffer.bytes)
        return left

    def _try(self, change: Change) -> None:
        self.trials += 1
        self.best.tried.add(change.key)
        kind = self.kinds.get(change.kind, Kind())
        self.kinds[change.kind] = replace(kind, tried=kind.tried + 1)
        mapping = replace(self.mapping, placement=change.placement)
        try:
            made = lowered(self.graph, mapping, self.chip, self.header, quick=True)
            cycles = run_timing(made.program, self.chip).cycles
        except errors.CimcError as e:
            if e.exit != errors.Exit.DOES_NOT_FIT:
                raise
            return
        if cycles < self.best.cycles:
            self.kinds[change.kind] = Kind(kind.tried + 1, kind.accepted + 1)
            self.accepted.append(Step(change.told, cycles))
            placement = replace(change.placement, residents=made.residents)
            self.best = _Best(placement, made, cycles)


def search(graph: Graph, mapping: Mapping, chip: ChipSpec, header: Sequence[str], plan: Plan, made: Lowered) -> Found:
    """A placement of a mapped graph with as few cycles as can be found, from the one that ``made`` was lowered from; that
    one itself if none is better."""
    return _Climb(graph, mapping, chip, header, plan).run(made)
