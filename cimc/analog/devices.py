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

from cimc.analog.aging import Decay, drifted, flicker_curve, flickered
from cimc.analog.config import AnalogConfig, DeviceConfig, NoiseModel
from cimc.analog.curve import Curve
from cimc.analog.kernels.aging import fast_wide
from cimc.analog.kernels.program import MOST_LEVELS, fast_spread
from cimc.analog.noise import check_range, find_model
from cimc.analog.rng import Streams
from cimc.analog.technology import Cell, CellModel, Drift, Flicker, PowerDrift, Spread

Float = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Physics:
    """What a device is, looked up once for all cores that have it: the models that are on, the cell's range in µS, and the
    precision of conductances before they are put on the grid."""

    device: DeviceConfig
    kind: type[np.floating]
    programming: CellModel | None
    drift: CellModel | None
    read: CellModel | None
    retention: CellModel | None
    gmax: float
    gmin: float

    @staticmethod
    def of(config: AnalogConfig) -> Physics:
        """Raises ``CimcError`` for models that do not exist or a conductance beyond what a source measured."""
        return _physics(config.device, np.float32 if config.grid == "fast" else np.float64)

    def cell(self, numbers: NoiseModel | None) -> Cell:
        """What a model is told."""
        device = self.device
        return Cell(self.gmin, self.gmax, device.seconds, numbers or NoiseModel("Ideal"), device.temperature_c)

    def targets(self, levels: NDArray[Any], top: int) -> Any:
        """What devices are to conduct that hold ``levels``, of which ``top`` is the highest, µS."""
        goal: Any = levels.astype(self.kind)
        goal *= (1.0 - self.device.gmin_norm) * self.gmax / top
        if self.gmin:
            goal += self.gmin
        return goal


@lru_cache(maxsize=64)
def _physics(device: DeviceConfig, kind: type[np.floating]) -> Physics:
    asked = {"programming_error": device.programming, "drift": device.drift, "read_noise": device.read}
    models = [None if part is None else find_model(key, part.name) for key, part in asked.items()]
    first = next((model for model in models if model is not None), None)
    for model in models:
        if model is not None:
            check_range(model, device.gmax_us or model.gmax_us)
    gmax = device.gmax_us or (1.0 if first is None else first.gmax_us)
    kept = None if device.retention is None else find_model("retention", device.retention.name)
    return Physics(device, kind, models[0], models[1], models[2], kept, gmax, gmax * device.gmin_norm)


class Recipe:
    """How devices whose highest level is ``top`` become what they are, with all that needs to be known once."""

    def __init__(self, physics: Physics, top: int) -> None:
        device = physics.device
        aged, self.physics, self.top = device.seconds > 0, physics, top
        self.unit = top / physics.gmax
        self._drift = None if physics.drift is None or not aged else physics.drift.drift
        self._lost = None if physics.retention is None or not aged else physics.retention.retention
        # What is accumulated up to the time of inference; noise of single reads is drawn elsewhere.
        self._read = None if physics.read is None or physics.read.read_per_cycle else physics.read.read
        later = not (self._drift is None and self._lost is None and self._read is None)
        self._spread = None if later else self.unit
        self._table = self._by_level(1.0 if later else self.unit)
        self._decay, self._flicker = self._curves()

    @staticmethod
    @lru_cache(maxsize=64)
    def of(physics: Physics, top: int) -> Recipe:
        """The one for a device and a highest level."""
        return Recipe(physics, top)

    def conduct(self, levels: NDArray[Any], streams: Streams, crossbar: int, out: Float) -> None:
        """What the devices of a crossbar that are to hold ``levels`` conduct in the end, in levels, put into ``out``."""
        done = self._drawn_at_once(levels, streams.key("programming", crossbar), out)
        if done and self._spread is not None:
            return
        g: Any = out if done else self._programmed(self.physics.targets(levels, self.top), streams, crossbar)
        programmed = g if self._drift is None or self._read is None else np.array(g)
        if self._drift is not None:
            g = self._drifted(self._drift, g, levels, streams, crossbar)
        if self._lost is not None:
            g = self._lost(g, self.physics.cell(self.physics.device.retention))
        if self._read is not None:
            if self._flicker is not None:
                flickered(self._flicker, g, programmed, streams.key("read", crossbar), self.unit, out)
                return
            draws = streams.draws("read", crossbar)
            g = self._read(g, programmed, self.physics.cell(self.physics.device.read), draws)
        np.maximum(g, 0.0, out=out)
        out *= self.unit

    def _by_level(self, unit: float) -> tuple[NDArray[np.float32], NDArray[np.float32], float, float] | None:
        """``Spread.parts`` of every level, and what multiplies the result, for the kernel; None where it does not serve."""
        physics, model = self.physics, self.physics.programming
        if model is None or not isinstance(model.program, Spread) or physics.device.write_verify > 1:
            return None
        if physics.kind is not np.float32:
            return None
        goals = physics.targets(np.arange(self.top + 1), self.top)
        parts, sigmas, first = model.program.parts(goals, physics.cell(physics.device.programming))
        narrow = parts.astype(np.float32, copy=False)
        return narrow, np.broadcast_to(np.asarray(sigmas, dtype=np.float32), narrow.shape), first, unit

    def _curves(self) -> tuple[Decay | None, Curve | None]:
        """Drift and accumulated read noise as curves, where the models have that form and the grid is the fast one."""
        physics, drift, read = self.physics, self._drift, self._read
        decay, spread = None, None
        if isinstance(drift, PowerDrift) and physics.kind is np.float32:
            goals = physics.targets(np.arange(self.top + 1), self.top)
            decay = Decay.of(drift, goals, physics.cell(physics.device.drift))
        if isinstance(read, Flicker) and physics.kind is np.float32:
            spread = flicker_curve(read, physics.cell(physics.device.read))
        return decay, spread

    def _drawn_at_once(self, levels: NDArray[Any], key: tuple[int, int], out: Float) -> bool:
        """Programming by the kernel, where it serves: ``out`` are then the devices, in µS where more is to come."""
        if self._table is None or self.physics.programming is None:
            return False
        model = self.physics.programming.program
        assert isinstance(model, Spread)
        drawn = fast_spread if len(self._table[0]) <= MOST_LEVELS else fast_wide
        return drawn(levels, self._table, model.relative, key, out)

    def _programmed(self, goal: Any, streams: Streams, crossbar: int) -> Any:
        """Conductances after programming in µS, the closest of several attempts."""
        device, model = self.physics.device, self.physics.programming
        if model is None or model.program is None:
            return goal
        rng, cell = streams.draws("programming", crossbar), self.physics.cell(device.programming)
        g = model.program(goal, cell, rng)
        for _ in range(device.write_verify - 1):
            again = model.program(goal, cell, rng)
            g = np.where(np.abs(again - goal) < np.abs(g - goal), again, g)
        return g

    def _drifted(self, model: Drift, g: Any, levels: NDArray[Any], streams: Streams, crossbar: int) -> Any:
        """Conductances after their time in µS; ``g`` may be changed in place."""
        if self._decay is not None:
            drifted(self._decay, g, levels, streams.key("drift", crossbar))
            return g
        goal = self.physics.targets(levels, self.top)
        return model(g, goal, self.physics.cell(self.physics.device.drift), streams.draws("drift", crossbar))
