"""The values engine: what a program computes, without time.

Tiles run one after another, each until it waits for a message that is not there. Which tile runs first makes no
difference to what is computed: a channel keeps its messages in order, and global memory is ordered by signal and wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cimc.arch.spec import ChipSpec
from cimc.collecting import uncollected
from cimc.device import Device
from cimc.isa.cells import written, written_first
from cimc.isa.instruction import Blocked, Fault
from cimc.isa.program import Program, TileProgram, Weights
from cimc.sim import calibration, memory, params, place
from cimc.sim.analog import AnalogCores
from cimc.sim.channels import AHEAD_BYTES, Channels
from cimc.sim.closures import STOP, Code, NotFinite, Scope, decode
from cimc.sim.hostcall import HostCalls
from cimc.sim.kept import Kept
from cimc.sim.matrices import MatrixFactory
from cimc.sim.memory import State, Storage
from cimc.sim.tally import Samples, Tally

Array = NDArray[np.generic]
Numerics = Literal["float", "integer", "analog"]
Progress = Callable[[str, int, int], None]
"""``progress(engine, done, total)``, called from time to time: tiles that have ended, or instructions."""


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

    def __init__(self, tile: int, engine: Engine, *, tokens: bool) -> None:
        self._tile = tile
        self._engine = engine
        self._tokens = tokens
        self.exact = engine.numerics == "float"
        unit = engine.chip.tile(tile).matmul
        self.operand_bits = unit.operand_bits if unit else 8

    def send(self, data: Array, to: tuple[int, ...], tag: int) -> None:
        """Put a copy of ``data`` into the channel to each tile of ``to``."""
        engine = self._engine
        if engine.channels.under_way > AHEAD_BYTES:
            engine.maybe_pause(self._tile)
        copy = np.array(data)
        for destination in to:
            engine.channels.put((self._tile, destination, tag, self._tokens), copy)

    def receive(self, source: int, tag: int) -> Array | None:
        """Take the oldest message of the channel, or None; then the next one that comes wakes this tile."""
        channels = self._engine.channels
        key = (source, self._tile, tag, self._tokens)
        data = channels.take(key)
        if data is None:
            channels.waiting[key] = self._tile
        return data

    def host(self, call: str, inputs: list[Array]) -> list[Array]:
        """Run a host call."""
        return self._engine.host.run(call, inputs)


@dataclass
class _Tile:
    number: int
    code: Code
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
        self.cores: AnalogCores | None = None
        how = analog or Analog()
        if numerics == "analog":
            device = how.device or Device.of(chip)
            calibration.agree(program, device)
            self.cores = AnalogCores(device, seed, how.tally, how.samples, how.kept)
        recorded = how.samples if numerics == "integer" else None
        self._factory = MatrixFactory(weights, chip, numerics == "float", self.cores, recorded, how.only)

    def maybe_pause(self, tile: int) -> None:
        """Let other tiles run before this one, unless nothing has happened since it last did so."""
        if (self._ready or self.channels.woken) and self._paused.get(tile) != self.steps_done:
            self._paused[tile] = self.steps_done
            raise _Pause

    def run(
        self,
        inputs: Mapping[str, Array],
        bound: Mapping[str, int],
        state: State,
        order: Iterable[int] | None,
        progress: Progress | None,
    ) -> dict[str, Array]:
        """Run to the end and return copies of the outputs."""
        memory.check_inputs(self.program, inputs)
        constants = memory.Constants(self.weights, self.numerics == "float")
        shared = memory.global_memory(self.program, self.chip, constants, state)
        local = {t.tile: memory.local_memory(t, self.chip, constants, state) for t in self.program.tiles}
        memory.fill_inputs(self.program, inputs, shared, local)
        steps: memory.Steps = {}
        with np.errstate(all="ignore"):
            tiles = {t.tile: self._decode(t, shared, bound, local[t.tile], steps) for t in self.program.tiles}
            self._ready.extend(tiles if order is None else order)
            self._loop(tiles, progress)
        return memory.outputs(self.program, shared, local, self.numerics == "float")

    def _decode(
        self,
        tile: TileProgram,
        shared: Mapping[str, Storage],
        bound: Mapping[str, int],
        local: memory.Local,
        steps: memory.Steps,
    ) -> _Tile:
        rewritten, blank = frozenset(written(tile.steps)), written_first(tile.steps)
        scope = Scope(
            tile=tile.tile,
            machine=TileMachine(tile.tile, self, tokens=False),
            tokens=TileMachine(tile.tile, self, tokens=True),
            local=local,
            shared=shared,
            quantized=frozenset(b.name for b in tile.buffers if b.element.quantized),
            matrices={
                m.name: self._factory.build(tile.tile, m, rewritten=m.name in rewritten, blank=m.name in blank)
                for m in tile.matrices
            },
            params=bound,
            check_finite=self.numerics != "float",
            steps=steps,
        )
        return _Tile(tile.tile, decode(tile.steps, scope))

    def _loop(self, tiles: Mapping[int, _Tile], progress: Progress | None) -> None:
        done = 0
        while self._ready or self.channels.woken:
            self._ready.extend(self.channels.woken)
            self.channels.woken.clear()
            tile = tiles[self._ready.popleft()]
            self._advance(tile)
            if tile.halted and progress:
                done += 1
                progress("values", done, len(tiles))
        stuck = [self._stuck(t) for t in tiles.values() if not t.halted]
        if stuck:
            raise place.deadlock(stuck, len(tiles))

    def _advance(self, tile: _Tile) -> None:
        """Run a tile until it halts or waits."""
        entries, at = tile.code.entries, tile.at
        start = at
        try:
            while at != STOP:
                target = entries[at]()
                at = at + 1 if target is None else target
            tile.halted = True
        except _Pause:
            self._ready.append(tile.number)
        except Blocked:
            pass
        except (Fault, NotFinite, ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
            raise self._failure(tile, at, error) from error
        finally:
            tile.at = at
            self.steps_done += at != start

    def _failure(self, tile: _Tile, at: int, error: Exception) -> Exception:
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


@uncollected()
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
) -> tuple[dict[str, Array], dict[str, int]]:
    """Run a program on values: (outputs by the model's names, counts of the analog cores).

    ``inputs`` have exactly the program's names, types and shapes (INPUT_… otherwise). ``state`` is read and written in
    place. ``order`` is the order in which tiles are visited at first; the outputs do not depend on it. Raises DEADLOCK,
    INSTRUCTION_FAILED, NOT_FINITE, HOST_CALL, WEIGHT_…, PARAM_…, MEMORY_EXCEEDED.
    """
    bound = params.bind(program, param_values)
    engine = Engine(program, weights, chip, numerics, seed, analog)
    outputs = engine.run(inputs, bound, {} if state is None else state, order, progress)
    return outputs, engine.cores.counts() if engine.cores else {}
