"""The values engine: what a program computes, without time.

Tiles run one after another, each until it waits for a message that is not there. Which tile runs first makes no
difference to what is computed: a channel keeps its messages in order, and global memory is ordered by signal and wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec
from cimc.blas import one_thread
from cimc.collecting import uncollected
from cimc.device import Device
from cimc.errors import CimcError
from cimc.isa.cells import written, written_first
from cimc.isa.instruction import Blocked, Carries, Fault
from cimc.isa.program import Program, TileProgram, Weights
from cimc.sim import calibration, memory, params, place
from cimc.sim.analog import AnalogCores
from cimc.sim.channels import Channels, Links, Short
from cimc.sim.closures import STOP, Code, decode
from cimc.sim.hostcall import HostCalls
from cimc.sim.kept import Kept
from cimc.sim.matrices import MatrixFactory
from cimc.sim.memory import State, Storage
from cimc.sim.packing import Unsuited
from cimc.sim.recorded import TileRecorder, numbered, suited
from cimc.sim.recording import Recorder
from cimc.sim.replay import Replay, enter_inputs
from cimc.sim.result import Progress
from cimc.sim.scope import Arena, NotFinite, Scope
from cimc.sim.tally import Samples, Tally

Array = NDArray[np.generic]
Numerics = Literal["float", "integer", "analog"]
FAILURES = (Fault, NotFinite, ValueError, TypeError, IndexError, OverflowError, MemoryError)
"""What meanings raise."""


@dataclass(frozen=True)
class Analog:
    """How a run treats its analog cores. ``device`` None: the chip's. ``tally`` is filled. ``samples`` are filled by
    integer numerics, and used by analog ones where the device calibrates its ADC ranges. ``only``: the keys of the
    weights that are in analog cells, the others are computed exactly; None: all are. ``kept``: cells programmed by earlier
    runs of the same program and weights, used and added to; None: cells are programmed for this run."""

    device: Device | None = None
    tally: Tally = field(default_factory=Tally)
    samples: Samples | None = None
    only: frozenset[str] | None = None
    kept: Kept | None = None


class _Pause(Blocked):
    """Raised to let other tiles run first; the tile stays ready."""


class TileMachine:
    """What a tile's meanings ask of the engine."""

    def __init__(self, links: Links, engine: Engine, carries: Carries) -> None:
        self._links = links
        self._host = engine.host
        self._carries = carries
        self.exact = engine.numerics == "float"
        unit = engine.chip.tile(links.tile).matmul
        self.operand_bits = unit.operand_bits if unit else 8

    def send(self, data: Array, to: tuple[int, ...], tag: int) -> None:
        """Put a copy of ``data`` into the channel to each tile of ``to``."""
        self._links.breathe()
        self._links.send(np.array(data)[None], to, tag, self._carries)

    def receive(self, source: int, tag: int) -> Array | None:
        """Take the oldest message of the channel, or None; then the next one that comes wakes this tile."""
        return self._links.receive((source, self._links.tile, tag, self._carries))

    def contribute(self, data: Array, to: int, tag: int) -> None:
        """Put a copy of ``data`` into the channel for parts of sums to tile ``to``."""
        self._links.breathe()
        self._links.send(np.array(data)[None], (to,), tag, Carries.PARTS)

    def collect(self, sources: tuple[int, ...], tag: int) -> list[Array] | None:
        """Take the oldest part of the channel from each of the tiles, or None; then the next one that is missing wakes
        this tile."""
        return self._links.receive_all([(source, self._links.tile, tag, Carries.PARTS) for source in sources])

    def host(self, call: str, inputs: list[Array]) -> list[Array]:
        """Run a host call."""
        return self._host.run(call, inputs)


@dataclass
class _Tile:
    number: int
    code: Code
    scope: Scope
    at: int = 0
    halted: bool = False


