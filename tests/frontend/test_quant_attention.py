"""onnxruntime's quantised attention and embeddings against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.one_node import both, ops

RNG = np.random.default_rng(23)
B, S, H, D = 2, 4, 3, 8


def codes(dtype: type[np.generic], *shape: int) -> np.ndarray:
    low = 0 if dtype is np.uint8 else -128
    return RNG.integers(low, low + 256, shape).astype(dtype)


@pytest.mark.parametrize("w_type", [np.int8, np.uint8])
@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(tmp_path: Path, w_type: type[np.generic], columns: bool, past: int, causal: int) -> None:
    hidden = H * D
    scale = np.linspace(0.002, 0.004, 3 * hidden, dtype=np.float32) if columns else np.array(0.003, np.float32)
    zero = np.zeros(3 * hidden, w_type) + 3 if columns else np.array(3, w_type)
    mask = np.ones((B, S + past), np.int32)
    mask[0, -1] = 0
    inputs = [codes(np.uint8, B, S, 10), codes(w_type, 10, 3 * hidden), RNG.normal(size=3 * hidden).astype(np.float32)]
    inputs += [np.array(0.02, np.float32), scale, mask, np.array(100, np.uint8), zero.astype(w_type)]
    if past:
        inputs.append(RNG.normal(size=(2, B, H, past, D)).astype(np.float32))
    attrs = {"num_heads": H, "unidirectional": causal}
    outputs = (1, 1) if past else (1,)
    near = {"rtol": 1e-5, "atol": 3e-6}
    graph = both(tmp_path, "QAttention", inputs, fixed=(1, 2, 3, 4, 6, 7), outputs=outputs, attrs=attrs, **near)
    assert ops(graph).count("mvm") == 3


@pytest.mark.parametrize("segments", [False, True])
def test_embeddings(tmp_path: Path, segments: bool) -> None:
    ids, kinds = RNG.integers(0, 9, (2, 5)).astype(np.int32), RNG.integers(0, 2, (2, 5)).astype(np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    tables = [codes(np.uint8, 9, 8), codes(np.uint8, 6, 8), codes(np.uint8, 2, 8) if segments else None]
    tables += [codes(np.uint8, 8), codes(np.uint8, 8)]
    scales = [np.array(0.01 * (i + 1), np.float32) for i in range(5)]
    zeros = [np.array(120 + i, np.uint8) for i in range(5)]
    if not segments:
        scales[2] = zeros[2] = None
    inputs = [ids, kinds if segments else None, *tables, mask, *scales, *zeros]
    fixed = tuple(i for i in (*range(2, 7), *range(8, 18)) if inputs[i] is not None)
    both(tmp_path, "QEmbedLayerNormalization", inputs, fixed=fixed, outputs=(1, 6), rtol=1e-5, atol=5e-6)
