"""onnxruntime's fused norms, activations, products and embeddings against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from cimc import errors
from tests.frontend.one_node import both, by_cimc, node_model, ops

RNG = np.random.default_rng(7)
F16 = TensorProto.FLOAT16


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("op", ["Gelu", "BiasGelu", "FastGelu", "FastGelu+", "QuickGelu", "BiasSplitGelu"])
def test_activations(tmp_path: Path, op: str) -> None:
    x, bias = normal(2, 3, 16) * 3, normal(16)
    inputs = (x, bias) if op in ("BiasGelu", "FastGelu+", "BiasSplitGelu") else (x,)
    if op == "BiasSplitGelu":
        # onnxruntime has it on the GPU only: the document's definition is the reference.
        _, found = by_cimc(node_model(op, inputs), {"x0": x, "x1": bias}, tmp_path)
        from scipy.special import erf

        left, right = np.split((x + bias).astype(np.float64), 2, axis=-1)
        np.testing.assert_allclose(
            found["y0"], left * right * 0.5 * (1 + erf(right / np.sqrt(2))), rtol=1e-5, atol=1e-6
        )
        return
    both(tmp_path, op.rstrip("+"), inputs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("present", [(), (3,), (4,), (3, 4)])
def test_skip_layer_norm(tmp_path: Path, present: tuple[int, ...]) -> None:
    inputs = [normal(2, 3, 16), normal(2, 3, 16), normal(16), normal(16), normal(16)]
    inputs = [v if i < 3 or i in present else None for i, v in enumerate(inputs)]
    both(tmp_path, "SkipLayerNormalization", inputs, outputs=(1, None, None, 1), attrs={"epsilon": 1e-5}, rtol=1e-5)


@pytest.mark.parametrize("skip", [(3, 16), (1, 3, 16)])
def test_skip_broadcasts(tmp_path: Path, skip: tuple[int, ...]) -> None:
    inputs = (normal(2, 3, 16), normal(*skip), normal(16), normal(16))
    both(tmp_path, "SkipLayerNormalization", inputs, outputs=(1, None, None, 1), rtol=1e-5)


@pytest.mark.parametrize("bias", [False, True])
def test_skip_rms_norm(tmp_path: Path, bias: bool) -> None:
    inputs = (normal(2, 3, 16), normal(2, 3, 16), normal(16), normal(16) if bias else None)
    both(tmp_path, "SkipSimplifiedLayerNormalization", inputs, outputs=(1, None, None, 1), rtol=1e-5)


@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_norm(tmp_path: Path, axis: int) -> None:
    x = normal(2, 3, 16)
    gain = normal(*x.shape[axis:])
    both(
        tmp_path, "SimplifiedLayerNormalization", (x, gain), outputs=(1, 1), domain="", attrs={"axis": axis}, rtol=1e-5
    )


@pytest.mark.parametrize("segments", [False, True])
@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("positions", [0, 1, 2])
def test_embeddings(tmp_path: Path, segments: bool, mask: bool, positions: int) -> None:
    ids, kinds = RNG.integers(0, 9, (2, 5)).astype(np.int32), RNG.integers(0, 2, (2, 5)).astype(np.int32)
    seen = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    inputs = [ids, kinds if segments else None, normal(9, 8), normal(6, 8), normal(2, 8) if segments else None]
    inputs += [normal(8), normal(8), seen if mask else None]
    if positions:
        inputs.append(RNG.integers(0, 6, (positions, 5)).astype(np.int32))
    attrs = {"mask_index_type": 1}
    outputs = (1, TensorProto.INT32, 1)
    both(tmp_path, "EmbedLayerNormalization", inputs, outputs=outputs, attrs=attrs, rtol=1e-5, atol=3e-6)


@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("op", ["FusedMatMul", "TransposeMatMul"])
@pytest.mark.parametrize("constant", [False, True])
def test_products(tmp_path: Path, trans: tuple[int, int], op: str, constant: bool) -> None:
    a, b = normal(2, 3, 4), normal(4, 5)
    a = a.swapaxes(-1, -2).copy() if trans[0] else a
    b = b.T.copy() if trans[1] else b
    attrs = {"transA": trans[0], "transB": trans[1], "alpha": 0.3}
    both(tmp_path, op, (a, b), fixed=(1,) if constant else (), attrs=attrs, rtol=1e-5)


@pytest.mark.parametrize("batch", [(1, 0), (0, 1), (1, 1)])
@pytest.mark.parametrize("trans", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_products_of_turned_batches(tmp_path: Path, batch: tuple[int, int], trans: tuple[int, int]) -> None:
    def laid(x: np.ndarray, turned: int, trans: int) -> np.ndarray:
        x = x.swapaxes(-1, -2) if trans else x
        return np.moveaxis(x, -2, 0).copy() if turned else x.copy()

    a, b = laid(normal(2, 3, 4, 6), batch[0], trans[0]), laid(normal(2, 3, 6, 5), batch[1], trans[1])
    attrs = {"transBatchA": batch[0], "transBatchB": batch[1], "transA": trans[0], "transB": trans[1]}
    both(tmp_path, "FusedMatMul", (a, b), attrs=attrs, rtol=1e-5)


@pytest.mark.parametrize(
    "activation", ["Relu", "LeakyRelu", "Tanh", "Sigmoid", "Elu", "Softplus", "HardSigmoid", "Softsign"]
)
def test_fused_gemm(tmp_path: Path, activation: str) -> None:
    attrs: dict[str, object] = {"activation": activation, "transB": 1, "alpha": 0.5, "beta": 2.0}
    if activation in ("LeakyRelu", "HardSigmoid", "Elu"):
        attrs["activation_alpha"] = 0.2
    if activation == "HardSigmoid":
        attrs["activation_beta"] = 0.4
    both(tmp_path, "FusedGemm", (normal(3, 4), normal(5, 4), normal(5)), fixed=(1, 2), attrs=attrs, rtol=1e-5)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("k", [64, 50])
@pytest.mark.parametrize("zeros", ["none", "packed", "floats"])
@pytest.mark.parametrize("bias", [False, True])
def test_mat_mul_n_bits(tmp_path: Path, bits: int, k: int, zeros: str, bias: bool) -> None:
    n, block = 6, 16
    blocks = -(-k // block)
    packed = RNG.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scales = (RNG.random((n, blocks)) * 0.1).astype(np.float32)
    points: np.ndarray | None = None
    if zeros == "packed":
        points = RNG.integers(0, 256, (n, -(-blocks * bits // 8))).astype(np.uint8)
    if zeros == "floats":
        if bits == 8:
            pytest.skip("onnxruntime takes zero points that are no codes with 4 bits only")
        points = RNG.random((n, blocks)).astype(np.float32) * 9
    attrs = {"K": k, "N": n, "bits": bits, "block_size": block}
    inputs = [normal(2, 3, k), packed, scales, points, None, normal(n) if bias else None]
    while inputs[-1] is None:
        inputs.pop()
    fixed = tuple(i for i in range(1, len(inputs)) if inputs[i] is not None)
    both(tmp_path, "MatMulNBits", inputs, fixed=fixed, attrs=attrs, rtol=2e-5, atol=2e-5)


def test_mat_mul_n_bits_half(tmp_path: Path) -> None:
    packed = RNG.integers(0, 256, (6, 4, 8)).astype(np.uint8)
    scales = (RNG.random((6, 4)) * 0.1).astype(np.float16)
    attrs = {"K": 64, "N": 6, "bits": 4, "block_size": 16}
    x = normal(3, 64).astype(np.float16)
    both(tmp_path, "MatMulNBits", (x, packed, scales), fixed=(1, 2), outputs=(F16,), attrs=attrs, rtol=2e-3, atol=2e-3)


def test_columns_out_of_order_are_refused(tmp_path: Path) -> None:
    packed, scales = np.zeros((6, 4, 8), np.uint8), np.ones((6, 4), np.float32)
    attrs = {"K": 64, "N": 6, "bits": 4, "block_size": 16}
    inputs = (normal(3, 64), packed, scales, None, np.zeros(64, np.int32))
    with pytest.raises(errors.CimcError, match="g_idx"):
        by_cimc(node_model("MatMulNBits", inputs, fixed=(1, 2, 4), attrs=attrs), {"x0": inputs[0]}, tmp_path)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("points", [False, True])
@pytest.mark.parametrize("scale", [np.float32, np.float16])
def test_gather_blocks(tmp_path: Path, bits: int, points: bool, scale: type[np.generic]) -> None:
    v, d, block = 12, 32, 16
    data = RNG.integers(0, 256, (v, d * bits // 8)).astype(np.uint8)
    scales = (RNG.random((v, d // block)) * 0.1).astype(scale)
    inputs = [data, RNG.integers(0, v, (2, 3)), scales]
    if points:
        inputs.append(RNG.integers(0, 256, (v, -(-d // block * bits // 8))).astype(np.uint8))
    attrs = {"bits": bits, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
    out = TensorProto.FLOAT if scale is np.float32 else F16
    graph = both(
        tmp_path, "GatherBlockQuantized", inputs, fixed=(0, 2, 3)[: len(inputs) - 1], outputs=(out,), attrs=attrs
    )
    assert "gather" in ops(graph)
