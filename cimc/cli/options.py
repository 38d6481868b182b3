"""Options that several commands share, and what they turn into."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, TypeVar, cast

import click

if TYPE_CHECKING:
    from cimc.asked import Size
    from cimc.options import Options

F = TypeVar("F", bound=Callable[..., object])
LENGTHS = re.compile(r"(.+)=([0-9]{1,9})\.\.([0-9]{1,9})")
MOST_NAMES_BYTES = 1 << 20  # of a file that --digital names


def stack(*options: Callable[[F], F]) -> Callable[[F], F]:
    """Several options as one decorator, shown in the order given."""

    def apply(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return apply


class _Named(click.Path):
    """A path that is not empty: an empty one, of a shell's variable that is not set, would be the current folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        if not str(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)


class _OutFile(_Named):
    """A file to write, asked for before work of minutes begins; ``-`` is stdout. Raises REPORT_UNWRITABLE."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> str | bytes | os.PathLike[str]:
        from cimc import files

        path = super().convert(value, param, ctx)
        if str(value) != "-":
            files.check_target(Path(value))
        return path


PATH = _Named(path_type=Path)
OUT_FILE = _OutFile(path_type=Path)
OUT_JSON = _OutFile(path_type=str)


class Finite(click.FloatRange):
    """A range that NaN is outside of."""

    def convert(self, value: float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail("not a number", param, ctx)
        return found


verbosity = stack(
    click.option("-v", "--verbose", is_flag=True, help="Say more: stages and their times, notes."),
    click.option("-q", "--quiet", is_flag=True, help="Say less: results and errors only."),
)
silence = stack(
    click.option("-v", "--verbose", is_flag=True, expose_value=False, help="There is no more to say here."),
    click.option("-q", "--quiet", is_flag=True, expose_value=False, help="Results and errors only: as always here."),
)
json_option = click.option(
    "--json",
    "json_target",
    type=OUT_JSON,
    metavar="FILE|-",
    help="Write the data as JSON to a file, or to stdout and nothing else.",
)
hardware_options = stack(
    click.option("--hw", "hardware", metavar="HARDWARE", help="A preset's name (cimc hw list) or a hardware file."),
    click.option(
        "-c", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a hardware field: crossbar.rows=256."
    ),
)


def _chips(ctx: click.Context, option: click.Parameter, given: str | None) -> str | None:
    """``--chips``: ``auto``, or a number in plain digits. Raises click's usage error for anything else."""
    del ctx, option
    if given is None or given == "auto":
        return given
    if not (given.isascii() and given.isdigit() and int(given[:9]) >= 1):
        raise click.BadParameter(f"'{given}' is neither a number of chips from 1 on nor auto", param_hint="--chips")
    return given


def _bind(more: str) -> Callable[[F], F]:
    """``--dim``; ``more``: what it says of ranges."""
    told = f"Bind a symbolic dimension of the model. {more}"
    return click.option("--dim", "dims", multiple=True, metavar="NAME=INT", help=told)


