"""BERT as PyTorch's TorchScript exporter writes it (Devlin et al. 2019), with whatever weights it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from models.graph import GraphBuilder
from models.layers import Writer, scope_of
from models.weights import SCORE_GAIN, Weights, branch_gain, fan_in


@dataclass(frozen=True)
class BertConfig:
    """The size of a BERT encoder.

    ``pooler`` adds BERT's tanh layer on the first token (output ``pooler_output``, [batch, hidden]);
    ``sentence_embedding`` the masked mean of all tokens at unit length (output of that name, [batch, hidden]).
    """

    layers: int = 2
    hidden: int = 64
    heads: int = 4
    ffn: int = 128
    vocab: int = 512
    positions: int = 64
    types: int = 2
    eps: float = 1e-12
    pooler: bool = True
    sentence_embedding: bool = False
    opset: int = 17

    def __post_init__(self) -> None:
        sizes = (self.layers, self.hidden, self.heads, self.ffn, self.vocab, self.positions, self.types)
        if min(sizes) < 1:
            raise ValueError("every size of a BERT must be at least 1")
        if self.hidden % self.heads:
            raise ValueError(f"hidden size {self.hidden} is not a multiple of {self.heads} heads")


def bert_model(config: BertConfig, weights: Weights, name: str = "main_graph") -> onnx.ModelProto:
    """Inputs ``input_ids``, ``attention_mask``, ``token_type_ids``: int64 [batch, sequence].

    Output ``last_hidden_state``: float32 [batch, sequence, hidden], and those that ``config`` asks for.
    """
    g = GraphBuilder(name, config.opset)
    w = Writer(g, weights)
    tokens = ("batch", "sequence")
    ids = g.input("input_ids", TensorProto.INT64, tokens)
    attention_mask = g.input("attention_mask", TensorProto.INT64, tokens)
    types = g.input("token_type_ids", TensorProto.INT64, tokens)

    hidden = _embeddings(w, config, ids, types)
    mask = w.padding_mask(attention_mask)
    for index in range(config.layers):
        hidden = _layer(w, config, f"encoder.layer.{index}", hidden, mask)
    hidden = g.op("Identity", hidden, result="last_hidden_state")
    g.output(hidden, TensorProto.FLOAT, (*tokens, config.hidden))
    if config.pooler:
        _pooler(w, config, hidden)
        g.output("pooler_output", TensorProto.FLOAT, ("batch", config.hidden))
    if config.sentence_embedding:
        _sentence_embedding(g, hidden, attention_mask)
        g.output("sentence_embedding", TensorProto.FLOAT, ("batch", config.hidden))
    return g.model()


def _embeddings(w: Writer, config: BertConfig, ids: str, types: str) -> str:
    g = w.graph
    prefix = "embeddings"
    # A LayerNorm follows, so only the ratio between the three tables matters.
    tables = {"word": config.vocab, "token_type": config.types, "position": config.positions}
    word, token_type, position = (
        w.weight(f"{prefix}.{table}_embeddings.weight", (rows, config.hidden), fan_in(config.hidden))
        for table, rows in tables.items()
    )
    with g.scope(prefix):
        length = g.unsqueeze(g.dim(ids, 1), 0)
        buffer = g.constant(np.arange(config.positions, dtype=np.int64)[None, :])
        positions = g.slice(buffer, 1, g.integers(0), length)
        with g.scope("word_embeddings"):
            value = g.op("Gather", word, ids)
        with g.scope("token_type_embeddings"):
            segment = g.op("Gather", token_type, types)
        value = g.op("Add", value, segment)
        with g.scope("position_embeddings"):
            place = g.op("Gather", position, positions)
        value = g.op("Add", value, place)
    return w.layer_norm(value, f"{prefix}.LayerNorm", config.hidden, config.eps)


def _layer(w: Writer, config: BertConfig, prefix: str, hidden: str, mask: str) -> str:
    g = w.graph
    attended = _self_attention(w, config, f"{prefix}.attention.self", hidden, mask)
    output = f"{prefix}.attention.output"
    dense = w.linear(attended, f"{output}.dense", config.hidden, config.hidden, gain=branch_gain(config.layers))
    with g.scope(*scope_of(output)):
        added = g.op("Add", dense, hidden)
    attended = w.layer_norm(added, f"{output}.LayerNorm", config.hidden, config.eps)

    wide = w.linear(attended, f"{prefix}.intermediate.dense", config.hidden, config.ffn)
    with g.scope(*scope_of(f"{prefix}.intermediate.intermediate_act_fn")):
        wide = w.gelu(wide)
    dense = w.linear(wide, f"{prefix}.output.dense", config.ffn, config.hidden, gain=branch_gain(config.layers))
    with g.scope(*scope_of(f"{prefix}.output")):
        added = g.op("Add", dense, attended)
    return w.layer_norm(added, f"{prefix}.output.LayerNorm", config.hidden, config.eps)


def _self_attention(w: Writer, config: BertConfig, prefix: str, hidden: str, mask: str) -> str:
    g = w.graph
    size = config.hidden // config.heads
    gains = {"query": SCORE_GAIN, "key": SCORE_GAIN, "value": 1.0}
    query, key, value = (
        w.linear(hidden, f"{prefix}.{part}", config.hidden, config.hidden, gain=gain) for part, gain in gains.items()
    )
    with g.scope(*scope_of(prefix)):
        heads = [w.split_heads(part, config.heads, size) for part in (query, key, value)]
        return w.merge_heads(w.attention(*heads, mask, size), config.hidden)


def _pooler(w: Writer, config: BertConfig, hidden: str) -> None:
    g = w.graph
    with g.scope("pooler"):
        first = g.op("Gather", hidden, g.integer(0), axis=1)
    dense = w.linear(first, "pooler.dense", config.hidden, config.hidden)
    with g.scope("pooler", "activation"):
        g.op("Tanh", dense, result="pooler_output")


def _sentence_embedding(g: GraphBuilder, hidden: str, attention_mask: str) -> None:
    """sum(mask * token) / max(sum(mask), 1e-9), then to unit length: Pooling and Normalize of sentence-transformers."""
    with g.scope("pooling"):
        wide = g.op("Expand", g.unsqueeze(attention_mask, -1), g.op("Shape", hidden))
        wide = g.op("Cast", wide, to=TensorProto.FLOAT)
        total = g.op("ReduceSum", g.op("Mul", hidden, wide), g.integers(1), keepdims=0)
        count = g.op("Clip", g.op("ReduceSum", wide, g.integers(1), keepdims=0), g.scalar(1e-9))
        mean = g.op("Div", total, count)
    with g.scope("normalize"):
        length = g.op("Clip", g.norm2(mean, -1), g.scalar(1e-12))
        g.op("Div", mean, g.op("Expand", length, g.op("Shape", mean)), result="sentence_embedding")
