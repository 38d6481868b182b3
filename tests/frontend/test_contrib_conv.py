"""Fused convolutions, and graphs that onnxruntime saved at its highest level: channels in blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from cimc import errors
from cimc.frontend import ort
from cimc.frontend.importer import load
from tests.frontend.one_node import MS, by_cimc, by_onnxruntime, node_model
from tests.frontend.onnx_models import agree, model, ops, save, value

node = helper.make_node
FUSED = {
    "": [],
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
    "LeakyRelu": [0.3],
    "Clip": [-0.5, 0.75],
    "HardSigmoid": [0.25, 0.4],
    "HardSwish": [],
}


def draw(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("activation", FUSED)
@pytest.mark.parametrize("summed", [False, True])
def test_a_fused_convolution(tmp_path: Path, activation: str, summed: bool) -> None:
    inputs = [draw(2, 3, 7, 6), draw(4, 3, 3, 3), draw(4), draw(2, 4, 4, 4) if summed else None]
    attrs: dict[str, object] = {"strides": [2, 2], "pads": [1, 1, 1, 2], "dilations": [1, 1]}
    if activation:
        attrs["activation"] = activation
    if FUSED[activation]:
        attrs["activation_params"] = FUSED[activation]
    proto = node_model("FusedConv", inputs, fixed=(1, 2), attrs=attrs)
    feeds = {f"x{i}": inputs[i] for i in (0, 3) if inputs[i] is not None}
    graph, got = by_cimc(proto, feeds, tmp_path)
    np.testing.assert_allclose(got["y0"], by_onnxruntime(proto, feeds)["y0"], rtol=1e-5, atol=1e-5)
    assert "matmul" in [n.op for n in graph.nodes]
    assert "host" not in [n.op for n in graph.nodes]


def test_an_activation_nobody_fuses(tmp_path: Path) -> None:
    inputs = [draw(1, 3, 4, 4), draw(4, 3, 1, 1)]
    path = save(tmp_path, node_model("FusedConv", inputs, fixed=(1,), attrs={"activation": "Nonsense"}))
    with pytest.raises(errors.CimcError, match="activation Nonsense"):
        load(path)


def network() -> onnx.ModelProto:
    """What convolutional networks are made of: a stem, a residual block, a depthwise and a grouped convolution, gates,
    pooling, joining, upsampling, a transposed end; channel counts that fill no block among them."""
    weights = {
        "w1": draw(32, 3, 3, 3),
        "b1": draw(32),
        "w2": draw(32, 32, 3, 3) / 8,
        "w3": draw(32, 1, 3, 3),
        "w4": draw(32, 16, 1, 1) / 4,
        "w5": draw(20, 32, 1, 1) / 4,
        "w6": draw(32, 20, 1, 1) / 4,
        "w7": draw(12, 64, 3, 3) / 16,
        "scales": np.asarray([1, 1, 2, 2], np.float32),
    }
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Add", ["c2", "r1"], ["s"]),
        node("Relu", ["s"], ["r2"]),
        node("Conv", ["r2", "w3"], ["c3"], group=32, pads=[1, 1, 1, 1]),
        node("HardSigmoid", ["c3"], ["h"], alpha=0.2, beta=0.5),
        node("Conv", ["h", "w4"], ["c4"], group=2),
        node("GlobalAveragePool", ["c4"], ["p"]),
        node("Conv", ["p", "w5"], ["c5"]),
        node("Sigmoid", ["c5"], ["g"]),
        node("Conv", ["g", "w6"], ["c6"]),
        node("Mul", ["c4", "c6"], ["m"]),
        node("MaxPool", ["m"], ["mp"], kernel_shape=[2, 2], strides=[2, 2]),
        node("AveragePool", ["m"], ["ap"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Concat", ["mp", "ap"], ["cat"], axis=1),
        node("Resize", ["cat", "", "scales"], ["u"], mode="nearest", nearest_mode="floor", **ASYMMETRIC),
        node("Resize", ["cat", "", "scales"], ["l"], mode="linear", **ASYMMETRIC),
        node("Add", ["u", "l"], ["ul"]),
        node("Conv", ["ul", "w7"], ["c7"], pads=[1, 1, 1, 1]),
        node("Transpose", ["c7"], ["y"], perm=[0, 2, 3, 1]),
    ]
    return model(nodes, [value("x", [2, 3, 16, 16])], [value("y", None)], weights)


ASYMMETRIC = {"coordinate_transformation_mode": "asymmetric"}


def optimised(folder: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx")


def test_a_network_with_channels_in_blocks(tmp_path: Path) -> None:
    saved = optimised(tmp_path, network())
    blocked = {n.op_type for n in saved.graph.node if n.domain == "com.microsoft.nchwc"}
    want = {"Conv", "MaxPool", "AveragePool", "GlobalAveragePool", "ReorderOutput", "Upsample"}
    assert want <= blocked or not ort.channel_block()
    x = draw(2, 3, 16, 16)
    imported = agree(tmp_path, saved, {"x": x}, rtol=1e-4, atol=1e-5)
    assert "host" not in ops(imported)
    agree(tmp_path, network(), {"x": x}, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("last", [0, 1])
def test_channels_of_either_order(tmp_path: Path, last: int) -> None:
    """Twelve channels fill a block of eight and a half: what fills the rest is gone behind ReorderOutput."""
    shape = [1, 5, 4, 12] if last else [1, 12, 5, 4]
    nodes = [
        node("ReorderInput", ["x"], ["b"], domain=NCHWC, channels_last=last),
        node("MaxPool", ["b"], ["p"], domain=NCHWC, kernel_shape=[2, 2]),
        node("ReorderOutput", ["p"], ["y"], domain=NCHWC, channels=12, channels_last=last),
    ]
    proto = model(nodes, [value("x", shape)], [value("y", None)], domains={NCHWC: 1})
    agree(tmp_path, proto, {"x": draw(*shape)})


NCHWC = "com.microsoft.nchwc"


def test_weights_of_another_processor(tmp_path: Path) -> None:
    nodes = [node("Conv", ["x", "w"], ["y"], domain=NCHWC)]
    proto = model(nodes, [value("x", [1, 3, 4, 4])], [value("y", None)], {"w": draw(12, 3, 1, 1)}, domains={NCHWC: 1})
    with pytest.raises(errors.CimcError, match="processor that saved the model"):
        load(save(tmp_path, proto))


def test_a_host_call_names_onnxruntimes_own(tmp_path: Path) -> None:
    """An operator of onnxruntime's own that tiles have no instruction for runs on the host."""
    x = draw(1, 3, 3)
    proto = node_model("Inverse", [x])
    graph, got = by_cimc(proto, {"x0": x}, tmp_path)
    assert [n.op for n in graph.nodes] == ["host"]
    assert proto.graph.node[0].domain == MS
    np.testing.assert_allclose(got["y0"], np.linalg.inv(x), rtol=1e-4, atol=1e-5)