_where = stack(
    hardware_options,
    click.option(
        "--chips",
        metavar="N|auto",
        callback=_chips,
        help="So many of the hardware's chips in a line; auto: as few as the model fits on.",
    ),
    click.option(
        "--reload",
        type=click.Choice(["off", "on"]),
        default="off",
        show_default=True,
        help="Weights that find no core: refused, or written into cells during the run, taking turns.",
    ),
    click.option(
        "--optimize",
        type=click.Choice(["latency", "throughput"]),
        default="latency",
        show_default=True,
        help="One inference as soon as possible, or the samples of a batch through all layers at once.",
    ),
    click.option(
        "--cache",
        type=click.Choice(["memory", "resident", "fit"]),
        default="memory",
        show_default=True,
        help="KV caches: in global memory; in the tiles that multiply with them; there as far as they find room.",
    ),
)
_how = stack(
    click.option(
        "--precision",
        default="w8a8",
        show_default=True,
        metavar="P",
        help="Weight and activation bits: w2a8, w3a8, ... w8a8.",
    ),
    click.option(
        "--activations",
        type=click.Choice(["dynamic", "static"]),
        default="dynamic",
        show_default=True,
        help="Activation scales: per row at run time, or constants measured on the inputs.",
    ),
    click.option(
        "--fit",
        type=click.Choice(["off", "scales", "rounding", "all"]),
        default="off",
        show_default=True,
        help="Fit to calibration inputs: scales between activations and weights, the rounding of weights, or both.",
    ),
    click.option(
        "--digital",
        "digital",
        multiple=True,
        metavar="NODE[,NODE...]",
        help="Static matmuls (ONNX nodes or weights, patterns with *) on the digital matmul units; @FILE: one a line.",
    ),
    click.option(
        "--outliers",
        default="",
        metavar="OPTIONS",
        help="Input channels with the largest range on the digital matmul units: 'channels=8, by=activations'.",
    ),
    click.option(
        "--copies",
        default="",
        metavar="OPTIONS",
        help="Static matmuls in several sets of cells, results averaged: 'count=4, layers=\"NODE,...\"'.",
    ),
    click.option(
        "--attention",
        default="digital",
        show_default=True,
        metavar="HOW",
        help="Products of activations: digital (matmul units), sram-write or nvm-write (an operand into cells), decompose "
        "(scores without keys), or decompose+nvm-write and the like.",
    ),
    click.option(
        "--values",
        type=click.Choice(["f32", "f16", "bf16"]),
        default="f32",
        show_default=True,
        help="What values between products are rounded to, stored and sent as; units compute in f32.",
    ),
    click.option(
        "-m",
        "--mapping",
        "mapping",
        multiple=True,
        metavar="KEY=VALUE",
        help="Choose about the mapping: replicas=2, lanes=1, rotation=1, pool=8, residence=off, parts=off, aside=off,"
        " exchange=off, push=off, codes=off, sums=tree; optimize, reload, cache as the options of these names.",
    ),
    click.option(
        "--placement",
        default="",
        metavar="FILE",
        help="What goes where: mapping.json of an earlier compile, changed by hand.",
    ),
    click.option(
        "--search",
        "search",
        default="",
        metavar="N|Ns",
        help="Look for a placement with fewer cycles: so many trials, or seconds; also '200,60s,seed=1'.",
    ),
    click.option("-p", "--passes", default="", metavar="PASSES", help='A pipeline of your own: "fold,fuse,...".'),
)
compile_options = stack(_where, _bind("NAME=LOW..HIGH: one program for all lengths (`run --param NAME=INT`)."), _how)
check_options = stack(_where, _bind("A whole number; ranges of lengths are for `compile` and `sweep`."), _how)
"""Of commands that run what they compile, at one length."""
calibrate_option = click.option(
    "--calibrate",
    type=click.Choice(["never", "start"]),
    default="never",
    show_default=True,
    help="Calibrate the columns of the analog cores at the start of the program, against drift and converter errors.",
)
run_options = stack(
    click.option("--inputs", "inputs_path", type=PATH, help="An .npz with the model's inputs."),
    click.option(
        "--numerics",
        type=click.Choice(["float", "integer", "analog"]),
        default="float",
        show_default=True,
        help="How values are computed.",
    ),
    click.option(
        "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="For inputs and device noise."
    ),
)
device_options = stack(
    click.option(
        "--device",
        "device_settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Analog numerics: switch or set part of the device model: drift=off, stuck_on_rate=0.01, adc_range=full.",
    ),
    click.option(
        "--technology", metavar="NAME", help="Analog numerics: a memory technology in place of the hardware's."
    ),
    click.option(
        "--time",
        "device_time",
        metavar="TIME",
        help="Analog numerics: since programming: 3600, 1h, 1d, 1mo, 1y; check takes several: 1h,1d.",
    ),
    click.option(
        "--rate",
        "inference_rate",
        type=Finite(min=0, min_open=True, max=1e12),
        default=1.0,
        show_default=True,
        help="Inferences a second, for the years until cells wear out.",
    ),
)
calibration_option = click.option(
    "--calibration",
    "calibration_path",
    type=PATH,
    metavar="FILE.npz",
    help="Inputs (or several, along a first axis) that scales, weights (--fit, --activations static) and ADC ranges "
    "(analog numerics) are fitted to, in place of --inputs.",
)
trace_option = click.option("--trace", type=OUT_FILE, help="Write a timeline that opens in Perfetto.")


