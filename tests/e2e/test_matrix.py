"""Models × shapes × chips: against onnxruntime, and against the graph's own meaning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cimc.compiler import Compiled
from cimc.ir.evaluate import evaluate
from cimc.ops import Arithmetic
from cimc.report.compare import Tolerance, compare
from cimc.sim.interpreter import run
from cimc.sim.result import RunResult
from tests.e2e.workloads import CASES, PRESETS, Case, Feeds, compiled, feeds, model

pytestmark = [pytest.mark.parametrize("preset", PRESETS), pytest.mark.parametrize("one", CASES, ids=str)]

MAX_ABS_ERROR = 1e-4
MIN_COSINE = 0.999999
MIN_INTEGER_COSINE = 0.98


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def program(one: Case, preset: str, folder: Path) -> Compiled:
    return compiled(one, preset, folder)


def by_onnxruntime(one: Case, given: Feeds) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model(one.model).SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(given)), strict=True))


def values(program: Compiled, numerics: str, given: Feeds) -> RunResult:
    return run(
        program.program,
        program.weights,
        program.hardware.spec,
        inputs=given,
        numerics=numerics,  # pyright: ignore[reportArgumentType]
        timing=False,
    )


def test_float_is_onnxruntime(one: Case, program: Compiled) -> None:
    given = feeds(one)
    found = values(program, "float", given).outputs
    wanted = by_onnxruntime(one, given)
    assert found is not None
    assert found.keys() == wanted.keys()
    for name, want in wanted.items():
        agreement = compare(name, found[name], want, Tolerance("float"))
        assert agreement.passed
        assert np.max(np.abs(found[name] - want), initial=0) <= MAX_ABS_ERROR
        if want.size:
            assert agreement.cosine_similarity >= MIN_COSINE


def test_integer_is_the_graph_bit_for_bit_and_near_onnxruntime(one: Case, program: Compiled) -> None:
    given = feeds(one)
    found = values(program, "integer", given).outputs
    meaning = evaluate(program.graph, program.constants, given, Arithmetic(exact=False))
    wanted = by_onnxruntime(one, given)
    assert found is not None
    for name, value in zip(program.graph.output_names, program.graph.outputs, strict=True):
        assert np.array_equal(found[name], meaning[value])
        if found[name].size:
            cosine = compare(name, found[name], wanted[name], Tolerance("integer")).cosine_similarity
            assert cosine >= MIN_INTEGER_COSINE
