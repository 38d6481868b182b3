"""What a memory technology is: named cell models and facts, one file each in tech/.

A cell model turns target conductances into what is there after programming, after a time, and at a read. All
conductances are in microsiemens, all times in seconds since programming.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog import tech
from cimc.analog.config import NoiseModel, refuse
from cimc.analog.rng import Generator

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """What a model is told besides the conductances: range of the cell in µS, seconds since programming, its numbers, and
    the temperature it was kept at and is read at in °C; None: that of the model's source."""

    gmin_us: float
    gmax_us: float
    seconds: float
    numbers: NoiseModel
    celsius: float | None = None


# (target) -> programmed; (programmed, target) -> drifted; (drifted, programmed) -> as read. The generator draws.
Program = Callable[[Array, Cell, Generator], Array]
Drift = Callable[[Array, Array, Cell, Generator], Array]
Read = Callable[[Array, Array, Cell, Generator], Array]
# (drifted) -> what is left of it after its time at the cell's temperature.
Retention = Callable[[Array, Cell], Array]


@dataclass(frozen=True)
class Spread:
    """Programming whose error is Gaussian: ``max(target + sigma * n, 0)`` with ``sigma(target, cell)`` in µS and a normal
    number ``n`` for every cell; ``relative``: ``max(target * (1 + sigma * n), 0)``; ``by_gmax``: both with the target in
    units of Gmax. Said in this form, because a compiled kernel can then draw whole crossbars (physics.py)."""

    sigma: Callable[[Array, Cell], Array | float]
    relative: bool = False
    by_gmax: bool = False

    def __call__(self, target: Array, cell: Cell, rng: Generator) -> Array:
        """Programmed conductances, µS: a ``Program``."""
        goal, sigma, unit = self.parts(target, cell)
        error = sigma * rng.standard_normal(target.shape)
        noisy = np.maximum(goal * (1.0 + error) if self.relative else goal + error, 0.0)
        return noisy * unit if self.by_gmax else noisy

    def parts(self, target: Array, cell: Cell) -> tuple[Array, Array | float, float]:
        """Goals and sigmas in their unit, and that unit in µS."""
        unit = cell.gmax_us if self.by_gmax else 1.0
        return (target / unit if self.by_gmax else target), self.sigma(target, cell), unit


@dataclass(frozen=True)
class PowerDrift:
    """Drift ``programmed (1 + t/t0)**-nu``, ``t`` the cell's seconds and ``nu = |mean + spread n|`` with the exponents' mean
    and spread by ``exponents(target, cell)`` and a normal number ``n`` for every cell. Said in this form, because a compiled
    kernel can then age whole crossbars (aging.py)."""

    exponents: Callable[[Array, Cell], tuple[Array | float, Array | float]]
    t0: Callable[[Cell], float]

    def __call__(self, programmed: Array, target: Array, cell: Cell, rng: Generator) -> Array:
        """Drifted conductances, µS: a ``Drift``."""
        mean, spread = self.exponents(target, cell)
        return programmed * self.left(np.abs(mean + spread * rng.standard_normal(target.shape)), cell)

    def left(self, exponent: Array, cell: Cell) -> Array:
        """What is left of a conductance that drifts with ``exponent``."""
        return (1.0 + cell.seconds / self.t0(cell)) ** -exponent


@dataclass(frozen=True)
class Flicker:
    """Read noise accumulated since programming (1/f): ``max(g + |g| spread n, 0)`` with the relative ``spread`` by what was
    programmed and a normal number ``n`` for every cell. A form for kernels too."""

    spread: Callable[[Array, Cell], Array]

    def __call__(self, g: Array, programmed: Array, cell: Cell, rng: Generator) -> Array:
        """Conductances as read, µS: a ``Read``."""
        return np.maximum(g + np.abs(g) * self.spread(programmed, cell) * rng.standard_normal(g.shape), 0.0)


@dataclass(frozen=True)
class CellModel:
    """A published (or ``estimated``) device model: the parts that its source gives, None for the others.

    ``read_per_cycle``: read noise is drawn anew in every cycle; otherwise it is the noise accumulated up to the time of
    inference (1/f), drawn once. ``parameters`` are the names of the numbers that a user may give. ``thermal``: the source
    of what the temperature does to a part of this model; empty: its source does not say.
    """

    name: str
    source: str
    aliases: tuple[str, ...] = ()
    gmin_us: float = 0.0
    gmax_us: float = 1.0
    gmax_limit_us: float = float("inf")
    program: Program | None = None
    drift: Drift | None = None
    read: Read | None = None
    read_per_cycle: bool = True
    parameters: tuple[str, ...] = ()
    retention: Retention | None = None
    thermal: str = ""

    def part(self, key: str) -> object:
        """The part that ``programming_error``, ``drift``, ``read_noise`` or ``retention`` switches on; None if the source
        gives none."""
        parts = {"programming_error": self.program, "drift": self.drift, "read_noise": self.read}
        return self.retention if key == "retention" else parts[key]


@dataclass(frozen=True)
class Fact:
    """A number of a technology with where it was read; ``low`` and ``high`` are equal for a single figure."""

    name: str
    low: float
    high: float
    unit: str
    source: str


@dataclass(frozen=True)
class Technology:
    """A memory technology, or one published variant of it: its cell model and what else is known."""

    name: str
    summary: str
    model: CellModel
    facts: tuple[Fact, ...] = ()
    cell_bits: int = 1
    aliases: tuple[str, ...] = ()

    @property
    def gmin_us(self) -> float:
        """Lowest conductance of the model's range."""
        return self.model.gmin_us

    @property
    def gmax_us(self) -> float:
        """Highest conductance of the model's range."""
        return self.model.gmax_us

    def default_model(self, key: str) -> NoiseModel | None:
        """The part of the cell model that ``key`` switches on by default, None if the source gives none."""
        return None if self.model.part(key) is None else NoiseModel(self.model.name)

    def fact(self, name: str) -> Fact:
        """The fact called ``name``; refused if this technology does not give it."""
        for fact in self.facts:
            if fact.name == name:
                return fact
        raise refuse("technology", f"'{self.name}' gives no {name}", "choose a variant that does")


def spelled(name: str) -> str:
    """A name without case, separators and the suffix "device": what names are compared by."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "").removesuffix("device")


@cache
def technologies() -> dict[str, Technology]:
    """Every technology and variant, by its name in the order of the files in tech/."""
    found: dict[str, Technology] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(tech.__path__)):
        for item in importlib.import_module(f"cimc.analog.tech.{module}").TECHNOLOGIES:
            found[item.name] = item
    return found


@cache
def technology(name: str) -> Technology:
    """A technology by its name, an alias, or its cell model's name."""
    wanted = spelled(name)
    for item in technologies().values():
        names = (item.name, *item.aliases, item.model.name, *item.model.aliases)
        if wanted in map(spelled, names):
            return item
    known = list(technologies())
    raise refuse("technology", f"'{name}' is unknown", f"{errors.did_you_mean(name, known)}known: {', '.join(known)}")