def parse_dims(pairs: tuple[str, ...], option: str = "--dim") -> dict[str, int]:
    """``NAME=INT`` texts as a dict. Raises click's usage error for anything else."""
    dims: dict[str, int] = {}
    for pair in pairs:
        name, equals, value = pair.rpartition("=")
        digits = value.strip()
        if not equals or not name or not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise click.BadParameter(f"'{pair}' is not NAME=INT", param_hint=option)
        if name in dims and dims[name] != int(value):
            raise click.BadParameter(f"'{name}' is given both {dims[name]} and {value}", param_hint=option)
        dims[name] = int(value)
    return dims


class CompileFlags(TypedDict):
    """What ``compile_options`` gives a command."""

    hardware: str | None
    overrides: tuple[str, ...]
    chips: str | None
    reload: Literal["off", "on"]
    optimize: Literal["latency", "throughput"]
    cache: Literal["memory", "resident", "fit"]
    dims: tuple[str, ...]
    precision: str
    activations: Literal["dynamic", "static"]
    fit: Literal["off", "scales", "rounding", "all"]
    digital: tuple[str, ...]
    outliers: str
    copies: str
    attention: str
    values: Literal["f32", "f16", "bf16"]
    passes: str
    mapping: tuple[str, ...]
    placement: str
    search: str


def compile_as(flags: CompileFlags) -> Options:
    """The options of a compile, from what the command line says; what else is among ``flags`` is passed over. Raises as
    :func:`read_digital` and :func:`cimc.asked.options`."""
    from cimc.asked import CompileOptions, options

    said = {key: value for key, value in flags.items() if key in CompileFlags.__annotations__}
    read = {
        "dims": _sizes(flags["dims"]),
        "digital": read_digital(flags["digital"]),
        "reload": flags["reload"] == "on",
    }
    return options(cast("CompileOptions", said | read))


def _sizes(pairs: tuple[str, ...]) -> dict[str, Size]:
    """The ``--dim``: numbers, and one ``NAME=LOW..HIGH``. Raises click's usage error for two of these."""
    found = {pair: match for pair in pairs if (match := LENGTHS.fullmatch(pair))}
    if len(found) > 1:
        raise click.BadParameter("one dimension may stay open, the others are numbers", param_hint="--dim")
    sizes: dict[str, Size] = {**parse_dims(tuple(pair for pair in pairs if pair not in found))}
    return sizes | {m[1]: (int(m[2]), int(m[3])) for m in found.values()}


def read_digital(given: tuple[str, ...]) -> tuple[str, ...]:
    """The names that ``--digital`` lists: between commas, or a line each of ``@FILE`` (``#`` begins a comment). Raises
    FILE_NOT_FOUND, FILE_UNREADABLE."""
    from cimc import files

    found: list[str] = []
    for text in given:
        if not text.startswith("@"):
            found += text.split(",")
            continue
        lines = files.read_text(Path(text[1:]), "list of layers", MOST_NAMES_BYTES).splitlines()
        found += [line.partition("#")[0] for line in lines]
    return tuple(name for text in found if (name := text.strip()))


def analog_only(numerics: str, *options: tuple[str, object]) -> None:
    """A usage error for options that are given (name, value) though nothing runs in analog numerics."""
    for name, given in options:
        if given and numerics != "analog":
            raise click.UsageError(f"{name} needs --numerics analog")


class DeviceFlags(TypedDict):
    """What ``device_options`` gives a command."""

    device_settings: tuple[str, ...]
    technology: str | None
    device_time: str | None
    inference_rate: float


def read_times(numerics: str, flags: DeviceFlags) -> tuple[float, ...]:
    """The times since programming that ``--time`` lists, in seconds; a usage error for device options without analog
    numerics."""
    from cimc.device import durations

    times = flags["device_time"]
    given = (("--device", flags["device_settings"]), ("--technology", flags["technology"]), ("--time", times))
    analog_only(numerics, *given)
    return durations(times) if times else ()
