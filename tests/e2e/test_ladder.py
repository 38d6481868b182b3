"""The ladder, whole, for one small BERT: each rung against the one above it.

onnxruntime → imported ≈ canonical → quantized (signal to noise) → and from there bit for bit: partitioned → interpreter,
integer numerics → analog numerics with a lossless converter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc import inputs
from cimc.compiler import compile_model
from cimc.frontend import importer
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.pipeline import run_pipeline
from cimc.reference import Reference
from cimc.session import InferenceSession
from models import small
from models.graph import save
from models.inputs import sample_inputs
from tests.e2e.workloads import MODELS, Feeds

DIMS = {"batch": 2, "sequence": 6}
FLOAT_TOLERANCE = 1e-5
LEAST_SNR_DB = 25.0  # 8-bit weights and activations through one layer; 6 dB a bit, less what six products in a row lose
PASSES = ("fold,fuse,fold,classify,dce", "quantize", "partition{rows=8, cols=8}")
# 8 × 8 crossbars of 2-bit cells, 1-bit inputs: sums of a bitline reach 8 · 3; bits 0 is a converter that holds them all.
TOY = ("tiles.all.cores=2048", "tiles.all.local_bytes=1048576", "adc.bits=0")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("ladder") / "bert.onnx"
    save(small.bert(layers=1, hidden=24, heads=3, ffn=40, vocab=30, positions=16, seed=3), place)
    return place


@pytest.fixture(scope="module")
def given(path: Path) -> Feeds:
    model = small.bert(layers=1, hidden=24, heads=3, ffn=40, vocab=30, positions=16, seed=3)
    return sample_inputs(model, DIMS, seed=5)


@pytest.fixture(scope="module")
def levels(path: Path) -> dict[str, tuple[Graph, Constants]]:
    """The graph at every level."""
    imported = importer.load(path, dims=DIMS)
    graph, constants = imported.graph, imported.constants
    found = {graph.level: (graph, constants)}
    for passes in PASSES:
        outcome = run_pipeline(graph, constants, passes)
        graph, constants = outcome.graph, outcome.constants
        found[graph.level] = (graph, constants)
    return found


def answers(level: tuple[Graph, Constants], given: Feeds, exact: bool) -> list[np.ndarray]:
    graph, constants = level
    found = evaluate(graph, constants, given, Arithmetic(exact=exact))
    return [found[v] for v in graph.outputs]


def test_every_level_is_there(levels: dict[str, tuple[Graph, Constants]]) -> None:
    assert list(levels) == ["imported", "canonical", "quantized", "partitioned"]


def test_imported_is_onnxruntime(path: Path, levels: dict[str, tuple[Graph, Constants]], given: Feeds) -> None:
    graph, _ = levels["imported"]
    names = graph.output_names or graph.outputs
    wanted = Reference.of(path, given).outputs(names)
    for name, got in zip(names, answers(levels["imported"], given, exact=True), strict=True):
        np.testing.assert_allclose(got, wanted[name], rtol=0, atol=FLOAT_TOLERANCE)


@pytest.mark.parametrize("level", ["canonical", "quantized", "partitioned"])
def test_in_float_every_level_is_the_imported_one(
    level: str, levels: dict[str, tuple[Graph, Constants]], given: Feeds
) -> None:
    wanted = answers(levels["imported"], given, exact=True)
    for got, want in zip(answers(levels[level], given, exact=True), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=FLOAT_TOLERANCE)


def test_quantising_costs_little(levels: dict[str, tuple[Graph, Constants]], given: Feeds) -> None:
    wanted = answers(levels["canonical"], given, exact=True)
    for got, want in zip(answers(levels["quantized"], given, exact=False), wanted, strict=True):
        snr = 10 * np.log10(np.sum(np.square(want)) / np.sum(np.square(got - want)))
        assert snr >= LEAST_SNR_DB
        assert not np.array_equal(got, want)


def test_partitioning_changes_no_bit(levels: dict[str, tuple[Graph, Constants]], given: Feeds) -> None:
    wanted = answers(levels["quantized"], given, exact=False)
    for got, want in zip(answers(levels["partitioned"], given, exact=False), wanted, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("numerics", ["integer", "analog"])
def test_the_program_is_the_graph_bit_for_bit(
    path: Path, levels: dict[str, tuple[Graph, Constants]], given: Feeds, numerics: str
) -> None:
    compiled = compile_model(path, Options("toy", TOY, DIMS))
    assert compiled is not None
    session = InferenceSession(compiled, numerics, timing=False)  # pyright: ignore[reportArgumentType]
    wanted = answers(levels["partitioned"], given, exact=False)
    for got, want in zip(session.run(None, given), wanted, strict=True):
        assert np.array_equal(got, want)


@pytest.mark.parametrize("numerics", ["integer", "analog"])
def test_what_is_fitted_stays_on_the_ladder(path: Path, given: Feeds, numerics: str) -> None:
    """Fitted to drawn inputs: the program is its graph bit for bit, the same in float as without, and no worse."""
    plain, fitted = (compile_model(path, Options("toy", TOY, DIMS, fit=fit)) for fit in ("off", "all"))
    assert plain is not None
    assert fitted is not None
    assert any("fitted to drawn inputs" in note for note in fitted.notes)
    got = InferenceSession(fitted, numerics, timing=False).run(None, given)  # pyright: ignore[reportArgumentType]
    wanted = answers((fitted.graph, fitted.constants), given, exact=False)
    for one, other in zip(got, wanted, strict=True):
        assert np.array_equal(one, other)
    exact, same = (answers((m.graph, m.constants), given, exact=True) for m in (plain, fitted))
    for one, other in zip(exact, same, strict=True):
        assert np.array_equal(one, other)


def test_a_converter_that_is_too_narrow_shows(path: Path, given: Feeds) -> None:
    compiled = compile_model(path, Options("toy", (*TOY[:2], "adc.bits=3"), DIMS))
    assert compiled is not None
    analog, integer = (InferenceSession(compiled, n, timing=False).run(None, given)[0] for n in ("analog", "integer"))
    assert not np.array_equal(analog, integer)


def test_the_compiled_folder_computes_the_same_bits_in_float(tmp_path: Path) -> None:
    """Weights that the model has transposed lie otherwise in memory than in the folder, and BLAS would add in another order."""
    model = small.vit(image=16, patch=4, layers=1, hidden=32, heads=2, ffn=48, classes=10)
    save(model, tmp_path / "vit.onnx")
    compiled = compile_model(tmp_path / "vit.onnx", Options("isaac", (), {"batch": 1}))
    assert compiled is not None
    compiled.write(tmp_path / "out")
    feeds = sample_inputs(model, {"batch": 1}, seed=1)
    here, there = (InferenceSession(p, timing=False).run(None, feeds) for p in (compiled, str(tmp_path / "out")))
    for mine, other in zip(here, there, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_constants_for_a_model_of_one_row_are_fitted_to_many(tmp_path: Path) -> None:
    """A token a run: inputs of one run would clip those of most others."""
    save(MODELS["gpt2-past"](), tmp_path / "step.onnx")
    dims = {"batch": 1, "sequence": 1, "past_sequence": 7}
    made = compile_model(tmp_path / "step.onnx", Options("toy", TOY, dims, activations="static", fit="scales"))
    assert made is not None
    assert made.calibration is not None
    assert made.calibration.runs == 32
    for seed in range(4):
        feeds = inputs.draw(made.program, seed, made.tokens)
        got, want = (
            InferenceSession(made, n, timing=False).run(["logits"], feeds)[0].ravel().astype(np.float64)
            for n in ("integer", "float")
        )
        assert got @ want / np.linalg.norm(got) / np.linalg.norm(want) > 0.99
