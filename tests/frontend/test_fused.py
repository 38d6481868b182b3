"""onnxruntime's own operators and the quantised ones against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cimc import errors
from cimc.frontend.importer import load
from tests.frontend.onnx_models import FLOAT, agree, model, ops, reference, run, save, value

node = helper.make_node
MS = "com.microsoft"
Arrays = dict[str, np.ndarray]


def draw(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def codes(*shape: int, signed: bool = False, seed: int = 5) -> np.ndarray:
    low, high, dtype = (-128, 128, np.int8) if signed else (0, 256, np.uint8)
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(dtype)


def single(op: onnx.NodeProto, feeds: Arrays, fixed: Arrays, opset: int = 17) -> onnx.ModelProto:
    """A model of one node with untyped outputs."""
    code = helper.np_dtype_to_tensor_dtype
    inputs = [value(n, list(a.shape), code(a.dtype)) for n, a in feeds.items()]
    return model([op], inputs, [o for o in op.output if o], fixed, opset=opset)


def check(
    tmp_path: Path, op: onnx.NodeProto, feeds: Arrays, fixed: Arrays | None = None, **tolerance: float
) -> list[str]:
    return ops(agree(tmp_path, single(op, feeds, fixed or {}), feeds, **tolerance))


@pytest.mark.parametrize(
    ("op", "inputs"),
    [("Gelu", "x"), ("BiasGelu", "xb"), ("FastGelu", "x"), ("FastGelu", "xb"), ("QuickGelu", "x")],
)
def test_activations(tmp_path: Path, op: str, inputs: str) -> None:
    arrays = {"x": draw(2, 4, 8), "b": draw(8)}
    check(tmp_path, node(op, list(inputs), ["y"], domain=MS), {n: arrays[n] for n in inputs}, atol=1e-5)


def test_skip_layer_normalization(tmp_path: Path) -> None:
    op = node("SkipLayerNormalization", ["x", "s", "g", "be", "b"], ["y", "", "", "sum"], domain=MS, epsilon=1e-5)
    fixed = {"g": draw(8), "be": draw(8, seed=1), "b": draw(8, seed=2)}
    used = check(tmp_path, op, {"x": draw(2, 4, 8), "s": draw(2, 4, 8, seed=9)}, fixed, atol=1e-5)
    assert used.count("layer_norm") == 1


def test_skip_simplified_layer_normalization(tmp_path: Path) -> None:
    op = node("SkipSimplifiedLayerNormalization", ["x", "s", "g"], ["y", "", "", "sum"], domain=MS, epsilon=1e-5)
    check(tmp_path, op, {"x": draw(2, 4, 8), "s": draw(2, 4, 8, seed=9)}, {"g": draw(8)}, atol=1e-5)


@pytest.mark.parametrize("segments", [True, False])
def test_embed_layer_normalization(tmp_path: Path, segments: bool) -> None:
    names = ["ids", "seg" if segments else "", "word", "pos", "segment" if segments else "", "g", "be", "mask"]
    op = node("EmbedLayerNormalization", names, ["y", "n"], domain=MS)
    ids = np.array([[3, 1, 0, 9], [2, 2, 7, 4]], np.int32)
    feeds = {"ids": ids, "mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32)}
    fixed = {"word": draw(10, 8), "pos": draw(6, 8), "g": draw(8), "be": draw(8, seed=1)}
    if segments:
        feeds["seg"], fixed["segment"] = np.array([[0, 0, 1, 1]] * 2, np.int32), draw(2, 8)
    check(tmp_path, op, feeds, fixed, atol=1e-5)


@pytest.mark.parametrize("mask", ["", "keys", "lengths", "pairs"])
@pytest.mark.parametrize("causal", [0, 1])
def test_attention(tmp_path: Path, mask: str, causal: int) -> None:
    feeds = {"x": draw(2, 4, 8)}
    masks = {
        "keys": np.array([[1, 1, 1, 0], [1, 1, 0, 0]], np.int32),
        "lengths": np.array([4, 2], np.int32),
        "pairs": np.tril(np.ones((2, 4, 4), np.int32)),
    }
    if mask:
        feeds["m"] = masks[mask]
    fixed = {"w": draw(8, 24), "b": draw(24)}
    op = node("Attention", ["x", "w", "b", "m" if mask else ""], ["y"], domain=MS, num_heads=2, unidirectional=causal)
    used = check(tmp_path, op, feeds, fixed, atol=1e-5)
    assert used.count("matmul") == 3
    assert used.count("attention") == 1


def test_attention_with_a_cache(tmp_path: Path) -> None:
    op = node("Attention", ["x", "w", "b", "", "past"], ["y", "present"], domain=MS, num_heads=2, unidirectional=1)
    feeds = {"x": draw(1, 2, 8), "past": draw(2, 1, 2, 3, 4)}
    check(tmp_path, op, feeds, {"w": draw(8, 24), "b": draw(24)}, atol=1e-5)


@pytest.mark.parametrize("form", ["plain", "bias", "padding", "term", "past"])
def test_multi_head_attention(tmp_path: Path, form: str) -> None:
    feeds = {"q": draw(2, 3, 8), "k": draw(2, 5, 8, seed=1), "v": draw(2, 5, 8, seed=2)}
    names = ["q", "k", "v", "", "", "", "", ""]
    outputs = ["y"]
    fixed: Arrays = {}
    if form == "bias":
        fixed["b"], names[3] = draw(24), "b"
    if form == "padding":
        feeds["m"], names[4] = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32), "m"
    if form == "term":
        feeds["t"], names[5] = draw(1, 2, 3, 5), "t"
    if form == "past":
        feeds |= {"pk": draw(2, 2, 4, 4, seed=6), "pv": draw(2, 2, 4, 4, seed=7)}
        names[6:], outputs = ["pk", "pv"], ["y", "nk", "nv"]
    check(tmp_path, node("MultiHeadAttention", names, outputs, domain=MS, num_heads=2), feeds, fixed, atol=1e-5)


@pytest.mark.parametrize("form", ["packed", "packed_kv"])
def test_packed_multi_head_attention(tmp_path: Path, form: str) -> None:
    """onnxruntime has packed operands on GPUs only: compared with its result for the same operands unpacked."""
    q, k, v = draw(2, 3, 2, 4), draw(2, 3, 2, 4, seed=1), draw(2, 3, 2, 4, seed=2)
    flat = {n: a.reshape(2, 3, 8) for n, a in (("q", q), ("k", k), ("v", v))}
    plain = single(node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain=MS, num_heads=2), flat, {})
    (want,) = reference(save(tmp_path, plain), flat)
    feeds = {"q": np.stack([q, k, v], axis=3)} if form == "packed" else {"q": flat["q"], "k": np.stack([k, v], axis=3)}
    packed = single(node("MultiHeadAttention", list(feeds), ["y"], domain=MS, num_heads=2), feeds, {})
    (got,) = run(load(save(tmp_path, packed)), feeds)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("past", [0, 3])
@pytest.mark.parametrize(("rotary", "window", "softcap"), [(0, -1, 0.0), (1, -1, 0.0), (1, 2, 0.0), (0, -1, 5.0)])
def test_group_query_attention(tmp_path: Path, past: int, rotary: int, window: int, softcap: float) -> None:
    s = 1 if past else 3
    feeds = {"q": draw(2, s, 16 * 4), "k": draw(2, s, 16 * 2, seed=1), "v": draw(2, s, 16 * 2, seed=2)}
    feeds |= {"pk": draw(2, 2, past, 16, seed=6), "pv": draw(2, 2, past, 16, seed=7)}
    fixed = {"lens": np.full(2, past + s - 1, np.int32), "total": np.array(past + s, np.int32)}
    names = ["q", "k", "v", "pk", "pv", "lens", "total"]
    if rotary:
        angles = np.arange(8)[:, None] * 10.0 ** -np.arange(8)[None]
        fixed |= {"cos": np.cos(angles).astype(np.float32), "sin": np.sin(angles).astype(np.float32)}
        names += ["cos", "sin"]
    settings = {"num_heads": 4, "kv_num_heads": 2, "do_rotary": rotary, "local_window_size": window, "softcap": softcap}
    op = node("GroupQueryAttention", names, ["y", "nk", "nv"], domain=MS, **settings)
    check(tmp_path, op, feeds, fixed, atol=1e-5)


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [np.array([2], np.int64), np.array([[0, 1, 2], [3, 4, 5]], np.int64)])
def test_rotary_embedding(tmp_path: Path, interleaved: int, positions: np.ndarray) -> None:
    op = node("RotaryEmbedding", ["x", "p", "c", "s"], ["y"], domain=MS, interleaved=interleaved)
    check(tmp_path, op, {"x": draw(2, 3, 16), "p": positions}, {"c": draw(8, 4), "s": draw(8, 4, seed=1)})


@pytest.mark.parametrize(("ta", "tb", "alpha"), [(0, 0, 1.0), (1, 0, 0.5), (0, 1, 2.0)])
def test_fused_mat_mul(tmp_path: Path, ta: int, tb: int, alpha: float) -> None:
    x, y = draw(2, 3, 4), draw(2, 4, 5)
    feeds = {"x": x.swapaxes(1, 2).copy() if ta else x, "y": y.swapaxes(1, 2).copy() if tb else y}
    check(tmp_path, node("FusedMatMul", ["x", "y"], ["z"], domain=MS, transA=ta, transB=tb, alpha=alpha), feeds)


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Tanh", "Sigmoid"])
def test_fused_gemm(tmp_path: Path, activation: str) -> None:
    op = node("FusedGemm", ["x", "w", "b"], ["y"], domain=MS, activation=activation, activation_alpha=0.1, transB=1)
    check(tmp_path, op, {"x": draw(3, 4)}, {"w": draw(5, 4), "b": draw(5)}, atol=1e-5)


@pytest.mark.parametrize(
    ("bits", "k", "zeros"),
    [(4, 32, "none"), (4, 32, "packed"), (4, 32, "float"), (4, 40, "packed"), (8, 32, "none"), (8, 32, "packed")],
)
def test_mat_mul_n_bits(tmp_path: Path, bits: int, k: int, zeros: str) -> None:
    n, block = 6, 16
    blocks = -(-k // block)
    fixed = {"w": codes(n, blocks, block * bits // 8), "s": np.abs(draw(n, blocks)) + 0.1}
    names = ["x", "w", "s"]
    if zeros == "packed":
        fixed["z"] = codes(n, -(-blocks * bits // 8))
    elif zeros == "float":
        fixed["z"] = draw(n, blocks, seed=8)
    names += ["z"] if zeros != "none" else []
    op = node("MatMulNBits", names, ["y"], domain=MS, K=k, N=n, bits=bits, block_size=block)
    check(tmp_path, op, {"x": draw(2, 3, k)}, fixed, rtol=1e-5, atol=2e-4 if bits == 8 else 3e-5)


@pytest.mark.parametrize("zeros", [True, False])
def test_gather_block_quantized(tmp_path: Path, zeros: bool) -> None:
    fixed = {"t": codes(10, 16), "s": np.abs(draw(10, 2)) + 0.1}
    if zeros:
        fixed["z"] = codes(10, 1)
    names = ["t", "i", "s", *(["z"] if zeros else [])]
    op = node("GatherBlockQuantized", names, ["y"], domain=MS, block_size=16, bits=4, gather_axis=0, quantize_axis=1)
    check(tmp_path, op, {"i": np.array([[1, 9], [0, 3]], np.int64)}, fixed)


def test_mat_mul_integer_on_cores_is_exact(tmp_path: Path) -> None:
    """u8 × u8, which onnxruntime computes exactly on every CPU."""
    fixed = {"w": codes(6, 5, seed=2), "zx": np.array(131, np.uint8), "zw": np.array([0, 7, 128, 200, 255], np.uint8)}
    used = check(
        tmp_path, node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"]), {"x": codes(2, 3, 6)}, fixed, rtol=0, atol=0
    )
    assert used.count("mvm") == 1


def test_mat_mul_integer_with_zero_points_found_at_run_time(tmp_path: Path) -> None:
    feeds = {"x": codes(3, 6), "zx": np.array(9, np.uint8)}
    op = node("MatMulInteger", ["x", "w", "zx", "zw"], ["y"])
    assert "mvm" in check(tmp_path, op, feeds, {"w": codes(6, 5), "zw": np.array(3, np.uint8)}, rtol=0, atol=0)


def test_mat_mul_integer_of_activations(tmp_path: Path) -> None:
    op = node("MatMulInteger", ["x", "y", "zx"], ["z"])
    used = check(
        tmp_path, op, {"x": codes(2, 3, 6), "y": codes(2, 6, 4)}, {"zx": np.array(3, np.uint8)}, rtol=0, atol=0
    )
    assert "matmul" in used


def test_signed_weights_are_exact_where_onnxruntime_is_not(tmp_path: Path) -> None:
    """u8 × s8 saturates in onnxruntime on some CPUs: compared with integers in NumPy."""
    x, w = codes(4, 64), codes(64, 8, signed=True)
    path = save(tmp_path, single(node("MatMulInteger", ["x", "w"], ["y"]), {"x": x}, {"w": w}))
    np.testing.assert_array_equal(run(load(path), {"x": x})[0], x.astype(np.int32) @ w.astype(np.int32))


SCALES = {"sx": np.array(0.05, np.float32), "sw": np.array(0.02, np.float32), "sy": np.array(0.3, np.float32)}
ZEROS = {"zx": np.array(120, np.uint8), "zw": np.array(130, np.uint8), "zy": np.array(100, np.uint8)}


def test_q_linear_mat_mul(tmp_path: Path) -> None:
    op = node("QLinearMatMul", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"])
    check(tmp_path, op, {"x": codes(2, 3, 16)}, {"w": codes(16, 5), **SCALES, **ZEROS}, rtol=0, atol=0)


@pytest.mark.parametrize("groups", [1, 2])
def test_q_linear_conv(tmp_path: Path, groups: int) -> None:
    op = node(
        "QLinearConv", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy", "b"], ["y"], group=groups, pads=[1, 1, 1, 1]
    )
    fixed = {"w": codes(4, 4 // groups, 3, 3), "b": np.arange(4, dtype=np.int32) * 50, **SCALES, **ZEROS}
    check(tmp_path, op, {"x": codes(1, 4, 5, 5)}, fixed, rtol=0, atol=0)


@pytest.mark.parametrize("out", [True, False])
def test_q_gemm(tmp_path: Path, out: bool) -> None:
    names = ["x", "sx", "zx", "w", "sw", "zw", "b", *(["sy", "zy"] if out else [])]
    op = node("QGemm", names, ["y"], domain=MS, transB=1, alpha=1.0)
    fixed = {"w": codes(5, 16), "b": np.arange(5, dtype=np.int32) * 9, **SCALES, **ZEROS}
    check(tmp_path, op, {"x": codes(3, 16)}, {n: a for n, a in fixed.items() if n in names}, atol=1e-5)


@pytest.mark.parametrize("op_type", ["QLinearAdd", "QLinearMul"])
def test_q_linear_pairs(tmp_path: Path, op_type: str) -> None:
    op = node(op_type, ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"], domain=MS)
    check(tmp_path, op, {"x": codes(3, 7), "w": codes(7)}, {**SCALES, **ZEROS}, rtol=0, atol=0)


@pytest.mark.parametrize(("op_type", "settings"), [("QLinearSigmoid", {}), ("QLinearLeakyRelu", {"alpha": 0.2})])
def test_q_linear_activations(tmp_path: Path, op_type: str, settings: dict[str, float]) -> None:
    fixed = {"sx": SCALES["sx"], "zx": ZEROS["zx"], "sy": np.array(1 / 256, np.float32), "zy": np.array(0, np.uint8)}
    op = node(op_type, ["x", "sx", "zx", "sy", "zy"], ["y"], domain=MS, **settings)
    check(tmp_path, op, {"x": codes(3, 7)}, fixed, rtol=0, atol=0)


@pytest.mark.parametrize("element", [TensorProto.UINT8, TensorProto.INT8, TensorProto.INT16])
def test_quantise_and_back(tmp_path: Path, element: int) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(element)
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=1),
        node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=1),
    ]
    fixed = {"s": np.array([0.1, 0.03, 0.7], np.float32), "z": np.array([0, 3, 100], dtype)}
    proto = model(
        nodes, [value("x", [2, 3, 5])], [value("q", [2, 3, 5], element), value("y", [2, 3, 5])], fixed, opset=21
    )
    agree(tmp_path, proto, {"x": draw(2, 3, 5) * 20})


def test_block_dequantised_weights(tmp_path: Path) -> None:
    packed = helper.make_tensor("w", TensorProto.INT4, [4, 6], np.arange(24) % 16 - 8)
    nodes = [node("DequantizeLinear", ["w", "s"], ["f"], axis=0, block_size=2), node("MatMul", ["x", "f"], ["y"])]
    proto = model(nodes, [value("x", [3, 4])], [value("y", [3, 6])], {"s": np.abs(draw(2, 6)) + 0.1}, opset=21)
    proto.graph.initializer.append(packed)
    assert ops(agree(tmp_path, proto, {"x": draw(3, 4)}, atol=1e-5)).count("matmul") == 1


def test_dynamic_quantisation_of_a_product(tmp_path: Path) -> None:
    nodes = [
        node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("MatMulInteger", ["q", "w", "z", "zw"], ["i"]),
        node("Cast", ["i"], ["f"], to=FLOAT),
        node("Mul", ["s", "sw"], ["factor"]),
        node("Mul", ["f", "factor"], ["y"]),
    ]
    fixed = {"w": codes(8, 5), "zw": np.array(127, np.uint8), "sw": np.array(0.01, np.float32)}
    agree(tmp_path, model(nodes, [value("x", [3, 8])], [value("y", [3, 5])], fixed), {"x": draw(3, 8)})


@pytest.mark.parametrize("op_type", ["DynamicQuantizeLSTM", "Sampling", "NoSuchThing"])
def test_unknown_operators_are_refused(tmp_path: Path, op_type: str) -> None:
    path = save(tmp_path, single(node(op_type, ["x"], ["y"], domain=MS), {"x": draw(3)}, {}))
    with pytest.raises(errors.CimcError, match=f"com.microsoft::{op_type}"):
        load(path)
