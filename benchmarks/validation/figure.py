"""One published figure beside the simulated one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.figures import Section
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits, energy_pj

COMMAND = "python -m benchmarks.validation"
LIMIT = 0.10
"""Largest relative error of a figure that tests a preset; a figure beyond it says why."""

Role = Literal["built", "sums", "tests", "conflict"]
ROLES: dict[Role, str] = {"built": "went in", "sums": "adds up", "tests": "tests", "conflict": "conflict"}


@dataclass(frozen=True)
class Figure:
    """``published`` and ``simulated`` in ``unit``. ``source``: where it was published (quoted or derived); ``why``: what
    explains an error, or what contradicts what."""

    what: str
    published: float
    simulated: float
    unit: str
    role: Role
    source: str
    why: str = ""

    @property
    def error(self) -> float:
        """Simulated over published, less one."""
        return self.simulated / self.published - 1

    @property
    def within(self) -> bool:
        """True if the error is at most the limit."""
        return abs(self.error) <= LIMIT


@dataclass(frozen=True)
class Validation:
    """A machine's figures. ``built_from``: the component numbers of the preset."""

    title: str
    preset: str
    built_from: str
    figures: tuple[Figure, ...]
    remarks: tuple[str, ...] = ()

    def section(self) -> Section:
        """As a table."""
        rows = tuple(
            (
                f.what,
                _number(f.published),
                _number(f.simulated),
                f.unit,
                f"{100 * f.error:+.1f} %",
                ROLES[f.role],
                f.source,
            )
            for f in self.figures
        )
        notes = tuple(dict.fromkeys(f"{f.what}: {f.why}" for f in self.figures if f.why))
        head = ("figure", "published", "simulated", "unit", "error", "role", "source")
        return Section(self.title, COMMAND, self.built_from, head, rows, remarks=(*self.remarks, *notes))


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1e5 else f"{value:,.0f}"


def mvm_energy_nj(chip: ChipSpec, input_bits: int, tile: int = 0) -> float:
    """Energy of one MVM of a full block on one core, in nJ: its actions times their energies."""
    units = TileUnits(chip, tile)
    actions = units.mvm_actions([(units.core.rows, units.core.cols)], 1, input_bits)
    return sum(n * energy_pj(chip, action) for action, n in actions.items()) / 1000


def summary(found: Sequence[Validation]) -> Section:
    """How many figures test a preset and hold."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        tests = [f for f in one.figures if f.role == "tests"]
        worst = max(tests, key=lambda f: abs(f.error))
        counts = (str(sum(f.role == role for f in one.figures)) for role in ROLES)
        held = f"{sum(f.within for f in tests)} of {len(tests)}"
        rows.append((one.title, f"`{one.preset}`", *counts, held, f"{worst.what}: {100 * worst.error:+.1f} %"))
    head = ("machine", "preset", *ROLES.values(), f"tests within {100 * LIMIT:.0f} %", "largest error of a test")
    about = (
        "`went in`: used to build the preset, so agreement proves only that nothing got lost. `adds up`: a published total "
        "of parts that went in, so it checks the counting. `tests`: not used, and no such total. "
        "`conflict`: published figures that contradict each other or the components; shown, not fitted."
    )
    return Section("Presets against published machines", COMMAND, about, head, tuple(rows))
