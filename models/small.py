"""Transformers (and a CNN) of any size with weights drawn from a seed.

    python -m models.small gpt2 --layers 2 --hidden 64 --with-past -o out/gpt2.onnx
    python -m models.small bert-base -o out/bert-base.onnx

From Python: ``bert(layers=2, hidden=64)``, ``gpt2(...)``, ``llama(...)``, ``vit(...)``, ``cnn(...)``, ``mlp(...)`` return
the model.
A weight depends on the seed and on its own name only: with and without ``with_past``, or at another opset, a model has
the same weights. They are scaled so that attention is uneven, tokens stay apart and logits spread.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import onnx

from models.encoder import BertConfig, bert_model
from models.gpt2 import Gpt2Config, gpt2_model
from models.graph import save
from models.llama import LlamaConfig, llama_model
from models.mlp import MlpConfig, mlp_model
from models.vision import CnnConfig, VitConfig, cnn_model, vit_model
from models.weights import RandomWeights

Config = BertConfig | Gpt2Config | LlamaConfig | VitConfig | CnnConfig | MlpConfig


@dataclass(frozen=True)
class Recipe:
    """What a name on the command line builds."""

    config: Config
    about: str


RECIPES: dict[str, Recipe] = {
    "bert": Recipe(BertConfig(), "BERT encoder (TorchScript patterns)"),
    "gpt2": Recipe(Gpt2Config(), "GPT-2 decoder, --with-past for its KV cache"),
    "llama": Recipe(LlamaConfig(), "Llama decoder: RMSNorm, rotary positions, grouped queries, SwiGLU"),
    "vit": Recipe(VitConfig(), "vision transformer"),
    "cnn": Recipe(CnnConfig(), "residual CNN"),
    "mlp": Recipe(MlpConfig(), "multilayer perceptron, 256-256-256-256-10 as PUMA's simulator is compared on"),
    # Published sizes: Devlin et al. 2019; Radford et al. 2019; Dosovitskiy et al. 2021; the config.json of
    # HuggingFaceTB/SmolLM2-135M and of TinyLlama/TinyLlama-1.1B.
    "bert-base": Recipe(
        BertConfig(layers=12, hidden=768, heads=12, ffn=3072, vocab=30522, positions=512), "the size of BERT base"
    ),
    "gpt2-small": Recipe(
        Gpt2Config(layers=12, hidden=768, heads=12, ffn=3072, vocab=50257, positions=1024), "the size of GPT-2 small"
    ),
    "vit-base": Recipe(
        VitConfig(image=224, patch=16, layers=12, hidden=768, heads=12, ffn=3072, classes=1000),
        "the size of ViT base, patch 16, 224 pixels",
    ),
    "smollm2-135m": Recipe(
        LlamaConfig(
            layers=30, hidden=576, heads=9, kv_heads=3, ffn=1536, vocab=49152, theta=100000.0, eps=1e-5, with_past=True
        ),
        "the size of SmolLM2-135M, with KV cache",
    ),
    "tinyllama-1.1b": Recipe(
        LlamaConfig(
            layers=22, hidden=2048, heads=32, kv_heads=4, ffn=5632, vocab=32000, eps=1e-5, tied=False, with_past=True
        ),
        "the size of TinyLlama 1.1B, with KV cache; 4.4 GB",
    ),
}

FLAG_HELP = {
    "heads": "attention heads",
    "kv_heads": "key-value heads",
    "ffn": "width of the feed-forward layer",
    "vocab": "vocabulary size",
    "positions": "longest sequence",
    "with_past": "KV cache as inputs and outputs",
    "tied": "output layer shares the embedding table",
    "gemm": "linear layers as Reshape, Gemm, Reshape",
    "opset": "ONNX operator set, 13 to 21",
}


def build(config: Config, seed: int = 0) -> onnx.ModelProto:
    """The model of a configuration with random weights."""
    weights = RandomWeights(seed)
    match config:
        case BertConfig():
            return bert_model(config, weights)
        case Gpt2Config():
            return gpt2_model(config, weights)
        case LlamaConfig():
            return llama_model(config, weights)
        case VitConfig():
            return vit_model(config, weights)
        case CnnConfig():
            return cnn_model(config, weights)
        case MlpConfig():
            return mlp_model(config, weights)


def _builder(default: Config) -> Callable[..., onnx.ModelProto]:
    def builder(seed: int = 0, **sizes: int | float | bool) -> onnx.ModelProto:
        return build(replace(default, **sizes), seed)

    builder.__doc__ = f"The model of ``{type(default).__name__}(**sizes)`` with weights drawn from ``seed``."
    return builder


bert = _builder(BertConfig())
gpt2 = _builder(Gpt2Config())
llama = _builder(LlamaConfig())
vit = _builder(VitConfig())
cnn = _builder(CnnConfig())
mlp = _builder(MlpConfig())


def main(arguments: list[str] | None = None) -> int:
    """Write one model."""
    parser = _parser()
    options = parser.parse_args(arguments)
    default = RECIPES[options.recipe].config
    try:
        config = replace(default, **{f.name: getattr(options, f.name) for f in fields(default)})
        model = build(config, options.seed)
    except ValueError as error:
        parser.error(str(error))
    try:
        save(model, options.output)
    except OSError as error:
        print(f"error: cannot write {options.output}: {error.strerror}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models.small", description="Build a model with random weights.")
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    for name, recipe in RECIPES.items():
        sub = recipes.add_parser(name, help=recipe.about, description=recipe.about)
        sub.add_argument("-o", "--output", type=Path, required=True, help="the .onnx file to write")
        sub.add_argument("--seed", type=int, default=0, help="seed of the weights (0)")
        for field in fields(recipe.config):
            _add_flag(sub, field.name, getattr(recipe.config, field.name))
    return parser


def _add_flag(parser: argparse.ArgumentParser, name: str, default: int | float | bool) -> None:
    flag = "--" + name.replace("_", "-")
    about = FLAG_HELP.get(name, name.replace("_", " "))
    if isinstance(default, bool):
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default, help=about)
    else:
        parser.add_argument(flag, type=type(default), default=default, metavar="N", help=f"{about} ({default})")


if __name__ == "__main__":
    sys.exit(main())
