"""One model on many variants of hardware and compile: which serves it best, and what a choice costs (``cimc sweep``)."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import prod
from pathlib import Path

from cimc import errors
from cimc.arch import load as hardware_files
from cimc.arch.overrides import nearest
from cimc.arch.spec import ChipSpec
from cimc.arch.units import area_um2
from cimc.asked import WORDS
from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, compile_model
from cimc.device import duration
from cimc.mapping.choices import Choices, parse_choices
from cimc.options import Options
from cimc.report.jsontext import Json
from cimc.report.progress import follow, stage
from cimc.report.sweep import Figures, Row, SweepReport
from cimc.sim.result import Timing
from cimc.sim.timing import run_timing
from cimc.study import DeviceOptions

MOST_POINTS = 1000
PARAM = "param."
PREFIXES = ("dim.", "mapping.", "device.", PARAM)
"""Of keys that are neither an option's name nor a field of the hardware."""
BRACKETS = {"[": "]", "{": "}", "(": ")", '"': '"', "'": "'"}


@dataclass(frozen=True)
class Axis:
    """A key, and the values it takes."""

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> Axis:
    """``KEY=VALUE,VALUE...``; commas within brackets or quotes belong to a value. Raises SWEEP."""
    key, _, rest = text.partition("=")
    return axis(key.strip(), tuple(_split(rest)))


