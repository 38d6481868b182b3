"""The field's networks: shapes and multiply-accumulates against the graphs they stand for and published counts."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnxruntime
import pytest

from models.field import RECIPES, build

# Read from the graphs that PIMCOMP-NN was run on: per Conv and Gemm, in their order, the weight's shape and the output's.
GIVEN = {
    "mm1": [((256, 256, 1, 1), (1, 256, 1, 1))],
    "mm64": [((256, 256, 1, 1), (1, 256, 8, 8))],
    "ffn64": [((512, 128, 1, 1), (1, 512, 8, 8)), ((128, 512, 1, 1), (1, 128, 8, 8))],
    "bertlin": [
        *[((128, 128, 1, 1), (1, 128, 8, 8))] * 5,
        ((512, 128, 1, 1), (1, 512, 8, 8)),
        ((128, 512, 1, 1), (1, 128, 8, 8)),
    ],
    "cnn_s": [
        ((16, 3, 3, 3), (1, 16, 32, 32)),
        ((32, 16, 3, 3), (1, 32, 16, 16)),
        ((64, 2048), (1, 64)),
        ((10, 64), (1, 10)),
    ],
}
OTHERS = {
    "mm1": [],
    "mm64": [],
    "ffn64": ["Relu"],
    "bertlin": ["Add", "Add", "Add", "Relu", "Add"],
    "cnn_s": ["Relu", "MaxPool", "Relu", "MaxPool", "Flatten", "Relu"],
}
# Multiply-accumulates at 224 pixels, and parameters, as torchvision's table of models has them, in thousands of millions
# and millions (1.814, 11.69; 0.819, 1.248; 0.349, 1.235). Biases of convolutions stand where it has normalisations.
PUBLISHED = {
    "resnet18": (1.814e9, 11.69e6),
    "squeezenet1.0": (0.819e9, 1.248e6),
    "squeezenet1.1": (0.349e9, 1.235e6),
}


def products(model: onnx.ModelProto) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    weights = {t.name: tuple(t.dims) for t in graph.initializer}
    values = {
        v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in [*graph.value_info, *graph.output]
    }
    return [(weights[n.input[1]], values[n.output[0]]) for n in graph.node if n.op_type in ("Conv", "Gemm")]


def macs(model: onnx.ModelProto) -> int:
    """Output values times products each: a weight's size over its outputs."""
    return sum(math.prod(output) * math.prod(weight[1:]) for weight, output in products(model))


@pytest.mark.parametrize("name", GIVEN)
def test_small_workloads_are_the_given_graphs(name: str) -> None:
    model = build(name)
    assert products(model) == GIVEN[name]
    assert [n.op_type for n in model.graph.node if n.op_type not in ("Conv", "Gemm")] == OTHERS[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_networks_have_the_published_size(name: str) -> None:
    model = build(name)
    wanted, parameters = PUBLISHED[name]
    assert macs(model) == pytest.approx(wanted, rel=0.003)
    assert sum(math.prod(t.dims) for t in model.graph.initializer) == pytest.approx(parameters, rel=0.002)


@pytest.mark.parametrize("name", ["mm1", "ffn64", "bertlin", "cnn_s"])
def test_onnxruntime_runs_them(name: str) -> None:
    model = build(name)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shape = session.get_inputs()[0].shape
    output = session.run(None, {"x": np.random.default_rng(0).standard_normal(shape, np.float32)})[0]
    assert np.all(np.isfinite(output))
    assert output.std() > 0.01


def test_every_recipe_ends_in_one_output() -> None:
    for name in RECIPES:
        assert len(build(name).graph.output) == 1
