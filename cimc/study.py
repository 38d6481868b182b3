"""Runs beside the run: error by effect, spread over seeds, accuracy over time, ADC calibration. All on the same program,
weights and inputs; :mod:`cimc.report.device` tells what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse
from cimc.arch import load as hardware_files
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.device import Device, checked_rate
from cimc.isa.program import Program, Weights
from cimc.options import Options
from cimc.report import device_cost
from cimc.report.device import (
    Error,
    Moment,
    Step,
    Trial,
    error_of,
    moments_json,
    moments_table,
    steps_json,
    steps_table,
    trials_json,
    trials_table,
)
from cimc.report.jsontext import JsonObject
from cimc.report.progress import stage
from cimc.report.render import Block
from cimc.sim.kept import Kept
from cimc.sim.memory import State
from cimc.sim.result import RunResult
from cimc.sim.tally import MOST_SAMPLES, Samples, Tally
from cimc.sim.values import Analog, Numerics, run_values

Array = NDArray[np.generic]
Arrays = Mapping[str, Array]
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Subject:
    """What is run again and again: a program with its weights and chip, inputs, and the outputs wanted. ``seed`` keys the
    device's random streams; ``kept`` are cells that earlier runs programmed."""

    program: Program
    weights: Weights
    chip: ChipSpec
    inputs: Arrays
    wanted: Arrays
    seed: int = 0
    kept: Kept | None = None

    @property
    def core(self) -> CoreSpec | None:
        """The chip's analog core; None if it has none."""
        return analog_core(self.chip)


@dataclass(frozen=True)
class DeviceOptions:
    """What ``check`` is asked about the device: ``--device``, ``--technology``, ``--time``, ``--rate``, ``--attribute``,
    ``--trials``, ``--budget``. Raises ANALOG_CONFIG for numbers that mean nothing."""

    settings: tuple[str, ...] = ()
    technology: str | None = None
    times: tuple[float, ...] = ()
    rate: float = 1.0
    attribute: bool = False
    trials: int = 0
    budget: float | None = None

    def __post_init__(self) -> None:
        checked_rate(self.rate)
        if not 0 <= self.trials <= MOST_TRIALS:
            raise refuse("trials", f"{self.trials} is outside 0..{MOST_TRIALS}", "give the number of seeds, 0 for none")
        if self.budget is not None and not 0 <= self.budget <= 1:
            raise refuse("budget", f"{self.budget} is no cosine", "give a cosine similarity from 0 to 1")

    def of(self, options: Options | None) -> Device:
        """The device of the hardware asked for, at the first time; checked for every time."""
        chosen = options or Options()
        chip = hardware_files.load(chosen.hardware, chosen.overrides).spec
        device = Device.of(chip, self.settings, self.technology, *self.times[:1])
        for seconds in self.times[1:]:
            device.at(seconds)
        return device

    def study(self, subject: Subject, device: Device, samples: Samples | None, result: RunResult) -> DeviceStudy:
        """Make the runs asked for."""
        spent = device_cost.cost(subject.program, subject.chip, device, result, self.rate)
        steps, seeds, moments = None, None, None
        if self.attribute:
            with stage("attribute"):
                steps = attribution(subject, device, samples)
        if self.trials:
            with stage("trials"):
                seeds = trials(subject, device, self.trials, samples)
        if len(self.times) > 1:
            with stage("over time"):
                moments = over_time(subject, device, self.times, max(self.trials, 1), samples)
        return DeviceStudy(spent, steps, seeds, moments)


