"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, Options, compile_model
from cimc.report.compare import Tolerance
from cimc.report.jsontext import JsonObject
from cimc.session import Numerics

Array = NDArray[np.generic]


def compile(
    model: Path | str,
    *,
    hardware: str | None = None,
    dims: Mapping[str, int] | None = None,
    precision: str = "w8a8",
    overrides: Sequence[str] = (),
    inputs: Mapping[str, Array] | None = None,
    output: Path | str | None = None,
) -> Compiled:
    """Compile a model (file or folder with ``model.onnx``) for a preset or hardware file; ``output`` writes the folder.

    Raises :class:`cimc.errors.CimcError` for everything a user can put right."""
    made = compile_model(model, _options(hardware, dims, precision, overrides), inputs=inputs)
    assert made is not None
    if output is not None:
        made.write(Path(output))
    return made


def check(
    model: Path | str,
    *,
    hardware: str | None = None,
    dims: Mapping[str, int] | None = None,
    precision: str = "w8a8",
    overrides: Sequence[str] = (),
    inputs: Mapping[str, Array] | None = None,
    numerics: Numerics = "float",
    seed: int = 0,
    tolerance: Tolerance | None = None,
    timing: bool = True,
    layers: bool = False,
) -> JsonObject:
    """Compile, run, compare with onnxruntime: the object of ``cimc check --json``."""
    how = CheckOptions(numerics, seed, inputs, tolerance, timing, command="cimc.check", layers=layers)
    return check_model(str(model), _options(hardware, dims, precision, overrides), how).report.to_json()


def _options(hardware: str | None, dims: Mapping[str, int] | None, precision: str, overrides: Sequence[str]) -> Options:
    default = Options()
    return Options(hardware or default.hardware, tuple(overrides), dict(dims or {}), precision)
