"""A fixed part of ONNX's own node conformance cases, fast enough for every run; ``tests/onnx_suite.py`` runs all."""

from __future__ import annotations

import warnings

import pytest

from tests.onnx_suite import Outcome, run_suite

NAMES = """
Add And ArgMax Attention AveragePool BatchNormalization Clip Compress Concat Conv ConvInteger
ConvTranspose CumSum DequantizeLinear DynamicQuantizeLinear Einsum Erf Expand FlexAttention Flatten Gather
GatherElements GatherND Gelu Gemm GroupNormalization HardSwish Identity InstanceNormalization LayerNormalization
LogSoftmax Loop MatMul MatMulInteger MaxPool Mish Mod OneHot Pad Pow QLinearConv
QLinearMatMul QuantizeLinear RMSNormalization Range ReduceLogSumExp ReduceMean Reshape RotaryEmbedding Scan
ScatterElements ScatterND Shape Slice Softmax Split Squeeze Tile TopK Transpose Trilu Unsqueeze Where
"""
OPS = frozenset(NAMES.split())


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    with warnings.catch_warnings():
        # Making the expected values, some of ONNX's cases divide by zero.
        warnings.simplefilter("ignore")
        return run_suite(set(OPS))


def test_no_case_fails(outcomes: list[Outcome]) -> None:
    assert [f"{o.name}: {o.reason}" for o in outcomes if o.kind == "failed"] == []


def test_no_case_is_refused(outcomes: list[Outcome]) -> None:
    assert [f"{o.name}: {o.reason}" for o in outcomes if o.kind == "unsupported"] == []
    assert {o.op for o in outcomes} == OPS
