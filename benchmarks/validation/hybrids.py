"""X-Former and ReTransformer: architecture studies of which only results are published, run as one encoder layer."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import onnx
from onnx.utils import Extractor

from benchmarks.validation.figure import Figure, Validation
from cimc.arch.actions import component
from cimc.arch.load import load
from cimc.arch.units import TileUnits, energy_pj
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.sim.timing import run_timing
from models import small
from models.graph import save


@dataclass(frozen=True)
class Encoder:
    """A run of one encoder layer: time, energy and matrix products."""

    latency_ms: float
    energy_mj: float
    gmacs: float

    @property
    def tops_per_w(self) -> float:
        """Two operations a multiply-accumulate."""
        return 2 * self.gmacs / self.energy_mj


def encoder(hidden: int, heads: int) -> onnx.ModelProto:
    """One layer of BERT with token embeddings, without the pooler that no encoder of the papers has."""
    model = small.bert(layers=1, hidden=hidden, heads=heads, ffn=4 * hidden, vocab=100, positions=512)
    inputs = [i.name for i in model.graph.input]
    return Extractor(model).extract_model(inputs, ["last_hidden_state"])


@cache
def run(hardware: str, hidden: int, heads: int, tokens: int, attention: str) -> Encoder:
    """The layer on a preset, compiled as any model is, its products of activations done as ``attention`` says."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "encoder.onnx"
        save(encoder(hidden, heads), path)
        dims = {"batch": 1, "sequence": tokens}
        made = compile_model(path, Options(hardware=hardware, dims=dims, attention=attention))
    assert made is not None
    timing = run_timing(made.program, made.hardware.spec)
    gmacs = (timing.macs["static"] + timing.macs["dynamic"]) / 1e9
    return Encoder(timing.latency_ns / 1e6, sum(timing.energy_pj.values()) / 1e9, gmacs)


def adc_share(hardware: str) -> float:
    """The converters' share of an MVM's energy."""
    chip = load(hardware).spec
    tile = next(i for i in range(chip.tile_count) if chip.tile(i).core)
    core = TileUnits(chip, tile)
    parts = {a: n * energy_pj(chip, a) for a, n in core.mvm_actions([(128, 128)], 1, 8).items()}
    return sum(pj for a, pj in parts.items() if component(a) == "adc") / sum(parts.values())


NOTES = "secondary notes"


def xformer() -> Validation:
    """X-Former (Sridharan et al., TVLSI 2023): one BERT-base encoder of 512 tokens, which is what its crossbars hold."""
    ran = run("xformer", 768, 12, 512, "sram-write")
    streamed = run("xformer", 768, 12, 512, "digital")
    figures = (
        Figure(
            "latency, 512 tokens", 0.98, ran.latency_ms, "ms", "tests", NOTES,
            "one encoder here; the notes do not say of how many layers. All of BERT cannot be meant: one layer alone takes the "
            "432 cores at least 0.46 ms at their peak",
        ),
        Figure(
            "latency, 512 tokens, attention's operands streamed", 0.98, streamed.latency_ms, "ms", "tests", NOTES,
            "the attention engine as a matmul unit that is rewritten for each product (`--attention digital`)",
        ),
        Figure(
            "efficiency", 6.72, ran.tops_per_w, "TOPS/W", "tests", NOTES,
            "not within reach of PUMA's components: its ADCs alone, 1.56 pJ a conversion, allow 5.1 TOPS/W. Memory, buffers and "
            "leakage of the run come on top",
        ),
        Figure(
            "ADC share of MVM energy", 0.368, adc_share("xformer"), "", "tests", NOTES,
            "36.8 % at 6.72 TOPS/W are 0.44 pJ a conversion, a quarter of PUMA's; X-Former's ADC is not published in figures, so "
            "it is not fitted",
        ),
        Figure(
            "energy of an encoder, 512 tokens", 0.0152, ran.energy_mj, "mJ", "conflict", NOTES,
            "15.2 uJ an encoder are 530 TOPS/W for its 4.03 GMAC; at the same paper's 6.72 TOPS/W it is 1.2 mJ",
        ),
    )  # fmt: skip
    about = (
        "Organisation from secondary notes; the energies of its parts are not published, so they are PUMA's, on whose simulator "
        "it was studied, and another SRAM CIM's. Run: one BERT-base encoder, 512 tokens, compiled by cimc, K and V of each head "
        "written into the attention engine's SRAM arrays as in the paper (`--attention sram-write`)."
    )
    return Validation("X-Former-like hybrid", "xformer", about, figures)


def retransformer() -> Validation:
    """ReTransformer (Yang et al., ICCAD 2020): one layer of the base transformer's width."""
    ran = run("retransformer", 512, 8, 128, "decompose+nvm-write")
    kept = run("retransformer", 512, 8, 128, "nvm-write")
    figures = (
        Figure(
            "efficiency", 467.68, 1000 * ran.tops_per_w, "GOPS/W", "tests", NOTES,
            "neither the machine's size nor the workload behind the figure is in the notes; with ISAAC's crossbars at 8 bits, a "
            "layer of width 512 and 128 tokens is of this order; the decomposition's multiply-accumulates count, as they run",
        ),
        Figure(
            "latency to keys written, decomposed", 1 / 1.32, ran.latency_ms / kept.latency_ms, "×", "tests", NOTES,
            "its matrix products take 1.32 times less time decomposed than with keys written, by the notes; here a whole "
            "layer, on arrays of which each is written for one head: scores that sum over its width take 8 times the products",
        ),
    )  # fmt: skip
    about = (
        "Cells, precision and write time from secondary notes, crossbars and converters from ISAAC, sizes estimated. Only a "
        "check of the order of magnitude: its other figures are ratios to a GPU and to PipeLayer. Attention as in "
        "the paper: (Q W_K^T) X^T, x and v written into ReRAM on the way (`--attention decompose+nvm-write`)."
    )
    return Validation("ReTransformer-like", "retransformer", about, figures)
