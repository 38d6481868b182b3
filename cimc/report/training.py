"""What hardware-aware training should inject: noise of weights and outputs, measured on the very cores by Monte Carlo.

For each weight matrix W (codes, as the cores store it), over several seeds:

    W_eff     what the programmed cells hold at the given time, slices put together, factors against drift applied
    gain      <W, W_eff> / <W, W>                               what is left of a weight on average
    sigma     std(W_eff - gain W) / max|W|                      weight noise, relative to the largest weight
    bias      mean(W_eff - gain W) / max|W|
    output    std(y - x W_eff) / (max|x| max|W|)                what reading adds: converters, read noise, clipping

``x`` are random vectors, Gaussian, the largest input three sigma out, clipped there; ``y`` is what the core gives for
them. Inputs and weights normalised to 1 are the units of aihwkit's ``IOParameters`` and ``WeightModifierParameter``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogConfig, AnalogMatrix, calibrate_range, drift_factor
from cimc.analog.config import refuse
from cimc.analog.redundancy import mean_net
from cimc.analog.rng import Streams
from cimc.arch.spec import ChipSpec, CoreSpec
from cimc.device import Device
from cimc.isa.program import Program
from cimc.report import units
from cimc.report.jsontext import Json, JsonObject, number
from cimc.report.render import Block, Facts, Table
from cimc.sim.analog import InputKind, config

Codes = NDArray[np.generic]
Float = NDArray[np.float64]
MOST_COLUMNS = 256  # of a matrix that are measured, evenly spread: columns do not influence each other
VECTORS = 64
BINS = 8  # of |W| / max|W|, in which sigma is told
GENERIC = "gaussian weights, one core"
AIHWKIT_MODELS = {
    "pcm": "PCMLikeNoiseModel",
    "pcm_custom": "StateIndependentNoiseModel",
    "pcm_hermes_1dev": "HermesNoiseModel",
    "pcm_hermes_2dev": "HermesNoiseModel",
    "reram": "ReRamWan2022NoiseModel",
    "reram_cmo": "ReRamCMONoiseModel",
}
"""Noise models of aihwkit 1.2 that model the same device, by technology (inference/noise/)."""


@dataclass(frozen=True)
class Bin:
    """Weights of a size: |W| / max|W| up to ``top``; how many, and mean and standard deviation of W_eff - W over max|W|."""

    top: float
    count: int
    mean: float
    sigma: float


@dataclass(frozen=True)
class LayerNoise:
    """One matrix; see the module. ``output_relative``: the output's noise over the RMS of x W. ``clipped``: share of
    conversions."""

    name: str
    rows: int
    cols: int
    measured: int
    largest: int
    gain: float
    sigma: float
    bias: float
    output: float
    output_relative: float
    clipped: float
    bins: tuple[Bin, ...]

    def to_json(self) -> JsonObject:
        """One entry of ``layers``."""
        return {
            "name": self.name,
            "rows": self.rows,
            "cols": self.cols,
            "columns_measured": self.measured,
            "weight_max_code": self.largest,
            "weight_gain": number(self.gain),
            "weight_noise_sigma": number(self.sigma),
            "weight_bias": number(self.bias),
            "output_noise_sigma": number(self.output),
            "output_noise_relative": number(self.output_relative),
            "adc_clipped_share": number(self.clipped),
            "by_weight": [
                {"up_to": b.top, "count": b.count, "mean": number(b.mean), "sigma": number(b.sigma)} for b in self.bins
            ],
        }


@dataclass(frozen=True)
class TrainingNoise:
    """The whole export."""

    hardware: str
    device: Device
    core: CoreSpec
    seeds: tuple[int, ...]
    layers: tuple[LayerNoise, ...]

    def to_json(self) -> JsonObject:
        """What ``cimc hw noise --json`` writes."""
        device, core = self.device, self.core
        layers: Json = [layer.to_json() for layer in self.layers]
        return {
            "hardware": self.hardware,
            "technology": device.technology,
            "model_source": device.model.model.source,
            "seconds": device.seconds,
            "effects": list(device.active(core)),
            "seeds": list(self.seeds),
            "converters": {
                "input_bits": 8,
                "dac_bits": core.dac_bits,
                "adc_bits": core.adc_bits,
                "adc_range": device.adc_range,
                "weight_bits": core.weight_bits,
                "encoding": core.encoding,
            },
            "formulas": {
                "weight_gain": "<W, W_eff> / <W, W>",
                "weight_noise_sigma": "std(W_eff - gain W) / max|W|",
                "weight_bias": "mean(W_eff - gain W) / max|W|",
                "output_noise_sigma": "std(y - x W_eff) / (max|x| max|W|)",
                "output_noise_relative": "std(y - x W_eff) / rms(x W)",
                "by_weight": "mean and std of (W_eff - W) / max|W| over weights up to this |W| / max|W|",
            },
            "layers": layers,
            "aihwkit": self._aihwkit(),
        }

    def _aihwkit(self) -> JsonObject:
        """The same under the names of aihwkit's InferenceRPUConfig; noise is the layers' mean."""
        sigma = float(np.mean([layer.sigma for layer in self.layers]))
        out = float(np.mean([layer.output for layer in self.layers]))
        compensated = self.device.drift_compensation != "none"
        return {
            "note": "names of InferenceRPUConfig of aihwkit 1.2; values are the means of the layers above. The ADC of this"
            " hardware converts slice by slice and input bit by input bit: its error is part of out_noise, not of out_res",
            "modifier.type": "ADD_NORMAL",
            "modifier.std_dev": number(sigma),
            "modifier.rel_to_actual_wmax": True,
            "forward.inp_bound": 1.0,
            "forward.inp_res": 1.0 / (2**8 - 2),
            "forward.out_bound": 0.0,
            "forward.out_res": -1.0,
            "forward.out_noise": number(out),
            "forward.w_noise": 0.0,
            "noise_model": AIHWKIT_MODELS.get(self.device.technology),
            "drift_compensation": "GlobalDriftCompensation" if compensated else None,
        }

    def blocks(self) -> list[Block]:
        """The same as text."""
        device = self.device
        facts = Facts(
            "Noise to train with",
            [
                ("technology", device.technology, f"{device.model.model.name}: {device.model.model.source}"),
                (
                    "effects",
                    ", ".join(device.active(self.core)) or "none",
                    f"{units.age(device.seconds)} after programming",
                ),
                ("measured", f"{len(self.seeds)} seeds", "relative to the largest weight, and the largest input"),
            ],
        )
        header = (
            "weight",
            ">rows",
            ">cols",
            ">gain",
            ">weight sigma",
            ">bias",
            ">output sigma",
            ">of output",
            ">clipped",
        )
        rows = [
            (
                x.name,
                units.whole(x.rows),
                units.whole(x.cols),
                f"{x.gain:.4f}",
                f"{x.sigma:.4g}",
                f"{x.bias:+.2g}",
                f"{x.output:.4g}",
                units.percent(x.output_relative),
                units.percent(x.clipped),
            )
            for x in self.layers
        ]
        return [facts, Table("By weight", header, rows)]


def training_noise(
    hardware: str,
    chip: ChipSpec,
    device: Device,
    layers: Mapping[str, Codes] | None = None,
    *,
    seed: int = 0,
    trials: int = 3,
) -> TrainingNoise:
    """Measure every matrix of ``layers`` (codes, (in, out)), or without any a core's worth of Gaussian weights.

    Raises ANALOG_CONFIG for hardware without an analog core, and for faults of one chip (``stuck_map``, ``remap``),
    which are no noise to train with."""
    core = next((t.core for t in chip.tiles.values() if t.core and t.core.adc), None)
    if core is None:
        raise refuse("hardware", f"'{hardware}' has no analog core: it adds no noise", "choose one that has")
    for key, given in (("stuck_map", bool(device.stuck_map)), ("remap", device.remap != "none")):
        if given:
            raise refuse(f"device.{key}", "faults of one chip are no noise to train with", "give rates of stuck cells")
    seeds = tuple(range(seed, seed + trials))
    physics = config(core, device, InputKind())
    chosen = layers or {GENERIC: _gaussian(core)}
    found = tuple(_measure(name, codes, physics, device, seeds) for name, codes in chosen.items())
    return TrainingNoise(hardware, device, core, seeds, found)


def weights_of(program: Program, weights: Mapping[str, Codes], chip: ChipSpec) -> dict[str, Codes]:
    """The codes of every matrix on an analog core, by key, whole, in the order of the program."""
    found: dict[str, Codes] = {}
    for tile in program.tiles:
        core = chip.tile(tile.tile).core
        for matrix in tile.matrices if core is not None and core.adc is not None else ():
            if matrix.key in weights and weights[matrix.key].ndim == 2:
                found.setdefault(matrix.key, weights[matrix.key])
    return found


def _gaussian(core: CoreSpec) -> Codes:
    """One core full of weights, the largest three sigma out."""
    top = (1 << (core.weight_bits - 1)) - 1
    draw = Streams(0).generator("inputs", 1).standard_normal((core.rows, core.cols))
    return np.clip(np.rint(draw * top / 3), -top, top).astype(np.int64)


def _measure(name: str, codes: Codes, physics: AnalogConfig, device: Device, seeds: Sequence[int]) -> LayerNoise:
    picked = np.unique(np.linspace(0, codes.shape[1] - 1, min(codes.shape[1], MOST_COLUMNS)).astype(int))
    w = codes[:, picked].astype(np.int64)
    x = _vectors(len(w), physics)
    if physics.adc is not None and device.calibrated:
        per = "slice" if device.adc_range == "calibrated_slice" else "core"
        physics = calibrate_range(w, physics, x, device.adc_coverage, per)
    held: list[Float] = []
    noise: list[Float] = []
    clipped, conversions = 0, 0
    for seed in seeds:
        core = AnalogMatrix(w, physics, seed)
        if device.drift_compensation != "none" and physics.device.ages:
            per_core = "core" if device.drift_compensation == "global" else "column"
            core.gain = drift_factor(w, physics, seed, per=per_core)
        effective = effective_weights(core)
        held.append(effective)
        noise.append(core.values(x) - x @ effective)
        clipped += core.counts.saturated
        conversions += core.counts.conversions
    return _summary(name, codes.shape, w, x, (np.stack(held), np.stack(noise)), clipped / max(conversions, 1))


def effective_weights(core: AnalogMatrix) -> Float:
    """What a core's cells hold as weights, (in, out): slices put together (copies of a slice averaged), leak and offset
    taken off, the digital factor applied; read without a converter."""
    encoding, leak = core.config.weights, core.config.device.gmin_norm
    shifts = 2.0 ** np.array(encoding.shifts)[:, None, None]
    total = (mean_net(core.cells) * shifts).sum(axis=0)
    if core.gain is not None:
        total = total * core.gain
    if encoding.kind == "differential":
        return total / (1.0 - leak)
    full = sum(top * 2.0**shift for top, shift in zip(encoding.max_levels, encoding.shifts, strict=True))
    return (total - leak * full) / (1.0 - leak) - encoding.offset


def _vectors(inputs: int, physics: AnalogConfig) -> NDArray[np.int64]:
    top = physics.inputs.high
    draw = Streams(0).generator("inputs", 2).standard_normal((VECTORS, inputs))
    return np.clip(np.rint(draw * top / 3), -top, top).astype(np.int64)


def _summary(
    name: str,
    shape: tuple[int, ...],
    w: NDArray[np.int64],
    x: NDArray[np.int64],
    measured: tuple[Float, Float],
    clipped: float,
) -> LayerNoise:
    held, noise = measured
    largest = int(np.abs(w).max(initial=0)) or 1
    energy = float(np.square(w, dtype=np.float64).sum())
    gain = float((held.mean(axis=0) * w).sum()) / energy if energy else 1.0
    off = (held - gain * w) / largest
    size = float(np.sqrt(np.mean(np.square((x @ w).astype(np.float64)))))
    reach = int(np.abs(x).max(initial=0)) or 1
    spread = float(noise.std())
    return LayerNoise(
        name=name,
        rows=shape[0],
        cols=shape[1],
        measured=w.shape[1],
        largest=largest,
        gain=gain,
        sigma=float(off.std()),
        bias=float(off.mean()),
        output=spread / (reach * largest),
        output_relative=spread / size if size else 0.0,
        clipped=clipped,
        bins=_bins(np.abs(w) / largest, (held - w) / largest),
    )


def _bins(sizes: Float, off: Float) -> tuple[Bin, ...]:
    """Mean and spread of the error by the size of the weight; sizes nobody has are left out."""
    found: list[Bin] = []
    number_of = np.minimum((sizes * BINS).astype(int), BINS - 1)
    for b in range(BINS):
        here = off[:, number_of == b]
        if here.size:
            found.append(Bin((b + 1) / BINS, here.shape[1], float(here.mean()), float(here.std())))
    return tuple(found)
