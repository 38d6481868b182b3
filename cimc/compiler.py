"""ONNX model → program: the whole way, as one function."""

from __future__ import annotations

import importlib.metadata
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cimc import bundle, errors
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.arch.spec import CoreSpec
from cimc.codegen.lower import lower, weights_of
from cimc.inputs import Tokens, read_tokens
from cimc.ir.graph import Array, Constants, Graph
from cimc.isa.printer import print_program
from cimc.isa.program import Program
from cimc.isa.verify import verify
from cimc.mapping.build import build
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.dump import Json, dump
from cimc.passes.pipeline_text import parse_pipeline
from cimc.pipeline import Watch, default_pipeline, run_pipeline, with_calibration
from cimc.report.progress import stage

PRECISION = re.compile(r"w([2-8])a8")


@dataclass(frozen=True)
class Options:
    """What a user may choose about a compile. ``activations``: scales of activations per row at run time (``dynamic``) or
    constant, measured on calibration inputs (``static``). ``passes``: a pipeline in place of the usual one; it must end at level
    partitioned."""

    hardware: str = hardware_files.DEFAULT
    overrides: tuple[str, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    precision: str = "w8a8"
    activations: Literal["dynamic", "static"] = "dynamic"
    passes: str = ""
    choices: Choices = DEFAULT


@dataclass(frozen=True)
class Binding:
    """A symbolic dim of the model, its value, and who said so."""

    name: str
    value: int
    source: str


@dataclass(frozen=True)
class Compiled:
    """A compiled model. ``graph`` and ``constants`` are those the program was made from (level partitioned)."""

    model: Path
    model_hash: str
    options: Options
    hardware: Hardware
    bindings: tuple[Binding, ...]
    notes: tuple[str, ...]
    imported: Graph
    tokens: Tokens
    fixed: frozenset[str]  # inputs compiled in at their values, which the program takes no more
    graph: Graph
    constants: Constants
    program: Program
    weights: Mapping[str, Array]
    mapping: Mapping[str, Json]
    pipeline: str
    seconds: tuple[tuple[str, float], ...]

    def manifest(self) -> dict[str, object]:
        """Enough to repeat the compile bit for bit; no times, no paths of this machine."""
        return {
            "cimc": importlib.metadata.version("cimc"),
            "model": {"file": self.model.name, "sha256": self.model_hash},
            "options": {
                "hardware": self.options.hardware if self.hardware.path is None else Path(self.options.hardware).name,
                "overrides": list(self.options.overrides),
                "dims": {b.name: b.value for b in self.bindings},
                "precision": self.options.precision,
                "activations": self.options.activations,
                "pipeline": self.pipeline,
                "mapping": asdict(self.options.choices),
            },
            "tokens": {
                "vocab_size": self.tokens.vocabulary,
                "bos_token_id": self.tokens.first,
                "eos_token_id": self.tokens.last,
            },
            "bindings": [{"name": b.name, "value": b.value, "source": b.source} for b in self.bindings],
            "versions": {name: importlib.metadata.version(name) for name in ("numpy", "onnx", "onnxruntime")},
        }

    def write(self, folder: Path) -> None:
        """Write program, weights, mapping, hardware and manifest into a folder, all at once or not at all."""
        texts = {
            bundle.PROGRAM: print_program(self.program),
            bundle.MAPPING: json.dumps(self.mapping, indent=1, ensure_ascii=False) + "\n",
            bundle.HARDWARE: self.hardware.text,
        }
        bundle.write(folder, texts, self.weights, self.manifest())


def compile_model(
    model: Path | str,
    options: Options | None = None,
    *,
    inputs: Mapping[str, NDArray[np.generic]] | None = None,
    calibration: Sequence[Mapping[str, NDArray[np.generic]]] = (),
    watch: Watch | None = None,
    specialize: bool = False,
) -> Compiled | None:
    """Compile a model file (or a folder with ``model.onnx``). ``inputs`` bind symbolic dims by their shapes. None if
    ``watch`` stops the pipeline early. Raises CimcError for everything a user can put right."""
    from cimc.frontend import importer

    options = options or Options()
    hardware = hardware_files.load(options.hardware, options.overrides)
    text = options.passes or _pipeline(options, _core(hardware))
    with stage("import"):
        imported = importer.load(model, dims=dict(options.dims), inputs=inputs, specialize=specialize)
    passes = with_calibration(parse_pipeline(text), calibration)
    with stage("passes"):
        outcome = run_pipeline(imported.graph, imported.constants, passes, watch)
    if watch is not None and watch.stop_after:
        return None
    if outcome.graph.level != "partitioned":
        raise errors.PIPELINE_SHORT(level=outcome.graph.level)
    with stage("mapping"):
        graph, mapping = build(outcome.graph, hardware.spec, options.precision, options.choices)
    with stage("code generation"):
        header = (f"{imported.path.name} for {hardware.name}, {options.precision}", f"passes: {text}")
        program = lower(graph, mapping, hardware.spec, header)
        weights = weights_of(program, graph, outcome.constants)
    with stage("verify"):
        verify(program, hardware.spec, None)
    return Compiled(
        imported.path,
        imported.model_hash,
        options,
        hardware,
        tuple(Binding(b.name, b.value, b.source) for b in imported.bindings),
        tuple(imported.notes),
        imported.graph,
        read_tokens(imported.path.parent),
        imported.fixed,
        graph,
        outcome.constants,
        program,
        weights,
        dump(graph, mapping, program, hardware.spec),
        text,
        outcome.seconds,
    )


def _pipeline(options: Options, core: CoreSpec) -> str:
    bits = _weight_bits(options.precision)
    return default_pipeline(core.rows, core.cols, weight_bits=bits, activations=options.activations)


def _weight_bits(precision: str) -> int:
    matched = PRECISION.fullmatch(precision)
    if matched is None:
        raise errors.PRECISION(given=precision, why="it names weight and activation bits, as in w8a8")
    return int(matched.group(1))


def _core(hardware: Hardware) -> CoreSpec:
    """The core whose size blocks are cut to: that of the first tile kind with cores."""
    for spec in hardware.spec.tiles.values():
        if spec.core is not None:
            return spec.core
    raise errors.NO_CORES(chip=hardware.name)
