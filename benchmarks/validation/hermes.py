"""HERMES (Le Gallo et al., Nature Electronics 2023): the 64-core chip, from figures of the single core."""

from __future__ import annotations

from benchmarks.validation.figure import Figure, Validation, mvm_energy_nj
from cimc.arch import units
from cimc.arch.load import load
from cimc.arch.spec import ChipSpec

CORES = 64
MVM_OPERATIONS = 2 * 256 * 256
PAPER = "Nature Electronics 2023, abstract"
DERIVED = "derived: 64 x 131,072 operations"
DENSITY = "derived: 63.1 TOPS at 1.55 TOPS/mm2, secondary notes"


def validate() -> Validation:
    """One-phase and four-phase reads."""
    once, four = load("hermes").spec, load("hermes", ["cim.core.phases=4"]).spec
    area = units.area_by_part(once, "cim")
    cores_mm2 = area["crossbar"] / 1e6
    chip_mm2 = 63.1 / 1.55
    figures = (
        Figure("MVM of the core, 8-bit", 130.03, _interval(once), "ns", "built", "core paper: 1.008 TOPS"),
        Figure("efficiency of the core", 10.5, _efficiency(once), "TOPS/W", "built", "core paper, abstract"),
        Figure("density of the core", 1.59, 1.008 / (cores_mm2 / CORES), "TOPS/mm2", "built", "core paper, abstract"),
        Figure("peak, one-phase", 63.1, units.peak_tops(once, 8), "TOPS", "tests", PAPER),
        Figure("peak, four-phase", 16.1, units.peak_tops(four, 8), "TOPS", "tests", PAPER),
        Figure("MVM, one-phase", CORES * MVM_OPERATIONS / 63.1e3, _interval(once), "ns", "tests", f"{DERIVED} at 63.1 TOPS"),
        Figure("MVM, four-phase", CORES * MVM_OPERATIONS / 16.1e3, _interval(four), "ns", "tests", f"{DERIVED} at 16.1 TOPS"),
        Figure("efficiency, one-phase", 9.76, _efficiency(once), "TOPS/W", "tests", PAPER),
        Figure("efficiency, four-phase", 2.48, _efficiency(four), "TOPS/W", "tests", PAPER),
        Figure("MVM energy, one-phase", MVM_OPERATIONS / 9.76e3, mvm_energy_nj(once, 8), "nJ", "tests", "derived: 9.76 TOPS/W"),
        Figure("MVM energy, four-phase", MVM_OPERATIONS / 2.48e3, mvm_energy_nj(four, 8), "nJ", "tests", "derived: 2.48 TOPS/W"),
        Figure("power at peak, one-phase", 63.1 / 9.76, _power_w(once), "W", "tests", "derived: 63.1 TOPS, 9.76 TOPS/W"),
        Figure("power at peak, four-phase", 16.1 / 2.48, _power_w(four), "W", "tests", "derived: 16.1 TOPS, 2.48 TOPS/W"),
        Figure("area of the 64 cores", chip_mm2, cores_mm2, "mm2", "tests", DENSITY),
    )  # fmt: skip
    about = (
        "Built from the single core (Khaddam-Aljameh et al., JSSC 2022): 1 GHz, pulses of up to 127 ns, 1.008 TOPS, 10.5 "
        "TOPS/W, 1.59 TOPS/mm2. Tested against the chip of 64 of them, in both read modes. The chip takes 2 % more time and "
        "7 % more energy an MVM than the core alone; what the cores share may be why, the abstracts do not say. How a core's "
        "energy splits among ADCs, drivers and array is not published, so neither is here."
    )
    return Validation("HERMES, 64 cores", "hermes", about, figures)


def _interval(chip: ChipSpec) -> float:
    core = chip.tiles["cim"].core
    assert core is not None
    return units.mvm_interval_ns(core, 8)


def _efficiency(chip: ChipSpec) -> float:
    return MVM_OPERATIONS / mvm_energy_nj(chip, 8) / 1000


def _power_w(chip: ChipSpec) -> float:
    """Cores alone: the vector lanes are an addition of the preset."""
    return CORES * mvm_energy_nj(chip, 8) / _interval(chip)
