"""How should attention's products of activations run? The survey's question, on one chip that can do all of it.

    python -m benchmarks.attention [--hw hybrid] [--tokens 128] [--pairs 4] [--length 12] [--json FILE]

MiniLM, one sequence of ``--tokens``, compiled with every ``--attention`` for the same hardware: cycles, energy, cells
written and wear by the timing engine; accuracy as the cosine of ``2 · pairs`` sentence embeddings (models/sentence_pairs.py)
with onnxruntime's, in integer and in analog numerics (seed 0; all in the preset's ideal cells, and only what is written as the
model runs in NeuRRAM's), in a program of ``--length`` tokens. ``years``: until the first cell has had its writes, at 100
inferences a second, for the technology's range of endurance. Then the time to write a row of cells swept over what sources
say of ReRAM, and the number of tokens. Needs the package that models/README.md names.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime

from benchmarks.figures import Section, minilm, show
from benchmarks.technologies import OUTPUT, feeds_of
from benchmarks.validation.hybrids import encoder
from cimc import errors, inputs
from cimc.analog.technology import technologies
from cimc.compiler import Compiled, compile_model
from cimc.device import Device
from cimc.isa.steps import executed
from cimc.options import Options
from cimc.report import device_cost, units
from cimc.session import InferenceSession, Numerics
from cimc.sim.interpreter import run
from cimc.sim.values import Analog, run_values
from models.graph import save

WAYS = ("digital", "sram-write", "nvm-write", "decompose", "decompose+sram-write", "decompose+nvm-write")
RATE = 100.0
COMMAND = "python -m benchmarks.attention"
WRITE_NS = {
    "7.2": "ReTransformer (secondary notes)",
    "85.7": "puma-simulator, 351000/32 ns a 128-row array (the preset's)",
    "8520": "NeuRRAM: 8.52 us a SET with verification",
}
"""Times to write a row of ReRAM cells, in ns; the sources differ by three orders of magnitude."""

TOKENS = (32, 128, 384)

MACHINES = (("xformer", 768, 12, 512), ("retransformer", 512, 8, 128))
"""Presets, and the layer: hidden size, heads, tokens."""

NOISY = "reram"  # NeuRRAM's fit; the preset's own cell is ideal
HEADER = (
    "`--attention`",
    "cycles",
    "latency",
    "bound",
    "energy",
    "dynamic MACs",
    "ReRAM cell writes",
    "SRAM cell writes",
    "of the busiest cell",
    "years",
    "integer",
    "analog, ideal cells",
    "what is written in NeuRRAM's cells",
)


@dataclass(frozen=True)
class Cost:
    """One treatment's time, energy and writes, for one sequence."""

    way: str
    cycles: int
    latency_ns: float
    energy_pj: float
    bound: int
    dynamic_macs: int
    nvm_writes: int
    sram_writes: int
    busiest: int
    years: tuple[float, float] | None
    refused: str = ""
    macs: int = 0


@dataclass(frozen=True)
class Row:
    """A treatment with its accuracy."""

    cost: Cost
    integer: float
    analog: float
    noisy: float  # analog, only what is written as the model runs in NeuRRAM's cells, the weights exact


def compiled(
    way: str, hardware: str, dims: dict[str, int], overrides: Sequence[str] = (), model: Path | None = None
) -> Compiled:
    """MiniLM, or another model, with one treatment."""
    made = compile_model(model or minilm(), Options(hardware, tuple(overrides), dims=dims, attention=way))
    assert made is not None
    return made


