"""What hardware and mapping gain alone, one after the other, and together: ``python -m benchmarks.codesign``.

MiniLM on variants of two presets, each with a plain mapping (as in ``benchmarks.attainment``) and with all that the mapper
does. The figure that is made small is latency × area: a chip twice as large must be twice as fast.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.attainment import PLAIN
from benchmarks.figures import Section, minilm, show
from cimc.mapping.choices import Choices
from cimc.options import Options
from cimc.report import units
from cimc.report.sweep import Figures, SweepReport
from cimc.variants import Axis, sweep

COMMAND = "python -m benchmarks.codesign"
GRIDS: dict[str, tuple[Axis, ...]] = {
    "isaac": (
        Axis("layout", ("6x16", "9x16", "12x16")),
        Axis("tiles.cim.cores", ("12", "24")),
        Axis("tiles.digital.special.lanes", ("16", "32", "64", "128")),
    ),
    "sram-digital": (
        Axis("layout", ("6x12", "8x12", "10x12")),
        Axis("tiles.cim.vector.lanes", ("16", "32")),
        Axis("tiles.digital.special.lanes", ("16", "32", "64", "128")),
    ),
}
"""What is varied; the preset is one of the variants."""
PRESET = {"isaac": ("12x16", "24", "32"), "sram-digital": ("10x12", "32", "32")}


def product(f: Figures) -> float:
    """Latency × area, in µs · mm²."""
    return f.latency_ns / 1000 * f.area_mm2


def found(chip: str, choices: Choices) -> dict[tuple[str, ...], Figures]:
    """The variants that hold the model, by the values of their axes."""
    base = replace(Options(chip, dims={"batch": 1, "sequence": 128}), choices=choices)
    report: SweepReport = sweep(str(minilm()), base, GRIDS[chip])
    return {tuple(row.setting.values()): row.figures for row in report.rows if row.figures is not None}


def rows(chip: str) -> list[tuple[str, ...]]:
    """Preset, hardware alone, mapping alone, one after the other, together."""
    plain, full = found(chip, PLAIN), found(chip, Choices())
    preset = PRESET[chip]
    chosen = min(plain, key=lambda v: product(plain[v]))
    both = min(full, key=lambda v: product(full[v]))
    start = product(plain[preset])
    steps = (
        ("preset, plain mapping", preset, plain[preset]),
        ("hardware alone", chosen, plain[chosen]),
        ("mapping alone", preset, full[preset]),
        ("hardware for the plain mapping, then the mapping", chosen, full[chosen]),
        ("together", both, full[both]),
    )
    return [
        (
            f"`{chip}`",
            name,
            ", ".join(f"{a.key.removeprefix('tiles.')}={v}" for a, v in zip(GRIDS[chip], variant, strict=True)),
            units.time_ns(f.latency_ns),
            units.energy_pj(f.energy_pj),
            f"{f.area_mm2:.0f}",
            f"{start / product(f):.2f}×",
        )
        for name, variant, f in steps
    ]


def sections() -> list[Section]:
    """One table."""
    return [
        Section(
            "Hardware and mapping together",
            COMMAND,
            "MiniLM, 128 tokens, one inference. Every combination of the values below was compiled with both mappings; the "
            "best is the least latency × area. "
            + " ".join(
                f"`{chip}`: " + "; ".join(f"`{a.key}` {' '.join(a.values)}" for a in axes) + "."
                for chip, axes in GRIDS.items()
            ),
            ("chip", "what is chosen", "hardware", "latency", "energy", "area, mm²", "latency × area, less by"),
            tuple(row for chip in GRIDS for row in rows(chip)),
            remarks=(
                "`cimc sweep` does the same for any model and hardware. Areas of vector and special-function lanes are "
                "PUMA's ALU or estimates; see `cimc hw show`.",
            ),
        )
    ]


if __name__ == "__main__":
    show(sections())