def axis(key: str, values: tuple[str, ...]) -> Axis:
    """A key and its values. Raises SWEEP if one is empty or given twice."""
    text = f"{key}={','.join(values)}"
    if not (key and values and all(values)):
        raise errors.SWEEP(
            text=text, why="it is not KEY=VALUE,VALUE...", fix="for example --vary crossbar.rows=128,256"
        )
    if len(set(values)) < len(values):
        raise errors.SWEEP(text=text, why="a value is given twice", fix="give each once")
    return Axis(key, values)


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket or quote."""
    parts, closing = [""], list[str]()
    for c in text:
        if closing and c == closing[-1]:
            closing.pop()
        elif c in BRACKETS and not (closing and closing[-1] in "\"'"):
            closing.append(BRACKETS[c])
        elif c == "," and not closing:
            parts.append("")
            continue
        parts[-1] += c
    return [part.strip() for part in parts]


def sweep(model: str, base: Options, axes: Sequence[Axis], how: CheckOptions | None = None) -> SweepReport:
    """Every combination of the axes' values: compiled and timed, and with ``how`` also run on values and compared with
    onnxruntime. What is refused or does not fit is a row that says why; if nothing is left, the first refusal is raised.

    Raises SWEEP for axes that say the same twice or too many combinations, and as :func:`compile_model`."""
    if not axes:
        raise errors.SWEEP(text="", why="nothing is varied", fix="for example --vary crossbar.rows=128,256")
    keys = [a.key for a in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise errors.SWEEP(text=twice, why="the key is varied twice", fix="give all its values in one --vary")
    count = prod(len(a.values) for a in axes)
    if count > MOST_POINTS:
        why = f"{count} combinations, at most {MOST_POINTS} are run"
        raise errors.SWEEP(text=" ".join(keys), why=why, fix="give fewer values, or several sweeps")
    rows: list[Row] = []
    notes: dict[str, None] = {}
    refused: errors.CimcError | None = None
    measure = _Measure(model)
    for values in itertools.product(*(a.values for a in axes)):
        setting = dict(zip(keys, values, strict=True))
        try:
            with stage(f"{len(rows) + 1} of {count}, {' '.join(f'{k}={v}' for k, v in setting.items())}"):
                figures, defaults = measure(*applied(base, how, setting), _params(setting))
                rows.append(Row(setting, figures))
                notes.update(dict.fromkeys(defaults))
        except errors.CimcError as e:
            refused = refused or e
            rows.append(Row(setting, None, f"{e.code}: {e.message}"))
    if refused is not None and all(row.figures is None for row in rows):
        unknown = refused.diagnostic is errors.HW_OVERRIDE
        raise (_mistyped(base, axes) if unknown else None) or refused
    return SweepReport(Path(model).name, tuple(keys), rows, how.numerics if how else None, tuple(notes))


def _mistyped(base: Options, axes: Sequence[Axis]) -> errors.CimcError | None:
    """What to say of a key that is neither an option nor a key of any hardware that is varied; None if there is none.
    Raises what loading the hardware does."""
    names = next((a.values for a in axes if a.key == "hw"), (base.hardware,))
    known = {key for name in names for key in hardware_files.keys(hardware_files.load(name, base.overrides))}
    for key in (a.key for a in axes):
        named = key in OPTIONS or key == "time" or key.startswith(PREFIXES)
        if not named and not any(f".{key}." in f".{k}." for k in known):
            return _unknown(key, known)
    return None


def _unknown(key: str, known: Collection[str]) -> errors.CimcError:
    """The refusal of a key, with the option and the key of the hardware that look most like it."""
    option, field = difflib.get_close_matches(key, OPTIONS, n=1, cutoff=0.6), nearest(key, known)
    near = [f"the option '{o}'" for o in option] + ([f"the hardware's '{field}'"] if field else [])
    start = f"did you mean {' or '.join(near)}? " if near else f"options are {', '.join(OPTIONS)}; "
    why = "it is neither an option nor a key of the hardware"
    return errors.SWEEP(text=key, why=why, fix=f"{start}`cimc hw show HARDWARE` prints the hardware's keys")


def applied(base: Options, how: CheckOptions | None, setting: Mapping[str, str]) -> tuple[Options, CheckOptions | None]:
    """The options with every key set: ``hw``, the name of an option of ``cimc compile``, ``dim.NAME``, ``mapping.KEY``,
    ``time`` or ``device.KEY`` of the analog device, or else a field of the hardware, as ``-c`` names them; ``param.NAME`` of the
    program changes none. Raises SWEEP, MAPPING_CHOICE, ANALOG_CONFIG for values that cannot be."""
    for key, value in setting.items():
        if key.startswith(PARAM):
            if base.lengths is None:
                fix = "leave a dim open, as in --dim past_sequence=1..511"
                raise errors.SWEEP(text=f"{key}={value}", why="the program has no parameter", fix=fix)
            continue
        if key == "time" or key.startswith("device."):
            how = _device(how, key, value)
        else:
            base = _set(base, key, value)
    return base, how


def _set(base: Options, key: str, value: str) -> Options:
    if key in OPTIONS:
        return OPTIONS[key](base, value)
    if key.startswith("dim."):
        return replace(base, dims={**base.dims, key.removeprefix("dim."): _whole(key, value)})
    if key.startswith("mapping."):
        return _choice(base, key.removeprefix("mapping."), value)
    return replace(base, overrides=(*base.overrides, f"{key}={value}"))


def _device(how: CheckOptions | None, key: str, value: str) -> CheckOptions:
    """The device a time after programming, or with one of its settings."""
    if how is None or how.numerics != "analog":
        raise errors.SWEEP(text=f"{key}={value}", why="only analog numerics have a device", fix="add --numerics analog")
    device = how.device or DeviceOptions()
    if key == "time":
        return replace(how, device=replace(device, times=(duration(value),)))
    return replace(how, device=replace(device, settings=(*device.settings, f"{key.removeprefix('device.')}={value}")))


def _choice(base: Options, key: str, value: str) -> Options:
    """One choice about the mapping, the others as they are."""
    parsed = parse_choices((f"{key}={value}",))
    changed: dict[str, object] = {f.name: getattr(parsed, f.name) for f in fields(Choices) if f.name == key}
    return replace(base, choices=replace(base.choices, **changed))  # pyright: ignore[reportArgumentType]  # its own fields


def _chips(base: Options, value: str) -> Options:
    if value == "auto":
        return replace(base, auto_chips=True)
    return replace(base, auto_chips=False, overrides=(*base.overrides, f"chips={_whole('chips', value)}"))


def _word(key: str) -> Callable[[Options, str], Options]:
    """How an option that is one of several words is set."""

    def chosen(base: Options, value: str) -> Options:
        if value not in WORDS[key]:
            raise errors.SWEEP(
                text=f"{key}={value}", why=f"there is no '{value}'", fix=f"one of {', '.join(WORDS[key])}"
            )
        changed: dict[str, object] = {key: value}
        return replace(base, **changed)  # pyright: ignore[reportArgumentType]  # its own words

    return chosen


def _whole(key: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value[:9]) >= 1 and len(value) <= 9):
        raise errors.SWEEP(text=f"{key}={value}", why=f"'{value}' is no number from 1 on", fix="give whole numbers")
    return int(value)


OPTIONS: Mapping[str, Callable[[Options, str], Options]] = {
    "hw": lambda base, value: replace(base, hardware=value),
    "chips": _chips,
    "precision": lambda base, value: replace(base, precision=value),
    "activations": _word("activations"),
    "fit": _word("fit"),
    "values": _word("values"),
    "attention": lambda base, value: replace(base, attention=value),
    "outliers": lambda base, value: replace(base, outliers=value),
    "copies": lambda base, value: replace(base, copies=value),
    "placement": lambda base, value: replace(base, placement=value),
    "optimize": lambda base, value: _choice(base, "optimize", value),
    "reload": lambda base, value: _choice(base, "reload", value),
    "cache": lambda base, value: _choice(base, "cache", value),
}
"""What stands for an option of ``cimc compile``; everything else is a field of the hardware."""


def _params(setting: Mapping[str, str]) -> dict[str, int]:
    """The program's parameters among the keys. Raises SWEEP."""
    return {
        key.removeprefix(PARAM): 0 if value == "0" else _whole(key, value)
        for key, value in setting.items()
        if key.startswith(PARAM)
    }


