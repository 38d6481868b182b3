"""ViT and CNN recipes against float64 formulas with explicit loops over patches and kernel positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from models.inputs import sample_inputs
from models.small import build
from models.vision import CnnConfig, VitConfig

Array = NDArray[np.float64]
Lookup = Callable[[str], Array]
erf = np.vectorize(math.erf, otypes=[np.float64])


def weights_of(model: onnx.ModelProto) -> Lookup:
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}.__getitem__


def vit_logits(w: Lookup, config: VitConfig, image: Array) -> Array:
    def norm(x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + config.eps)
        return scaled * w(f"{name}.weight") + w(f"{name}.bias")

    def dense(x: Array, name: str) -> Array:
        return x @ w(f"{name}.weight.T") + w(f"{name}.bias")

    p, size = config.patch, config.hidden // config.heads
    kernel = "vit.embeddings.patch_embeddings.projection"
    tokens = [w("vit.embeddings.cls_token")[0, 0]]
    for top in range(0, config.image, p):
        for left in range(0, config.image, p):
            patch = image[:, top : top + p, left : left + p].reshape(-1)
            tokens.append(w(f"{kernel}.weight").reshape(config.hidden, -1) @ patch + w(f"{kernel}.bias"))
    x = np.array(tokens) + w("vit.embeddings.position_embeddings")[0]
    for layer in range(config.layers):
        name = f"vit.encoder.layer.{layer}"
        n = norm(x, f"{name}.layernorm_before")
        q, k, v = (dense(n, f"{name}.attention.attention.{part}") for part in ("query", "key", "value"))
        heads = []
        for h in range(config.heads):
            part = slice(h * size, (h + 1) * size)
            weight = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
            heads.append(weight / weight.sum(axis=1, keepdims=True) @ v[:, part])
        x = x + dense(np.concatenate(heads, axis=1), f"{name}.attention.output.dense")
        wide = dense(norm(x, f"{name}.layernorm_after"), f"{name}.intermediate.dense")
        x = x + dense(wide * (1.0 + erf(wide / math.sqrt(2.0))) / 2.0, f"{name}.output.dense")
    return w("classifier.weight") @ norm(x, "vit.layernorm")[0] + w("classifier.bias")


def cnn_logits(w: Lookup, config: CnnConfig, image: Array) -> Array:
    def conv_norm(x: Array, name: str, stride: int) -> Array:
        kernel = w(f"{name}.weight")
        reach = kernel.shape[2] // 2
        padded = np.pad(x, ((0, 0), (reach, reach), (reach, reach)))
        rows, cols = (math.ceil(extent / stride) for extent in x.shape[1:])
        total = np.zeros((kernel.shape[0], rows, cols))
        for i in range(kernel.shape[2]):
            for j in range(kernel.shape[3]):
                seen = padded[:, i : i + stride * rows : stride, j : j + stride * cols : stride][:, :rows, :cols]
                total += np.einsum("oc,chw->ohw", kernel[:, :, i, j], seen)
        mean, var, scale, bias = (
            w(f"{name}.bn.{part}")[:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (total - mean) / np.sqrt(var + 1e-5) * scale + bias

    x = np.maximum(conv_norm(image, "stem", 1), 0.0)
    for stage in range(config.stages):
        stride = 1 if stage == 0 else 2
        main = np.maximum(conv_norm(x, f"layer.{stage}.conv1", stride), 0.0)
        main = conv_norm(main, f"layer.{stage}.conv2", 1)
        beside = x if stage == 0 else conv_norm(x, f"layer.{stage}.downsample", stride)
        x = np.maximum(main + beside, 0.0)
    return w("fc.weight") @ x.mean(axis=(1, 2)) + w("fc.bias")


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize(
    "config",
    [
        VitConfig(image=12, patch=4, layers=2, hidden=24, heads=3, ffn=40, classes=7),
        CnnConfig(image=11, width=4, stages=3, classes=7),
    ],
    ids=["vit", "cnn"],
)
def test_logits_agree_with_the_formulas(config: VitConfig | CnnConfig, opset: int) -> None:
    model = build(replace(config, opset=opset), seed=4)
    onnx.checker.check_model(model, full_check=True)
    feeds = sample_inputs(model, {"batch": 2}, seed=1)
    (logits,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], feeds)
    assert logits.std() > 0.3
    for row, image in enumerate(feeds["pixel_values"].astype(np.float64)):
        w = weights_of(model)
        expected = vit_logits(w, config, image) if isinstance(config, VitConfig) else cnn_logits(w, config, image)
        np.testing.assert_allclose(logits[row], expected, atol=2e-5)


@pytest.mark.parametrize(
    ("kind", "change"), [(VitConfig, {"patch": 5}), (VitConfig, {"heads": 7}), (CnnConfig, {"width": 0})]
)
def test_impossible_sizes_are_refused(kind: type[VitConfig] | type[CnnConfig], change: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be|not a multiple"):
        kind(**change)
