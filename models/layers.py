"""Layers that encoders and decoders share, each in the nodes that a PyTorch exporter writes for it."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from models.graph import GraphBuilder
from models.weights import BIAS, NORM_SCALE, Init, Weights, fan_in

FLOAT_MIN = float(np.finfo(np.float32).min)


class Writer:
    """A graph under construction together with the weights it takes."""

    def __init__(self, graph: GraphBuilder, weights: Weights) -> None:
        self.graph = graph
        self.weights = weights

    def weight(self, name: str, shape: tuple[int, ...], init: Init) -> str:
        """An initializer under its own name."""
        return self.graph.weight(name, self.weights.array(name, shape, init))

    def linear(self, value: str, name: str, inputs: int, outputs: int, *, gain: float = 1.0, bias: bool = True) -> str:
        """``x @ W.T + b`` as MatMul and Add, on a weight stored transposed (``NAME.weight.T``, [inputs, outputs])."""
        g = self.graph
        matrix = self.weights.array(f"{name}.weight", (outputs, inputs), fan_in(inputs, gain))
        with g.scope(*scope_of(name)):
            product = g.op("MatMul", value, g.weight(f"{name}.weight.T", matrix.T))
            if not bias:
                return product
            return g.op("Add", self.weight(f"{name}.bias", (outputs,), BIAS), product)

    def layer_norm(self, value: str, name: str, hidden: int, eps: float) -> str:
        """LayerNormalization over the last axis; before opset 17 the nodes it was exported as."""
        g = self.graph
        scale = self.weight(f"{name}.weight", (hidden,), NORM_SCALE)
        bias = self.weight(f"{name}.bias", (hidden,), BIAS)
        with g.scope(*scope_of(name)):
            if g.opset >= 17:
                return g.op("LayerNormalization", value, scale, bias, axis=-1, epsilon=eps)
            centred = g.op("Sub", value, g.mean(value, -1))
            variance = g.mean(g.op("Pow", centred, g.scalar(2.0)), -1)
            deviation = g.op("Sqrt", g.op("Add", variance, g.scalar(eps)))
            return g.op("Add", g.op("Mul", g.op("Div", centred, deviation), scale), bias)

    def gelu(self, value: str) -> str:
        """The exact GELU, x * (1 + erf(x / sqrt 2)) / 2."""
        g = self.graph
        erf = g.op("Erf", g.op("Div", value, g.scalar(float(np.sqrt(2.0)))))
        return g.op("Mul", g.op("Mul", value, g.op("Add", erf, g.scalar(1.0))), g.scalar(0.5))

    def gelu_tanh(self, value: str) -> str:
        """GELU by tanh as GPT-2 has it (Hendrycks and Gimpel 2016, equation 2)."""
        g = self.graph
        half = g.op("Mul", value, g.scalar(0.5))
        cube = g.op("Mul", g.op("Pow", value, g.scalar(3.0)), g.scalar(0.044715))
        inner = g.op("Mul", g.op("Add", value, cube), g.scalar(float(np.sqrt(2.0 / np.pi))))
        return g.op("Mul", half, g.op("Add", g.op("Tanh", inner), g.scalar(1.0)))

    def split_heads(self, value: str, heads: int, head_size: int) -> str:
        """[batch, sequence, heads * head_size] to [batch, heads, sequence, head_size]."""
        g = self.graph
        split = g.reshape(value, g.dim(value, 0), g.dim(value, 1), heads, head_size)
        return g.op("Transpose", split, perm=[0, 2, 1, 3])

    def merge_heads(self, value: str, hidden: int) -> str:
        """[batch, heads, sequence, head_size] to [batch, sequence, hidden]."""
        g = self.graph
        joined = g.op("Transpose", value, perm=[0, 2, 1, 3])
        return g.reshape(joined, g.dim(joined, 0), g.dim(joined, 1), hidden)

    def attention(self, query: str, key: str, value: str, mask: str | None, head_size: int) -> str:
        """softmax(QK' / sqrt(head_size) + mask) V on [batch, heads, sequence, head_size]."""
        g = self.graph
        scores = g.op("MatMul", query, g.op("Transpose", key, perm=[0, 1, 3, 2]))
        scores = g.op("Div", scores, g.scalar(float(np.sqrt(head_size))))
        if mask is not None:
            scores = g.op("Add", scores, mask)
        return g.op("MatMul", g.op("Softmax", scores, axis=-1), value)

    def padding_mask(self, attention_mask: str) -> str:
        """[batch, sequence] of 0 and 1 to [batch, 1, 1, sequence] of the lowest float and 0: (1 - mask) * lowest."""
        g = self.graph
        wide = g.op("Cast", g.unsqueeze(attention_mask, 1, 2), to=TensorProto.FLOAT)
        return g.op("Mul", g.op("Sub", g.scalar(1.0), wide), g.scalar(FLOAT_MIN))


def scope_of(name: str) -> tuple[str, ...]:
    """``encoder.layer.0.output.dense`` to its module path ``encoder / layer.0 / output / dense``."""
    parts: list[str] = []
    for piece in name.split("."):
        if piece.isdigit() and parts:
            parts[-1] += f".{piece}"
        else:
            parts.append(piece)
    return tuple(parts)
