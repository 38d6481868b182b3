"""Does the machine still rank sentence pairs as the model does? MiniLM's cosine similarities, Spearman against onnxruntime.

    python benchmarks/similarity.py [--pairs 8] [--length 16] [--case NAME ...] [--json FILE]

One program for all sentences (batch = 2 · pairs), run in float, integer and analog numerics. A case is a technology and
settings as of ``--device``, joined by commas: ``pcm``, ``pcm,seconds=1d,drift_compensation=global``. Pairs are spread
evenly over the list, so every grade is there. Needs the package that models/README.md names.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime

from cimc import inputs as input_files
from cimc import study
from cimc.compiler import compile_model
from cimc.device import Device
from cimc.options import Options
from cimc.sim.values import Analog, run_values
from models import minilm
from models.graph import save
from models.sentence_pairs import cosine_similarities, some, spearman

OUTPUT = "sentence_embedding"
CASES = ("ideal", "reram_isaac", "reram", "pcm", "pcm_hermes_2dev", "fefet", "mram", "sram_analog")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--length", type=int, default=16, help="tokens a sentence, cut and padded")
    parser.add_argument("--hw", default="isaac")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", nargs="+", default=list(CASES), help="technology[,KEY=VALUE...]")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    texts = some(chosen.pairs)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "minilm.onnx"
        save(minilm.model(), path)
        feeds = minilm.tokenizer().encode(texts, chosen.length).feeds()
        compiled = compile_model(path, Options(chosen.hw), inputs=feeds)
        assert compiled is not None
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        wanted = session.run([OUTPUT], dict(feeds))[0]
    feeds = input_files.check(input_files.types(compiled.program), feeds)
    want = cosine_similarities(np.asarray(wanted))
    program, weights, chip = compiled.program, compiled.weights, compiled.hardware.spec
    found = []
    for case in ("float", "integer", *chosen.case):
        start = time.process_time()
        if case in ("float", "integer"):
            outputs, _ = run_values(program, weights, feeds, chip, numerics=case)
        else:
            tech, *settings = case.split(",")
            device = Device.of(chip, settings, tech)
            samples = study.calibration(program, weights, chip, feeds) if device.calibrated else None
            how = Analog(device, samples=samples)
            outputs, _ = run_values(program, weights, feeds, chip, numerics="analog", seed=chosen.seed, analog=how)
        got = cosine_similarities(np.asarray(outputs[OUTPUT]))
        e, w = (np.asarray(a, np.float64).ravel() for a in (outputs[OUTPUT], wanted))
        row = {
            "case": case,
            "spearman": spearman(got, want),
            "similarity_error": float(np.abs(got - want).max()),
            "embedding_cosine": float(e @ w / np.linalg.norm(e) / np.linalg.norm(w)),
            "cpu_seconds": time.process_time() - start,
        }
        found.append(row)
        print(
            f"{case:44s} spearman {row['spearman']:7.4f}  worst similarity error {row['similarity_error']:.4f}"
            f"  embedding cosine {row['embedding_cosine']:.5f}  {row['cpu_seconds']:.1f} s CPU",
            flush=True,
        )
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"pairs": len(texts) // 2, "length": chosen.length, "cases": found}, indent=1)
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
