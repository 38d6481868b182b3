"""How far outputs are from onnxruntime's, in the three numerics: ``python -m benchmarks.accuracy``."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import SENTENCE, Section, minilm, show, verdict
from cimc.arch import load as hardware_files
from cimc.compiler import Compiled, compile_model
from cimc.options import Options
from cimc.session import InferenceSession, Numerics
from cimc.sim.interpreter import run
from models import minilm as minilm_recipe
from models import sentence_pairs, small
from models.graph import save
from models.inputs import sample_inputs

Array = NDArray[np.generic]

COMMAND = "python -m benchmarks.accuracy"
MOST_ERROR = 1e-4
LEAST_COSINE = 0.999999
LEAST_INTEGER_COSINE = 0.995
LEAST_SPEARMAN = 0.98


def compiled(model: Path, inputs: Mapping[str, Array], hardware: str = "isaac") -> Compiled:
    """The model compiled for the shapes of these inputs."""
    made = compile_model(model, Options(hardware=hardware), inputs=inputs)
    assert made is not None
    return made


def outputs(made: Compiled, inputs: Mapping[str, Array], numerics: Numerics) -> dict[str, Array]:
    """What the tile programs compute, by the model's names."""
    session = InferenceSession(made, numerics, timing=False)
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, inputs), strict=True))


