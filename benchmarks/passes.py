"""CPU time of every step of a compile as graphs grow: ``python -m benchmarks.passes [--nodes N,N,N]``.

Four kinds of graphs at 1, 2 and 4 times a size: *layers* (a BERT of tiny width and many layers), *deep* (a chain of
elementwise nodes), *wide* (one value that all nodes read) and *products* (a chain of matrix products). Printed are the
milliseconds of each step at each size and the exponent of its growth (the slope of log time over log nodes): 1 is linear.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.figures import Section, show, verdict
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.codegen.contents import Contents
from cimc.codegen.lower import lower
from cimc.frontend import importer, onnx_reader
from cimc.ir.levels import check
from cimc.ir.text import print_graph
from cimc.isa.printer import print_program
from cimc.isa.text import parse_program
from cimc.isa.verify import verify
from cimc.mapping.build import build as map_graph
from cimc.mapping.dump import dump
from cimc.passes.pipeline_text import parse_pipeline
from cimc.pipeline import default_pipeline, labels
from cimc.sim.timing import run_timing
from models import small
from models.graph import save

COMMAND = "python -m benchmarks.passes"
HARDWARE = ("isaac", ("tiles.cim.cores=192",))
SIZES = (1250, 2500, 5000)
REPEATS = 3
LIMIT = 1.25
"""Of the exponent: linear, with room for log factors, for caches that grow too small, and for noise."""
NOISE_MS = 10.0
"""Steps that take less at the largest size are not judged."""

WIDTH = 32
T = TypeVar("T")


def _model(nodes: Sequence[onnx.NodeProto], output: str, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(v, TensorProto.FLOAT, [4, WIDTH]) for v in ("x", output)]
    tensors = [numpy_helper.from_array(a, n) for n, a in weights.items()]
    graph = helper.make_graph(list(nodes), "g", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def layers(nodes: int) -> onnx.ModelProto:
    """A BERT with about that many nodes."""
    sizes = {"hidden": 16, "heads": 2, "ffn": 32, "vocab": 64}
    one, two = (len(small.bert(layers=n, **sizes).graph.node) for n in (1, 2))
    return small.bert(layers=max(1, round((nodes - one) / (two - one)) + 1), **sizes)


def deep(nodes: int) -> onnx.ModelProto:
    """A chain of elementwise nodes."""
    ops = ("Relu", "Neg", "Abs", "Tanh", "Sigmoid")
    names = ["x", *(f"v{i}" for i in range(nodes))]
    made = [helper.make_node(ops[i % len(ops)], [names[i]], [names[i + 1]]) for i in range(nodes)]
    return _model(made, names[-1], {})


def wide(nodes: int) -> onnx.ModelProto:
    """Products of one value, added up."""
    made: list[onnx.NodeProto] = []
    total = "x"
    for i in range(nodes // 2):
        made.append(helper.make_node("Mul", ["x", f"s{i}"], [f"m{i}"]))
        made.append(helper.make_node("Add", [total, f"m{i}"], [f"a{i}"]))
        total = f"a{i}"
    return _model(made, total, {f"s{i}": np.full(WIDTH, i + 1.5, np.float32) for i in range(nodes // 2)})


def products(nodes: int) -> onnx.ModelProto:
    """A chain of MatMul, Add, Relu."""
    made: list[onnx.NodeProto] = []
    weights: dict[str, np.ndarray] = {}
    value = "x"
    for i in range(nodes // 3):
        weights[f"w{i}"] = np.random.default_rng(i).standard_normal((WIDTH, WIDTH)).astype(np.float32)
        weights[f"b{i}"] = np.ones(WIDTH, np.float32)
        made.append(helper.make_node("MatMul", [value, f"w{i}"], [f"p{i}"]))
        made.append(helper.make_node("Add", [f"p{i}", f"b{i}"], [f"q{i}"]))
        made.append(helper.make_node("Relu", [f"q{i}"], [f"r{i}"]))
        value = f"r{i}"
    return _model(made, value, weights)


KINDS: dict[str, Callable[[int], onnx.ModelProto]] = {f.__name__: f for f in (layers, deep, wide, products)}


def steps(path: Path, dims: dict[str, int], hardware: Hardware) -> dict[str, float]:
    """CPU seconds of each step of compiling a model, and of what follows a compile. Without the garbage collector, as the
    compiler runs."""
    seconds: dict[str, float] = {}

    def timed(name: str, run: Callable[[], T]) -> T:
        begun = time.process_time()
        result = run()
        seconds[name] = time.process_time() - begun
        return result

    timed("read the file", lambda: onnx_reader.read(path))
    imported = timed("read and import", lambda: importer.load(path, dims=dims))
    graph, constants = imported.graph, imported.constants
    passes = parse_pipeline(default_pipeline(128, 128))
    for label, one in zip(labels(passes), passes, strict=True):
        graph, constants = timed(f"pass {label}", lambda one=one, g=graph, c=constants: one.run(g, c))
    timed("print the graph", lambda: print_graph(graph))
    timed("check the level", lambda: check(graph, constants, "passes"))
    whole, mapping = timed("mapping", lambda: map_graph(graph, hardware.spec, "w8a8"))
    program = timed("code generation", lambda: lower(whole, mapping, hardware.spec))
    timed("weights", lambda: dict(Contents(program, whole, constants)))
    timed("verify the program", lambda: verify(program, hardware.spec))
    timed("mapping.json", lambda: dump(whole, mapping, program, hardware.spec))
    text = timed("print the program", lambda: print_program(program))
    timed("parse the program", lambda: parse_program(text))
    timed("timing engine", lambda: run_timing(program, hardware.spec))
    return seconds


def best(model: onnx.ModelProto, hardware: Hardware) -> dict[str, float]:
    """The least of several runs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save(model, path)
        dims = {"batch": 1, "sequence": 8} if model.graph.input[0].name != "x" else {}
        found: dict[str, float] = {}
        gc.disable()
        for _ in range(REPEATS):
            for name, seconds in steps(path, dims, hardware).items():
                found[name] = min(seconds, found.get(name, math.inf))
            gc.collect()
        gc.enable()
    return found


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log time over log size, least squares."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(seconds, 1e-9)), 1)[0])


