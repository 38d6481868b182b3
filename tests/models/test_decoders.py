"""GPT-2 and Llama recipes against float64 formulas: one token and one head at a time.

The references walk the tokens as decoding does (a token sees itself and what came before), so they have no causal mask
and no cache layout to get wrong; rotary positions are complex multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from models.gpt2 import Gpt2Config
from models.inputs import sample_inputs
from models.llama import LlamaConfig
from models.small import build

Array = NDArray[np.float64]
Lookup = Callable[[str], Array]
Feeds = dict[str, NDArray[np.generic]]

GPT2 = Gpt2Config(layers=2, hidden=24, heads=3, ffn=40, vocab=50, positions=16)
LLAMA = LlamaConfig(layers=2, hidden=48, heads=6, kv_heads=2, ffn=40, vocab=50)


def weights_of(model: onnx.ModelProto) -> Lookup:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}.__getitem__


def session_of(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString())


def softmax(scores: Array) -> Array:
    weight = np.exp(scores - scores.max())
    return weight / weight.sum()


def look_back(query: Array, keys: Sequence[Array], values: Sequence[Array]) -> Array:
    return softmax(np.array([query @ key for key in keys]) / math.sqrt(len(query))) @ np.array(values)


def gpt2_logits(w: Lookup, config: Gpt2Config, ids: Sequence[int]) -> Array:
    """Logits [tokens, vocab] of one sentence that begins at position 0."""

    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean()
        return centred / math.sqrt((centred**2).mean() + config.eps) * w(f"{name}.weight") + w(f"{name}.bias")

    def conv1d(x: Array, name: str) -> Array:
        return x @ w(f"{name}.weight") + w(f"{name}.bias")

    size = config.hidden // config.heads
    seen: list[list[tuple[Array, Array]]] = [[] for _ in range(config.layers)]
    logits = []
    for position, token in enumerate(ids):
        x = w("transformer.wte.weight")[token] + w("transformer.wpe.weight")[position]
        for layer in range(config.layers):
            p = f"transformer.h.{layer}"
            query, key, value = np.split(conv1d(norm(x, f"{p}.ln_1"), f"{p}.attn.c_attn"), 3)
            seen[layer].append((key, value))
            heads = []
            for h in range(config.heads):
                part = slice(h * size, (h + 1) * size)
                heads.append(
                    look_back(query[part], [k[part] for k, _ in seen[layer]], [v[part] for _, v in seen[layer]])
                )
            x = x + conv1d(np.concatenate(heads), f"{p}.attn.c_proj")
            wide = conv1d(norm(x, f"{p}.ln_2"), f"{p}.mlp.c_fc")
            wide = 0.5 * wide * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (wide + 0.044715 * wide**3)))
            x = x + conv1d(wide, f"{p}.mlp.c_proj")
        final = norm(x, "transformer.ln_f")
        logits.append(final @ w("transformer.wte.weight").T if config.tied else final @ w("lm_head.weight.T"))
    return np.array(logits)


def llama_logits(w: Lookup, config: LlamaConfig, ids: Sequence[int]) -> Array:
    """Logits [tokens, vocab] of one sentence that begins at position 0."""

    def norm(x: Array, name: str) -> Array:
        return x / math.sqrt((x**2).mean() + config.eps) * w(f"{name}.weight")

    def rotated(x: Array, position: int) -> Array:
        half = config.head_size // 2
        angles = position * config.theta ** (-np.arange(half) / half)
        turned = (x[:half] + 1j * x[half:]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag])

    group = config.heads // config.kv_heads
    seen: list[list[tuple[list[Array], list[Array]]]] = [[] for _ in range(config.layers)]
    logits = []
    for position, token in enumerate(ids):
        x = w("model.embed_tokens.weight")[token]
        for layer in range(config.layers):
            p = f"model.layers.{layer}"
            n = norm(x, f"{p}.input_layernorm")
            q, k, v = (
                (n @ w(f"{p}.self_attn.{part}_proj.weight.T")).reshape(-1, config.head_size) for part in ("q", "k", "v")
            )
            seen[layer].append(([rotated(head, position) for head in k], list(v)))
            heads = []
            for h, query in enumerate(q):
                keys = [ks[h // group] for ks, _ in seen[layer]]
                heads.append(look_back(rotated(query, position), keys, [vs[h // group] for _, vs in seen[layer]]))
            x = x + np.concatenate(heads) @ w(f"{p}.self_attn.o_proj.weight.T")
            n = norm(x, f"{p}.post_attention_layernorm")
            gate = n @ w(f"{p}.mlp.gate_proj.weight.T")
            wide = gate / (1.0 + np.exp(-gate)) * (n @ w(f"{p}.mlp.up_proj.weight.T"))
            x = x + wide @ w(f"{p}.mlp.down_proj.weight.T")
        final = norm(x, "model.norm")
        logits.append(final @ w("model.embed_tokens.weight").T if config.tied else final @ w("lm_head.weight.T"))
    return np.array(logits)


def reference(model: onnx.ModelProto, config: Gpt2Config | LlamaConfig, ids: Sequence[int]) -> Array:
    if isinstance(config, Gpt2Config):
        return gpt2_logits(weights_of(model), config, ids)
    return llama_logits(weights_of(model), config, ids)


VARIANTS: list[Gpt2Config | LlamaConfig] = [
    GPT2,
    replace(GPT2, gemm=False, tied=False, opset=13),
    replace(GPT2, opset=21),
    LLAMA,
    replace(LLAMA, tied=False, opset=13),
    replace(LLAMA, kv_heads=6, theta=500.0, opset=18),
    replace(LLAMA, kv_heads=1, opset=21),
]


@pytest.mark.parametrize("config", VARIANTS, ids=repr)
def test_logits_agree_with_the_formulas_padding_or_not(config: Gpt2Config | LlamaConfig) -> None:
    model = build(config, seed=3)
    feeds: Feeds = dict(sample_inputs(model, {"batch": 2, "sequence": 9}, seed=1))
    lengths = (9, 5)
    feeds["attention_mask"] = (np.arange(9) < np.array(lengths)[:, None]).astype(np.int64)
    (logits,) = session_of(model).run(["logits"], feeds)
    for row, length in enumerate(lengths):
        expected = reference(model, config, feeds["input_ids"][row, :length].tolist())
        np.testing.assert_allclose(logits[row, :length], expected, atol=2e-5)


@pytest.mark.parametrize("config", [VARIANTS[0], VARIANTS[1], VARIANTS[3], VARIANTS[4]], ids=repr)
@pytest.mark.parametrize("chunks", [(9,), (4, 5), (6, 1, 1, 1)])
def test_decoding_through_the_cache_gives_the_same_logits(
    config: Gpt2Config | LlamaConfig, chunks: tuple[int, ...]
) -> None:
    plain = build(config, seed=3)
    cached = build(replace(config, with_past=True), seed=3)
    ids = sample_inputs(plain, {"batch": 1, "sequence": 9}, seed=2)["input_ids"]
    expected = reference(plain, config, ids[0].tolist())

    session = session_of(cached)
    past = sample_inputs(cached, {"batch": 1, "sequence": 1, "past_sequence": 0})
    cache = {name: array for name, array in past.items() if name.startswith("past_key_values")}
    assert len(cache) == 2 * config.layers
    begin = 0
    for chunk in chunks:
        end = begin + chunk
        feeds = {
            "input_ids": ids[:, begin:end],
            "attention_mask": np.ones((1, end), dtype=np.int64),
            "position_ids": np.arange(begin, end, dtype=np.int64)[None, :],
        }
        results = dict(zip((o.name for o in session.get_outputs()), session.run(None, feeds | cache), strict=True))
        np.testing.assert_allclose(results.pop("logits")[0], expected[begin:end], atol=2e-5)
        cache = {name.replace("present", "past_key_values"): array for name, array in results.items()}
        begin = end


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_random_decoders_are_alive(config: Gpt2Config | LlamaConfig) -> None:
    model = build(replace(config, layers=6))
    feeds = sample_inputs(model, {"batch": 1, "sequence": 12})
    (logits,) = session_of(model).run(["logits"], feeds)
    assert 0.5 < logits.std() < 5.0
    assert len(set(logits[0].argmax(axis=-1).tolist())) > 4


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (GPT2, {"heads": 5}),
        (GPT2, {"ffn": 0}),
        (LLAMA, {"kv_heads": 4}),
        (LLAMA, {"heads": 16}),
        (LLAMA, {"layers": 0}),
    ],
)
def test_impossible_sizes_are_refused(config: Gpt2Config | LlamaConfig, change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|not a multiple|does not give|cannot share"):
        replace(config, **change)
