"""Small models, shapes and chips that the end-to-end tests run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cimc.compiler import Compiled, compile_model
from cimc.options import Options
from models import small
from models.graph import save
from models.inputs import sample_inputs

Array = NDArray[np.generic]
Feeds = Mapping[str, Array]

PRESETS: dict[str, tuple[str, ...]] = {
    "isaac": (),
    "sram-digital": (),
    # As it stands, toy holds four blocks of 8 × 8; here it has cores and buffers enough, so that programs of many blocks a
    # matrix run on two tiles.
    "toy": ("tiles.all.cores=2048", "tiles.all.local_bytes=1048576"),
}

MODELS = {
    "bert": lambda: small.bert(layers=1, hidden=32, heads=2, ffn=64, vocab=50, positions=32),
    "gpt2": lambda: small.gpt2(layers=1, hidden=32, heads=2, ffn=64, vocab=50, positions=32),
    "gpt2-past": lambda: small.gpt2(
        layers=1, hidden=32, heads=2, ffn=64, vocab=50, positions=32, with_past=True, seed=1
    ),
    "llama": lambda: small.llama(layers=1, hidden=32, heads=4, kv_heads=2, ffn=48, vocab=50),
    "llama-past": lambda: small.llama(layers=1, hidden=32, heads=4, kv_heads=2, ffn=48, vocab=50, with_past=True),
    "vit": lambda: small.vit(image=16, patch=4, layers=1, hidden=32, heads=2, ffn=48, classes=10),
    "cnn": lambda: small.cnn(image=12, width=4, stages=2, classes=5),
}


@dataclass(frozen=True)
class Case:
    """A model at a shape."""

    model: str
    dims: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return "-".join([self.model, *(f"{name[0]}{value}" for name, value in self.dims)])


def case(model: str, **dims: int) -> Case:
    return Case(model, tuple(dims.items()))


CASES = (
    case("bert", batch=1, sequence=8),
    case("bert", batch=2, sequence=5),
    case("bert", batch=3, sequence=1),
    case("gpt2", batch=1, sequence=6),
    case("gpt2", batch=2, sequence=3),
    case("gpt2-past", batch=1, sequence=1, past_sequence=7),
    case("gpt2-past", batch=2, sequence=3, past_sequence=4),
    case("gpt2-past", batch=1, sequence=4, past_sequence=0),
    case("llama", batch=1, sequence=6),
    case("llama", batch=2, sequence=2),
    case("llama-past", batch=1, sequence=1, past_sequence=7),
    case("llama-past", batch=2, sequence=3, past_sequence=0),
    case("vit", batch=1),
    case("vit", batch=2),
    case("cnn", batch=1),
)


@functools.cache
def model(name: str) -> onnx.ModelProto:
    """A model of MODELS, built once."""
    return MODELS[name]()


def feeds(one: Case) -> Feeds:
    """Inputs for a case, drawn from a seed."""
    return sample_inputs(model(one.model), dict(one.dims), seed=0)


@functools.cache
def compiled(one: Case, preset: str, folder: Path) -> Compiled:
    """A case compiled for a preset; the model is written into ``folder``."""
    path = folder / f"{one.model}.onnx"
    if not path.exists():
        save(model(one.model), path)
    found = compile_model(path, Options(preset, PRESETS[preset], dict(one.dims)))
    assert found is not None
    return found
