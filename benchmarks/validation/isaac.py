"""ISAAC-CE (Shafiee et al., ISCA 2016), as published: 16-bit weights and inputs."""

from __future__ import annotations

from benchmarks.validation.figure import Figure, Validation, mvm_energy_nj
from cimc.arch import units
from cimc.arch.load import load
from cimc.arch.spec import ChipSpec

TILES, IMAS = 168, 12
# Table 6 per tile in mW: eDRAM, bus, router, sigmoid, shift-and-add, max-pool, output register. How much they are used
# depends on the program, so a peak takes them as the table has them.
REST_MW = 20.7 + 7 + 10.5 + 0.52 + 0.05 + 0.4 + 1.68
HYPERTRANSPORT_MW = 10_400.0
TABLE = "Table 6"


def validate() -> Validation:
    """The preset at 16 bits, where the 8 crossbars of an IMA are one core."""
    chip = load("isaac", ["cim.cores=12", "weight_bits=16"]).spec
    power = units.peak_power_mw(chip, 16, "cim")
    power.pop("vector")  # lanes are an addition of the preset
    ima = sum(power.values()) / TILES / IMAS
    tile = IMAS * ima + REST_MW
    watts = (TILES * tile + HYPERTRANSPORT_MW) / 1000
    area = units.area_by_part(chip, "cim")
    area.pop("vector")
    tile_mm2 = sum(area.values()) / TILES / 1e6
    mm2 = TILES * tile_mm2 + units.area_by_part(chip)["chip"] / 1e6
    tops = units.peak_tops(chip, 16)
    first = units.TileUnits(chip, 0)
    figures = (
        Figure("IMA power", 24.08, ima, "mW", "built", TABLE),
        Figure("ADC power of an IMA", 16.0, power["adc"] / TILES / IMAS, "mW", "built", TABLE),
        Figure("tile power", 330.0, tile, "mW", "sums", TABLE),
        Figure("tile area", 0.372, tile_mm2, "mm2", "sums", TABLE),
        Figure("chip power", 65.8, watts, "W", "sums", TABLE),
        Figure("chip area", 85.4, mm2, "mm2", "sums", TABLE),
        Figure("pipeline depth", 22.0, first.mvm_cycles(1, 16) / chip.clock_ghz / 100, "stages", "built", "section VI"),
        Figure("MVM interval", 1600.0, first.mvm_interval(16) / chip.clock_ghz, "ns", "tests", "16 cycles of 100 ns"),
        Figure("MVM energy", 24.08 * 1.6, mvm_energy_nj(chip, 16), "nJ", "sums", "derived: 24.08 mW x 1600 ns"),
        Figure("peak", 41.29, tops, "TOPS", "tests", "derived from 627.5 GOPS/W and 65.8 W"),
        Figure("power efficiency", 627.5, tops * 1000 / watts, "GOPS/W", "tests", "text"),
        Figure("ADC share of tile power", 0.58, IMAS * power["adc"] / TILES / IMAS / tile, "", "sums", "derived, Table 6"),
        Figure("ADC share of tile area", 0.31, area["adc"] / TILES / 1e6 / tile_mm2, "", "sums", "derived, Table 6"),
        Figure("storage density", 0.74, _mebibytes(chip) / mm2, "MiB/mm2", "tests", "text"),
        Figure(
            "area efficiency", 478.95, tops * 1000 / mm2, "GOPS/mm2", "conflict", "text",
            "41.29 TOPS over the table's own 85.4 mm2 are 483.5 GOPS/mm2; the text's 478.95 is 1 % off its own table",
        ),
        Figure(
            "ADC rate", 1.2, 1 / chip.tiles["cim"].core.adc.conversion_ns, "GS/s", "conflict", TABLE,  # pyright: ignore[reportOptionalMemberAccess]
            "Table 6 says 1.2 GS/s, the text 1.28; 128 columns in 100 ns need 1.28",
        ),
    )  # fmt: skip
    about = (
        "Built from the component rows of Table 6 (power, area, count). Validated: that actions counted for an MVM, at the "
        "interval computed for it, add up to the table's totals and to the published peak. The rest of a tile (40.85 mW) "
        "and HyperTransport (10.4 W) are taken as they stand. ISAAC was never fabricated."
    )
    return Validation("ISAAC-CE", "isaac", about, figures)


def _mebibytes(chip: ChipSpec) -> float:
    """What all cells of the chip hold."""
    core = chip.tiles["cim"].core
    assert core is not None
    return TILES * IMAS * core.crossbars * core.rows * core.cols * core.crossbar.cell_bits / 8 / 2**20
