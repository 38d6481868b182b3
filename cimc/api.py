"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, Options, compile_model
from cimc.device import durations
from cimc.report.compare import Tolerance
from cimc.report.jsontext import JsonObject
from cimc.session import Numerics
from cimc.study import DeviceOptions

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
    digital: Sequence[str] = (),
    outliers: str = "",
    attention: str = "digital",
) -> Compiled:
    """Compile a model (file or folder with ``model.onnx``) for a preset or hardware file; ``output`` writes the folder.
    ``digital`` and ``outliers``: what is kept out of the cells, as ``--digital`` and ``--outliers``;
    ``attention``: how products of activations run, as ``--attention``.

    Raises :class:`cimc.errors.CimcError` for everything a user can put right."""
    chosen = _options(hardware, dims, precision, overrides, digital, outliers, attention)
    made = compile_model(model, chosen, inputs=inputs, calibration=(inputs,) if inputs else ())
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
    digital: Sequence[str] = (),
    outliers: str = "",
    attention: str = "digital",
    device: Sequence[str] = (),
    technology: str | None = None,
    time: float | str | None = None,
    rate: float = 1.0,
    attribute: bool = False,
    trials: int = 0,
    budget: float | None = None,
) -> JsonObject:
    """Compile, run, compare with onnxruntime: the object of ``cimc check --json``.

    The options of the command by their names; ``time`` is in seconds or a text as ``"1h,1d"``. Those from ``device`` on are
    for analog numerics. Raises ANALOG_CONFIG for them in other numerics, and as the command does."""
    asked = bool(device or technology is not None or time is not None or attribute or trials or budget is not None)
    if asked and numerics != "analog":
        raise refuse("numerics", f"'{numerics}' has no device", "device options need numerics='analog'")
    times = durations(time) if isinstance(time, str) else () if time is None else (float(time),)
    study = DeviceOptions(tuple(device), technology, times, rate, attribute, trials, budget)
    how = CheckOptions(numerics, seed, inputs, tolerance, timing, command="cimc.check", layers=layers, device=study)
    chosen = _options(hardware, dims, precision, overrides, digital, outliers, attention)
    return check_model(str(model), chosen, how).to_json()


def _options(
    hardware: str | None,
    dims: Mapping[str, int] | None,
    precision: str,
    overrides: Sequence[str],
    digital: Sequence[str],
    outliers: str,
    attention: str,
) -> Options:
    default = Options()
    return Options(
        hardware or default.hardware,
        tuple(overrides),
        dict(dims or {}),
        precision,
        digital=tuple(digital),
        outliers=outliers,
        attention=attention,
    )
