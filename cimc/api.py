"""The Python API: the commands as functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.analog.config import refuse
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, Fit, Options, Values, compile_model
from cimc.device import durations
from cimc.lengths import Lengths
from cimc.mapping.choices import CacheHome, Objective, parse_choices
from cimc.report.compare import Tolerance
from cimc.report.jsontext import JsonObject
from cimc.search.plan import parse_plan
from cimc.session import Numerics, one_of
from cimc.study import DeviceOptions
from cimc.variants import axis
from cimc.variants import sweep as run_variants

Array = NDArray[np.generic]
Activations = Literal["dynamic", "static"]
Calibrate = Literal["never", "start"]
Size = int | tuple[int, int]
"""Of a dim; two numbers leave it open between them."""


def compile(
    model: Path | str,
    *,
    hardware: str | None = None,
    dims: Mapping[str, Size] | None = None,
    precision: str = "w8a8",
    overrides: Sequence[str] = (),
    inputs: Mapping[str, Array] | None = None,
    output: Path | str | None = None,
    digital: Sequence[str] = (),
    outliers: str = "",
    copies: str = "",
    chips: int | str | None = None,
    activations: Activations = "dynamic",
    mapping: Sequence[str] = (),
    passes: str = "",
    calibrate: Calibrate = "never",
    placement: Path | str = "",
    search: str | int = "",
    reload: bool = False,
    attention: str = "digital",
    optimize: Objective = "latency",
    cache: CacheHome = "memory",
    fit: Fit = "off",
    calibration: Mapping[str, Array] | None = None,
    values: Values = "f32",
) -> Compiled:
    """Compile a model (file or folder with ``model.onnx``) for a preset or hardware file; ``output`` writes the folder.

    ``dims`` are sizes by name; for one of them two numbers, ``{"past_sequence": (1, 511)}``, make one program for all lengths
    from the first to the second.

    The options of ``cimc compile`` by their names: ``digital`` and ``outliers`` are kept out of the cells, ``copies`` in
    several sets of them (as ``--copies``); ``chips`` is a number or ``"auto"``; ``mapping`` are texts as of ``-m``; ``inputs``
    bind symbolic dims and are what static activations and outliers are measured on; ``calibrate="start"`` begins the program
    with a calibration of its analog cores. ``placement`` is a file as ``mapping.json`` that says what goes where, ``search`` a
    number of trials or a text as of ``--search``. ``reload``: weights that find no core are written into cells during the run.
    ``attention``: how products of activations run, as ``--attention``; ``optimize="throughput"`` lets the samples of a batch
    stream through all layers. ``cache``: where KV caches lie, as ``--cache``. ``fit``: what is fitted to ``calibration``
    (inputs, or several along a first axis; else ``inputs``, else drawn ones), as ``--fit``. ``values``: what values between
    products are rounded to, stored and sent as, as ``--values``.

    Raises :class:`cimc.errors.CimcError` for everything a user can put right."""
    asked = _Compile(hardware, dims, precision, overrides, chips, activations, mapping, passes, calibrate)
    chosen = _placed(asked.options(digital, outliers, copies), placement, search, reload, attention, optimize, cache)
    one_of("fit", fit, get_args(Fit))
    one_of("values", values, get_args(Values))
    samples = (calibration,) if calibration is not None else (inputs,) if inputs else ()
    made = compile_model(model, replace(chosen, fit=fit, values=values), inputs=inputs, calibration=samples)
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
    copies: str = "",
    attention: str = "digital",
    device: Sequence[str] = (),
    technology: str | None = None,
    time: float | str | None = None,
    rate: float = 1.0,
    attribute: bool = False,
    trials: int = 0,
    budget: float | None = None,
    chips: int | str | None = None,
    activations: Activations = "dynamic",
    mapping: Sequence[str] = (),
    passes: str = "",
    calibrate: Calibrate = "never",
    calibration: Mapping[str, Array] | None = None,
    placement: Path | str = "",
    search: str | int = "",
    reload: bool = False,
    optimize: Objective = "latency",
    cache: CacheHome = "memory",
    fit: Fit = "off",
    values: Values = "f32",
) -> JsonObject:
    """Compile, run, compare with onnxruntime: the object of ``cimc check --json``.

    The options of the command by their names, those of :func:`compile` among them; ``time`` is in seconds or a text as
    ``"1h,1d"``. Those from ``device`` to ``budget`` are for analog numerics. ``calibration``: inputs (or several,
    along a first axis) that calibrated ADC ranges are fitted to, and what ``fit`` and ``activations`` measure. Raises
    ANALOG_CONFIG for them in other numerics, and as the command does."""
    one_of("numerics", numerics, get_args(Numerics))
    asked = bool(device or technology is not None or time is not None or attribute or trials or budget is not None)
    if asked and numerics != "analog":
        raise refuse("numerics", f"'{numerics}' has no device", "device options need numerics='analog'")
    times = durations(time) if isinstance(time, str) else () if time is None else (float(time),)
    study = DeviceOptions(tuple(device), technology, times, rate, attribute, trials, budget)
    how = CheckOptions(
        numerics,
        seed,
        inputs,
        tolerance,
        timing,
        command="cimc.check",
        layers=layers,
        device=study,
        calibration=calibration,
    )
    compiled_as = _Compile(hardware, dims, precision, overrides, chips, activations, mapping, passes, calibrate)
    chosen = _placed(
        compiled_as.options(digital, outliers, copies), placement, search, reload, attention, optimize, cache
    )
    one_of("fit", fit, get_args(Fit))
    one_of("values", values, get_args(Values))
    return check_model(str(model), replace(chosen, fit=fit, values=values), how).to_json()


def sweep(
    model: Path | str,
    vary: Mapping[str, Sequence[object]],
    *,
    hardware: str | None = None,
    dims: Mapping[str, Size] | None = None,
    precision: str = "w8a8",
    overrides: Sequence[str] = (),
    mapping: Sequence[str] = (),
    numerics: Numerics | None = None,
    inputs: Mapping[str, Array] | None = None,
    seed: int = 0,
) -> JsonObject:
    """Compile and time a model for every combination of the values in ``vary``, with ``numerics`` also run on values and
    compared with onnxruntime: the object of ``cimc sweep --json``.

    ``vary`` has the keys of ``--vary``: ``{"hw": ["isaac", "puma"], "crossbar.rows": [128, 256]}``; the rest are options of
    :func:`compile`. Raises SWEEP for keys and values that mean nothing, the first refusal if every combination is refused, and
    ARGUMENT."""
    if numerics is not None:
        one_of("numerics", numerics, get_args(Numerics))
    base = _Compile(hardware, dims, precision, overrides, None, "dynamic", mapping, "", "never").options((), "", "")
    axes = [axis(key, tuple(map(str, values))) for key, values in vary.items()]
    how = CheckOptions(numerics, seed, inputs, device=DeviceOptions()) if numerics else None
    return run_variants(str(model), base, axes, how).to_json()


def _placed(
    options: Options,
    placement: Path | str,
    search: str | int,
    reload: bool,
    attention: str,
    optimize: Objective,
    cache: CacheHome,
) -> Options:
    one_of("optimize", optimize, get_args(Objective))
    one_of("cache", cache, get_args(CacheHome))
    if reload and optimize == "throughput":
        why = "optimize='throughput' keeps all layers in cells, reload=True does not"
        raise errors.ARGUMENT(name="reload", why=why, fix="give one of them")
    plan = parse_plan(str(search)) if search != "" else None
    choices = replace(options.choices, reload=options.choices.reload or reload)
    choices = replace(choices, optimize=optimize) if optimize != "latency" else choices
    choices = replace(choices, cache=cache) if cache != "memory" else choices
    return replace(options, placement=str(placement), search=plan, choices=choices, attention=attention)


@dataclass(frozen=True)
class _Compile:
    """The compile options that both functions take, as they were given."""

    hardware: str | None
    dims: Mapping[str, Size] | None
    precision: str
    overrides: Sequence[str]
    chips: int | str | None
    activations: Activations
    mapping: Sequence[str]
    passes: str
    calibrate: Calibrate

    def options(self, digital: Sequence[str], outliers: str, copies: str) -> Options:
        """The same, checked. Raises ARGUMENT, MAPPING_CHOICE."""
        one_of("activations", self.activations, get_args(Activations))
        one_of("calibrate", self.calibrate, get_args(Calibrate))
        sizes, lengths = self._sizes()
        return Options(
            Options().hardware if self.hardware is None else self.hardware,
            (*self.overrides, *self._chips()),
            sizes,
            self.precision,
            self.activations,
            self.passes,
            parse_choices(self.mapping),
            tuple(digital),
            outliers,
            self.calibrate,
            self.chips == "auto",
            copies,
            lengths=lengths,
        )

    def _sizes(self) -> tuple[dict[str, int], Lengths | None]:
        """The dims that are numbers, and the one that stays open."""
        sizes: dict[str, int] = {}
        lengths: list[Lengths] = []
        for name, size in (self.dims or {}).items():
            if isinstance(size, int):
                sizes[name] = size
            elif isinstance(size, tuple) and list(map(type, size)) == [int, int] and not lengths:  # pyright: ignore[reportUnnecessaryIsInstance]  # a caller's types are not checked
                lengths.append(Lengths(name, *size))
            else:
                fix = "give whole numbers, and for one of them (least, greatest)"
                raise errors.ARGUMENT(name="dims", why=f"{name} is {size!r}", fix=fix)
        return sizes, next(iter(lengths), None)

    def _chips(self) -> tuple[str, ...]:
        """``chips`` as an override of the hardware."""
        if self.chips is None or self.chips == "auto":
            return ()
        number = str(self.chips)
        if not (number.isascii() and number.isdigit() and int(number[:9]) >= 1):
            why, fix = f"{self.chips!r} is no number of chips", "give a number from 1 on, or 'auto'"
            raise errors.ARGUMENT(name="chips", why=why, fix=fix)
        return (f"chips={number}",)
