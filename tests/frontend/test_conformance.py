"""A fixed part of ONNX's own node conformance cases, fast enough for every run; ``tests/onnx_suite.py`` runs all."""

from __future__ import annotations

import collections
import warnings

import pytest

from tests.onnx_suite import Outcome, run_suite

NAMES = """
Add And ArgMax Attention AveragePool BatchNormalization Clip Concat Conv ConvTranspose CumSum DequantizeLinear
DynamicQuantizeLinear Einsum Erf Expand Flatten Gather GatherElements GatherND Gelu Gemm GroupNormalization
HardSwish InstanceNormalization LayerNormalization LogSoftmax MatMul MatMulInteger MaxPool Mish Mod OneHot Pad Pow
QLinearMatMul QuantizeLinear RMSNormalization Range ReduceLogSumExp ReduceMean Reshape RotaryEmbedding Scan
ScatterElements ScatterND Shape Slice Softmax Split Squeeze Tile TopK Transpose Trilu Unsqueeze Where
"""
OPS = frozenset(NAMES.split())
REASONS = (
    "element type",
    "training mode",
    "known only at run time",
    "sliding windows over an external cache",
    "bfloat16",
)
"""What a refusal of one of these ops may be for."""


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    with warnings.catch_warnings():
        # Making the expected values, some of ONNX's cases divide by zero.
        warnings.simplefilter("ignore")
        return run_suite(set(OPS))


def test_no_case_fails(outcomes: list[Outcome]) -> None:
    assert [f"{o.name}: {o.reason}" for o in outcomes if o.kind == "failed"] == []


def test_most_cases_pass(outcomes: list[Outcome]) -> None:
    count = collections.Counter(o.kind for o in outcomes)
    assert count["passed"] > 0.9 * len(outcomes)
    assert {o.op for o in outcomes if o.kind == "passed"} == OPS


def test_refusals_have_a_reason(outcomes: list[Outcome]) -> None:
    refused = [o for o in outcomes if o.kind == "unsupported"]
    assert [o.name for o in refused if not any(r in o.reason for r in REASONS)] == []