class Engine:
    """One run. ``order`` is the order in which tiles are first visited (the program's, unless a test wants another)."""

    def __init__(
        self,
        program: Program,
        weights: Weights,
        chip: ChipSpec,
        numerics: Numerics,
        seed: int,
        analog: Analog | None = None,
    ) -> None:
        self.program, self.weights, self.chip, self.numerics, self.seed = program, weights, chip, numerics, seed
        self.channels = Channels()
        self.host = HostCalls(weights)
        self.steps_done = 0
        self._ready: deque[int] = deque()
        self._paused: dict[int, int] = {}  # tile → how far the run was when it last let others run first
        self._short: set[int] = set()  # tiles that wait for all messages of several turns
        self.cores: AnalogCores | None = None
        how = analog or Analog()
        if numerics == "analog":
            device = how.device or Device.of(chip)
            calibration.agree(program, device)
            self.cores = AnalogCores(device, seed, how.tally, how.samples, how.kept)
        recorded = how.samples if numerics == "integer" else None
        self._arena = Arena()
        self._blank: memory.Blank = []
        self._writes = False  # whether cells are written
        self._shared: dict[str, Storage] = {}
        self._local: dict[int, memory.Local] = {}
        self._params: Mapping[str, int] = {}
        self._tiles: dict[int, _Tile] = {}
        self._ordered = self.cores is not None or recorded is not None
        self._factory = MatrixFactory(weights, chip, numerics == "float", self.cores, recorded, how.only)

    @property
    def single(self) -> str:
        """Why no other run may use what this one decoded; empty if one may."""
        stateful = any(b.state for t in self.program.tiles for b in t.buffers) or any(
            g.state for g in self.program.globals
        )
        reasons = {
            "what cores see is noted, or noisy, in the order of the run": self._ordered,
            "it has state": stateful,
            "it writes cells": self._writes,
            "it has runtime parameters": bool(self.program.params),
        }
        return next((why for why, holds in reasons.items() if holds), "")

    def close(self) -> None:
        """Let go of everything decoded, which refers to this."""
        self._tiles.clear()

    def maybe_pause(self, tile: int) -> None:
        """Let other tiles run before this one, unless nothing has happened since it last did so."""
        if (self._ready or self.channels.woken) and self._paused.get(tile) != self.steps_done:
            self._paused[tile] = self.steps_done
            raise _Pause

    def prepare(self, bound: Mapping[str, int], state: State) -> None:
        """Decode the program. What it finds in ``state`` is read and written in place."""
        self._params = bound
        constants = memory.Constants(self.weights, self.numerics == "float")
        self._shared = memory.global_memory(self.program, self.chip, constants, state, self._blank)
        steps: memory.Steps = {}
        for t in self.program.tiles:
            local = memory.local_memory(t, self.chip, constants, state, self._blank)
            self._local[t.tile] = local
            self._tiles[t.tile] = self._decode(t, self._shared, bound, local, steps)

    def again(self) -> None:
        """Make ready for another run: all that a run finds is as it was before the first one."""
        for raw in self._blank:
            raw.fill(0)
        self.channels.clear()
        self._ready.clear()
        self._paused.clear()
        self._short.clear()
        for tile in self._tiles.values():
            tile.at, tile.halted, tile.scope.links.hurry = 0, False, False

    def recorded(self) -> Replay:
        """What a run does, in batches. Raises Unsuited for programs that do what batches cannot do."""
        suited(self.program)
        recorder = Recorder()
        self.again()
        shared = numbered(self._shared)
        enter_inputs(self.program, recorder, self._shared, shared)
        try:
            tiles = {t.tile: self._named(t, shared, recorder) for t in self.program.tiles}
            self._ready.extend(tiles)
            self._loop(tiles, None)
        except CimcError as error:  # nothing is wrong with the program: it has been run
            raise Unsuited(str(error)) from error
        return Replay(self.program, recorder, self._shared, shared)

    def _named(self, tile: TileProgram, shared: Mapping[str, Storage], recorder: Recorder) -> _Tile:
        """A tile that works on numbers of values."""
        real = self._tiles[tile.tile].scope
        scope = replace(
            real,
            local=numbered(real.local),
            shared=shared,
            arena=replace(real.arena, size=0),
            recorded=TileRecorder(recorder, real),
            steps={},
        )
        return _Tile(tile.tile, decode(tile.straight, scope), scope)

    def run(
        self, inputs: Mapping[str, Array], order: Iterable[int] | None, progress: Progress | None
    ) -> dict[str, Array]:
        """Run to the end and return copies of the outputs."""
        memory.fill_inputs(self.program, inputs, self._shared, self._local)
        with np.errstate(all="ignore"):
            self._ready.extend(self._tiles if order is None else order)
            self._loop(self._tiles, progress)
        return memory.outputs(self.program, self._shared, self._local, self.numerics == "float", self._params)

    def _decode(
        self,
        tile: TileProgram,
        shared: Mapping[str, Storage],
        bound: Mapping[str, int],
        local: memory.Local,
        steps: memory.Steps,
    ) -> _Tile:
        rewritten = frozenset(written(tile.steps)) if tile.matrices else frozenset[str]()
        blank = written_first(tile.straight) if rewritten else rewritten
        self._writes |= bool(rewritten)
        links = Links(tile.tile, self.channels, self.maybe_pause)
        scope = Scope(
            tile=tile.tile,
            machine=TileMachine(links, self, Carries.DATA),
            tokens=TileMachine(links, self, Carries.TOKENS),
            links=links,
            local=local,
            shared=shared,
            lasting=frozenset(b.name for b in tile.buffers if b.state),
            quantized=frozenset(b.name for b in tile.buffers if b.element.quantized and not b.element.halved),
            matrices={
                m.name: self._factory.build(tile.tile, m, rewritten=m.name in rewritten, blank=m.name in blank)
                for m in tile.matrices
            },
            params=bound,
            check_finite=self.numerics != "float",
            steps=steps,
            arena=self._arena,
            ordered=self._ordered,
        )
        return _Tile(tile.tile, decode(tile.straight, scope), scope)

    def _loop(self, tiles: Mapping[int, _Tile], progress: Progress | None) -> None:
        done = 0
        while self._ready or self.channels.woken or self._short:
            self._ready.extend(self.channels.woken)
            self.channels.woken.clear()
            tile = tiles[self._ready.popleft() if self._ready else self._hurried(tiles)]
            if tile.halted:
                continue  # woken for messages that it did not wait for in the end
            self._advance(tile)
            if tile.halted and progress:
                done += 1
                progress("values", done, len(tiles))
        stuck = [self._stuck(t) for t in tiles.values() if not t.halted]
        if stuck:
            raise place.deadlock(stuck, len(tiles))

    def _hurried(self, tiles: Mapping[int, _Tile]) -> int:
        """A tile that waits for more messages than ever come before it goes on: always the same one, wherever a run
        began."""
        number = min(self._short)
        tiles[number].scope.links.hurry = True
        return number

    def _advance(self, tile: _Tile) -> None:
        """Run a tile until it halts or waits."""
        self._short.discard(tile.number)
        entries, at = tile.code.entries, tile.at
        start = at
        try:
            while True:
                target = entries[at]()
                if target is None:
                    at += 1
                elif target >= 0:
                    at = target
                elif target == STOP:
                    break
                else:
                    tile.code.unfold(at, tile.scope)
                    at += 1
            tile.halted = True
        except _Pause:
            self._ready.append(tile.number)
        except Short:
            self._short.add(tile.number)
        except Blocked:
            pass
        except FAILURES as error:
            raise self._failure(tile, at, error) from error
        finally:
            tile.at = at
            self.steps_done += at != start

    def _failure(self, tile: _Tile, at: int, error: Exception) -> Exception:
        at = tile.code.within(at)
        instruction = tile.code.instructions[at]
        if instruction is None:
            return error
        step = tile.code.step(at)
        if isinstance(error, NotFinite):
            return place.not_finite(tile.number, step, instruction, str(error))
        return place.failed(tile.number, step, instruction, str(error) or type(error).__name__)

    def _stuck(self, tile: _Tile) -> place.Stuck:
        instruction = tile.code.instructions[tile.at]
        assert instruction is not None
        reason = place.waits(instruction)
        return place.Stuck(tile.number, tile.code.step(tile.at), instruction, reason)


