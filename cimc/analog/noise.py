"""Generic noise models, and the one way any model is applied to conductances.

Generic models (CrossSim 3.2, simulator/devices/generic_device.py) count in units of Gmax: Independent ``G + e``,
Proportional ``G (1 + e)``, InverseProportional ``G + e / G``; ``e`` is Normal(0, sigma) or Uniform(-1/2, 1/2) * sigma.
They serve as programming error (once) or read noise (every cycle).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog.config import NoiseModel, refuse
from cimc.analog.rng import Generator, Streams
from cimc.analog.technology import (
    Array,
    Cell,
    CellModel,
    PowerDrift,
    Program,
    Read,
    Spread,
    spelled,
    technologies,
    technology,
)

ABSOLUTE_ZERO = -273.15
HOTTEST = 300.0  # °C: the hottest that any model's source measured

SOURCE = "CrossSim 3.2 simulator/devices/generic_device.py"


def _sigma(cell: Cell) -> float:
    return cell.numbers.get("sigma", cell.numbers.get("magnitude", 0.0))


def _error(name: str, g: Array, cell: Cell, rng: Generator) -> Array:
    draw = rng.standard_normal(g.shape) if name.startswith("Normal") else rng.random(g.shape) - 0.5
    error = draw * _sigma(cell)
    norm = g / cell.gmax_us
    if name.endswith("InverseProportional"):
        # No error where nothing conducts: CrossSim's rule.
        norm = norm + np.divide(error, norm, out=np.zeros_like(norm), where=norm > 0)
    elif name.endswith("Proportional"):
        norm = norm * (1.0 + error)
    else:
        norm = norm + error
    return np.maximum(norm, 0.0) * cell.gmax_us


def _generic(name: str) -> CellModel:
    def drawn(g: Array, cell: Cell, rng: Generator) -> Array:
        return _error(name, g, cell, rng)

    def sigma(g: Array, cell: Cell) -> float:
        return _sigma(cell)

    def read(g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
        return _error(name, g, cell, rng)

    program: Program = drawn
    if name in ("NormalIndependent", "NormalProportional"):
        program = Spread(sigma, relative=name == "NormalProportional", by_gmax=True)
    read_part: Read = read
    return CellModel(name, SOURCE, program=program, read=read_part, parameters=("sigma", "magnitude"))


def _exponents(target: Array, cell: Cell) -> tuple[float, float]:
    """Generic drift: nu ~ abs(Normal(nu_mean, nu_std)) per cell, as aihwkit's custom model."""
    return cell.numbers.get("nu_mean", 0.1), cell.numbers.get("nu_std", 0.05)


def _start(cell: Cell) -> float:
    return cell.numbers.get("t0", 20.0)


GENERIC = tuple(
    _generic(f"{shape}{how}")
    for shape in ("Normal", "Uniform")
    for how in ("Independent", "Proportional", "InverseProportional")
)
POWER_LAW = CellModel(
    "PowerLaw",
    "aihwkit 1.2 inference/noise/custom.py; Le Gallo et al., Adv. Electron. Mater. 2018",
    drift=PowerDrift(_exponents, _start),
    parameters=("nu_mean", "nu_std", "t0"),
)


@cache
def models() -> dict[str, CellModel]:
    """Every cell model by its name: the generic ones and those of tech/."""
    found = {model.name: model for model in (*GENERIC, POWER_LAW)}
    for item in technologies().values():
        found.setdefault(item.model.name, item.model)
    return found


def find_model(key: str, name: str) -> CellModel:
    """A cell model by its name, alias or technology; refused under ``key`` if unknown."""
    wanted = spelled(name)
    for model in models().values():
        if wanted in map(spelled, (model.name, *model.aliases)):
            return model
    names = list(models())
    try:
        return technology(name).model
    except errors.CimcError:
        hint = errors.did_you_mean(name, names)
        raise refuse(f"{key}.model", f"'{name}' is unknown", f"{hint}known: {', '.join(names)}") from None


