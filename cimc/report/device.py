"""What the device model does to a model's outputs: error by effect, spread over seeds, accuracy over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.report import units
from cimc.report.jsontext import Json, JsonObject, number
from cimc.report.render import Block, Table

SHOWN_LAYERS = 12
Array = NDArray[np.generic]


@dataclass(frozen=True)
class Error:
    """How far an output is from the reference: RMS of the error over the RMS of the reference, cosine, and ``added``: the
    RMS of the change since the step before, over the same. None where the reference is all zero."""

    error: float | None
    cosine: float | None
    added: float | None


@dataclass(frozen=True)
class Step:
    """Errors by output once ``name`` is switched on as well; ``layers``: by weight, the own error of the cores that hold
    it, on the inputs they were given."""

    name: str
    errors: Mapping[str, Error]
    layers: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """Errors by output for one seed."""

    seed: int
    errors: Mapping[str, Error]


@dataclass(frozen=True)
class Moment:
    """Trials at one time since programming."""

    seconds: float
    trials: tuple[Trial, ...]


@dataclass(frozen=True)
class Spread:
    """Mean, standard deviation (of the sample; 0 for one trial) and extremes."""

    mean: float
    std: float
    low: float
    high: float


def error_of(got: Array, want: Array, before: Array) -> Error:
    """The error of an output against the reference, and its change since ``before``."""
    g, w, b = (np.asarray(a, np.float64).ravel() for a in (got, want, before))
    size, length = float(np.linalg.norm(w)), float(np.linalg.norm(g))
    if size == 0.0:
        return Error(None, None, None)
    cosine = float(g @ w) / (size * length) if length else 0.0
    return Error(float(np.linalg.norm(g - w)) / size, cosine, float(np.linalg.norm(g - b)) / size)


def spread(values: Sequence[float | None]) -> Spread | None:
    """Over the values there are; None without any."""
    known = np.array([v for v in values if v is not None])
    if len(known) == 0:
        return None
    std = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return Spread(float(known.mean()), std, float(known.min()), float(known.max()))


def steps_json(steps: Sequence[Step]) -> Json:
    """One object per effect, in the order they were switched on."""
    return [
        {
            "effect": s.name,
            "outputs": {k: _error_json(e) for k, e in s.errors.items()},
            "layers": {k: number(v) for k, v in s.layers.items()},
        }
        for s in steps
    ]


def trials_json(found: Sequence[Trial]) -> JsonObject:
    """The seeds, and per output mean and spread of error and cosine, and every trial's."""
    names = list(found[0].errors) if found else []
    return {
        "seeds": [t.seed for t in found],
        "outputs": {
            k: {
                "error": _spread_json(spread([t.errors[k].error for t in found])),
                "cosine": _spread_json(spread([t.errors[k].cosine for t in found])),
                "errors": [number(t.errors[k].error) for t in found],
                "cosines": [number(t.errors[k].cosine) for t in found],
            }
            for k in names
        },
    }


def moments_json(found: Sequence[Moment]) -> Json:
    """One object per time."""
    return [{"seconds": m.seconds, **trials_json(m.trials)} for m in found]


def _error_json(e: Error) -> JsonObject:
    return {"error": number(e.error), "cosine": number(e.cosine), "added": number(e.added)}


def _spread_json(s: Spread | None) -> Json:
    return None if s is None else {"mean": s.mean, "std": s.std, "min": s.low, "max": s.high}


def steps_table(steps: Sequence[Step]) -> list[Block]:
    """Outputs by effect; then the layers whose cores err most."""
    rows = [
        (s.name, k, _share(e.added), _share(e.error), units.similarity(e.cosine))
        for s in steps
        for k, e in s.errors.items()
    ]
    header = ("switched on", "output", ">adds", ">error so far", ">cosine")
    blocks: list[Block] = [Table("Error by effect, RMS relative to the reference's, same seed", header, rows)]
    last = steps[-1].layers if steps else {}
    worst = sorted(last, key=lambda k: (-last[k], k))[:SHOWN_LAYERS]
    if worst:
        analog = [s for s in steps if s.layers]
        table = [(k, *(_share(s.layers.get(k)) for s in analog)) for k in worst]
        title = f"Error of the cores alone, by weight ({len(worst)} worst of {len(last)})"
        blocks.append(Table(title, ("weight", *(f">{s.name}" for s in analog)), table))
    return blocks


def trials_table(found: Sequence[Trial]) -> Block:
    """Mean and spread per output."""
    rows: list[tuple[str, ...]] = []
    for k in found[0].errors if found else ():
        rows.append((k, *_cells([t.errors[k] for t in found])))
    header = ("output", *SPREAD_HEADER)
    return Table(f"Device error over {len(found)} seeds from {found[0].seed}" if found else "", header, rows)


def moments_table(found: Sequence[Moment]) -> Block:
    """Accuracy over time."""
    rows = [
        (units.age(m.seconds), k, *_cells([t.errors[k] for t in m.trials])) for m in found for k in m.trials[0].errors
    ]
    return Table("Accuracy over time since programming", (">after", "output", *SPREAD_HEADER), rows)


SPREAD_HEADER = (">error", ">± std", ">worst", ">cosine", ">± std", ">worst")


def _cells(errors: Sequence[Error]) -> tuple[str, ...]:
    error, cosine = spread([e.error for e in errors]), spread([e.cosine for e in errors])
    if error is None or cosine is None:
        return (units.NOTHING,) * len(SPREAD_HEADER)
    near = units.similarity
    return (
        *(_share(error.mean), _share(error.std), _share(error.high)),
        *(near(cosine.mean), f"{cosine.std:.2g}", near(cosine.low)),
    )


def _share(value: float | None) -> str:
    return units.NOTHING if value is None else f"{100 * value:.3g} %"