class Prepared:
    """A program decoded for runs one after another, by who makes them: filled by the first run and used by the next ones, of
    the same program, weights and chip, in the same numerics. Analog runs, programs that write cells or have state or
    parameters are decoded every time. The second run records what it does (:mod:`cimc.sim.recording`), for itself and
    those after it. ``stepped``: why it did not, so that every run goes from instruction to instruction; empty if it did, and
    before."""

    def __init__(self) -> None:
        self.stepped = ""
        self._engine: Engine | None = None
        self._replay: Replay | None = None
        self._runs = 0  # that have come to an end

    def run(
        self,
        made: Callable[[], Engine],
        inputs: Mapping[str, Array],
        order: Iterable[int] | None,
        progress: Progress | None,
    ) -> tuple[dict[str, Array], Engine]:
        """The outputs, and the engine that is as good as new for the next run or, if it cannot be used again, closed."""
        engine = self._engine
        if engine is None:
            engine = made()
            self.stepped = engine.single
            self._engine = None if self.stepped else engine
        elif (found := self._replayed(engine, inputs, order, progress)) is not None:
            return found, engine
        else:
            engine.again()
        outputs = engine.run(inputs, order, progress)
        self._runs += 1
        if self._engine is None:
            engine.close()
        return outputs, engine

    def _replayed(
        self, engine: Engine, inputs: Mapping[str, Array], order: Iterable[int] | None, progress: Progress | None
    ) -> dict[str, Array] | None:
        """The outputs by the recording; None if there is none, or if an instruction fails: stepping says which."""
        if order is not None or not self._runs:
            return None
        if self._runs == 1:
            try:
                self._replay = engine.recorded()
            except Unsuited as why:
                self.stepped = str(why)
        self._runs += 1
        if self._replay is None:
            return None
        try:
            outputs = self._replay.run(inputs)
        except FAILURES:
            return None
        if progress:
            progress("values", len(engine.program.tiles), len(engine.program.tiles))
        return outputs


