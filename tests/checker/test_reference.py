"""The reference of check is exact where onnxruntime's own integer kernels need not be, and says which it is.

The oracle is the definition in NumPy: sums of products in int64.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.frontend.reference_twin import DEFAULT, LITERAL, TWIN
from cimc.reference import Reference

EDGE = np.int8(127)


def written(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    io: tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]],
) -> Path:
    """A model file of these nodes."""
    initializers = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "g", io[0], io[1], initializers)
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


def value(name: str, kind: int, *shape: int) -> onnx.ValueInfoProto:
    """A declared value."""
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.mark.parametrize("with_zero", [False, True])
def test_unsigned_by_signed_products_are_exact(tmp_path: Path, with_zero: bool) -> None:
    """Codes at the ends of their ranges: in 16 bits a pair of such products saturates."""
    x = np.full((3, 64), 255, np.uint8)
    w = np.full((64, 5), EDGE, np.int8)
    w[:, 2] = -128
    zero = np.array([3, -4, 5, 0, 127], np.int8)
    inputs = ["x", "w", "", "z"] if with_zero else ["x", "w"]
    nodes = [helper.make_node("MatMulInteger", inputs, ["y"])]
    weights = {"w": w, "z": zero} if with_zero else {"w": w}
    io = ([value("x", TensorProto.UINT8, 3, 64)], [value("y", TensorProto.INT32, 3, 5)])
    reference = Reference.of(written(tmp_path / "m.onnx", nodes, weights, io), {"x": x})
    want = x.astype(np.int64) @ (w.astype(np.int64) - (zero.astype(np.int64) if with_zero else 0))
    assert reference.name == TWIN
    np.testing.assert_array_equal(reference.outputs(["y"])["y"], want)


def test_a_chain_of_signed_products_keeps_its_types(tmp_path: Path) -> None:
    """int8 in, int8 weights, int8 out: the twin's result comes back as int8."""
    rng = np.random.default_rng(1)
    x = rng.integers(-128, 128, (4, 32)).astype(np.int8)
    w = rng.integers(-128, 128, (32, 6)).astype(np.int8)
    numbers = {
        "sx": np.float32(0.5),
        "zx": np.int8(-7),
        "sw": np.float32(0.25),
        "zw": np.int8(0),
        "sy": np.float32(64),
        "zy": np.int8(11),
    }
    weights = {"w": w, **{k: np.asarray(v) for k, v in numbers.items()}}
    nodes = [helper.make_node("QLinearMatMul", ["x", "sx", "zx", "w", "sw", "zw", "sy", "zy"], ["y"])]
    io = ([value("x", TensorProto.INT8, 4, 32)], [value("y", TensorProto.INT8, 4, 6)])
    reference = Reference.of(written(tmp_path / "m.onnx", nodes, weights, io), {"x": x})
    sums = (x.astype(np.int64) + 7) @ w.astype(np.int64)
    # A power of two as the scale: the division is exact, ties go to even as the standard says.
    want = np.clip(np.rint(sums * 0.125 / 64) + 11, -128, 127).astype(np.int8)
    found = reference.outputs(["y"])["y"]
    assert reference.name == TWIN
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, want)


def test_a_signed_product_of_the_result_of_another_is_shifted_too(tmp_path: Path) -> None:
    """The type of a shifted product's result is known where the next product, behind a Reshape, asks for it."""
    rng = np.random.default_rng(2)
    x = rng.integers(-128, 128, (4, 32)).astype(np.int8)
    w, v = (rng.integers(-128, 128, shape).astype(np.int8) for shape in ((32, 6), (6, 5)))
    numbers = {"s": np.float32(1), "z": np.int8(0), "sm": np.float32(1024), "zm": np.int8(3), "sy": np.float32(65536)}
    weights = {"w": w, "v": v, "as": np.array([4, 6], np.int64), **{k: np.asarray(n) for k, n in numbers.items()}}
    nodes = [
        helper.make_node("QLinearMatMul", ["x", "s", "z", "w", "s", "z", "sm", "zm"], ["m"]),
        helper.make_node("Reshape", ["m", "as"], ["r"]),
        helper.make_node("QGemm", ["r", "sm", "zm", "v", "s", "z", "", "sy", "z"], ["y"], domain="com.microsoft"),
    ]
    io = ([value("x", TensorProto.INT8, 4, 32)], [value("y", TensorProto.INT8, 4, 5)])
    reference = Reference.of(written(tmp_path / "m.onnx", nodes, weights, io), {"x": x})
    middle = np.clip(np.rint(x.astype(np.int64) @ w.astype(np.int64) / 1024) + 3, -128, 127)
    want = np.clip(np.rint((middle - 3) @ v * 1024 / 65536), -128, 127).astype(np.int8)
    assert reference.name == TWIN
    np.testing.assert_array_equal(reference.outputs(["y"])["y"], want)


