"""Signed integers as cell levels and as input planes.

Notation of docs/analog.md: weights ``W`` are (out, in), inputs ``X`` are (in, batch); slice ``s`` of a weight has
levels ``0 .. 2**slice_bits[s] - 1``; plane ``k`` of an input is what the DACs drive in one cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import InputEncoding, WeightEncoding, refuse

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Plane:
    """One input cycle: bits ``shift .. shift+bits-1`` of the magnitude, worth ``weight`` in the shift-and-add.

    ``sign`` says which inputs are driven: ``any`` all as they are, ``signed`` the magnitude's bits with the sign,
    ``positive`` and ``negative`` only the inputs of that sign.
    """

    shift: int
    bits: int
    weight: int
    sign: str


@cache
def planes(encoding: InputEncoding) -> tuple[Plane, ...]:
    """The input cycles in the order they are driven, least significant first; the sign plane last."""
    magnitude = encoding.bits if encoding.kind == "unsigned" else encoding.bits - 1
    step = encoding.dac_bits
    cuts = [(shift, min(step, magnitude - shift)) for shift in range(0, magnitude, step)]
    if encoding.kind == "unsigned":
        return tuple(Plane(shift, bits, 1 << shift, "any") for shift, bits in cuts)
    if encoding.kind == "twos_complement":
        low = tuple(Plane(shift, bits, 1 << shift, "any") for shift, bits in cuts)
        return (*low, Plane(magnitude, 1, -(1 << magnitude), "any"))
    if encoding.kind == "sign_magnitude":
        return tuple(Plane(shift, bits, 1 << shift, "signed") for shift, bits in cuts)
    phases = (("positive", 1), ("negative", -1))
    return tuple(Plane(shift, bits, sign << shift, name) for name, sign in phases for shift, bits in cuts)


def drive(inputs: Int, plane: Plane) -> Int:
    """What the DACs drive in one cycle: integers shaped like ``inputs``, negative only in a ``signed`` plane."""
    mask = (1 << plane.bits) - 1
    if plane.sign == "any":
        return (inputs >> plane.shift) & mask
    chunk = (np.abs(inputs) >> plane.shift) & mask
    if plane.sign == "signed":
        return chunk * np.sign(inputs)
    keep = inputs > 0 if plane.sign == "positive" else inputs < 0
    return chunk * keep


def check_inputs(inputs: NDArray[Any], encoding: InputEncoding) -> None:
    """Refuse inputs that the streams cannot hold."""
    limits = {np.dtype(np.int8): (-128, 127), np.dtype(np.uint8): (0, 255)}.get(inputs.dtype)
    if limits is not None and encoding.low <= limits[0] and limits[1] <= encoding.high:
        return
    if inputs.size and (inputs.min() < encoding.low or inputs.max() > encoding.high):
        raise refuse(
            "input_bits",
            f"inputs {inputs.min()}..{inputs.max()} do not fit {encoding.bits}-bit {encoding.kind}",
            f"keep inputs within {encoding.low}..{encoding.high}",
        )


def stored(weights: NDArray[Any], encoding: WeightEncoding) -> NDArray[Any]:
    """What the cells hold: ``W + offset``, or ``|W|`` of a differential pair. Refused if it does not fit."""
    # Wide enough for the sum, and no wider: there are millions.
    size = max(2 * weights.dtype.itemsize, 2 if encoding.bits < 16 else 4)
    wide = weights.astype({2: np.int16, 4: np.int32}.get(size, np.int64), copy=False)
    value = wide + encoding.offset if encoding.kind == "offset" else np.abs(wide)
    top = 1 << min(encoding.bits, sum(encoding.slice_bits))
    if value.size and (value.min() < 0 or value.max() >= top):
        raise refuse(
            "weight_bits",
            f"weights {weights.min()}..{weights.max()} do not fit {encoding.kind} cells of {encoding.bits} bits",
            "clip or scale the weights, add a slice, or compile for fewer bits (--precision)",
        )
    return value


def slice_levels(value: Int, encoding: WeightEncoding) -> NDArray[np.int32]:
    """Levels of every slice, shape (slices, *value.shape); ``value`` is what ``stored`` returns."""
    parts = [((value >> shift) & top) for shift, top in zip(encoding.shifts, encoding.max_levels, strict=True)]
    return np.stack(parts).astype(np.int32)


def unit_levels(encoding: WeightEncoding) -> tuple[int, ...]:
    """Levels of the unit column's cells: ``offset`` encoded, so half the range in the top slice and 0 below."""
    return tuple(
        (encoding.offset >> shift) & top for shift, top in zip(encoding.shifts, encoding.max_levels, strict=True)
    )
