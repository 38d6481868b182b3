"""The single-pass I/O model of aihwkit: one analog product per vector between one DAC step and one ADC step.

Source: aihwkit 1.2, rpucuda/rpu_forward_backward_pass.cpp and simulator/parameters/io.py. All in float32, as there:

    alpha = max |x|                                   (noise_management ABS_MAX)
    xq    = clip(round(x / alpha), -inp_bound, inp_bound)      in steps of 2 inp_bound / inp_res
    y     = W xq  (+ w_noise, - IR drop, + out_noise)
    Y     = alpha clip(round(y), -out_bound, out_bound)        in steps of 2 out_bound / out_res
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog.config import refuse
from cimc.analog.rng import Generator, Streams

Float32 = NDArray[np.float32]
MAX_BOUND_STEPS = 10  # aihwkit IOParameters.max_bm_factor 1000: at most ten doublings


@dataclass(frozen=True)
class IoModel:
    """Settings with aihwkit's names. Resolutions are numbers of steps over the whole range (254 for 8 bits), or
    the step itself if below 1; 0 or less switches quantization off. ``ir_drop_g_ratio`` is the wire's over the cell's
    conductance. Raises ANALOG_CONFIG for a bound or ratio that is not positive, and noise that is negative."""

    inp_res: float = 254.0
    out_res: float = 254.0
    inp_bound: float = 1.0
    out_bound: float = 12.0
    noise_management: Literal["NONE", "ABS_MAX"] = "ABS_MAX"
    bound_management: Literal["NONE", "ITERATIVE"] = "NONE"
    inp_noise: float = 0.0
    out_noise: float = 0.0
    w_noise: float = 0.0
    w_noise_type: Literal["NONE", "PCM_READ", "ADDITIVE_CONSTANT"] = "PCM_READ"
    ir_drop: float = 0.0
    ir_drop_g_ratio: float = 1.0 / 0.35 / 5e-6

    def __post_init__(self) -> None:
        for key in ("inp_bound", "out_bound"):
            if not getattr(self, key) > 0:
                raise refuse(key, f"{getattr(self, key)} is not positive", "give a bound above 0")
        for key in ("inp_noise", "out_noise", "w_noise", "ir_drop"):
            if not getattr(self, key) >= 0:
                raise refuse(key, f"{getattr(self, key)} is negative", "give 0 or more")
        if not self.ir_drop_g_ratio > 0:
            raise refuse(
                "ir_drop_g_ratio", f"{self.ir_drop_g_ratio} is not positive", "give the ratio, 571428 by default"
            )

    @classmethod
    def from_mapping(cls, config: Mapping[str, object]) -> IoModel:
        """Read a mapping with the field names as keys; a ratio may be written as a quotient, ``1/0.35/5e-6``."""
        known = {item.name: item for item in fields(cls)}
        values: dict[str, object] = {}
        for key, value in config.items():
            if key not in known:
                hint = errors.did_you_mean(key, known)
                raise refuse(key, "there is no such key in the I/O model", f"{hint}known: {', '.join(known)}")
            values[key] = _value(key, value)
        return cls(**cast("dict[str, Any]", values))


WORDS = {
    "noise_management": ("NONE", "ABS_MAX"),
    "bound_management": ("NONE", "ITERATIVE"),
    "w_noise_type": ("NONE", "PCM_READ", "ADDITIVE_CONSTANT"),
}


def _value(key: str, value: object) -> float | str:
    if key in WORDS:
        word = "NONE" if value is None else str(value).upper().rpartition(".")[2]
        if word not in WORDS[key]:
            raise refuse(key, f"{value!r} is unknown", f"give one of {', '.join(WORDS[key])}")
        return word
    parts: list[object] = list(value.split("/")) if isinstance(value, str) else [value]
    try:
        numbers = [float(cast("float", part)) for part in parts]
        number = numbers[0]
        for divisor in numbers[1:]:
            number /= divisor
    except (TypeError, ValueError, ZeroDivisionError):
        raise refuse(key, f"{value!r} is no number", "give a number") from None
    if not math.isfinite(number):
        raise refuse(key, f"{value!r} is not finite", "give a finite number")
    return number


def _step(resolution: float, bound: float) -> float:
    """One step of a converter; 0 without one."""
    if resolution <= 0:
        return 0.0
    return 2 * bound * resolution if resolution < 1 else 2 * bound / resolution


def _round(values: Float32, resolution: float, bound: float) -> Float32:
    """Round half to even in steps, then clip to the bound."""
    step = np.float32(_step(resolution, bound))
    if step > 0:
        values = np.rint(values / step) * step
    return np.clip(values, np.float32(-bound), np.float32(bound))


class IoMatrix:
    """A float matrix behind the I/O model: ``weights`` (out, in), prepared once."""

    def __init__(
        self, weights: NDArray[np.floating], model: IoModel, seed: int = 0, key: tuple[int, int] = (0, 0)
    ) -> None:
        matrix = np.asarray(weights, dtype=np.float32)
        if matrix.ndim != 2 or not np.all(np.isfinite(matrix)):
            raise refuse("weights", "no finite matrix", "give (out, in) without NaN or infinity")
        self.model = model
        self._matrix = np.ascontiguousarray(matrix.T)
        self._magnitude = np.abs(self._matrix) if model.w_noise or model.ir_drop else None
        self._streams = Streams(seed, *key)
        self._reads = 0

    def mvm(self, inputs: NDArray[np.floating]) -> Float32:
        """``inputs`` (vectors, in) to (vectors, out). Raises ANALOG_CONFIG for another shape, a NaN or an infinity."""
        x = np.asarray(inputs, dtype=np.float32)
        if x.ndim != 2 or x.shape[1] != self._matrix.shape[0] or not np.all(np.isfinite(x)):
            raise refuse("inputs", f"shape {x.shape} or a NaN", f"give finite (vectors, {self._matrix.shape[0]})")
        rng = self._streams.generator("conversion", 0, self._reads)
        self._reads += 1
        scale = np.ones((len(x), 1), dtype=np.float32)
        if self.model.noise_management == "ABS_MAX":
            scale = np.abs(x).max(axis=1, keepdims=True, initial=0.0)
            scale[scale == 0] = 1.0
        result, clipped = self._pass(x, scale, rng)
        for _ in range(MAX_BOUND_STEPS if self.model.bound_management == "ITERATIVE" else 0):
            if not clipped.any():
                break
            scale[clipped] *= 2
            result[clipped], again = self._pass(x[clipped], scale[clipped], rng)
            clipped[clipped] = again
        return result

    def _pass(self, x: Float32, scale: Float32, rng: Generator) -> tuple[Float32, NDArray[np.bool_]]:
        """One analog product of ``x / scale``: results in the units of ``x``, and the vectors that exceeded the
        bound."""
        model = self.model
        driven = _round(x / scale, model.inp_res, model.inp_bound)
        if model.inp_noise:
            noise = np.float32(model.inp_noise) * rng.standard_normal(driven.shape, dtype=np.float32)
            driven = (driven + noise).astype(np.float32)
        y = driven @ self._matrix
        if model.ir_drop:
            y = y - self._drop(driven)
        if model.w_noise and model.w_noise_type != "NONE":
            y = y + self._weight_noise(driven, rng)
        if model.out_noise:
            y = y + np.float32(model.out_noise) * rng.standard_normal(y.shape, dtype=np.float32)
        digital = _round(y, model.out_res, model.out_bound)
        # As in aihwkit: what rounds to the bound itself has not exceeded it.
        half = np.float32(_step(model.out_res, model.out_bound) / 2)
        exceeded: NDArray[np.bool_] = np.any(np.abs(y) > np.float32(model.out_bound) + half, axis=1)
        return (digital * scale).astype(np.float32, copy=False), exceeded

    def _drop(self, driven: Float32) -> Float32:
        """aihwkit's IR drop: ``a = n / G sum |w||x|``, ``c = a (a (0.05 a - 0.2) + 0.5)``, times the position-weighted
        sum."""
        assert self._magnitude is not None
        count = len(self._matrix)
        position = np.arange(count, dtype=np.float32) / np.float32(count)
        reach = np.float32(1.0) - (np.float32(1.0) - position) ** 2
        a = np.float32(count / self.model.ir_drop_g_ratio) * (np.abs(driven) @ self._magnitude)
        c = a * (a * (np.float32(0.05) * a - np.float32(0.2)) + np.float32(0.5))
        drop = np.float32(self.model.ir_drop) * c * ((driven * reach) @ self._matrix)
        return drop.astype(np.float32, copy=False)

    def _weight_noise(self, driven: Float32, rng: Generator) -> Float32:
        """Read noise of the weights, one Gaussian per output: ``w_noise sqrt(sum |w| x²)`` or ``w_noise |x|``."""
        draw = rng.standard_normal((len(driven), self._matrix.shape[1]), dtype=np.float32)
        if self.model.w_noise_type == "ADDITIVE_CONSTANT":
            length = np.sqrt(np.sum(driven * driven, axis=1, keepdims=True)).astype(np.float32)
            return np.float32(self.model.w_noise) * length * draw
        assert self._magnitude is not None
        return np.float32(self.model.w_noise) * np.sqrt((driven * driven) @ self._magnitude) * draw