def measured(kind: str, sizes: Sequence[int], hardware: Hardware) -> Section:
    """The table of one kind of graph."""
    models = [KINDS[kind](n) for n in sizes]
    counts = [len(m.graph.node) for m in models]
    found = [best(m, hardware) for m in models]
    rows: list[tuple[str, ...]] = []
    for name in found[0]:
        seconds = [f[name] for f in found]
        slope = exponent(counts, seconds)
        judged = verdict(slope <= LIMIT) if seconds[-1] * 1e3 >= NOISE_MS else "–"
        rows.append((name, *(f"{s * 1e3:.1f}" for s in seconds), f"{slope:.2f}", judged))
    return Section(
        f"Growth with nodes: {kind}",
        COMMAND,
        KINDS[kind].__doc__ or "",
        ("step, CPU ms at nodes:", *(f"{n:,}" for n in counts), "exponent", f"≤ {LIMIT}"),
        tuple(rows),
    )


def sections(sizes: Sequence[int] = SIZES, kinds: Sequence[str] = tuple(KINDS)) -> list[Section]:
    """Everything measured here."""
    hardware = hardware_files.load(*HARDWARE)
    best(deep(10), hardware)  # what is loaded once
    return [measured(kind, sizes, hardware) for kind in kinds]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog=COMMAND, description="CPU time of each step of a compile as graphs grow.")
    parser.add_argument("--nodes", default=",".join(map(str, SIZES)), help="sizes to measure at")
    parser.add_argument("--kind", choices=sorted(KINDS), help="only this kind of graph")
    options = parser.parse_args(arguments)
    show(sections([int(n) for n in options.nodes.split(",")], [options.kind] if options.kind else tuple(KINDS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