def costed(way: str, hardware: str, tokens: int, overrides: Sequence[str] = (), model: Path | None = None) -> Cost:
    """What a sequence takes; with the reason where the hardware cannot."""
    try:
        made = compiled(way, hardware, {"batch": 1, "sequence": tokens}, overrides, model)
    except errors.CimcError as fault:
        return Cost(way, 0, 0.0, 0.0, 0, 0, 0, 0, 0, None, str(fault))
    chip = made.hardware.spec
    result = run(made.program, {}, chip, values=False)
    timing = result.timing
    assert timing is not None
    wear = device_cost.cost(made.program, chip, Device.of(chip), result, RATE).wear
    cells = wear.endurance if wear.inference else next(f for f in technologies()["sram"].facts if f.name == "endurance")
    busiest = wear.busiest if wear.inference else _busiest(made)
    wear = replace(wear, inference=wear.inference or wear.sram, busiest=busiest, endurance=cells)
    low, high = (wear.years(e) for e in ((cells.low, cells.high) if cells else (0.0, 0.0)))
    return Cost(
        way,
        timing.cycles,
        timing.latency_ns,
        sum(timing.energy_pj.values()),
        timing.bound.cycles,
        timing.macs["dynamic"],
        wear.inference if not wear.sram else 0,
        wear.sram,
        wear.busiest,
        None if low is None or high is None else (low, high),
        macs=timing.macs["static"] + timing.macs["dynamic"],
    )


def _busiest(made: Compiled) -> int:
    """How often the operand's cells that are written most are written, in an inference."""
    found: dict[tuple[int, int], int] = {}
    for tile in made.program.tiles:
        cores = {m.name: [b.core for b in m.blocks] for m in tile.matrices}
        for step, times in executed(tile.steps):
            for core in cores[str(step.operands[0])] if step.mnemonic == "program" else ():
                found[tile.tile, core] = found.get((tile.tile, core), 0) + times
    return max(found.values(), default=0)


def answers(made: Compiled, numerics: Numerics, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The embeddings."""
    return np.asarray(InferenceSession(made, numerics=numerics, timing=False).run([OUTPUT], feeds)[0])


def noisy(made: Compiled, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The embeddings with the operands that are written in NeuRRAM's cells, the weights exact."""
    chip = made.hardware.spec
    how = Analog(Device.of(chip, tech=NOISY), only=frozenset({""}))
    given = inputs.check(inputs.types(made.program), feeds)
    return run_values(made.program, made.weights, given, chip, numerics="analog", analog=how)[0][OUTPUT]


def cosine(got: np.ndarray, wanted: np.ndarray) -> float:
    """Mean cosine of the embeddings with the wanted ones."""
    a, b = got.astype(np.float64), wanted.astype(np.float64)
    return float(np.mean(np.sum(a * b, axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))))


def measure(hardware: str, tokens: int, pairs: int, length: int) -> list[Row]:
    """Every treatment."""
    feeds = feeds_of(pairs, length)
    reference = onnxruntime.InferenceSession(str(minilm()), providers=["CPUExecutionProvider"])
    wanted = np.asarray(reference.run([OUTPUT], feeds)[0])
    found: list[Row] = []
    for way in WAYS:
        cost = costed(way, hardware, tokens)
        if cost.refused:
            found.append(Row(cost, 0.0, 0.0, 0.0))
            continue
        batch, sequence = feeds["input_ids"].shape
        made = compiled(way, hardware, {"batch": batch, "sequence": sequence})
        found.append(
            Row(
                cost,
                cosine(answers(made, "integer", feeds), wanted),
                cosine(answers(made, "analog", feeds), wanted),
                cosine(noisy(made, feeds), wanted),
            )
        )
    return found


def _years(cost: Cost) -> str:
    return "never" if cost.years is None else f"{cost.years[0]:.2g} to {cost.years[1]:.2g}"


def table(found: list[Row], hardware: str, tokens: int) -> Section:
    """The comparison."""
    rows: list[tuple[str, ...]] = []
    for row in found:
        c = row.cost
        if c.refused:
            rows.append((f"`{c.way}`", c.refused, *[""] * 11))
            continue
        rows.append(
            (
                f"`{c.way}`",
                f"{c.cycles:,}",
                units.time_ns(c.latency_ns),
                f"{c.bound:,}",
                units.energy_pj(c.energy_pj),
                f"{c.dynamic_macs:,}",
                f"{c.nvm_writes:,}",
                f"{c.sram_writes:,}",
                f"{c.busiest:,}",
                _years(c),
                f"{row.integer:.4f}",
                f"{row.analog:.4f}",
                f"{row.noisy:.4f}",
            )
        )
    return Section(
        "Products of activations, six ways",
        COMMAND,
        f"all-MiniLM-L6-v2, {tokens} tokens, on `{hardware}`, one of whose parts each way leaves idle. Years until the first "
        f"cell wears out, at {RATE:g} inferences a second; accuracy as the mean cosine with onnxruntime's embeddings.",
        HEADER,
        tuple(rows),
        remarks=(
            "In `integer` numerics the ways without `decompose` give the same bits: the matmul units' 8 operand bits are the "
            "cells'. Decomposed, a product's sums run over the width of the model, and what is rounded is another matrix.",
            "Dynamic MACs include what `decompose` adds: scores sum over the model's width, not a head's. Its static part "
            "(q · Wᵀ, head by head) is in the weights' cells.",
            "The last column has the weights exact and only the operands that are written as the model runs in noisy cells: what "
            "writing k, v or x into ReRAM costs by itself.",
        ),
    )