def check_model(key: str, asked: NoiseModel) -> NoiseModel:
    """Refuse a model that does not exist, lacks the part asked for, or is given numbers it does not have."""
    model = find_model(key, asked.name)
    if model.part(key) is None:
        raise refuse(f"{key}.model", f"'{model.name}' has no {key.replace('_', ' ')}", "choose a model that gives it")
    for name, value in asked.parameters:
        if name not in model.parameters:
            raise refuse(f"{key}.{name}", f"'{model.name}' has no such number", f"it has {list(model.parameters)}")
        if value < 0:
            raise refuse(f"{key}.{name}", f"{value} is negative", "give 0 or more")
    needed = model in GENERIC and not {"sigma", "magnitude"} & {name for name, _ in asked.parameters}
    if needed:
        raise refuse(f"{key}.sigma", f"'{model.name}' needs a sigma", "give sigma in units of Gmax")
    return NoiseModel(model.name, asked.parameters)


def check_range(model: CellModel, gmax_us: float) -> None:
    """Refuse a conductance range beyond what the model's source measured."""
    if gmax_us > model.gmax_limit_us * 1.0001:
        raise refuse("gmax_us", f"{gmax_us:g} µS exceeds the {model.gmax_limit_us:g} µS of {model.name}", "lower it")


def check_temperature(key: str, celsius: float, known: bool, name: str) -> float:
    """Refuse a temperature that is none, and (not ``known``) one that the source of ``name`` says nothing about."""
    if not (np.isfinite(celsius) and ABSOLUTE_ZERO < celsius <= HOTTEST):
        raise refuse(key, f"{celsius} °C is outside {ABSOLUTE_ZERO}..{HOTTEST:g}", "give degrees Celsius")
    if not known:
        having = ", ".join(item.name for item in technologies().values() if item.model.thermal)
        raise refuse(
            key, f"no source says what the temperature does to '{name}'", f"drop it, or choose one of {having}"
        )
    return celsius


def _check_asked(model: CellModel, target: Array, seconds: float, numbers: Iterable[str]) -> None:
    """Raises ANALOG_CONFIG for what :func:`conductances` cannot be asked of a model."""
    if not np.all(np.isfinite(target)) or (target.size and target.min() < 0):
        raise refuse("target_us", "a target is negative, infinite or not a number", "give microsiemens of 0 or more")
    if not (np.isfinite(seconds) and seconds >= 0):
        raise refuse("seconds", f"{seconds} lies before programming", "give seconds since programming, 0 or more")
    for number in numbers:
        if number not in model.parameters:
            raise refuse(number, f"'{model.name}' has no such number", f"it has {list(model.parameters)}")


def conductances(
    name: str,
    target_us: NDArray[np.floating],
    seconds: float = 3600.0,
    seed: int = 0,
    *,
    programming: bool = True,
    drift: bool = True,
    read_noise: bool = True,
    gmax_us: float | None = None,
    gmin_us: float | None = None,
    temperature_c: float | None = None,
    **numbers: float,
) -> Array:
    """Conductances in µS after programming, ``seconds`` of drift, and read noise: any shape, one device per element.

    ``name`` is a technology, a variant or a cell model (``technologies()``, ``models()``). A part that the model's
    source does not give is left out; ``programming``, ``drift`` and ``read_noise`` switch off the others. ``numbers``
    are the model's own (``sigma`` of a generic one). Raises ``CimcError`` for unknown names, negative times, targets
    that are not finite or negative, times outside what the source measured, and a ``temperature_c`` (°C) that the source
    says nothing about.
    """
    model = find_model("technology", name)
    target = np.asarray(target_us, dtype=np.float64)
    _check_asked(model, target, seconds, numbers)
    top = model.gmax_us if gmax_us is None else gmax_us
    check_range(model, top)
    low = model.gmin_us if gmin_us is None else gmin_us
    if temperature_c is not None:
        check_temperature("temperature_c", temperature_c, bool(model.thermal), model.name)
    cell = Cell(low, top, float(seconds), NoiseModel(model.name, tuple(numbers.items())), temperature_c)
    streams = Streams(seed)
    g = target
    if programming and model.program is not None:
        g = model.program(target, cell, streams.generator("programming"))
    programmed = g
    if drift and model.drift is not None and seconds > 0:
        g = model.drift(programmed, target, cell, streams.generator("drift"))
    if model.retention is not None and seconds > 0:
        g = model.retention(g, cell)
    if read_noise and model.read is not None:
        g = model.read(g, programmed, cell, streams.generator("read"))
    return g
