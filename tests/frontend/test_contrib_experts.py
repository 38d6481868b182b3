"""onnxruntime's mixtures of experts against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.frontend.one_node import both, by_cimc, by_onnxruntime, node_model

RNG = np.random.default_rng(31)
T, E, H, I = 6, 4, 16, 32


def normal(*shape: int) -> np.ndarray:
    return (RNG.normal(size=shape) * 0.5).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "gelu", "silu", "identity"])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("normalized", [0, 1])
@pytest.mark.parametrize("bias", [False, True])
def test_experts(tmp_path: Path, activation: str, k: int, normalized: int, bias: bool) -> None:
    inputs = [normal(2, 3, H), normal(T, E), normal(E, I, H), normal(E, I) if bias else None, normal(E, H, I)]
    inputs += [normal(E, H)] if bias else []
    attrs = {"k": k, "activation_type": activation, "normalize_routing_weights": normalized}
    fixed = tuple(i for i in range(2, len(inputs)) if inputs[i] is not None)
    both(tmp_path, "MoE", inputs, fixed=fixed, attrs=attrs, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("limit", [None, 0.6])
def test_gated_experts(tmp_path: Path, limit: float | None) -> None:
    inputs = (normal(T, H), normal(T, E), normal(E, 2 * I, H), normal(E, 2 * I), normal(E, H, I), normal(E, H))
    attrs: dict[str, object] = {"k": 2, "activation_type": "swiglu", "normalize_routing_weights": 1, "swiglu_fusion": 1}
    attrs |= {"activation_alpha": 1.702, "activation_beta": 1.0}
    if limit is not None:
        attrs["swiglu_limit"] = limit
    both(tmp_path, "MoE", inputs, fixed=(2, 3, 4, 5), attrs=attrs, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize(("bits", "block"), [(4, 0), (4, 16), (8, 0)])
@pytest.mark.parametrize("zeros", [False, True])
def test_quantised_experts(tmp_path: Path, bits: int, block: int, zeros: bool) -> None:
    h, i = 32, 32
    up, down = (RNG.integers(0, 256, (E, n, k * bits // 8)).astype(np.uint8) for n, k in ((2 * i, h), (h, i)))
    blocks = (h // block,) if block else ()
    scales = [(RNG.random((E, n, *blocks)) * 0.01).astype(np.float32) for n in (2 * i, h)]
    inputs = [normal(T, h), normal(T, E), up, scales[0], normal(E, 2 * i), down, scales[1], normal(E, h)]
    if zeros:
        packed = (h // block * bits // 8,) if block else ()
        points = [RNG.integers(0, 256, (E, n, *packed) if block else (E, n * bits // 8)) for n in (2 * i, h)]
        inputs += [None, None, None, *(p.astype(np.uint8) for p in points)]
    attrs: dict[str, object] = {"k": 2, "activation_type": "swiglu", "normalize_routing_weights": 1, "swiglu_fusion": 1}
    attrs |= {"expert_weight_bits": bits} | ({"block_size": block} if block else {})
    fixed = tuple(n for n in range(2, len(inputs)) if inputs[n] is not None)
    both(tmp_path, "QMoE", inputs, fixed=fixed, attrs=attrs, rtol=5e-5, atol=5e-6)


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("normalized", [0, 1])
@pytest.mark.parametrize("own", [False, True])
def test_shares_of_quantised_experts(tmp_path: Path, k: int, normalized: int, own: bool) -> None:
    """Shares of the model's own are taken as they are, or over their sum; the others are normalised in any case."""
    h = 32
    weights = [RNG.integers(0, 256, (E, h, h // 2)).astype(np.uint8) for _ in range(2)]
    scales = [(RNG.random((E, h)) * 0.01).astype(np.float32) for _ in range(2)]
    inputs = [normal(T, h), normal(T, E), weights[0], scales[0], None, weights[1], scales[1]]
    inputs += [*(None,) * 7, RNG.random((T, E)).astype(np.float32) + np.float32(0.1)] if own else []
    attrs = {"k": k, "activation_type": "silu", "normalize_routing_weights": normalized, "expert_weight_bits": 4}
    both(tmp_path, "QMoE", inputs, fixed=(2, 3, 5, 6), attrs=attrs, rtol=5e-5, atol=5e-6)


def test_experts_of_bytes_in_blocks(tmp_path: Path) -> None:
    """onnxruntime rounds the activations of 8-bit blocks to 8 bits too (results move by a percent): its float operator
    on the dequantised weights is the reference."""
    h, block = 32, 16
    up, down = (RNG.integers(0, 256, (E, n, h)).astype(np.uint8) for n in (2 * h, h))
    scales = [(RNG.random((E, n, h // block)) * 0.01).astype(np.float32) for n in (2 * h, h)]
    biases = [normal(E, 2 * h), normal(E, h)]
    x, logits = normal(T, h), normal(T, E)
    attrs: dict[str, object] = {"k": 2, "activation_type": "swiglu", "normalize_routing_weights": 1, "swiglu_fusion": 1}
    wide = [(q.astype(np.float32) - 128) * np.repeat(s, block, axis=2) for q, s in zip((up, down), scales, strict=True)]
    floats = (x, logits, wide[0], biases[0], wide[1], biases[1])
    feeds = {"x0": x, "x1": logits}
    expected = by_onnxruntime(node_model("MoE", floats, fixed=(2, 3, 4, 5), attrs=attrs), feeds)
    inputs = (x, logits, up, scales[0], biases[0], down, scales[1], biases[1])
    attrs |= {"expert_weight_bits": 8, "block_size": block}
    _, found = by_cimc(node_model("QMoE", inputs, fixed=tuple(range(2, 8)), attrs=attrs), feeds, tmp_path)
    np.testing.assert_allclose(found["y0"], expected["y0"], rtol=2e-5, atol=1e-5)
