"""What GPT-2 and Llama recipes share: inputs with or without a KV cache, causal masks, the output layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto, numpy_helper

from models.graph import GraphBuilder
from models.layers import FLOAT_MIN, Writer

SEQUENCE = "sequence"
PAST = "past_sequence"
TOTAL = f"{PAST} + {SEQUENCE}"


@dataclass(frozen=True)
class DecoderInputs:
    """Names of values: the graph's inputs, and the extents derived from them (int64 scalars)."""

    ids: str
    attention_mask: str
    positions: str
    past: tuple[tuple[str, str], ...]
    length: str
    past_length: str | None
    total_length: str


def decoder_inputs(g: GraphBuilder, layers: int, kv_heads: int, head_size: int, with_past: bool) -> DecoderInputs:
    """``input_ids``, ``attention_mask``, and with a cache ``position_ids`` and ``past_key_values.N.key/value``.

    int64 [batch, sequence], the mask [batch, past + sequence]; the cache float32 [batch, kv_heads, past, head_size].
    """
    ids = g.input("input_ids", TensorProto.INT64, ("batch", SEQUENCE))
    if not with_past:
        mask = g.input("attention_mask", TensorProto.INT64, ("batch", SEQUENCE))
        length = g.dim(ids, 1)
        return DecoderInputs(ids, mask, g.unsqueeze(g.range(length), 0), (), length, None, length)
    mask = g.input("attention_mask", TensorProto.INT64, ("batch", TOTAL))
    positions = g.input("position_ids", TensorProto.INT64, ("batch", SEQUENCE))
    shape = ("batch", kv_heads, PAST, head_size)
    past = tuple(
        (
            g.input(f"past_key_values.{layer}.key", TensorProto.FLOAT, shape),
            g.input(f"past_key_values.{layer}.value", TensorProto.FLOAT, shape),
        )
        for layer in range(layers)
    )
    length, past_length = g.dim(ids, 1), g.dim(past[0][0], 2)
    return DecoderInputs(ids, mask, positions, past, length, past_length, g.op("Add", past_length, length))


def extend_cache(g: GraphBuilder, inputs: DecoderInputs, layer: int, key: str, value: str) -> tuple[str, str]:
    """Cached keys and values followed by the new ones, as outputs ``present.N.key/value``; without a cache, the new."""
    if not inputs.past:
        return key, value
    past_key, past_value = inputs.past[layer]
    joined_key = g.op("Concat", past_key, key, axis=-2, result=f"present.{layer}.key")
    joined_value = g.op("Concat", past_value, value, axis=-2, result=f"present.{layer}.value")
    return joined_key, joined_value


def declare_outputs(g: GraphBuilder, inputs: DecoderInputs, vocab: int, kv_heads: int, head_size: int) -> None:
    """``logits`` [batch, sequence, vocab], and the extended cache."""
    g.output("logits", TensorProto.FLOAT, ("batch", SEQUENCE, vocab))
    for layer in range(len(inputs.past)):
        for part in ("key", "value"):
            g.output(f"present.{layer}.{part}", TensorProto.FLOAT, ("batch", kv_heads, TOTAL, head_size))


def comparing_mask(g: GraphBuilder, inputs: DecoderInputs) -> str:
    """[batch, 1, sequence, total]: 0 where a token may look, the lowest float elsewhere; Range, LessOrEqual, Where."""
    rows = _row_positions(g, inputs)
    columns = g.unsqueeze(g.range(inputs.total_length), 0)
    causal = g.unsqueeze(g.op("LessOrEqual", columns, rows), 0, 1)
    real = g.op("Cast", g.unsqueeze(inputs.attention_mask, 1, 2), to=TensorProto.BOOL)
    return g.op("Where", g.op("And", causal, real), g.scalar(0.0), g.scalar(FLOAT_MIN))


def triangular_mask(g: GraphBuilder, inputs: DecoderInputs) -> str:
    """The same out of a full matrix, Trilu and the padding, as transformers 4.36 to 4.50 wrote it for Llama.

    Opset 13 has no Trilu and gets ``comparing_mask``.
    """
    if g.opset < 14:
        return comparing_mask(g, inputs)
    lowest = numpy_helper.from_array(np.array([FLOAT_MIN], dtype=np.float32))
    full = g.op("ConstantOfShape", g.shape(inputs.length, inputs.total_length), value=lowest)
    causal = g.op("Trilu", full, g.integer(1), upper=1)
    if inputs.past:
        # Trilu counted columns from the first new token: clear what the cached tokens added below the diagonal.
        columns = g.unsqueeze(g.range(inputs.total_length), 0)
        later = g.op("Greater", columns, _row_positions(g, inputs))
        causal = g.op("Mul", causal, g.op("Cast", later, to=TensorProto.FLOAT))
    causal = g.unsqueeze(causal, 0, 1)
    padding = g.op("Cast", g.unsqueeze(inputs.attention_mask, 1, 2), to=TensorProto.FLOAT)
    hidden = g.op("Equal", g.op("Add", causal, padding), g.scalar(0.0))
    return g.op("Where", hidden, g.scalar(FLOAT_MIN), causal)


def output_layer(w: Writer, hidden: str, table: str, width: int, vocab: int, tied: bool) -> None:
    """``logits``: a product with the transposed embedding table, or with a matrix of its own (``lm_head``)."""
    g = w.graph
    if not tied:
        logits = w.linear(hidden, "lm_head", width, vocab, gain=2.0, bias=False)
        g.op("Identity", logits, result="logits")
        return
    with g.scope("lm_head"):
        g.op("MatMul", hidden, g.op("Transpose", table, perm=[1, 0]), result="logits")


def _row_positions(g: GraphBuilder, inputs: DecoderInputs) -> str:
    """[sequence, 1]: where each new token stands, cached tokens counted."""
    rows = g.range(inputs.length)
    if inputs.past_length is not None:
        rows = g.op("Add", rows, inputs.past_length)
    return g.unsqueeze(rows, 1)
