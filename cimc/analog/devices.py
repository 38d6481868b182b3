"""The devices of one crossbar from what they should conduct to what they do: programming, drift, retention, accumulated
read noise.

Conductances of the fast grid are computed in float32, those of the fine one in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.aging import drifted, flickered, within
from cimc.analog.config import AnalogConfig, NoiseModel
from cimc.analog.kernels.aging import fast_wide
from cimc.analog.kernels.program import MOST_LEVELS, fast_spread
from cimc.analog.noise import check_range, find_model
from cimc.analog.rng import Streams
from cimc.analog.technology import Cell, CellModel, Drift, Flicker, PowerDrift, Read, Retention, Spread

Float = NDArray[np.floating]


@dataclass(frozen=True)
class Physics:
    """The parts of a configuration's device, looked up once per core: the models that are on, and the cell's range in
    µS."""

    config: AnalogConfig
    programming: CellModel | None
    drift: CellModel | None
    read: CellModel | None
    retention: CellModel | None
    gmax: float
    gmin: float

    @staticmethod
    @lru_cache(maxsize=64)
    def of(config: AnalogConfig) -> Physics:
        """Raises ``CimcError`` for models that do not exist or a conductance beyond what a source measured."""
        device = config.device
        asked = {"programming_error": device.programming, "drift": device.drift, "read_noise": device.read}
        models = [None if part is None else find_model(key, part.name) for key, part in asked.items()]
        first = next((model for model in models if model is not None), None)
        for model in models:
            if model is not None:
                check_range(model, device.gmax_us or model.gmax_us)
        gmax = device.gmax_us or (1.0 if first is None else first.gmax_us)
        kept = None if device.retention is None else find_model("retention", device.retention.name)
        return Physics(config, models[0], models[1], models[2], kept, gmax, gmax * device.gmin_norm)

    def cell(self, numbers: NoiseModel | None) -> Cell:
        """What a model is told."""
        device = self.config.device
        return Cell(self.gmin, self.gmax, device.seconds, numbers or NoiseModel("Ideal"), device.temperature_c)

    @property
    def kind(self) -> type[np.floating]:
        """The precision of conductances before they are put on the grid."""
        return np.float32 if self.config.grid == "fast" else np.float64


@dataclass(frozen=True)
class Devices:
    """One device of every cell of a crossbar whose highest level is ``top``: its models, and the streams it draws from."""

    physics: Physics
    top: int
    streams: Streams
    crossbar: int

    def conduct(self, levels: NDArray[Any], out: Float) -> None:
        """What devices that are to hold ``levels`` conduct in the end, in levels, put into ``out``."""
        unit, drift, lost, read = self.top / self.physics.gmax, self._drift, self._retention, self._read
        later = drift is not None or lost is not None or read is not None
        if self._drawn_at_once(levels, 1.0 if later else unit, out):
            if not later:
                return
            g: Any = out
        else:
            g = self._programmed(targets(levels, self.top, self.physics))
        programmed = g if drift is None or read is None else np.array(g)
        if drift is not None:
            g = self._drifted(drift, g, levels)
        if lost is not None:
            g = lost(g, self.physics.cell(self.physics.config.device.retention))
        if read is not None:
            self._as_read(read, g, programmed, unit, out)
            return
        np.maximum(g, 0.0, out=out)
        out *= unit

    @property
    def _drift(self) -> Drift | None:
        model = self.physics.drift
        return None if model is None or self.physics.config.device.seconds <= 0 else model.drift

    @property
    def _retention(self) -> Retention | None:
        model = self.physics.retention
        return None if model is None or self.physics.config.device.seconds <= 0 else model.retention

    @property
    def _read(self) -> Read | None:
        """What is accumulated up to the time of inference; noise of single reads is drawn elsewhere."""
        model = self.physics.read
        return None if model is None or model.read_per_cycle else model.read

    def _drawn_at_once(self, levels: NDArray[Any], unit: float, out: Float) -> bool:
        """Programming by the kernel, where it serves: ``out`` are then the devices in µS times ``unit``."""
        device, model = self.physics.config.device, self.physics.programming
        gaussian = model is not None and isinstance(model.program, Spread)
        if not gaussian or device.write_verify > 1 or out.dtype != np.float32:
            return False
        assert model is not None
        assert isinstance(model.program, Spread)
        key = self.streams.key("programming", self.crossbar)
        goals, sigmas, first = by_level(self.physics, model.program, self.top)
        drawn = fast_spread if len(goals) <= MOST_LEVELS else fast_wide
        return drawn(levels, (goals, sigmas, first, unit), model.program.relative, key, out)

    def _programmed(self, goal: Any) -> Any:
        """Conductances after programming in µS, the closest of several attempts."""
        device, model = self.physics.config.device, self.physics.programming
        if model is None or model.program is None:
            return goal
        rng, cell = self.streams.draws("programming", self.crossbar), self.physics.cell(device.programming)
        g = model.program(goal, cell, rng)
        for _ in range(device.write_verify - 1):
            again = model.program(goal, cell, rng)
            g = np.where(np.abs(again - goal) < np.abs(g - goal), again, g)
        return g

    def _drifted(self, model: Drift, g: Any, levels: NDArray[Any]) -> Any:
        """Conductances after their time in µS; on the fast grid by curves where the model has that form (``g`` is then
        changed in place)."""
        cell = self.physics.cell(self.physics.config.device.drift)
        if isinstance(model, PowerDrift) and self.physics.kind is np.float32 and within(model, cell):
            goals = targets(np.arange(self.top + 1), self.top, self.physics)
            drifted(model, g, levels, goals, (cell, self.streams.key("drift", self.crossbar)))
            return g
        return model(g, targets(levels, self.top, self.physics), cell, self.streams.draws("drift", self.crossbar))

    def _as_read(self, model: Read, g: Any, programmed: Any, unit: float, out: Float) -> None:
        """``out`` becomes what is read in levels; on the fast grid by curves where the model has that form."""
        cell = self.physics.cell(self.physics.config.device.read)
        if isinstance(model, Flicker) and self.physics.kind is np.float32:
            key = self.streams.key("read", self.crossbar)
            flickered(model, g, programmed, (cell, key), unit, out)
            return
        np.maximum(model(g, programmed, cell, self.streams.draws("read", self.crossbar)), 0.0, out=out)
        out *= unit


def targets(levels: NDArray[Any], top: int, physics: Physics) -> Any:
    """What devices are to conduct, µS."""
    goal: Any = levels.astype(physics.kind)
    goal *= (1.0 - physics.config.device.gmin_norm) * physics.gmax / top
    if physics.gmin:
        goal += physics.gmin
    return goal


@lru_cache(maxsize=256)
def by_level(physics: Physics, program: Spread, top: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """``Spread.parts`` of every level."""
    goals, sigmas, unit = program.parts(
        targets(np.arange(top + 1), top, physics), physics.cell(physics.config.device.programming)
    )
    narrow = goals.astype(np.float32, copy=False)
    return narrow, np.broadcast_to(np.asarray(sigmas, dtype=np.float32), goals.shape), unit
