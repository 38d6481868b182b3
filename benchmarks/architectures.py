"""One model on several chips, cycles and energy: ``python -m benchmarks.architectures``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.figures import CHIPS, Section, minilm, show
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.report import units
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing

COMMAND = "python -m benchmarks.architectures"


@dataclass(frozen=True)
class Ran:
    """A chip's account of the model."""

    chip: str
    timing: Timing
    totals: Mapping[str, Any]
    replicas: int

    @property
    def total_pj(self) -> float:
        """Energy of the run."""
        return sum(self.timing.energy_pj.values())


def measure(chip: str) -> Ran:
    """Compile MiniLM for 128 tokens and time it."""
    made = compile_model(minilm(), Options(hardware=chip, dims={"batch": 1, "sequence": 128}))
    assert made is not None
    mapping = cast("dict[str, Any]", made.mapping)
    replicas = max(b["replica"] for s in mapping["static"] for b in s["blocks"]) + 1
    return Ran(chip, run_timing(made.program, made.hardware.spec), mapping["totals"], replicas)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def overview(found: list[Ran]) -> Section:
    """Time, energy, bound, cells."""
    lines: list[tuple[str, ...]] = [
        ("cycles", *(f"{r.timing.cycles:,}" for r in found)),
        ("latency", *(units.time_ns(r.timing.latency_ns) for r in found)),
        ("instructions executed", *(f"{r.timing.instructions:,}" for r in found)),
        ("energy", *(units.energy_pj(r.total_pj) for r in found)),
        ("bound, cycles", *(f"{r.timing.bound.cycles:,}" for r in found)),
        ("bound set by", *(r.timing.bound.by for r in found)),
        ("attainment", *(_percent(r.timing.bound.cycles / r.timing.cycles) for r in found)),
        ("tiles used", *(str(r.totals["tiles_used"]) for r in found)),
        ("crossbars used", *(f"{r.totals['crossbars_used']:,} of {r.totals['crossbars']:,}" for r in found)),
        ("cell utilization", *(_percent(r.totals["cell_utilization"]) for r in found)),
        ("copies of the weights, most", *(str(r.replicas) for r in found)),
        ("bytes through the network", *(f"{r.timing.traffic_bytes['noc']:,}" for r in found)),
        ("bytes of global memory", *(f"{r.timing.traffic_bytes['global_memory']:,}" for r in found)),
        ("static MACs", *(f"{r.timing.macs['static']:,}" for r in found)),
        ("dynamic MACs", *(f"{r.timing.macs['dynamic']:,}" for r in found)),
        ("host's share of cycles", *(_percent(r.timing.host_cycles / r.timing.cycles) for r in found)),
    ]
    return Section(
        "MiniLM on two chips",
        COMMAND,
        "all-MiniLM-L6-v2, batch 1, 128 tokens, on the presets as they are. The chips differ in clock, size and count of units; "
        "this compares two machines, not two technologies.",
        ("", *(f"`{r.chip}`" for r in found)),
        tuple(lines),
        remarks=(
            "The bound holds for this program on this hardware. Where `chain` sets it, the steps of a transformer layer "
            "wait for each other; another mapping could shorten the chain.",
        ),
    )


def energy(found: list[Ran]) -> Section:
    """By component, largest first on the first chip."""
    names = sorted({n for r in found for n in r.timing.energy_pj}, key=lambda n: -found[0].timing.energy_pj.get(n, 0.0))

    def cell(run: Ran, name: str) -> str:
        pj = run.timing.energy_pj.get(name, 0.0)
        return f"{units.energy_pj(pj)} ({_percent(pj / run.total_pj)})" if pj else "–"

    rows = tuple((n, *(cell(r, n) for r in found)) for n in names)
    return Section("Energy by component", COMMAND, "", ("", *(f"`{r.chip}`" for r in found)), rows)


def utilization(found: list[Ran]) -> Section:
    """Busy shares."""
    first = found[0].timing.utilization
    names = sorted({u for r in found for u in r.timing.utilization}, key=lambda u: (-first.get(u, 0.0), u))
    rows = tuple((u, *(_percent(r.timing.utilization.get(u, 0.0)) for r in found)) for u in names)
    return Section(
        "Busy units",
        COMMAND,
        "Share of the run's cycles in which units of a kind, of those used at all, are busy.",
        ("", *(f"`{r.chip}`" for r in found)),
        rows,
    )


def sections() -> list[Section]:
    """Everything measured here."""
    found = [measure(chip) for chip in CHIPS]
    return [overview(found), energy(found), utilization(found)]


if __name__ == "__main__":
    show(sections())
