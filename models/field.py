"""The networks that other compilers for crossbars are measured on: five small workloads, ResNet-18, SqueezeNet.

The five are those of a comparison with PIMCOMP-NN and pimsim-nn on one chip. Static matmuls are written as 1 x 1
convolutions over a map of 8 x 8 pixels, the only form PIMCOMP-NN takes: a pixel is a row. Weights are drawn from a seed.
Batch size is 1, as published figures have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from models.graph import GraphBuilder
from models.weights import BIAS, RandomWeights, fan_in

OPSET = 13
SIDE = 8
"""Pixels of the map along an edge: 64 rows."""

CLASSES = 1000
PIXELS = 224


@dataclass(frozen=True)
class Network:
    """A graph being written; every method returns the name of the value it adds."""

    graph: GraphBuilder
    weights: RandomWeights

    def conv(
        self, value: str, name: str, sizes: tuple[int, int], *, kernel: int = 1, stride: int = 1, pad: int | None = None
    ) -> str:
        """A convolution with bias from ``sizes`` (inputs, outputs); ``pad`` left out keeps the map's size at stride 1."""
        inputs, outputs = sizes
        matrix = self._drawn(f"w_{name}", (outputs, inputs, kernel, kernel), inputs * kernel**2)
        bias = self.graph.weight(f"b_{name}", self.weights.array(f"b_{name}", (outputs,), BIAS))
        pads = [kernel // 2 if pad is None else pad] * 4
        return self.graph.op(
            "Conv", value, matrix, bias, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads,
            dilations=[1, 1], group=1,
        )  # fmt: skip

    def conv_relu(
        self, value: str, name: str, sizes: tuple[int, int], *, kernel: int = 1, stride: int = 1, pad: int | None = None
    ) -> str:
        """A convolution, then Relu."""
        return self.relu(self.conv(value, name, sizes, kernel=kernel, stride=stride, pad=pad))

    def linear(self, value: str, name: str, sizes: tuple[int, int], result: str | None = None) -> str:
        """A Gemm with its weight stored transposed, as PyTorch exports it."""
        inputs, outputs = sizes
        matrix = self._drawn(f"w{name}", (outputs, inputs), inputs)
        bias = self.graph.weight(f"b{name}", self.weights.array(f"b{name}", (outputs,), BIAS))
        return self.graph.op("Gemm", value, matrix, bias, transB=1, result=result)

    def relu(self, value: str) -> str:
        """max(value, 0)."""
        return self.graph.op("Relu", value)

    def pool(self, value: str, size: int, stride: int, *, pad: int = 0, ceil: bool = False) -> str:
        """The largest of size x size pixels."""
        sizes: dict[str, list[int]] = {"kernel_shape": [size] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
        if ceil:
            return self.graph.op("MaxPool", value, ceil_mode=1, **sizes)
        return self.graph.op("MaxPool", value, **sizes)

    def flatten(self, value: str) -> str:
        """[1, channels, h, w] to [1, channels · h · w]."""
        return self.graph.op("Flatten", value, axis=1)

    def _drawn(self, name: str, shape: tuple[int, ...], inputs: int) -> str:
        return self.graph.weight(name, self.weights.array(name, shape, fan_in(inputs, float(np.sqrt(2.0)))))


def mm(net: Network, side: int) -> tuple[int, ...]:
    """side² rows times 256 x 256."""
    x = net.graph.input("x", TensorProto.FLOAT, (1, 256, side, side))
    return _end(net, net.conv(x, "y", (256, 256)), (1, 256, side, side))


def _end(net: Network, value: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    net.graph.output(value, TensorProto.FLOAT, shape)
    return shape


def ffn(net: Network) -> tuple[int, ...]:
    """64 rows through 128, 512, 128."""
    x = net.graph.input("x", TensorProto.FLOAT, (1, 128, SIDE, SIDE))
    return _end(net, _ffn(net, x, "a", "y"), (1, 128, SIDE, SIDE))


def _ffn(net: Network, value: str, first: str, second: str) -> str:
    return net.conv(net.conv_relu(value, first, (128, 512)), second, (512, 128))


def bertlin(net: Network) -> tuple[int, ...]:
    """What a transformer layer multiplies by weights, with sums where attention would be."""
    g = net.graph
    x = g.input("x", TensorProto.FLOAT, (1, 128, SIDE, SIDE))
    e = net.conv(x, "e", (128, 128))
    q, k, v = (net.conv(e, name, (128, 128)) for name in "qkv")
    o = net.conv(g.op("Add", g.op("Add", q, k), v), "o", (128, 128))
    r = g.op("Add", o, e)
    return _end(net, g.op("Add", _ffn(net, r, "f1", "f2"), r), (1, 128, SIDE, SIDE))


def cnn_s(net: Network) -> tuple[int, ...]:
    """Two convolutions with pooling, two linear layers, on 32 x 32 pixels."""
    value = net.graph.input("x", TensorProto.FLOAT, (1, 3, 32, 32))
    value = net.pool(net.conv_relu(value, "r1", (3, 16), kernel=3), 2, 2)
    value = net.pool(net.conv_relu(value, "r2", (16, 32), kernel=3), 2, 2)
    value = net.relu(net.linear(net.flatten(value), "3", (2048, 64)))
    return _end(net, net.linear(value, "4", (64, 10)), (1, 10))


def resnet18(net: Network) -> tuple[int, ...]:
    """He et al. 2016, Table 1; normalisation folded into the convolutions, as inference has it."""
    value = net.graph.input("x", TensorProto.FLOAT, (1, 3, PIXELS, PIXELS))
    value = net.pool(net.conv_relu(value, "stem", (3, 64), kernel=7, stride=2), 3, 2, pad=1)
    width = 64
    for stage, outputs in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            value = _residual(net, value, f"{stage}_{block}", (width, outputs), stride)
            width = outputs
    value = net.flatten(net.graph.op("GlobalAveragePool", value))
    return _end(net, net.linear(value, "fc", (512, CLASSES)), (1, CLASSES))


def _residual(net: Network, value: str, name: str, sizes: tuple[int, int], stride: int) -> str:
    inputs, outputs = sizes
    main = net.conv_relu(value, f"{name}a", sizes, kernel=3, stride=stride)
    main = net.conv(main, f"{name}b", (outputs, outputs), kernel=3)
    if stride != 1 or inputs != outputs:
        value = net.conv(value, f"{name}down", sizes, stride=stride)
    return net.relu(net.graph.op("Add", main, value))


@dataclass(frozen=True)
class Squeeze:
    """A version of SqueezeNet: its first convolution, and the fire modules before which the map is pooled."""

    kernel: int
    channels: int
    pools: tuple[int, ...]


SQUEEZE = {"1.0": Squeeze(7, 96, (0, 3, 7)), "1.1": Squeeze(3, 64, (0, 2, 4))}
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Squeeze and expand channels of fire modules 2 to 9 (Iandola et al. 2016, Table 1)."""


def squeezenet(net: Network, version: str) -> tuple[int, ...]:
    """Iandola et al. 2016, Table 1; version 1.1 as its authors changed it later. Pooling rounds sizes up."""
    shape = SQUEEZE[version]
    value = net.graph.input("x", TensorProto.FLOAT, (1, 3, PIXELS, PIXELS))
    value = net.conv_relu(value, "stem", (3, shape.channels), kernel=shape.kernel, stride=2, pad=0)
    width = shape.channels
    for i, (narrow, wide) in enumerate(FIRES):
        if i in shape.pools:
            value = net.pool(value, 3, 2, ceil=True)
        squeezed = net.conv_relu(value, f"{i}s", (width, narrow))
        parts = [net.conv_relu(squeezed, f"{i}e{k}", (narrow, wide), kernel=k) for k in (1, 3)]
        value, width = net.graph.op("Concat", *parts, axis=1), 2 * wide
    value = net.conv_relu(value, "classes", (width, CLASSES))
    return _end(net, net.flatten(net.graph.op("GlobalAveragePool", value)), (1, CLASSES))


RECIPES: dict[str, Callable[[Network], tuple[int, ...]]] = {
    "mm1": lambda net: mm(net, 1),
    "mm64": lambda net: mm(net, SIDE),
    "ffn64": ffn,
    "bertlin": bertlin,
    "cnn_s": cnn_s,
    "resnet18": resnet18,
    "squeezenet1.0": lambda net: squeezenet(net, "1.0"),
    "squeezenet1.1": lambda net: squeezenet(net, "1.1"),
}


def build(name: str, seed: int = 0) -> onnx.ModelProto:
    """The model of a recipe; input ``x``, one output. Raises KeyError for a name that is not in ``RECIPES``."""
    net = Network(GraphBuilder(name, OPSET), RandomWeights(seed))
    RECIPES[name](net)
    return net.graph.model()
