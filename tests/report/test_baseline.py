"""The von-Neumann machine beside a run: by closed form, by hand, and from a compiled model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cimc.arch.baseline import DEFAULTS, MEMORIES, baseline_machine
from cimc.arch.load import load, parse
from cimc.arch.spec import ChipSpec
from cimc.compiler import compile_model
from cimc.options import Options
from cimc.report import figures, html, jsontext, layers, run
from cimc.report.baseline import moved, with_baseline
from cimc.report.figures import RunFigures
from cimc.report.mapping_file import Product, Work, work_of
from cimc.sim.result import RunResult
from models import small
from models.graph import save
from tests.report import synthetic

TOY = load("toy")
OWN = (
    "baseline={memory: lpddr4, bytes_per_ns: 2.0, pj_per_bit: 3.0, macs_per_ns: 4.0, mac_pj: 0.25, cache_bytes: 100, "
    "cache_pj_per_byte: 0.5, batch: 2, weight_bits: 4, activation_bits: 16}"
)


def chip(*overrides: str) -> ChipSpec:
    return load("toy", overrides).spec


def product(kind: str, batch: int, m: int, k: int, n: int, weight: str = "") -> Product:
    b = k * n if kind == "static" else batch * k * n
    return Product(
        node="x", kind=kind, batch=batch, m=m, k=k, n=n, a=batch * m * k, b=b, y=batch * m * n, weight=weight
    )


WORK = Work(io_bytes=10, products=[product("static", 1, 3, 8, 20, "w"), product("qk", 2, 3, 4, 5)])


def figured(work: Work | None, spec: ChipSpec) -> RunFigures:
    return with_baseline(figures.from_result(synthetic.result()), work, spec)


def test_bytes_by_hand():
    """Activations take 2 bytes: 48 in and 120 out of the first (out does not fit 100 bytes), 48, 80 and 60 of the
    second. Weights: 160 of half a byte, shared by 2 inferences."""
    found = moved(WORK, baseline_machine(chip(OWN).baseline))
    assert (found.weights, found.activations, found.io) == (40, 120, 10)
    assert found.cache == 40 + 48 + 120 + 48 + 80 + 60
    assert found.memory == 170


def test_time_and_energy_by_hand():
    """170 bytes at 2 a ns are 85 ns; 480 + 120 MACs at 4 a ns are 150 ns, so compute sets the pace."""
    got = figured(WORK, chip(OWN)).baseline
    assert got is not None
    assert (got.latency_ns, got.limit, got.cycles) == (150.0, "compute", 150)
    assert got.energy_pj == {"total": 8 * 170 * 3 + 396 * 0.5 + 150, "memory": 4080.0, "cache": 198.0, "macs": 150.0}
    faster = figured(WORK, chip(OWN.replace("macs_per_ns: 4.0", "macs_per_ns: 40.0"))).baseline
    assert faster is not None
    assert (faster.latency_ns, faster.limit) == (85.0, "memory")


def test_ratios_are_over_this_run():
    whole = figured(WORK, chip(OWN))
    got = whole.baseline
    assert got is not None
    assert whole.latency_ns is not None
    assert whole.total_pj is not None
    assert got.ratio["latency"] == pytest.approx(150 / whole.latency_ns)
    assert got.ratio["energy"] == pytest.approx(got.energy_pj["total"] / whole.total_pj)
    assert got.ratio["bytes"] == pytest.approx(170 / 196_608)  # the synthetic run's host; it has no global memory


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize(("m", "k", "n"), [(1, 64, 64), (128, 384, 1536)])
def test_weights_bound_closed_form(batch: int, m: int, k: int, n: int):
    """A matrix that is read, activations that fit: latency = max(k n / batch / bandwidth, m k n / rate)."""
    work = Work(io_bytes=0, products=[product("static", 1, m, k, n, "w")])
    got = figured(work, chip(f"baseline={{batch: {batch}}}")).baseline
    assert got is not None
    assert got.latency_ns == pytest.approx(max(k * n / batch / 256, m * k * n / 45875.2))
    assert got.energy_pj["memory"] == pytest.approx(8 * 3.9 * k * n / batch)


def test_a_weight_used_twice_is_read_once():
    twice = Work(io_bytes=0, products=[product("static", 1, 3, 8, 20, "w"), product("static", 1, 3, 8, 20, "w")])
    assert moved(twice, baseline_machine(None)).weights == 160


def test_a_cache_of_nothing_moves_everything():
    got = moved(WORK, baseline_machine(chip("baseline={cache_bytes: 0}").baseline))
    assert got.activations == 24 + 60 + 24 + 40 + 30
    assert got.cache == got.weights + got.activations


@pytest.mark.parametrize("memory", MEMORIES)
def test_memories_fill_in_their_numbers_with_sources(memory: str):
    found = baseline_machine(chip(f"baseline={{memory: {memory}}}").baseline)
    assert (found.bytes_per_ns, found.pj_per_bit) == tuple(
        number.value
        for number in (MEMORIES[memory].bytes_per_ns, MEMORIES[memory].pj_per_bit)  # pyright: ignore[reportArgumentType]
    )
    assert found.sources.keys() == {"bytes_per_ns", "pj_per_bit", *DEFAULTS}
    assert all(found.sources.values())


def test_the_section_goes_through_a_hardware_file():
    resolved = load("toy", [OWN])
    assert parse(resolved.text, "x.yaml").spec.baseline == resolved.spec.baseline


def test_without_work_or_time_there_is_none():
    assert figured(None, TOY.spec).baseline is None
    untimed = with_baseline(figures.from_result(RunResult(None, None, 0.1, 0.0)), WORK, TOY.spec)
    assert untimed.baseline is None


def test_reports_tell_it(tmp_path: Path):
    told = figured(WORK, chip(OWN))
    page = "\n".join(str(block) for block in run.report(told, run.Setting("p", "toy")))
    assert "Beside a von-Neumann machine" in page
    assert "lpddr4 2 GB/s 3 pJ/bit" in page
    assert "batch 2" in page
    folder = synthetic.write_directory(tmp_path / "made")
    jsontext.write(told.to_json(), folder / "run.json")
    assert "lpddr4 2 GB/s 3 pJ/bit" in html.page(layers.load(folder))


def test_work_of_a_compiled_model(tmp_path: Path):
    """A CNN's first convolution: 27 weights an output, over windows of an image that exists once."""
    save(small.cnn(), tmp_path / "cnn.onnx")
    made = compile_model(tmp_path / "cnn.onnx", Options(hardware="isaac", dims={"batch": 1}))
    assert made is not None
    work = work_of(json.loads(json.dumps(made.mapping)))
    assert work is not None
    first = work.products[0]
    assert (first.kind, first.batch, first.m, first.k, first.n) == ("static", 1, 32 * 32, 27, 8)
    assert (first.a, first.b, first.y) == (3 * 32 * 32, 27 * 8, 32 * 32 * 8)
    assert work.io_bytes == 4 * (3 * 32 * 32 + 10)


def test_work_of_attention(tmp_path: Path):
    """2 layers, 4 heads of 16, 16 tokens: two products a head, and six matrices a layer."""
    save(small.bert(), tmp_path / "bert.onnx")
    made = compile_model(tmp_path / "bert.onnx", Options(hardware="isaac", dims={"batch": 1, "sequence": 16}))
    assert made is not None
    work = work_of(made.mapping)
    assert work is not None
    dynamic = [(p.kind, p.batch, p.m, p.k, p.n, p.a, p.b, p.y) for p in work.products if p.kind != "static"]
    assert dynamic == 2 * [("qk", 4, 16, 16, 16, 1024, 1024, 1024), ("pv", 4, 16, 16, 16, 1024, 1024, 1024)]
    assert sum(p.macs for p in work.products if p.kind == "static") == 16 * 2 * (4 * 64 * 64 + 2 * 64 * 128) + 64 * 64