class _Measure:
    """What variants of a model take, and the dims that nobody bound. The last program is kept for the next variant, which may
    run it with other parameters."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._last: tuple[Options, Compiled] | None = None

    def __call__(
        self, options: Options, how: CheckOptions | None, params: Mapping[str, int]
    ) -> tuple[Figures, tuple[str, ...]]:
        if how is None:
            made = self._compiled(options)
            with stage("timing"):
                timing = run_timing(made.program, made.hardware.spec, param_values=params, progress=follow)
            return _figures(made, timing, None), made.defaults
        checked = check_model(self._model, options, how)
        assert checked.result.timing is not None
        return _figures(checked.compiled, checked.result.timing, checked.report.least_cosine), checked.compiled.defaults

    def _compiled(self, options: Options) -> Compiled:
        if self._last is not None and self._last[0] == options:
            return self._last[1]
        made = compile_model(self._model, options)
        assert made is not None
        self._last = (options, made)
        return made


def _figures(made: Compiled, timing: Timing, cosine: float | None) -> Figures:
    chip: ChipSpec = made.hardware.spec
    return Figures(
        cycles=timing.cycles,
        latency_ns=timing.latency_ns,
        energy_pj=float(sum(timing.energy_pj.values())),
        area_mm2=area_um2(chip) / 1e6,
        attainment=timing.bound.cycles / timing.cycles if timing.cycles else 1.0,
        bound_by=timing.bound.by,
        crossbars_used=_total(made.mapping, "crossbars_used"),
        crossbars=_total(made.mapping, "crossbars"),
        global_memory_bytes=int(timing.traffic_bytes.get("global_memory", 0)),
        cosine_similarity=cosine,
    )


def _total(mapping: Mapping[str, Json], name: str) -> int:
    totals = mapping["totals"]
    assert isinstance(totals, Mapping)
    found = totals[name]
    assert isinstance(found, int)
    return found
