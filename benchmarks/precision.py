"""Accuracy against the bits of weights, and what fitting (``--fit``) gains: ``python -m benchmarks.precision``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import LEAST_INTEGER_COSINE, cosine, reference
from benchmarks.figures import Section, minilm, show, verdict
from cimc.calibration import runs_drawn
from cimc.frontend import importer
from cimc.inputs import Tokens, draw_calibration
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ops import Arithmetic
from cimc.passes.smooth import Smooth
from cimc.pipeline import default_pipeline, parse_pipeline, run_pipeline, with_calibration
from models import minilm as minilm_recipe
from models import sentence_pairs

Array = NDArray[Any]
Feeds = Mapping[str, Array]

COMMAND = "python -m benchmarks.precision"
BATCH, LENGTH = 16, 32
BITS = (8, 6, 4)
FITS = ("off", "scales", "rounding", "all")
WRITTEN = (
    "The old bridge over the river was closed for repairs last winter.",
    "She bought two tickets for the evening train to Vienna.",
    "Quantum computers may one day break common encryption.",
    "Who wrote the opera?",
    "A recipe for bread needs flour, water, salt and patience.",
    "The committee postponed its decision about the new stadium until the mayor returns from abroad.",
    "Rain",
    "My neighbour's dog barks at every passing bicycle, even at midnight.",
    "Prices of copper rose sharply in March because two mines in Chile had to stop.",
    "How do I reset my password?",
    "The children built a castle of sand.",
    "Their latest album mixes jazz, folk songs and electronic beats.",
    "Penguins cannot fly but they are excellent swimmers.",
    "Install the package, then restart the server.",
    "He was born in 1921 in a small village near Lyon.",
    "No.",
)
"""Calibration sentences; none of them is among those that are measured on."""


def encoded(texts: tuple[str, ...] | list[str]) -> dict[str, Array]:
    """The model's inputs, padded."""
    return dict(minilm_recipe.tokenizer().encode(list(texts), LENGTH).feeds())


def quantized(bits: int, fit: str, samples: Feeds | None) -> tuple[Graph, Constants]:
    """MiniLM at level quantized: what ``--precision`` and ``--fit`` make of it, on drawn inputs without ``samples``."""
    imported = importer.load(minilm(), dims={"batch": BATCH, "sequence": LENGTH})
    text = default_pipeline(
        128,
        128,
        weight_bits=bits,
        rounding="fitted" if fit in ("rounding", "all") else "nearest",
        smooth=Smooth(weight_bits=bits) if fit in ("scales", "all") else None,
    )
    given = [samples] if samples is not None else draw_calibration(imported.graph, Tokens(), runs_drawn(imported.graph))
    passes = [p for p in parse_pipeline(text) if p.name != "partition"]
    made = run_pipeline(imported.graph, imported.constants, with_calibration(passes, given))
    return made.graph, {name: made.constants[name] for name in made.graph.constants}  # fitted once, not once a batch


def answers(made: tuple[Graph, Constants], tokens: Feeds) -> dict[str, Array]:
    """Token and sentence embeddings of all sentences, in integer numerics: to the bit those of the programs."""
    graph, constants = made
    parts: list[dict[str, Array]] = []
    for start in range(0, len(tokens["input_ids"]), BATCH):
        found = evaluate(
            graph, constants, {k: v[start : start + BATCH] for k, v in tokens.items()}, Arithmetic(exact=False)
        )
        parts.append({("tokens" if v.ndim == 3 else "sentences"): v for v in found.values()})
    return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}


def exact_answers(tokens: Feeds) -> dict[str, Array]:
    """The same from onnxruntime in float32."""
    parts = [
        reference(minilm(), {k: v[s : s + BATCH] for k, v in tokens.items()})
        for s in range(0, len(tokens["input_ids"]), BATCH)
    ]
    names = {"tokens": "last_hidden_state", "sentences": "sentence_embedding"}
    return {name: np.concatenate([p[output] for p in parts]) for name, output in names.items()}


def row(bits: int, fit: str, on: str, got: Feeds, want: Feeds, mask: NDArray[np.bool_]) -> tuple[str, ...]:
    """One line of the table."""
    a, b = got["tokens"], want["tokens"]
    inside, everywhere = cosine(a[mask], b[mask]), cosine(a, b)
    worst = min(cosine(x, y) for x, y in zip(got["sentences"], want["sentences"], strict=True))
    similar = [sentence_pairs.cosine_similarities(np.asarray(x["sentences"], np.float64)) for x in (got, want)]
    rank = sentence_pairs.spearman(*similar)
    held = verdict(min(inside, everywhere) >= LEAST_INTEGER_COSINE)
    figures = (f"{inside:.4f}", f"{everywhere:.4f}", f"{worst:.4f}", f"{rank:.4f}")
    return (f"w{bits}a8", f"`--fit {fit}`", on, *figures, held)


def sections() -> list[Section]:
    """The table."""
    texts = sentence_pairs.sentences()
    tokens = encoded(texts)
    mask, want = tokens["attention_mask"].astype(bool), exact_answers(tokens)
    samples = encoded(WRITTEN)
    rows = [
        row(bits, fit, "–" if fit == "off" else "drawn", answers(quantized(bits, fit, None), tokens), want, mask)
        for bits in BITS
        for fit in FITS
    ]
    rows += [
        row(bits, fit, "sentences", answers(quantized(bits, fit, samples), tokens), want, mask)
        for bits, fit in ((8, "scales"), (8, "rounding"), (8, "all"), (6, "all"), (4, "all"))
    ]
    header = (
        "precision",
        "fit",
        "to",
        "tokens",
        "with padding",
        "worst sentence",
        "Spearman",
        f"≥ {LEAST_INTEGER_COSINE}",
    )
    return [
        Section(
            "Bits of weights, and fitting",
            COMMAND,
            f"MiniLM, {len(texts)} sentences (`models/sentence_pairs.py`) padded to {LENGTH} tokens, integer numerics against "
            "onnxruntime in float32: cosine of all token embeddings without padding and with it, of the worst sentence "
            f"embedding, rank correlation of the similarities of {len(sentence_pairs.PAIRS)} pairs. Fitted to drawn token "
            f"numbers, as `--fit` does without data, or to {len(WRITTEN)} sentences that are not measured on.",
            header,
            tuple(rows),
        )
    ]


if __name__ == "__main__":
    show(sections())
