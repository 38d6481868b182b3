"""GPT-2 as PyTorch's TorchScript exporter writes it (Radford et al. 2019): pre-norm, joint QKV, Conv1D as Gemm."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from models.decoder import DecoderInputs, comparing_mask, declare_outputs, decoder_inputs, extend_cache, output_layer
from models.graph import GraphBuilder
from models.layers import Writer, scope_of
from models.weights import BIAS, SCORE_GAIN, Weights, branch_gain, fan_in


@dataclass(frozen=True)
class Gpt2Config:
    """The size of a GPT-2. ``gemm``: linear layers as Reshape, Gemm, Reshape (as exported) instead of MatMul, Add."""

    layers: int = 2
    hidden: int = 64
    heads: int = 4
    ffn: int = 256
    vocab: int = 512
    positions: int = 64
    eps: float = 1e-5
    gemm: bool = True
    tied: bool = True
    with_past: bool = False
    opset: int = 17

    def __post_init__(self) -> None:
        if min(self.layers, self.hidden, self.heads, self.ffn, self.vocab, self.positions) < 1:
            raise ValueError("every size of a GPT-2 must be at least 1")
        if self.hidden % self.heads:
            raise ValueError(f"hidden size {self.hidden} is not a multiple of {self.heads} heads")


def gpt2_model(config: Gpt2Config, weights: Weights) -> onnx.ModelProto:
    """Inputs and cache as ``decoder_inputs`` says; outputs ``logits`` [batch, sequence, vocab] and the cache."""
    g = GraphBuilder("main_graph", config.opset)
    w = Writer(g, weights)
    size = config.hidden // config.heads
    with g.scope("transformer"):
        inputs = decoder_inputs(g, config.layers, config.heads, size, config.with_past)
        mask = comparing_mask(g, inputs)
    table = w.weight("transformer.wte.weight", (config.vocab, config.hidden), fan_in(config.hidden, 2.0))
    places = w.weight("transformer.wpe.weight", (config.positions, config.hidden), fan_in(config.hidden, 1.0))
    with g.scope("transformer", "wte"):
        token = g.op("Gather", table, inputs.ids)
    with g.scope("transformer", "wpe"):
        place = g.op("Gather", places, inputs.positions)
    with g.scope("transformer"):
        hidden = g.op("Add", token, place)
    for layer in range(config.layers):
        hidden = _block(w, config, inputs, layer, hidden, mask)
    hidden = w.layer_norm(hidden, "transformer.ln_f", config.hidden, config.eps)
    output_layer(w, hidden, table, config.hidden, config.vocab, config.tied)
    declare_outputs(g, inputs, config.vocab, config.heads, size)
    return g.model()


def _block(w: Writer, config: Gpt2Config, inputs: DecoderInputs, layer: int, hidden: str, mask: str) -> str:
    g = w.graph
    block = f"transformer.h.{layer}"
    normed = w.layer_norm(hidden, f"{block}.ln_1", config.hidden, config.eps)
    attended = _attention(w, config, inputs, layer, normed, mask)
    with g.scope(*scope_of(block)):
        hidden = g.op("Add", attended, hidden)

    normed = w.layer_norm(hidden, f"{block}.ln_2", config.hidden, config.eps)
    wide = _conv1d(w, config, normed, f"{block}.mlp.c_fc", config.hidden, config.ffn, 1.0)
    with g.scope(*scope_of(f"{block}.mlp.act")):
        wide = w.gelu_tanh(wide)
    narrow = _conv1d(w, config, wide, f"{block}.mlp.c_proj", config.ffn, config.hidden, branch_gain(config.layers))
    with g.scope(*scope_of(block)):
        return g.op("Add", hidden, narrow)


def _attention(w: Writer, config: Gpt2Config, inputs: DecoderInputs, layer: int, normed: str, mask: str) -> str:
    g = w.graph
    name = f"transformer.h.{layer}.attn"
    size = config.hidden // config.heads
    joint = _conv1d(w, config, normed, f"{name}.c_attn", config.hidden, 3 * config.hidden, SCORE_GAIN)
    with g.scope(*scope_of(name)):
        parts = g.ops("Split", joint, g.integers(*[config.hidden] * 3), results=3, axis=2)
        query, key, value = (w.split_heads(part, config.heads, size) for part in parts)
        key, value = extend_cache(g, inputs, layer, key, value)
        merged = w.merge_heads(w.attention(query, key, value, mask, size), config.hidden)
    return _conv1d(w, config, merged, f"{name}.c_proj", config.hidden, config.hidden, branch_gain(config.layers))


def _conv1d(w: Writer, config: Gpt2Config, value: str, name: str, inputs: int, outputs: int, gain: float) -> str:
    """GPT-2's linear layer; its weight is stored [inputs, outputs]."""
    g = w.graph
    matrix = w.weight(f"{name}.weight", (inputs, outputs), fan_in(inputs, gain))
    bias = w.weight(f"{name}.bias", (outputs,), BIAS)
    with g.scope(*scope_of(name)):
        if not config.gemm:
            return g.op("Add", g.op("MatMul", value, matrix), bias)
        batch, length = g.dim(value, 0), g.dim(value, 1)
        flat = g.op("Gemm", g.reshape(value, -1, inputs), matrix, bias, alpha=1.0, beta=1.0)
        return g.reshape(flat, batch, length, outputs)
