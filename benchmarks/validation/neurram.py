"""NeuRRAM (Wan et al., Nature 2022): the sweep over bits of inputs and outputs."""

from __future__ import annotations

from math import ceil

from benchmarks.validation.figure import Figure, Role, Validation
from cimc.arch import units
from cimc.arch.load import load
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits, energy_pj

CORES = 48
OPERATIONS = 2 * 128 * 256  # of an MVM: 128 x 256 weights of two cells
SOURCE = "Fig. 12, by cimloop _tests.py"

# (bits out, bits in, phases) → TOPS and TOPS/W, Fig. 12c and d. Two phases from 5-bit inputs on.
MEASURED = {
    (3, 1, 1): (2.12230988, 43.07875866),
    (4, 2, 1): (1.793083771, 40.33412834),
    (5, 3, 1): (1.165400233, 23.09069279),
    (6, 4, 1): (0.7438677864, 15.95409517),
    (7, 5, 1): (0.4515642, 11.32999012),
    (8, 6, 1): (0.260797508, 9.12235241),
    (7, 5, 2): (0.5254091287, 11.03166076),
    (8, 6, 2): (0.4177183338, 8.257196816),
    (9, 7, 2): (0.343873405, 7.750037817),
    (10, 8, 2): (0.2638743409, 6.437388185),
}
# (bits out, bits in) → fJ an operation, Fig. 12b: word lines, neurons, input pulses (as cimloop's test names them).
SPLIT = {
    (3, 1): (8.99015248, 10.6186848, 3.446220545),
    (4, 2): (8.270951256, 12.38674172, 3.955661604),
    (5, 3): (15.46307324, 20.11826462, 7.73153662),
    (6, 4): (21.75617998, 29.1084171, 11.50740478),
    (7, 5): (30.92613276, 44.21188287, 14.0246365),
    (8, 6): (37.2192395, 52.48282041, 19.23892768),
    (9, 7): (43.69214654, 61.83258722, 22.83498524),
    (10, 8): (50.52466791, 75.85721686, 27.50986693),
}
WORD_LINES_FJ = 256 * (2.1 * 256 + 48) * 1.8**2 / OPERATIONS
"""An operation's share of one toggle of all word lines: cimloop's 2.1 fF a cell and 48 fF a driver at 1.8 V."""
BUILT = ((4, 2), (5, 3))


def chip_at(bits_out: int, bits_in: int, phases: int) -> ChipSpec:
    """The preset at one point of the sweep: 300 ns a converted bit; magnitude bits at once, or in two halves."""
    at_once = ceil(max(1, bits_in - 1) / phases)
    changes = (f"adc.bits={bits_out}", f"adc.conversion_ns={300.0 * bits_out}", f"cim.core.dac_bits={at_once}")
    return load("neurram", changes).spec


def energy_fj(chip: ChipSpec, bits_in: int) -> dict[str, float]:
    """Energy of an operation by component, in fJ."""
    actions = TileUnits(chip, 0).mvm_actions([(128, 256)], 1, bits_in)
    return {a: 1000 * n * energy_pj(chip, a) / OPERATIONS for a, n in actions.items()}


def validate() -> Validation:
    """Every point of the sweep: throughput, efficiency, and the split of the energy."""
    figures: list[Figure] = []
    for (bits_out, bits_in, phases), (tops, efficiency) in MEASURED.items():
        chip = chip_at(bits_out, bits_in, phases)
        name = f"{bits_in}-bit in, {bits_out}-bit out, {phases}-phase"
        figures.append(Figure(f"{name}: throughput", tops, units.peak_tops(chip, bits_in), "TOPS", "tests", SOURCE))
        split = sum(SPLIT[bits_out, bits_in])
        total = sum(energy_fj(chip, bits_in).values())
        figures.append(_efficiency(name, efficiency, split, total, phases, (bits_out, bits_in)))
    figures += [f for point in SPLIT for f in _split(*point)]
    area = units.area_by_part(load("neurram").spec, "cim")
    core = sum(area[part] for part in ("crossbar", "adc", "dac", "cim_tile")) / CORES / 1e6
    figures.append(
        Figure("area of a core", 1270 * 256 / 0.28 / 1e6, core, "mm2", "sums", "Fig. 11f, by cimloop _tests.py")
    )
    about = (
        "Built from the constants of cimloop's model of the chip (270 ns an integration, 300 ns a converted bit and between "
        "phases, word-line capacitance), which its authors set with these measurements in view, and from the measured energies "
        "of neurons at (4, 2) and (5, 3) and of input pulses at (5, 3). Tested by the rest of the sweep. An MVM is 65,536 "
        "operations; throughput is that of 48 cores."
    )
    remarks = (
        "cimloop's test compares the three columns of Fig. 12b with word lines, neurons and input pulses, in that order; "
        "its text describes them in another. The first column is what the word lines' capacitance takes (7.41 fJ a plane), so "
        "its order in the code is used.",
        "1-bit inputs: the model drives the one magnitude bit of a 2-bit input; the measured point converts 3 bits, "
        "not 4, which only its time follows here.",
    )
    return Validation("NeuRRAM, bit-width sweep", "neurram", about, tuple(figures), remarks)


def _efficiency(name: str, published: float, split: float, total: float, phases: int, point: tuple[int, int]) -> Figure:
    """Efficiency against the published one, unless the published split of the same point contradicts it."""
    two_phase = point[1] < 5 or phases == 2
    contradicted = two_phase and abs(1000 / split / published - 1) > 0.05
    why = (
        f"its own split adds up to {split:.1f} fJ an operation, {1000 / split:.2f} TOPS/W; the split is what is tested"
        if contradicted
        else ""
    )
    role: Role = "conflict" if contradicted else "tests"
    return Figure(f"{name}: efficiency", published, 1000 / total, "TOPS/W", role, SOURCE, why)


def _split(bits_out: int, bits_in: int) -> list[Figure]:
    """Word lines from their capacitance; neurons and pulses from the points that went in."""
    chip = chip_at(bits_out, bits_in, 1 if bits_in < 5 else 2)
    found = energy_fj(chip, bits_in)
    planes = max(1, bits_in - 1)
    lines = WORD_LINES_FJ * planes
    told = (lines, found["crossbar.step"] - lines + found["adc.convert"], found["dac.drive"])
    point = (bits_out, bits_in)
    built = (False, point in BUILT, point == BUILT[1])
    whys = (
        "one toggle a plane, as for a 2-bit input",
        "a fixed share a conversion and one a plane, from two points: integration grows faster than planes",
        "proportional to planes",
    )
    rows: list[Figure] = []
    for what, published, simulated, went_in, why in zip(
        ("word lines", "neurons", "input pulses"), SPLIT[point], told, built, whys, strict=True
    ):
        role: Role = "built" if went_in else "tests"
        one = Figure(
            f"{bits_in}-bit in, {bits_out}-bit out: {what}", published, simulated, "fJ", role, "Fig. 12b, by cimloop"
        )
        rows.append(one if one.within else Figure(one.what, published, simulated, "fJ", role, one.source, why))
    return rows