def sweep(hardware: str, tokens: int) -> Section:
    """The time to write a row of cells."""
    rows: list[tuple[str, ...]] = []
    for nanoseconds, source in WRITE_NS.items():
        found = [
            costed(way, hardware, tokens, (f"tiles.cim.core.write_row_ns={nanoseconds}",))
            for way in ("nvm-write", "decompose+nvm-write")
        ]
        rows.append((nanoseconds, source, *(f.refused or f"{f.cycles:,}" for f in found)))
    return Section(
        "What writing a row of ReRAM costs",
        COMMAND,
        f"As above; cycles by `write_row_ns` of the ReRAM cores, {tokens} tokens.",
        ("ns a row", "source", "`nvm-write`", "`decompose+nvm-write`"),
        tuple(rows),
    )


def lengths(hardware: str) -> Section:
    """The number of tokens."""
    ways = ("digital", "sram-write", "nvm-write")
    rows: list[tuple[str, ...]] = []
    for tokens in TOKENS:
        found = [costed(way, hardware, tokens) for way in ways]
        rows.append((str(tokens), *(f.refused or f"{f.cycles:,} / {units.energy_pj(f.energy_pj)}" for f in found)))
    header = ("tokens", *(f"`{way}`" for way in ways))
    return Section("Attention by length", COMMAND, "As above; cycles and energy.", header, tuple(rows))


def machines() -> Section:
    """Every treatment on the machines of papers, on a layer of the size that each is made for."""
    rows: list[tuple[str, ...]] = []
    with TemporaryDirectory() as folder:
        for hardware, hidden, heads, tokens in MACHINES:
            model = Path(folder) / f"{hidden}.onnx"
            save(encoder(hidden, heads), model)
            for way in WAYS:
                c = costed(way, hardware, tokens, model=model)
                rows.append((f"`{hardware}`", f"{hidden} wide, {tokens} tokens", f"`{way}`", *_costs(c)))
    header = (
        "machine",
        "one layer",
        "`--attention`",
        "cycles",
        "latency",
        "energy",
        "TOPS/W",
        "cells written",
        "years",
    )
    about = "One encoder layer on the presets of papers that treat attention in cells, every way that each can."
    remarks = (
        "`xformer` as in the paper: `sram-write`; `retransformer`: `decompose+nvm-write`. Operations are those that run: the "
        "decomposition adds some.",
    )
    return Section("Attention on machines of the field", COMMAND, about, header, tuple(rows), remarks=remarks)


def _costs(c: Cost) -> tuple[str, ...]:
    if c.refused:
        return (c.refused.partition("\n")[0].partition("]: ")[2], *[""] * 5)
    written = f"{c.nvm_writes + c.sram_writes:,}"
    tops = f"{2 * c.macs / c.energy_pj:.2f}"
    return (f"{c.cycles:,}", units.time_ns(c.latency_ns), units.energy_pj(c.energy_pj), tops, written, _years(c))


def sections() -> list[Section]:
    """Everything measured here."""
    found = measure("hybrid", 128, 4, 12)
    return [table(found, "hybrid", 128), sweep("hybrid", 128), lengths("hybrid"), machines()]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hw", default="hybrid")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--length", type=int, default=12)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    found = measure(given.hw, given.tokens, given.pairs, given.length)
    show([table(found, given.hw, given.tokens)])
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
