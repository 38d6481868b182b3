"""A multilayer perceptron: PUMA's benchmark shape (Ankit et al., ASPLOS 2019), batch size symbolic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import onnx
from onnx import TensorProto

from models.graph import GraphBuilder
from models.layers import Writer
from models.weights import Weights


@dataclass(frozen=True)
class MlpConfig:
    """``layers`` linear layers, each with a sigmoid as PUMA's compiler writes them: inputs, hidden ..., classes."""

    inputs: int = 256
    hidden: int = 256
    layers: int = 4
    classes: int = 10
    opset: int = 17

    def __post_init__(self) -> None:
        if min(self.inputs, self.hidden, self.layers, self.classes) < 1:
            raise ValueError("every size of an MLP must be at least 1")


def mlp_model(config: MlpConfig, weights: Weights) -> onnx.ModelProto:
    """Input ``x`` float32 [batch, inputs]; output ``y`` [batch, classes]."""
    g = GraphBuilder("main_graph", config.opset)
    w = Writer(g, weights)
    widths = [config.inputs, *[config.hidden] * (config.layers - 1), config.classes]
    value = g.input("x", TensorProto.FLOAT, ("batch", config.inputs))
    for layer, (inputs, outputs) in enumerate(pairwise(widths)):
        product = w.linear(value, f"layers.{layer}", inputs, outputs, gain=2.0, bias=False)
        last = layer == config.layers - 1
        with g.scope("layers", str(layer)):
            value = g.op("Sigmoid", product, result="y" if last else None)
    g.output("y", TensorProto.FLOAT, ("batch", config.classes))
    return g.model()
