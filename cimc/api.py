"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from cimc.analog.config import refuse
from cimc.asked import CompileOptions, one_of, options
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, compile_model
from cimc.device import durations
from cimc.report.compare import Tolerance
from cimc.report.jsontext import JsonObject
from cimc.session import Numerics
from cimc.study import DeviceOptions
from cimc.variants import axis
from cimc.variants import sweep as run_variants

Array = NDArray[np.generic]


def compile(
    model: Path | str,
    *,
    inputs: Mapping[str, Array] | None = None,
    calibration: Mapping[str, Array] | None = None,
    output: Path | str | None = None,
    **asked: Unpack[CompileOptions],
) -> Compiled:
    """Compile a model (file or folder with ``model.onnx``) for a preset or hardware file; ``output`` writes the folder.

    ``asked`` are the options of ``cimc compile`` by their names: :class:`cimc.asked.CompileOptions` lists them. ``inputs`` bind
    symbolic dims. What ``fit``, ``outliers`` and static activations are measured on is ``calibration`` (inputs, or several along
    a first axis), else ``inputs``, else drawn.

    Raises :class:`cimc.errors.CimcError` for everything a user can put right."""
    samples = (calibration,) if calibration is not None else (inputs,) if inputs else ()
    made = compile_model(model, options(asked), inputs=inputs, calibration=samples)
    assert made is not None
    if output is not None:
        made.write(Path(output))
    return made


def check(
    model: Path | str,
    *,
    inputs: Mapping[str, Array] | None = None,
    calibration: Mapping[str, Array] | None = None,
    numerics: Numerics = "float",
    seed: int = 0,
    tolerance: Tolerance | None = None,
    timing: bool = True,
    layers: bool = False,
    device: Sequence[str] = (),
    technology: str | None = None,
    time: float | str | None = None,
    rate: float = 1.0,
    attribute: bool = False,
    trials: int = 0,
    budget: float | None = None,
    **asked: Unpack[CompileOptions],
) -> JsonObject:
    """Compile, run, compare with onnxruntime: the object of ``cimc check --json``.

    The options of the command by their names; ``asked`` are those of :func:`compile`, but that no dim stays open. Those from
    ``device`` to ``budget`` are for analog numerics; ``time`` is in seconds or a text as ``"1h,1d"``. ``calibration``: inputs (or
    several, along a first axis) that calibrated ADC ranges are fitted to, and what the compile measures. Raises ANALOG_CONFIG
    for them in other numerics, and as the command does."""
    one_of("numerics", numerics, get_args(Numerics))
    analog = bool(device or technology is not None or time is not None or attribute or trials or budget is not None)
    if analog and numerics != "analog":
        raise refuse("numerics", f"'{numerics}' has no device", "device options need numerics='analog'")
    times = durations(time) if isinstance(time, str) else () if time is None else (float(time),)
    how = CheckOptions(
        numerics,
        seed,
        inputs,
        tolerance,
        timing,
        command="cimc.check",
        layers=layers,
        device=DeviceOptions(tuple(device), technology, times, rate, attribute, trials, budget),
        calibration=calibration,
    )
    return check_model(str(model), options(asked), how).to_json()


def sweep(
    model: Path | str,
    vary: Mapping[str, Sequence[object]],
    *,
    numerics: Numerics | None = None,
    inputs: Mapping[str, Array] | None = None,
    seed: int = 0,
    **asked: Unpack[CompileOptions],
) -> JsonObject:
    """Compile and time a model for every combination of the values in ``vary``, with ``numerics`` also run on values and
    compared with onnxruntime: the object of ``cimc sweep --json``.

    ``vary`` has the keys of ``--vary``: ``{"hw": ["isaac", "puma"], "crossbar.rows": [128, 256]}``; ``asked`` are options of
    :func:`compile`, the same in all. Raises SWEEP for keys and values that mean nothing, the first refusal if every combination
    is refused, and ARGUMENT."""
    if numerics is not None:
        one_of("numerics", numerics, get_args(Numerics))
    axes = [axis(key, tuple(map(str, values))) for key, values in vary.items()]
    how = CheckOptions(numerics, seed, inputs, device=DeviceOptions()) if numerics else None
    return run_variants(str(model), options(asked), axes, how).to_json()
