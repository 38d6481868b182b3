"""PUMA (Ankit et al., ASPLOS 2019), as published: 16-bit weights and inputs."""

from __future__ import annotations

from math import sqrt

from benchmarks.validation.figure import Figure, Validation, mvm_energy_nj
from cimc.arch import units
from cimc.arch.load import load

TILES, CORES, MVMUS = 138, 8, 2
# puma-simulator include/constants.py @a206f75 in mW, dynamic + leakage, where use depends on the program. Of a core:
# control, instruction memory, data memory (1 KB), vector and activation unit. Of a tile: control, instruction memory
# (1024 entries), eDRAM over its two cycles, bus, counters, receive buffer.
CORE_REST_MW = 0.25 + (0.46 + 0.078) * sqrt(8) + (0.33 + 0.147) + (2.4 + 0.27) * 32 / 45 + 0.26
TILE_REST_MW = 0.05 + (0.53 + 0.147) * sqrt(8) + 17.2 + 0.46 + 6 + 1 + (0.65 + 0.33) * sqrt(8) + 2 * (4.48 + 0.09)
NOC_MW = TILES / 4 * (16.13 + 0.41)
HYPERTRANSPORT_MW = 10_400.0
HEAD = ("adc.conversion_ns=0.78125", "fill_ns=200.0")
"""Overrides that make the preset the simulator's commit: stages of 100 ns."""
FOLLOWS = "follows the peak: 52.31 TOPS over 62.5 W and 90.6 mm2"
TABLE = "Table 3, from secondary notes"


def validate() -> Validation:
    """The preset at 16 bits, where the 8 crossbars of an MVMU are one core."""
    chip = load("puma", ["cim.cores=16", "weight_bits=16"]).spec
    first = units.TileUnits(chip, 0)
    head = units.TileUnits(load("puma", ["weight_bits=16", *HEAD]).spec, 0)
    latency = first.mvm_cycles(1, 16) / chip.clock_ghz
    energy = mvm_energy_nj(chip, 16)
    mvmu = energy / latency * 1000
    core = MVMUS * mvmu + CORE_REST_MW
    tile = CORES * core + TILE_REST_MW
    watts = (TILES * tile + NOC_MW + HYPERTRANSPORT_MW) / 1000
    area = units.area_by_part(chip, "cim")
    tile_mm2 = (sum(area.values()) - area["router"]) / TILES / 1e6
    mm2 = (sum(area.values()) + units.area_by_part(chip)["chip"]) / 1e6
    tops = units.peak_tops(chip, 16)
    figures = (
        Figure("MVM latency", 2304.0, latency, "ns", "built", "text; 18 stages of 128 ns"),
        Figure("MVM energy", 43.97, energy, "nJ", "tests", "text"),
        Figure("MVMU power", 19.09, mvmu, "mW", "tests", TABLE),
        Figure("core power", 42.37, core, "mW", "tests", TABLE),
        Figure("tile power", 373.8, tile, "mW", "tests", TABLE),
        Figure("node power", 62.5, watts, "W", "tests", "text"),
        Figure("tile area", 0.479, tile_mm2, "mm2", "tests", TABLE),
        Figure("node area", 90.6, mm2, "mm2", "tests", "text"),
        Figure(
            "peak", 52.31, tops, "TOPS", "conflict", "text",
            "138 tiles x 16 MVMUs x 32,768 operations in 2,304 ns are 31.4 TOPS; 52.31 needs one MVM every 1,383 ns, which "
            "neither the paper's latency nor its simulator's blocking `mvm` gives",
        ),
        Figure("power efficiency", 837.0, tops * 1000 / watts, "GOPS/W", "conflict", "abstract", FOLLOWS),
        Figure("area efficiency", 577.0, tops * 1000 / mm2, "GOPS/mm2", "conflict", "abstract", FOLLOWS),
        Figure(
            "MVM latency in the simulator", 1800.0, head.mvm_cycles(1, 16), "ns", "conflict", "puma-simulator @a206f75",
            "its ADC takes 100 ns a stage at HEAD (constants.py), while its comment and the paper say 128; that machine is "
            f"`{' '.join(f'-c {o}' for o in HEAD)}`",
        ),
    )  # fmt: skip
    about = (
        "Built from `include/constants.py` and `config.py` of the authors' simulator (inference parts of the PANTHER tree), "
        "with the 128-ns stage its source names. An MVM is billed for its 18 stages at full power, as in the paper (2,304 ns "
        "x 19.08 mW = 43.97 nJ); over the 16 busy stages only, it is 38.8 nJ. The rest of cores and tiles is taken as it "
        "stands in `constants.py`."
    )
    return Validation("PUMA", "puma", about, figures)