def test_a_weight_behind_nodes_in_a_branch_is_shifted(tmp_path: Path) -> None:
    """An int8 weight that reaches its product through a Transpose, inside a branch of an If."""
    w = np.full((5, 64), EDGE, np.int8)
    inside = helper.make_graph(
        [
            helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]),
            helper.make_node("MatMulInteger", ["x", "wt"], ["b"]),
        ],
        "branch",
        [],
        [value("b", TensorProto.INT32, 3, 5)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=inside, else_branch=inside)
    io = (
        [value("x", TensorProto.UINT8, 3, 64), value("c", TensorProto.BOOL)],
        [value("y", TensorProto.INT32, 3, 5)],
    )
    feeds = {"x": np.full((3, 64), 255, np.uint8), "c": np.asarray(True)}
    reference = Reference.of(written(tmp_path / "m.onnx", [node], {"w": w}, io), feeds)
    assert reference.name == TWIN
    np.testing.assert_array_equal(reference.outputs(["y"])["y"], np.full((3, 5), 255 * 127 * 64))


def test_unsigned_weights_and_no_quantisation_are_left_alone(tmp_path: Path) -> None:
    """uint8 × uint8 is run literally, a float model as onnxruntime likes."""
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    io = ([value("x", TensorProto.UINT8, 1, 4)], [value("y", TensorProto.INT32, 1, 2)])
    plain = written(tmp_path / "u.onnx", nodes, {"w": np.ones((4, 2), np.uint8)}, io)
    assert Reference.of(plain, {}).name == LITERAL
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    io = ([value("x", TensorProto.FLOAT, 1, 4)], [value("y", TensorProto.FLOAT, 1, 2)])
    floats = written(tmp_path / "f.onnx", nodes, {"w": np.ones((4, 2), np.float32)}, io)
    assert Reference.of(floats, {}).name == DEFAULT


def test_values_inside_come_in_chunks_that_stay_below_the_limit() -> None:
    """Names keep their order; only a value larger than the limit stands in a chunk alone and above it."""
    from cimc.frontend.reference_values import chunks

    sizes = {"a": 4, "b": 5, "c": 20, "d": 1, "e": 9}
    assert list(chunks(sizes, 10)) == [("a", "b"), ("c",), ("d", "e")]


def test_onnxruntime_survives_a_transposed_product_in_float16(tmp_path: Path) -> None:
    """In a process of its own: with all of its optimisations onnxruntime 1.32 ends it by a segmentation fault."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    io = ([value("x", TensorProto.FLOAT16, 2, 3, 4)], [value("y", TensorProto.FLOAT16, 3, 2, 5)])
    path = written(tmp_path / "m.onnx", nodes, {"w": np.ones((4, 5), np.float16)}, io)
    code = "import sys, numpy as np; from pathlib import Path; from cimc.reference import Reference"
    asked = 'Reference.of(Path(sys.argv[1]), {"x": np.ones((2, 3, 4), np.float16)}).outputs(["y"])["y"].sum()'
    made = subprocess.run([sys.executable, "-c", f"{code}; print({asked})", path], capture_output=True, check=False)
    assert (made.returncode, made.stdout) == (0, b"120.0\n"), made.stderr


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("k", [1, 2])
def test_experts_of_bytes_in_blocks_are_not_rounded_twice(tmp_path: Path, zeros: bool, k: int) -> None:
    """onnxruntime's kernel rounds the activations to int8 as well: a percent off."""
    rng = np.random.default_rng(3)
    experts, tokens, h, inner, block = 3, 5, 64, 96, 32
    shapes = ((inner, h), (h, inner))
    codes = [rng.integers(0, 256, (experts, n, w)).astype(np.uint8) for n, w in shapes]
    scales = [(rng.random((experts, n, w // block)) * 0.02 + 0.001).astype(np.float32) for n, w in shapes]
    points = [rng.integers(100, 156, s.shape).astype(np.uint8) for s in scales]
    weights = {"up": codes[0], "us": scales[0], "down": codes[1], "ds": scales[1]}
    names = ["x", "logits", "up", "us", "", "down", "ds"]
    if zeros:
        weights |= {"uz": points[0], "dz": points[1]}
        names += ["", "", "", "", "uz", "dz"]
    op = helper.make_node(
        "QMoE",
        names,
        ["y"],
        domain="com.microsoft",
        k=k,
        activation_type="silu",
        expert_weight_bits=8,
        block_size=block,
    )
    io = ([value("x", TensorProto.FLOAT, tokens, h), value("logits", TensorProto.FLOAT, tokens, experts)],
          [value("y", TensorProto.FLOAT, tokens, h)])  # fmt: skip
    path = written(tmp_path / "m.onnx", [op], weights, io)
    x, logits = (rng.standard_normal((tokens, n)).astype(np.float32) for n in (h, experts))
    reference = Reference.of(path, {"x": x, "logits": logits})
    middles = points if zeros else [np.full(s.shape, 128, np.uint8) for s in scales]
    up, down = (
        ((q.reshape(*s.shape, block).astype(np.float64) - z[..., None]) * s[..., None]).reshape(q.shape)
        for q, s, z in zip(codes, scales, middles, strict=True)
    )
    want = np.zeros((tokens, h))
    for t in range(tokens):
        top = np.argsort(-logits[t])[:k]
        shares = np.exp(logits[t, top].astype(np.float64))
        for expert, share in zip(top, shares / shares.sum(), strict=True):
            middle = up[expert] @ x[t]
            want[t] += share * (down[expert] @ (middle / (1 + np.exp(-middle))))
    np.testing.assert_allclose(reference.outputs(["y"])["y"], want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
