"""Colonnade (Kim et al., JSSC 2021): a digital SRAM CIM macro over its bit widths."""

from __future__ import annotations

from benchmarks.validation.figure import Figure, Role, Validation
from cimc.arch.load import load
from cimc.arch.units import TileUnits, area_by_part, energy_pj, mvm_interval_ns

ROWS = COLUMNS = 128
SUM_BITS = 7  # columns beside a weight's own, for sums of 128 products
# Bits of weights → fJ a MAC at 0.8 V with 1-bit inputs (Fig. 16b) and with inputs of as many bits (Fig. 16a).
ONE_BIT = {
    1: 68.31697711, 2: 77.83242912, 3: 96.94840357, 4: 105.2708593, 6: 131.125787, 8: 144.3500315, 10: 166.7286341,
    12: 204.8466723, 14: 181.041186, 16: 243.1891829,
}  # fmt: skip
SAME_BITS = {
    1: 68.10051312, 2: 161.6449048, 3: 292.0267348, 4: 423.4320763, 5: 591.1251988, 6: 788.5272112, 7: 844.217685,
    8: 1169.653111, 9: 1252.260958, 10: 1695.970219, 12: 2422.106272, 14: 2632.795482, 15: 3905.328036, 16: 3995.183881,
}  # fmt: skip
# Bits of weights and inputs → GOPS with 16 pipeline registers a column (Fig. 15a).
THROUGHPUT = {1: 563.50, 2: 238.32, 4: 83.03, 6: 41.65, 8: 25.75, 10: 16.68, 12: 11.06, 14: 8.90, 16: 5.99}
BUILT = (4, 16)
STEPS = (
    "measured energy jumps where the macro holds fewer weights side by side, and falls with switching in between; ours is "
    "linear"
)


def energy_fj(weight_bits: int, input_bits: int) -> float:
    """Energy of a MAC of the preset, in fJ."""
    chip = load("colonnade", [f"weight_bits={weight_bits}"] if weight_bits > 1 else []).spec
    actions = TileUnits(chip, 0).mvm_actions([(ROWS, COLUMNS)], 1, input_bits)
    if weight_bits == 1:  # a weight of one bit is no signed weight, so no core of cimc's: its action counts by hand
        actions = {"digital.mac_bit": ROWS * COLUMNS * input_bits, "digital.input_bit": ROWS * COLUMNS * input_bits}
    return 1000 * sum(n * energy_pj(chip, a) for a, n in actions.items()) / (ROWS * COLUMNS)


def throughput_gops(bits: int) -> float:
    """Of one macro: as many weights side by side as its columns hold, at the clock its carry chain allows."""
    side = COLUMNS // (bits + SUM_BITS)
    clock_ns = (bits + SUM_BITS + 8 + 2) * 0.4  # cimloop: 0.4 ns an adder; 8 rows between registers, a register as two
    changes = [f"crossbar.cols={side}", f"cim.core.step_ns={clock_ns}", f"cim.core.shift_add_ns={clock_ns}"]
    core = load("colonnade", changes).spec.tiles["cim"].core
    assert core is not None
    return 2 * ROWS * side / mvm_interval_ns(core, bits)


def validate() -> Validation:
    """The sweeps over bits, and the area."""
    figures: list[Figure] = []
    for bits, published in ONE_BIT.items():
        role: Role = "built" if bits in BUILT else "tests"
        figures.append(_energy(f"{bits}-bit weights, 1-bit inputs", published, energy_fj(bits, 1), role, "Fig. 16b"))
    for bits, published in SAME_BITS.items():
        figures.append(_energy(f"{bits}-bit weights and inputs", published, energy_fj(bits, bits), "tests", "Fig. 16a"))
    for bits, published in THROUGHPUT.items():
        name = f"{bits}-bit weights and inputs: throughput of a macro"
        figures.append(Figure(name, published, throughput_gops(bits), "GOPS", "tests", "Fig. 15a, by cimloop"))
    chip = load("colonnade").spec
    macros = 16 * sum(chip.tile(i).cores for i in range(chip.tile_count))
    area = area_by_part(chip, "cim")["digital_crossbar"] / 1e6 / macros
    figures.append(Figure("area of a macro", 0.2272, area, "mm2", "built", "Fig. 17, by cimloop"))
    about = (
        "Built from two measured energies (4- and 16-bit weights, 1-bit inputs, 0.8 V): a share per input bit and one per bit "
        "product. Tested by all other widths, by inputs of several bits, and, for time, by the macro's throughput from the delay "
        "of an adder (0.4 ns, cimloop)."
    )
    return Validation("Colonnade (digital SRAM CIM)", "colonnade", about, tuple(figures))


def _energy(name: str, published: float, simulated: float, role: Role, source: str) -> Figure:
    figure = Figure(f"{name}: energy of a MAC", published, simulated, "fJ", role, f"{source}, by cimloop")
    return figure if figure.within else Figure(figure.what, published, simulated, "fJ", role, figure.source, STEPS)