def reference(model: Path, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What onnxruntime computes, by the model's names."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def cosine(a: Array, b: Array) -> float:
    """Of the two arrays as vectors, in double precision."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


@dataclass(frozen=True)
class Case:
    """A model and how large its inputs are."""

    name: str
    build: Callable[[], Any]
    dims: Mapping[str, int]


def recipes() -> list[Case]:
    """Models with drawn weights, each at several shapes."""
    found: list[Case] = []
    for batch, sequence in ((1, 8), (2, 33), (1, 64)):
        found.append(Case("bert", lambda: small.bert(seed=1), {"batch": batch, "sequence": sequence}))
    for batch, sequence in ((1, 16), (2, 31)):
        found.append(Case("gpt2", lambda: small.gpt2(seed=1), {"batch": batch, "sequence": sequence}))
        found.append(Case("llama", lambda: small.llama(seed=1), {"batch": batch, "sequence": sequence}))
    for sequence, past in ((1, 17), (4, 12)):
        dims = {"batch": 1, "sequence": sequence, "past_sequence": past}
        found.append(Case("gpt2 with cache", lambda: small.gpt2(seed=1, with_past=True), dims))
        found.append(Case("llama with cache", lambda: small.llama(seed=1, with_past=True), dims))
    return found


def sentence(length: int) -> dict[str, Array]:
    """The README's sentence as inputs of MiniLM."""
    return dict(minilm_recipe.tokenizer().encode([SENTENCE], length).feeds())


def _compare(name: str, shape: str, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for output in wanted:
        error = float(np.max(np.abs(found[output].astype(np.float64) - wanted[output])))
        near = cosine(found[output], wanted[output])
        held = error <= MOST_ERROR and near >= LEAST_COSINE
        rows.append((name, shape, output, f"{error:.1e}", f"{near:.9f}", verdict(held)))
    return rows


HEADER = ("model", "shape", "output", "largest error", "cosine", "target")


def float_minilm() -> list[tuple[str, ...]]:
    """MiniLM in ``float``, sentence padded to 128 tokens, and short."""
    rows: list[tuple[str, ...]] = []
    for length in (128, 16):
        inputs = sentence(length)
        made = compiled(minilm(), inputs)
        wanted = reference(minilm(), inputs)
        rows += _compare("MiniLM", f"1 × {length}", outputs(made, inputs, "float"), wanted)
    return rows


def float_recipes() -> list[tuple[str, ...]]:
    """The recipes in ``float``; of outputs of one kind (caches), the worst."""
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in recipes():
            model = case.build()
            path = Path(folder) / "model.onnx"
            save(model, path)
            inputs = {k: np.asarray(v) for k, v in sample_inputs(model, case.dims).items()}
            made = compiled(path, inputs)
            wanted = reference(path, inputs)
            found = outputs(made, inputs, "float")
            shape = ", ".join(f"{k} {v}" for k, v in case.dims.items())
            rows += _worst(_compare(case.name, shape, found, wanted))
    return rows


def _worst(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    caches = [r for r in rows if r[2].startswith("present")]
    others = [r for r in rows if not r[2].startswith("present")]
    if caches:
        worst = max(caches, key=lambda r: float(r[3]))
        others.append((*worst[:2], f"{len(caches)} caches, worst", *worst[3:]))
    return others


def integer_sentences() -> Section:
    """All sentences of ``models/sentence_pairs.py`` in ``integer``: embeddings of tokens and the ranking of pairs."""
    texts = sentence_pairs.sentences()
    tokens = minilm_recipe.tokenizer().encode(texts, 32).feeds()
    batch = 8
    first = {k: v[:batch] for k, v in tokens.items()}
    made = compiled(minilm(), first)
    found: list[dict[str, Array]] = []
    wanted: list[dict[str, Array]] = []
    for start in range(0, len(texts), batch):
        inputs = {k: v[start : start + batch] for k, v in tokens.items()}
        found.append(outputs(made, inputs, "integer"))
        wanted.append(reference(minilm(), inputs))
    got, want = ({n: np.concatenate([part[n] for part in parts]) for n in parts[0]} for parts in (found, wanted))
    rows = _sentence_rows(got, want, tokens["attention_mask"].astype(bool))
    inputs = sentence(128)
    long = compiled(minilm(), inputs)
    whole = outputs(long, inputs, "integer")["last_hidden_state"]
    exact = reference(minilm(), inputs)["last_hidden_state"]
    mask = inputs["attention_mask"].astype(bool)
    for what, a, b in (("without padding", whole[mask], exact[mask]), ("all 128 tokens", whole, exact)):
        near = cosine(a, b)
        held = verdict(near >= LEAST_INTEGER_COSINE)
        rows.append((f"README's sentence, token embeddings, {what}", f"{near:.6f}", f"≥ {LEAST_INTEGER_COSINE}", held))
    return Section(
        "Integer numerics: what quantisation costs",
        COMMAND,
        f"MiniLM on `isaac`, weights and activations of 8 bits, {len(texts)} sentences (`models/sentence_pairs.py`) padded "
        "to 32 tokens, against onnxruntime in float32.",
        ("figure", "measured", "target", ""),
        tuple(rows),
        remarks=(
            "Padding has embeddings too, but nothing reads them: attention masks them, and the sentence embedding leaves them "
            "out. Their own attention is nearly even over the sentence, and small differences of scores tip it.",
        ),
    )


def _sentence_rows(
    got: Mapping[str, Array], want: Mapping[str, Array], mask: NDArray[np.bool_]
) -> list[tuple[str, ...]]:
    hidden, exact = got["last_hidden_state"], want["last_hidden_state"]
    rows: list[tuple[str, ...]] = []
    for what, a, b in (("without padding", hidden[mask], exact[mask]), ("padding too", hidden, exact)):
        near = cosine(a, b)
        held = verdict(near >= LEAST_INTEGER_COSINE)
        rows.append((f"cosine of token embeddings, {what}", f"{near:.6f}", f"≥ {LEAST_INTEGER_COSINE}", held))
    each = [cosine(h[m], e[m]) for h, e, m in zip(hidden, exact, mask, strict=True)]
    rows.append(("… of the worst sentence (without padding)", f"{min(each):.6f}", "–", ""))
    tokens = [cosine(a, b) for a, b in zip(hidden[mask], exact[mask], strict=True)]
    rows.append((f"… of the worst of its {len(tokens):,} tokens", f"{min(tokens):.6f}", "–", ""))
    sentences = [cosine(a, b) for a, b in zip(got["sentence_embedding"], want["sentence_embedding"], strict=True)]
    rows.append(("cosine of sentence embeddings, worst", f"{min(sentences):.6f}", "–", ""))
    similar = [sentence_pairs.cosine_similarities(np.asarray(x["sentence_embedding"], np.float64)) for x in (got, want)]
    rank = sentence_pairs.spearman(*similar)
    pairs = len(sentence_pairs.PAIRS)
    rows.append((f"Spearman of {pairs} pairs", f"{rank:.4f}", f"≥ {LEAST_SPEARMAN}", verdict(rank >= LEAST_SPEARMAN)))
    return rows


def analog() -> Section:
    """MiniLM through the crossbars: bit for bit with a lossless ADC and ideal cells, and what real ones change."""
    inputs = sentence(128)
    made = compiled(minilm(), inputs)
    exact = reference(minilm(), inputs)
    integer = outputs(made, inputs, "integer")
    mask = inputs["attention_mask"].astype(bool)
    rows: list[tuple[str, ...]] = []
    settings = (
        ("adc.bits=0", "technology=ideal"),
        ("technology=ideal",),
        ("adc.bits=0",),
        (),
        ("technology=reram",),
    )
    for overrides in settings:
        spec = hardware_files.load("isaac", overrides).spec
        result = run(made.program, made.weights, spec, inputs=inputs, numerics="analog", seed=0, timing=False)
        assert result.outputs is not None
        found = result.outputs
        same = all(np.array_equal(found[n], integer[n]) for n in exact)
        share = result.counts.get("saturated", 0) / max(result.counts.get("conversions", 0), 1)
        near = cosine(found["last_hidden_state"][mask], exact["last_hidden_state"][mask])
        flags = " ".join(f"-c {o}" for o in overrides) or "as the preset is"
        rows.append((f"`{flags}`" if overrides else flags, "yes" if same else "no", f"{near:.6f}", f"{share:.2e}"))
    first = rows[0][1] == "yes"
    return Section(
        "Analog numerics: what the device costs",
        COMMAND,
        "MiniLM on `isaac`, the README's sentence padded to 128 tokens, seed 0. Target: with a lossless ADC (`adc.bits=0`) and "
        f"ideal cells the outputs equal those of `integer` bit for bit: {verdict(first)}.",
        ("hardware", "equal to `integer`", "cosine of token embeddings to onnxruntime", "conversions that saturate"),
        tuple(rows),
        remarks=(
            "A lossless ADC takes nothing away from what the cells say; cells of a finite on/off ratio or with noise say "
            "something else than whole numbers, so only ideal cells are held to equality.",
            "`reram` is NeuRRAM's measured spread with relaxation, in cells of two bits, without retraining, calibration or "
            "fewer bits a cell: what is left shows that this model does not survive such cells as it is.",
        ),
    )


def sections() -> list[Section]:
    """Everything measured here."""
    rows = (*float_minilm(), *float_recipes())
    floats = Section(
        "Float numerics: is the compiler right?",
        COMMAND,
        f"On `isaac`, against onnxruntime. Targets: largest error ≤ {MOST_ERROR:g}, cosine ≥ {LEAST_COSINE}.",
        HEADER,
        rows,
    )
    return [floats, integer_sentences(), analog()]


if __name__ == "__main__":
    show(sections())
