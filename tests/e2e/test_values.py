"""Values between products in 16 bits (``--values``), end to end: the same bits whatever the mapping, in fewer bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import cimc
from cimc.compiler import Compiled, compile_model
from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.mapping.choices import Choices
from cimc.ops import Arithmetic
from cimc.options import Options, Values
from cimc.session import InferenceSession
from cimc.sim.reference import Reference
from cimc.sim.timing import run_timing
from models.graph import save
from tests.e2e.workloads import PRESETS, Case, case, feeds, model

CASES = (
    case("bert", batch=2, sequence=5),
    case("gpt2-past", batch=1, sequence=3, past_sequence=4),
    case("llama", batch=1, sequence=6),
    case("vit", batch=2),
    case("cnn", batch=1),
)
SIGNAL = 0.999  # least cosine with values of 32 bits: what codes of 8 bits make of numbers that are a little off


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("values")


def made(folder: Path, one: Case, preset: str, values: Values, **more: object) -> Compiled:
    path = folder / f"{one.model}.onnx"
    if not path.exists():
        save(model(one.model), path)
    overrides = (*PRESETS[preset], *(("adc.bits=0",) if preset == "toy" else ()))
    found = compile_model(path, Options(preset, overrides, dict(one.dims), values=values, **more))  # pyright: ignore[reportArgumentType]
    assert found is not None
    return found


def outputs(compiled: Compiled, one: Case, numerics: str) -> list[np.ndarray]:
    return InferenceSession(compiled, numerics, timing=False).run(None, feeds(one))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("values", ["f16", "bf16"])
@pytest.mark.parametrize("one", CASES, ids=str)
def test_the_program_is_the_graph_bit_for_bit(folder: Path, one: Case, values: Values) -> None:
    compiled = made(folder, one, "sram-digital", values)
    assert any(t.element.halved for t in compiled.graph.types.values())
    graph, given = compiled.graph, dict(feeds(one))
    for exact, numerics in ((False, "integer"), (True, "float")):
        wanted = evaluate(graph, compiled.constants, given, Arithmetic(exact=exact))
        for got, name in zip(outputs(compiled, one, numerics), graph.outputs, strict=True):
            assert got.dtype == np.float32
            if exact:
                np.testing.assert_allclose(got, wanted[name], rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(got, wanted[name])


def test_a_lossless_converter_keeps_every_bit(folder: Path) -> None:
    one = case("bert", batch=1, sequence=4)
    compiled = made(folder, one, "toy", "f16")
    for got, want in zip(outputs(compiled, one, "analog"), outputs(compiled, one, "integer"), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.slow
@pytest.mark.parametrize("values", ["f16", "bf16"])
def test_no_bit_depends_on_the_mapping(folder: Path, values: Values) -> None:
    """Chips, copies, rows of a block, streamed batches, reloaded pieces: a value is rounded where it is computed, not where it
    is sent."""
    one = case("bert", batch=3, sequence=6)
    plain = outputs(made(folder, one, "sram-digital", values), one, "integer")
    others = (
        made(folder, one, "isaac", values),
        made(folder, one, "toy", values),
        made(
            folder, one, "sram-digital", values, choices=Choices(replicas=1, residence=False, aside=False, sums="one")
        ),
        made(folder, one, "sram-digital", values, choices=Choices(replicas=1, optimize="throughput")),
    )
    for other in others:
        for got, want in zip(outputs(other, one, "integer"), plain, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("one", CASES[:4], ids=str)
def test_float_numerics_stay_and_integer_ones_move_little(folder: Path, one: Case) -> None:
    wide, narrow = (made(folder, one, "isaac", values) for values in ("f32", "f16"))
    for a, b in zip(outputs(wide, one, "float"), outputs(narrow, one, "float"), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(a).max())
    for a, b in zip(outputs(wide, one, "integer"), outputs(narrow, one, "integer"), strict=True):
        x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
        assert x @ y / np.sqrt((x @ x) * (y @ y)) > SIGNAL


def test_fewer_bytes_and_cycles_on_both_timing_engines(folder: Path) -> None:
    one = case("bert", batch=1, sequence=8)
    wide, narrow = (made(folder, one, "sram-digital", values) for values in ("f32", "f16"))
    before, after = (run_timing(m.program, m.hardware.spec) for m in (wide, narrow))
    assert after.traffic_bytes["noc"] < 0.8 * before.traffic_bytes["noc"]
    assert after.traffic_bytes["local_buffer"] < before.traffic_bytes["local_buffer"]
    assert sum(after.energy_pj.values()) < sum(before.energy_pj.values())
    assert Reference(narrow.program, narrow.hardware.spec).run() == after.cycles


def test_weights_that_take_turns(folder: Path) -> None:
    one = case("bert", batch=1, sequence=8)
    whole = outputs(made(folder, one, "toy", "f16"), one, "integer")
    path = folder / "bert.onnx"
    room = ("tiles.all.cores=64", "tiles.all.local_bytes=1048576")
    turns = compile_model(path, Options("toy", room, dict(one.dims), values="f16", choices=Choices(reload=True)))
    assert turns is not None
    for got, want in zip(outputs(turns, one, "integer"), whole, strict=True):
        np.testing.assert_array_equal(got, want)


def test_the_option(folder: Path) -> None:
    path = folder / "option.onnx"
    save(model("bert"), path)
    dims = {"batch": 1, "sequence": 4}
    compiled = cimc.compile(path, hardware="isaac", dims=dims, values="bf16")
    assert "halve{to=bf16}" in compiled.pipeline
    assert any(note.startswith("values: ") and " in bf16, " in note for note in compiled.notes)
    options = compiled.manifest()["options"]
    assert isinstance(options, dict)
    assert options["values"] == "bf16"
    again = cimc.compile(path, hardware="isaac", dims=dims, passes=compiled.pipeline)
    assert again.program == compiled.program
    assert cimc.check(path, hardware="isaac", dims=dims, values="f16", numerics="integer", timing=False)["passed"]
    swept = cimc.sweep(path, {"values": ["f32", "f16"]}, hardware="sram-digital", dims=dims)
    wide, narrow = swept["points"]  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
    assert narrow["figures"]["energy_pj"] < wide["figures"]["energy_pj"]  # pyright: ignore
    with pytest.raises(CimcError, match="'f8'"):
        cimc.compile(path, values="f8")  # pyright: ignore[reportArgumentType]
    with pytest.raises(CimcError, match="there is no 'f8'"):
        cimc.sweep(path, {"values": ["f8"]})
    with pytest.raises(CimcError, match="a pipeline of your own"):
        cimc.compile(path, dims=dims, values="f16", passes=compiled.pipeline)