@dataclass(frozen=True)
class DeviceStudy:
    """What was found; None for what was not asked for."""

    cost: device_cost.Cost
    steps: Sequence[Step] | None
    trials: Sequence[Trial] | None
    moments: Sequence[Moment] | None

    def to_json(self) -> JsonObject:
        """The object ``device`` of ``check --json``."""
        found = self.cost.to_json()
        if self.steps is not None:
            found["attribution"] = steps_json(self.steps)
        if self.trials is not None:
            found["trials"] = trials_json(self.trials)
        if self.moments is not None:
            found["over_time"] = moments_json(self.moments)
        return found

    def blocks(self) -> list[Block]:
        """The same as text."""
        found = device_cost.blocks(self.cost)
        if self.steps is not None:
            found += steps_table(self.steps)
        if self.trials is not None:
            found.append(trials_table(self.trials))
        if self.moments is not None:
            found.append(moments_table(self.moments))
        return found


def analog_core(chip: ChipSpec) -> CoreSpec | None:
    """The first analog core among the chip's tiles; None if there is none."""
    return next((t.core for t in chip.tiles.values() if t.core is not None and t.core.adc is not None), None)


SEVERAL = 256  # input vectors kept per matrix part over several calibration runs


def calibration(
    program: Program,
    weights: Weights,
    chip: ChipSpec,
    *inputs: Arrays,
    params: Mapping[str, int] | None = None,
    state: State | None = None,
) -> Samples:
    """The inputs that every matrix sees in runs in integer numerics: what ADC ranges are calibrated on. Of one run the
    first 64 vectors, of several an equal number of each, 256 together (at least one of each). ``state``: what tiles hold
    before each run; it stays as it is."""
    share = MOST_SAMPLES if len(inputs) == 1 else max(SEVERAL // max(len(inputs), 1), 1)
    samples = Samples(0)
    for one in inputs:
        samples.most += share
        held = {name: array.copy() for name, array in (state or {}).items()}
        how = Analog(samples=samples)
        run_values(program, weights, one, chip, numerics="integer", param_values=params, state=held, analog=how)
    return samples


def attribution(subject: Subject, device: Device, samples: Samples | None = None) -> list[Step]:
    """Error after each effect that can matter, switched on one after another with the same seed: quantisation (integer
    numerics) first, then those of :data:`cimc.device.EFFECTS`. ``added`` is the RMS of what a step changed."""
    steps: list[Step] = []
    before: Arrays = subject.wanted
    active = device.active(subject.core) if subject.core is not None else ()
    for count, name in enumerate(("quantization", *active)):
        numerics: Numerics = "analog" if count else "integer"
        tally = Tally(measured=True)
        part = Analog(device.only(active[:count]), tally, samples if count else None)
        got = _outputs(subject, numerics, part, subject.seed)
        errors = {k: error_of(got[k], want, before[k]) for k, want in subject.wanted.items()}
        layers = {k: t.relative_error for k, t in tally.layers.items()}
        steps.append(Step(name, errors, layers))
        before = got
    return steps


def trials(subject: Subject, device: Device, count: int, samples: Samples | None = None) -> list[Trial]:
    """The whole device's error for ``count`` seeds: the subject's, and those after it."""
    found: list[Trial] = []
    for seed in range(subject.seed, subject.seed + count):
        got = _outputs(subject, "analog", Analog(device, samples=samples, kept=subject.kept), seed)
        found.append(Trial(seed, _errors(subject, got)))
    return found


def over_time(
    subject: Subject, device: Device, times: tuple[float, ...], count: int, samples: Samples | None = None
) -> list[Moment]:
    """The error at several times since programming, for ``count`` seeds each: the same cells at every time."""
    found: list[Moment] = []
    for t in times:
        then = device.at(t)
        # Cells of another time serve no other run: not kept.
        of = subject if then == device else replace(subject, kept=None)
        found.append(Moment(t, tuple(trials(of, then, count, samples))))
    return found


def _outputs(subject: Subject, numerics: Numerics, analog: Analog, seed: int) -> Arrays:
    outputs, _ = run_values(
        subject.program,
        subject.weights,
        subject.inputs,
        subject.chip,
        numerics=numerics,
        seed=seed,
        analog=analog,
    )
    return outputs


def _errors(subject: Subject, got: Arrays) -> dict[str, Error]:
    return {k: error_of(got[k], want, want) for k, want in subject.wanted.items()}
