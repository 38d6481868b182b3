"""The same model on a von-Neumann machine: what compute-in-memory saves, with every assumption stated.

The machine is a roofline (Williams, Waterman, Patterson: "Roofline", CACM 2009): a MAC array of a given peak, an on-chip
cache, and a memory of given bandwidth and energy per bit, all from the hardware file's ``baseline`` section or its
defaults (:mod:`cimc.arch.baseline`). It is drawn in the baseline's favour, so that what CIM saves is not flattered:

- each operand and result moves at most once, whatever the tiling: compulsory traffic only
- time is the larger of memory time and compute time of the whole model, as if everything overlapped, at peak rates
- only matrix products are counted; norms, softmax and other functions are free, and nothing leaks

With b weight bits, c activation bits, batch inferences that share one reading of the weights:

- ``weights   = Σ over weight matrices of k · n · b / 8 / batch``: read from memory once per inference (divided by batch)
- ``activations = Σ over operands and results of v · c / 8 for those larger than the cache``: of each product, the
  operand ``a``, of dynamic products ``b`` too, and the result ``y``; the model's own inputs and outputs always move
- ``cache     = the same sum over all of them``, and the weights: everything passes through the cache once
- ``latency   = max((weights + activations + io) / bytes_per_ns, MACs / macs_per_ns)``
- ``energy    = 8 · (weights + activations + io) · pj_per_bit + cache · cache_pj_per_byte + MACs · mac_pj``
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from cimc.arch.baseline import Baseline, baseline_machine
from cimc.arch.spec import ChipSpec
from cimc.report import units
from cimc.report.figures import BaselineFigures, RunFigures
from cimc.report.mapping_file import Product, Work
from cimc.report.render import Block, Table, text

OFF_CHIP = ("global_memory", "host", "chip_links")
"""Levels of a run's traffic that stand against the baseline's memory."""


TITLE = "Beside a von-Neumann machine"


@dataclass(frozen=True)
class Moved:
    """Bytes of one inference on the baseline: through memory by what they are, and through the cache."""

    weights: float
    activations: float
    io: float
    cache: float

    @property
    def memory(self) -> float:
        """All bytes through memory."""
        return self.weights + self.activations + self.io


def moved(work: Work, machine: Baseline) -> Moved:
    """The bytes; the formula stands above."""
    weights = work.weights * machine.weight_bits / 8 / machine.batch
    values = [v * machine.activation_bits / 8 for p in work.products for v in _values(p)]
    spilled = sum(v for v in values if v > machine.cache_bytes)
    return Moved(weights, spilled, float(work.io_bytes), weights + sum(values))


def _values(product: Product) -> tuple[int, ...]:
    """Elements of the activations of a product."""
    return (product.a, product.y) if product.kind == "static" else (product.a, product.b, product.y)


def with_baseline(run: RunFigures, work: Work | None, chip: ChipSpec) -> RunFigures:
    """The figures of a run with the baseline beside them; unchanged where work or time is unknown."""
    if work is None or run.cycles is None or run.latency_ns is None:
        return run
    machine = baseline_machine(chip.baseline)
    bytes_moved, macs = moved(work, machine), sum(p.macs for p in work.products)
    memory_ns, compute_ns = bytes_moved.memory / machine.bytes_per_ns, macs / machine.macs_per_ns
    latency = max(memory_ns, compute_ns)
    energy = {
        "memory": 8 * bytes_moved.memory * machine.pj_per_bit,
        "cache": bytes_moved.cache * machine.cache_pj_per_byte,
        "macs": macs * machine.mac_pj,
    }
    total = sum(energy.values())
    off_chip = sum((run.traffic_bytes or {}).get(level, 0) for level in OFF_CHIP)
    found = BaselineFigures(
        bytes={
            "weights": bytes_moved.weights,
            "activations": bytes_moved.activations,
            "io": bytes_moved.io,
            "total": bytes_moved.memory,
            "cache": bytes_moved.cache,
        },
        cycles=ceil(latency * chip.clock_ghz),
        latency_ns=latency,
        energy_pj={"total": total, **energy},
        limit="memory" if memory_ns >= compute_ns else "compute",
        ratio={
            "bytes": _over(bytes_moved.memory, off_chip),
            "latency": _over(latency, run.latency_ns),
            "energy": _over(total, run.total_pj),
        },
        assumptions={"memory": machine.memory, **{key: float(getattr(machine, key)) for key in machine.sources}},
        sources=dict(machine.sources),
    )
    return run.model_copy(update={"baseline": found})


def _over(baseline: float, run: float | None) -> float | None:
    return baseline / run if run else None


def blocks(run: RunFigures) -> list[Block]:
    """The comparison for people; nothing where there is none."""
    found = run.baseline
    if found is None:
        return []
    off_chip = sum((run.traffic_bytes or {}).get(level, 0) for level in OFF_CHIP)
    here = (units.size_bytes(off_chip), units.time_ns(run.latency_ns), units.energy_pj(run.total_pj))
    there = (units.size_bytes(found.bytes["total"]), units.time_ns(found.latency_ns), _energy(found))
    labels = ("bytes through memory", "latency", "energy")
    ratios = (units.ratio(found.ratio.get(key)) for key in ("bytes", "latency", "energy"))
    table = Table(
        TITLE, ("", ">baseline", ">this run", ">baseline / run"), list(zip(labels, there, here, ratios, strict=True))
    )
    shares = ", ".join(f"{k} {units.energy_pj(v)}" for k, v in found.energy_pj.items() if k != "total")
    moves = ", ".join(f"{k} {units.size_bytes(v)}" for k, v in found.bytes.items() if k not in ("total", "cache"))
    lines = (
        f"  the baseline: {assumptions(found)}; limited by {found.limit}",
        f"  it moves: {moves}; it spends: {shares}",
        "  in its favour: every operand moves once, all of it overlaps, matrix products only, no leakage",
    )
    return [table, text("", *lines)]


def _energy(found: BaselineFigures) -> str:
    return units.energy_pj(found.energy_pj["total"])


def _number(value: float | str) -> float:
    return float(value)


def assumptions(found: BaselineFigures) -> str:
    """The machine in one line."""
    a = found.assumptions
    return (
        f"{a['memory']} {_number(a['bytes_per_ns']):g} GB/s {_number(a['pj_per_bit']):g} pJ/bit, "
        f"{_number(a['macs_per_ns']) / 1000:.3g} TMAC/s {_number(a['mac_pj']):g} pJ/MAC, "
        f"cache {units.size_bytes(_number(a['cache_bytes']))} {_number(a['cache_pj_per_byte']):g} pJ/byte, "
        f"w{_number(a['weight_bits']):g}a{_number(a['activation_bits']):g}, batch {_number(a['batch']):g}"
    )
