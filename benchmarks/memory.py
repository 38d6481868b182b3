"""Memory and time of importing and compiling: ``python -m benchmarks.memory [--model NAME] [--layers N,N,...]``.

Memory: a model of a published size (recipe of ``models.small``, weights in an external data file) is compiled and
written in a process of its own. Printed are the bytes of its weights and the largest resident memory (anonymous pages:
what the process itself allocated; file pages that are mapped can be dropped by the system at any time) less that of a
process that compiles a tiny model, at its peak. Time: BERTs of tiny width and many layers, seconds by stage and pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from models.graph import save
from models.small import RECIPES, build

SAMPLE_SECONDS = 0.01
TINY = {"layers": 1, "hidden": 16, "heads": 2, "ffn": 32, "vocab": 64}


def resident() -> tuple[int, int]:
    """Bytes of this process in memory that no file backs, and all (Linux: RssAnon, VmRSS of /proc/self/status)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0]: words[1] for words in lines if len(words) > 1}
    return int(found["RssAnon:"]) * 1024, int(found["VmRSS:"]) * 1024


class Peak:
    """Samples memory in a thread while a block runs."""

    def __enter__(self) -> Peak:
        self.anonymous, self.whole = resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            anonymous, whole = resident()
            self.anonymous, self.whole = max(self.anonymous, anonymous), max(self.whole, whole)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


REPEATS = 4
"""Times are the best of this many, the whole compile's in CPU seconds."""
ROOMY = ("tiles.cim.cores=96",)
"""Four times the cores: the larger recipes do not fit the preset as it is."""


def child(model: Path, dims: dict[str, int], hardware: str) -> None:
    """Compile and write one model; peaks and seconds go to stdout as JSON."""
    from cimc.compiler import Options, compile_model

    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        with Peak() as compiling:
            made = compile_model(model, Options(hardware, ROOMY, dims=dims))
        assert made is not None
        compiled = time.perf_counter()
        with Peak() as writing:
            made.write(Path(folder) / "out")
        written = time.perf_counter()
    found = {
        "compile_bytes": compiling.anonymous,
        "compile_whole": compiling.whole,
        "write_bytes": writing.anonymous,
        "write_whole": writing.whole,
        "compile_s": compiled - start,
        "write_s": written - compiled,
        "passes": dict(made.seconds),
    }
    print(json.dumps(found))


def in_child(model: Path, dims: dict[str, int], hardware: str) -> dict[str, float]:
    """The figures of :func:`child` in a new process."""
    code = f"from benchmarks.memory import *; child(Path({str(model)!r}), {dims!r}, {hardware!r})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def memory(name: str, sequence: int, folder: Path) -> None:
    """Print the memory figures of a recipe."""
    from cimc.frontend.reference_extract import Extractor

    dims = {"batch": 1, "sequence": sequence}
    tiny = folder / "tiny.onnx"
    save(build(RECIPES["bert"].config.__class__(**TINY)), tiny)
    base = in_child(tiny, {"batch": 1, "sequence": 8}, "isaac")
    path = folder / f"{name}.onnx"
    save(build(RECIPES[name].config), path, external_above=0)
    weights = path.with_name(path.name + ".data").stat().st_size
    names = {d for i in Extractor(path).proto.graph.input for x in i.type.tensor_type.shape.dim for d in [x.dim_param]}
    dims = {k: v for k, v in {**dims, "past_sequence": 16}.items() if k in names}
    found = in_child(path, dims, "isaac")
    print(f"{name}, {weights / 1e6:.0f} MB of weights, {dims}")
    for step in ("compile", "write"):
        extra = found[f"{step}_bytes"] - base[f"{step}_bytes"]
        seconds = found[f"{step}_s"]
        whole = found[f"{step}_whole"] - base[f"{step}_whole"]
        print(
            f"  {step}: peak {extra / 1e6:.0f} MB = {extra / weights:.2f} x weights of its own;"
            f" {whole / weights:.2f} x with mapped pages of files; {seconds:.1f} s"
        )


def times(layers: list[int], folder: Path) -> None:
    """Print the compile times of BERTs with these numbers of layers."""
    from cimc.compiler import Options, compile_model

    stages: dict[str, list[float]] = {}
    nodes: list[int] = []
    for count in layers:
        model = build(RECIPES["bert"].config.__class__(**{**TINY, "layers": count}))
        nodes.append(len(model.graph.node))
        path = folder / f"bert{count}.onnx"
        save(model, path)
        options = Options("isaac", dims={"batch": 1, "sequence": 8})
        best: dict[str, float] = {}
        for _ in range(REPEATS):
            start = time.process_time()
            made = compile_model(path, options)
            assert made is not None
            for label, seconds in (*made.seconds, ("whole compile", time.process_time() - start)):
                best[label] = min(seconds, best.get(label, seconds))
        for label, seconds in best.items():
            stages.setdefault(label, []).append(seconds)
    print("nodes " + " ".join(map(str, nodes)))
    for label, found in stages.items():
        growth = found[-1] / found[0] / (nodes[-1] / nodes[0])
        print(f"  {label}: " + " ".join(f"{s:.4f}" for s in found) + f" s; {growth:.2f} x linear")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="Memory and time of compiling.")
    parser.add_argument("--model", default="smollm2-135m", choices=sorted(RECIPES), help="what to measure memory on")
    parser.add_argument("--only-times", action="store_true", help="leave out memory")
    parser.add_argument("--sequence", type=int, default=16)
    parser.add_argument("--layers", default="14,28,56", help="numbers of layers to measure times on")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        if not options.only_times:
            memory(options.model, options.sequence, Path(name))
        times([int(n) for n in options.layers.split(",")], Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
