"""check --layers and cimc reduce, on a model with an op that is broken on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from cimc import inputs
from cimc.checker import CheckOptions, check_model
from cimc.frontend import reference_values
from cimc.ir.evaluate import evaluate
from cimc.ops import Arithmetic
from cimc.options import Options
from cimc.session import InferenceSession
from tests.checker.broken import break_norms

DIMS = {"batch": 1, "sequence": 6}


def test_every_layer_agrees_and_none_jumps(bert: Path) -> None:
    """Values carry the model's names, in its order, and are what onnxruntime computes."""
    report = check_model(str(bert), Options(dims=DIMS), CheckOptions(timing=False, layers=True)).report
    assert report.layers is not None
    assert report.layer_notes is not None
    order = [o for n in onnx.load(bert).graph.node for o in n.output]
    names = [a.name for a in report.layers]
    assert len(names) > 30
    assert sorted(names, key=order.index) == names
    assert all(a.passed for a in report.layers)
    assert report.layer_notes.jump is None
    found = report.to_json()
    assert found["reference"] == "onnxruntime"
    assert len(found["layers"]) == len(found["attribution"]) == len(names)  # type: ignore[arg-type]


def test_chunks_give_the_same_layers(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the chunks are."""
    how = CheckOptions("integer", timing=False, layers=True)
    whole = check_model(str(bert), Options(dims=DIMS), how).report
    monkeypatch.setattr(reference_values.chunks, "__defaults__", (2000,))
    runs: list[int] = []
    honest = reference_values.inner
    monkeypatch.setattr(reference_values, "inner", lambda m, i, n: runs.append(len(n)) or honest(m, i, n))
    parts = check_model(str(bert), Options(dims=DIMS), how).report
    assert len(runs) > 5
    assert whole.layers == parts.layers
    assert whole.layer_notes == parts.layer_notes


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_layers_are_rounded_as_the_chip_s_matmul_units_round(bert: Path, bits: int) -> None:
    """An output is a layer too, by another name: what its values differ by from the reference's is the same for both."""
    options = Options(dims=DIMS, overrides=(f"tiles.digital.matmul.operand_bits={bits}",))
    report = check_model(str(bert), options, CheckOptions("integer", timing=False, layers=True)).report
    assert report.layers is not None
    layers = [replace(a, name="") for a in report.layers]
    assert report.outputs
    assert all(replace(a, name="") in layers for a in report.outputs)


def test_the_quantisation_is_to_blame_in_integer_numerics(bert: Path) -> None:
    """The compiler's share is float32 rounding, the rest is the quantisation's."""
    how = CheckOptions("integer", timing=False, layers=True)
    notes = check_model(str(bert), Options(dims=DIMS), how).report.layer_notes
    assert notes is not None
    last = notes.causes[-1]
    assert last.compiler is not None
    assert last.quantization is not None
    assert last.compiler < 1e-5 < 1e-3 < last.quantization
    assert last.device is None


def test_a_broken_op_is_named_by_the_jump(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first value that a broken op makes, not the many that suffer from it."""
    break_norms(monkeypatch)
    report = check_model(str(bert), Options(dims=DIMS), CheckOptions(timing=False, layers=True)).report
    assert not report.passed
    assert report.layer_notes is not None
    assert report.layer_notes.jump is not None
    name, node, before, after = report.layer_notes.jump
    assert name.startswith("/embeddings/LayerNorm/")
    assert "/embeddings/LayerNorm/" in node
    assert before > 80 > 25 > after


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_compared_is_what_the_program_computes(bert: Path, exact: bool) -> None:
    """The partitioned graph and the tile programs give the same bits: layers may be taken from the graph."""
    checked = check_model(str(bert), Options(dims=DIMS), CheckOptions(timing=False))
    compiled = checked.compiled
    feeds = inputs.draw(compiled.program, 0)
    session = InferenceSession(compiled, "float" if exact else "integer", timing=False)
    found = session.run(None, feeds)
    graph = compiled.graph
    wanted = evaluate(graph, compiled.constants, feeds, Arithmetic(exact=exact))
    for value, output in zip(graph.outputs, found, strict=True):
        if exact:
            np.testing.assert_allclose(output, wanted[value], rtol=0, atol=1e-5 * float(np.abs(wanted[value]).max()))
        else:
            np.testing.assert_array_equal(output, wanted[value])
