"""Llama as PyTorch's exporters write it (Touvron et al. 2023): RMSNorm, rotary positions, grouped queries, SwiGLU."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from models.decoder import DecoderInputs, declare_outputs, decoder_inputs, extend_cache, output_layer, triangular_mask
from models.graph import GraphBuilder
from models.layers import Writer, scope_of
from models.weights import NORM_SCALE, SCORE_GAIN, Weights, branch_gain, fan_in

LAST = np.iinfo(np.int64).max


@dataclass(frozen=True)
class LlamaConfig:
    """The size of a Llama; ``kv_heads`` below ``heads`` shares each key and value among several queries."""

    layers: int = 2
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    ffn: int = 128
    vocab: int = 512
    theta: float = 10000.0
    eps: float = 1e-6
    tied: bool = True
    with_past: bool = False
    opset: int = 17

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads, self.kv_heads, self.ffn, self.vocab) < 1:
            raise ValueError("every size of a Llama must be at least 1")
        if self.hidden % (2 * self.heads):
            raise ValueError(f"hidden size {self.hidden} does not give {self.heads} heads of an even size")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")

    @property
    def head_size(self) -> int:
        """Channels of a head."""
        return self.hidden // self.heads


def llama_model(config: LlamaConfig, weights: Weights) -> onnx.ModelProto:
    """Inputs and cache as ``decoder_inputs`` says; outputs ``logits`` [batch, sequence, vocab] and the cache."""
    g = GraphBuilder("main_graph", config.opset)
    w = Writer(g, weights)
    with g.scope("model"):
        inputs = decoder_inputs(g, config.layers, config.kv_heads, config.head_size, config.with_past)
        mask = triangular_mask(g, inputs)
    with g.scope("model", "rotary_emb"):
        angles = _rotary_angles(g, config, inputs.positions)
    table = w.weight("model.embed_tokens.weight", (config.vocab, config.hidden), fan_in(config.hidden, 2.0))
    with g.scope("model", "embed_tokens"):
        hidden = g.op("Gather", table, inputs.ids)
    for layer in range(config.layers):
        hidden = _block(w, config, inputs, layer, hidden, mask, angles)
    hidden = _rms_norm(w, config, hidden, "model.norm")
    output_layer(w, hidden, table, config.hidden, config.vocab, config.tied)
    declare_outputs(g, inputs, config.vocab, config.kv_heads, config.head_size)
    return g.model()


def _block(
    w: Writer,
    config: LlamaConfig,
    inputs: DecoderInputs,
    layer: int,
    hidden: str,
    mask: str,
    angles: tuple[str, str],
) -> str:
    g = w.graph
    block = f"model.layers.{layer}"
    normed = _rms_norm(w, config, hidden, f"{block}.input_layernorm")
    attended = _attention(w, config, inputs, layer, normed, mask, angles)
    with g.scope(*scope_of(block)):
        hidden = g.op("Add", hidden, attended)

    normed = _rms_norm(w, config, hidden, f"{block}.post_attention_layernorm")
    gate = w.linear(normed, f"{block}.mlp.gate_proj", config.hidden, config.ffn, bias=False)
    with g.scope(*scope_of(f"{block}.mlp.act_fn")):
        gate = g.op("Mul", gate, g.op("Sigmoid", gate))
    wide = w.linear(normed, f"{block}.mlp.up_proj", config.hidden, config.ffn, bias=False)
    with g.scope(*scope_of(f"{block}.mlp")):
        wide = g.op("Mul", gate, wide)
    gain = 2.0 * branch_gain(config.layers)
    narrow = w.linear(wide, f"{block}.mlp.down_proj", config.ffn, config.hidden, gain=gain, bias=False)
    with g.scope(*scope_of(block)):
        return g.op("Add", hidden, narrow)


def _attention(
    w: Writer,
    config: LlamaConfig,
    inputs: DecoderInputs,
    layer: int,
    normed: str,
    mask: str,
    angles: tuple[str, str],
) -> str:
    g = w.graph
    name = f"model.layers.{layer}.self_attn"
    widths = {"q": config.heads, "k": config.kv_heads, "v": config.kv_heads}
    gains = {"q": SCORE_GAIN, "k": SCORE_GAIN, "v": 1.0}
    query, key, value = (
        w.linear(normed, f"{name}.{part}_proj", config.hidden, heads * config.head_size, gain=gains[part], bias=False)
        for part, heads in widths.items()
    )
    with g.scope(*scope_of(name)):
        query = _rotate(g, config, w.split_heads(query, config.heads, config.head_size), angles)
        key = _rotate(g, config, w.split_heads(key, config.kv_heads, config.head_size), angles)
        value = w.split_heads(value, config.kv_heads, config.head_size)
        key, value = extend_cache(g, inputs, layer, key, value)
        key, value = _repeat_heads(g, config, key), _repeat_heads(g, config, value)
        merged = w.merge_heads(w.attention(query, key, value, mask, config.head_size), config.hidden)
    gain = branch_gain(config.layers)
    return w.linear(merged, f"{name}.o_proj", config.hidden, config.hidden, gain=gain, bias=False)


def _rotary_angles(g: GraphBuilder, config: LlamaConfig, positions: str) -> tuple[str, str]:
    """Cosine and sine of position * theta ** (-2 i / head_size), [batch, 1, sequence, head_size] (Su et al. 2021)."""
    exponents = np.arange(0, config.head_size, 2, dtype=np.float32) / np.float32(config.head_size)
    frequencies = (np.float32(1.0) / np.float32(config.theta) ** exponents).astype(np.float32)
    column = g.op("Cast", g.unsqueeze(positions, 2), to=TensorProto.FLOAT)
    angle = g.op("Mul", column, g.constant(frequencies[None, None, :]))
    angle = g.op("Concat", angle, angle, axis=-1)
    return g.unsqueeze(g.op("Cos", angle), 1), g.unsqueeze(g.op("Sin", angle), 1)


def _rotate(g: GraphBuilder, config: LlamaConfig, value: str, angles: tuple[str, str]) -> str:
    """x * cos + (-second half, first half) * sin."""
    cosine, sine = angles
    half = config.head_size // 2
    first = g.slice(value, 3, g.integers(0), g.integers(half))
    second = g.slice(value, 3, g.integers(half), g.integers(LAST))
    turned = g.op("Concat", g.op("Neg", second), first, axis=-1)
    return g.op("Add", g.op("Mul", value, cosine), g.op("Mul", turned, sine))


def _repeat_heads(g: GraphBuilder, config: LlamaConfig, value: str) -> str:
    """[batch, kv_heads, total, size] to [batch, heads, total, size], each head repeated: Expand, then Reshape."""
    times = config.heads // config.kv_heads
    if times == 1:
        return value
    batch, total = g.dim(value, 0), g.dim(value, 2)
    shape = g.shape(batch, config.kv_heads, times, total, config.head_size)
    wide = g.op("Expand", g.unsqueeze(value, 2), shape)
    return g.reshape(wide, batch, config.heads, total, config.head_size)


def _rms_norm(w: Writer, config: LlamaConfig, value: str, name: str) -> str:
    """weight * x / sqrt(mean(x ** 2) + eps) (Zhang and Sennrich 2019); 1 / x is Reciprocal from opset 18 on."""
    g = w.graph
    scale = w.weight(f"{name}.weight", (config.hidden,), NORM_SCALE)
    with g.scope(*scope_of(name)):
        square = g.mean(g.op("Pow", value, g.scalar(2.0)), -1)
        root = g.op("Sqrt", g.op("Add", square, g.scalar(config.eps)))
        inverse = g.op("Reciprocal", root) if g.opset >= 18 else g.op("Div", g.scalar(1.0), root)
        return g.op("Mul", scale, g.op("Mul", value, inverse))
