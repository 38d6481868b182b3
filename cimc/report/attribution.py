"""Whose error it is: a layer's difference from the reference, split between compiler, quantization and device.

The same program runs in three numerics (docs/architecture.md), and each step adds one cause:
``float`` − reference is the compiler's, ``integer`` − ``float`` the quantization's, ``analog`` − ``integer`` the
device's. The parts add up as arrays to the whole difference; their RMS values do not add up exactly, but nearly so in
squares where the causes are independent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cimc.report import units
from cimc.report.jsontext import JsonObject, number
from cimc.report.render import Table

Values = Mapping[str, NDArray[np.generic]]  # the name of a value → its array


@dataclass(frozen=True)
class Attribution:
    """RMS errors of one value in parts of the reference's RMS; None where a run is missing or shapes differ."""

    name: str
    compiler: float | None
    quantization: float | None
    device: float | None
    total: float | None


def attribute(reference: Values, float_: Values, integer: Values, analog: Values) -> tuple[Attribution, ...]:
    """Split the error of every value of ``reference``, in its order, that some run has as well. A run that was not
    made is an empty mapping; the total is then that of the last run made."""
    found: list[Attribution] = []
    for name, want in reference.items():
        steps = [want, *(values.get(name) for values in (float_, integer, analog))]
        last = next((s for s in reversed(steps[1:]) if s is not None), None)
        if last is None:
            continue
        parts = [_relative(b, a, want) for a, b in pairwise(steps)]
        found.append(Attribution(name, parts[0], parts[1], parts[2], _relative(last, want, want)))
    return tuple(found)


def _relative(b: NDArray[np.generic] | None, a: NDArray[np.generic] | None, want: NDArray[np.generic]) -> float | None:
    """rms(b − a) / rms(want) over what is finite in all three; 0 / 0 is 0."""
    if a is None or b is None or a.shape != want.shape or b.shape != want.shape:
        return None
    x, y, w = (np.asarray(v, np.float64) for v in (a, b, want))
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(w)
    difference = np.where(finite, y, 0.0) - np.where(finite, x, 0.0)
    error, size = float(np.linalg.norm(difference)), float(np.linalg.norm(np.where(finite, w, 0.0)))
    if error == 0:
        return 0.0
    return error / size if size > 0 else float("inf")


def table(found: Sequence[Attribution]) -> Table:
    """Per value, in parts of its RMS."""
    header = ("value", ">compiler", ">quantization", ">device", ">all")
    rows = [(a.name, *(units.error(part) for part in (a.compiler, a.quantization, a.device, a.total))) for a in found]
    return Table("Error by cause, RMS relative to the reference's", header, rows)


def attribution_json(a: Attribution) -> JsonObject:
    """One value as an object; null where unknown or where the reference is all zero."""
    return {
        "name": a.name,
        "compiler": number(a.compiler),
        "quantization": number(a.quantization),
        "device": number(a.device),
        "total": number(a.total),
    }
