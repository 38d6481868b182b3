"""Vision recipes: ViT (Dosovitskiy et al. 2021) and a small residual CNN (He et al. 2016), batch size symbolic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from models.graph import GraphBuilder
from models.layers import Writer, scope_of
from models.weights import BIAS, NORM_SCALE, SCORE_GAIN, Init, Weights, branch_gain, fan_in


@dataclass(frozen=True)
class VitConfig:
    """The size of a vision transformer on square images."""

    image: int = 32
    patch: int = 8
    channels: int = 3
    layers: int = 2
    hidden: int = 64
    heads: int = 4
    ffn: int = 128
    classes: int = 10
    eps: float = 1e-12
    opset: int = 17

    def __post_init__(self) -> None:
        sizes = (self.image, self.patch, self.channels, self.layers, self.hidden, self.heads, self.ffn, self.classes)
        if min(sizes) < 1:
            raise ValueError("every size of a ViT must be at least 1")
        if self.image % self.patch:
            raise ValueError(f"an image of {self.image} pixels is not a multiple of patches of {self.patch}")
        if self.hidden % self.heads:
            raise ValueError(f"hidden size {self.hidden} is not a multiple of {self.heads} heads")


@dataclass(frozen=True)
class CnnConfig:
    """A stem, one residual block a stage (channels double, pixels halve from the second on), a classifier."""

    image: int = 32
    channels: int = 3
    width: int = 8
    stages: int = 2
    classes: int = 10
    opset: int = 17

    def __post_init__(self) -> None:
        if min(self.image, self.channels, self.width, self.stages, self.classes) < 1:
            raise ValueError("every size of a CNN must be at least 1")


def vit_model(config: VitConfig, weights: Weights) -> onnx.ModelProto:
    """Input ``pixel_values`` float32 [batch, channels, image, image]; output ``logits`` [batch, classes]."""
    g = GraphBuilder("main_graph", config.opset)
    w = Writer(g, weights)
    pixels = g.input("pixel_values", TensorProto.FLOAT, ("batch", config.channels, config.image, config.image))
    hidden = _vit_embeddings(w, config, pixels)
    for layer in range(config.layers):
        hidden = _vit_layer(w, config, f"vit.encoder.layer.{layer}", hidden)
    hidden = w.layer_norm(hidden, "vit.layernorm", config.hidden, config.eps)
    with g.scope("vit"):
        first = g.op("Gather", hidden, g.integer(0), axis=1)
    matrix = w.weight("classifier.weight", (config.classes, config.hidden), fan_in(config.hidden, 2.0))
    bias = w.weight("classifier.bias", (config.classes,), BIAS)
    with g.scope("classifier"):
        g.op("Gemm", first, matrix, bias, alpha=1.0, beta=1.0, transB=1, result="logits")
    g.output("logits", TensorProto.FLOAT, ("batch", config.classes))
    return g.model()


def _vit_embeddings(w: Writer, config: VitConfig, pixels: str) -> str:
    g = w.graph
    patches = (config.image // config.patch) ** 2
    table = fan_in(1, 0.5)
    kernel_shape = (config.hidden, config.channels, config.patch, config.patch)
    name = "vit.embeddings.patch_embeddings.projection"
    kernel = w.weight(f"{name}.weight", kernel_shape, fan_in(config.channels * config.patch**2))
    bias = w.weight(f"{name}.bias", (config.hidden,), BIAS)
    token = w.weight("vit.embeddings.cls_token", (1, 1, config.hidden), table)
    places = w.weight("vit.embeddings.position_embeddings", (1, patches + 1, config.hidden), table)
    steps = [config.patch, config.patch]
    with g.scope(*scope_of(name)):
        cut = g.op("Conv", pixels, kernel, bias, kernel_shape=steps, strides=steps)
    with g.scope("vit", "embeddings"):
        flat = g.op("Transpose", g.reshape(cut, g.dim(cut, 0), config.hidden, -1), perm=[0, 2, 1])
        first = g.op("Expand", token, g.shape(g.dim(pixels, 0), 1, config.hidden))
        return g.op("Add", g.op("Concat", first, flat, axis=1), places)


def _vit_layer(w: Writer, config: VitConfig, name: str, hidden: str) -> str:
    g = w.graph
    width, size, gain = config.hidden, config.hidden // config.heads, branch_gain(config.layers)
    normed = w.layer_norm(hidden, f"{name}.layernorm_before", width, config.eps)
    gains = {"query": SCORE_GAIN, "key": SCORE_GAIN, "value": 1.0}
    projected = [w.linear(normed, f"{name}.attention.attention.{p}", width, width, gain=s) for p, s in gains.items()]
    with g.scope(*scope_of(f"{name}.attention.attention")):
        query, key, value = (w.split_heads(part, config.heads, size) for part in projected)
        merged = w.merge_heads(w.attention(query, key, value, None, size), width)
    attended = w.linear(merged, f"{name}.attention.output.dense", width, width, gain=gain)
    with g.scope(*scope_of(name)):
        hidden = g.op("Add", attended, hidden)

    normed = w.layer_norm(hidden, f"{name}.layernorm_after", width, config.eps)
    wide = w.linear(normed, f"{name}.intermediate.dense", width, config.ffn)
    with g.scope(*scope_of(f"{name}.intermediate.intermediate_act_fn")):
        wide = w.gelu(wide)
    narrow = w.linear(wide, f"{name}.output.dense", config.ffn, width, gain=gain)
    with g.scope(*scope_of(f"{name}.output")):
        return g.op("Add", narrow, hidden)


def cnn_model(config: CnnConfig, weights: Weights) -> onnx.ModelProto:
    """Input ``pixel_values`` float32 [batch, channels, image, image]; output ``logits`` [batch, classes]."""
    g = GraphBuilder("main_graph", config.opset)
    w = Writer(g, weights)
    value = g.input("pixel_values", TensorProto.FLOAT, ("batch", config.channels, config.image, config.image))
    value = _conv_norm(w, value, "stem", config.channels, config.width, kernel=3, stride=1)
    with g.scope("stem"):
        value = g.op("Relu", value)
    width = config.width
    for stage in range(config.stages):
        outputs = width if stage == 0 else 2 * width
        value = residual_block(w, value, f"layer.{stage}", width, outputs, stride=1 if stage == 0 else 2)
        width = outputs
    with g.scope("avgpool"):
        value = g.op("Flatten", g.op("GlobalAveragePool", value), axis=1)
    matrix = w.weight("fc.weight", (config.classes, width), fan_in(width, 2.0))
    bias = w.weight("fc.bias", (config.classes,), BIAS)
    with g.scope("fc"):
        g.op("Gemm", value, matrix, bias, alpha=1.0, beta=1.0, transB=1, result="logits")
    g.output("logits", TensorProto.FLOAT, ("batch", config.classes))
    return g.model()


def residual_block(w: Writer, value: str, name: str, inputs: int, outputs: int, stride: int) -> str:
    """ResNet's basic block: two 3 x 3 convolutions beside the identity, or a 1 x 1 one where the shape changes."""
    g = w.graph
    main = _conv_norm(w, value, f"{name}.conv1", inputs, outputs, kernel=3, stride=stride)
    with g.scope(*scope_of(name)):
        main = g.op("Relu", main)
    main = _conv_norm(w, main, f"{name}.conv2", outputs, outputs, kernel=3, stride=1)
    if stride != 1 or inputs != outputs:
        value = _conv_norm(w, value, f"{name}.downsample", inputs, outputs, kernel=1, stride=stride)
    with g.scope(*scope_of(name)):
        return g.op("Relu", g.op("Add", main, value))


def _conv_norm(w: Writer, value: str, name: str, inputs: int, outputs: int, kernel: int, stride: int) -> str:
    """Convolution without bias, then BatchNormalization with its stored mean and variance."""
    g = w.graph
    gain = float(np.sqrt(2.0))
    matrix = w.weight(f"{name}.weight", (outputs, inputs, kernel, kernel), fan_in(inputs * kernel**2, gain))
    inits = {"weight": NORM_SCALE, "bias": BIAS, "running_mean": BIAS, "running_var": Init(1.0, 0.05)}
    norm = [w.weight(f"{name}.bn.{part}", (outputs,), init) for part, init in inits.items()]
    pad = kernel // 2
    with g.scope(*scope_of(name)):
        product = g.op("Conv", value, matrix, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4)
        return g.op("BatchNormalization", product, *norm, epsilon=1e-5)