@uncollected()
@one_thread()
def run_values(
    program: Program,
    weights: Weights,
    inputs: Mapping[str, Array],
    chip: ChipSpec,
    *,
    numerics: Numerics = "float",
    seed: int = 0,
    param_values: Mapping[str, int] | None = None,
    state: State | None = None,
    order: Iterable[int] | None = None,
    progress: Progress | None = None,
    analog: Analog | None = None,
    prepared: Prepared | None = None,
) -> tuple[dict[str, Array], dict[str, int]]:
    """Run a program on values: (outputs by the model's names, counts of the analog cores).

    ``inputs`` have exactly the program's names, types and shapes (INPUT_… otherwise); those that tiles hold may be left
    out. ``state`` is read and written in
    place. ``order`` is the order in which tiles are visited at first; the outputs do not depend on it. ``prepared`` makes
    further runs of the same program shorter. Raises DEADLOCK, INSTRUCTION_FAILED, NOT_FINITE, HOST_CALL, WEIGHT_…, PARAM_…,
    MEMORY_EXCEEDED.
    """
    bound = params.bind(program, param_values)
    memory.check_inputs(program, inputs, bound)

    def made() -> Engine:
        fresh = Engine(program, weights, chip, numerics, seed, analog)
        with np.errstate(all="ignore"):
            fresh.prepare(bound, {} if state is None else state)
        return fresh

    outputs, engine = (prepared or Prepared()).run(made, inputs, order, progress)
    if prepared is None:
        engine.close()
    return outputs, engine.cores.counts() if engine.cores else {}
