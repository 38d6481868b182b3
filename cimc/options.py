"""What a user may choose about a compile: what contradicts what, and the pipeline that it asks for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from cimc import errors
from cimc.arch import load as hardware_files
from cimc.arch.load import Hardware
from cimc.arch.spec import CoreSpec
from cimc.lengths import Lengths
from cimc.mapping.build import matmul_room
from cimc.mapping.choices import DEFAULT, Choices
from cimc.mapping.treatment import DEFAULT as DIGITAL_ATTENTION
from cimc.mapping.treatment import parse_attention
from cimc.mapping.written import weight_cores
from cimc.passes.copies import Copies
from cimc.passes.digital import Digital
from cimc.passes.halve import Halve
from cimc.passes.outliers import Outliers
from cimc.passes.pipeline_text import parse_pipeline
from cimc.passes.quantize import Quantize
from cimc.passes.smooth import Smooth
from cimc.passes.split import Split
from cimc.pipeline import default_pipeline
from cimc.search.plan import Plan

PRECISION = re.compile(r"w([2-8])a8")
Fit = Literal["off", "scales", "rounding", "all"]
"""What of the quantisation is fitted to calibration inputs."""
Values = Literal["f32", "f16", "bf16"]
"""What values between products are kept in, and travel as."""


@dataclass(frozen=True)
class Options:
    """What a user may choose about a compile. ``activations``: scales of activations per row at run time (``dynamic``) or
    constant, measured on calibration inputs (``static``). ``fit``: what else is fitted to them: ``scales`` between activations
    and weights (:class:`Smooth`), the ``rounding`` of weights, or ``all``. ``digital``: static matmuls on the digital matmul
    units, by name or pattern. ``outliers`` and ``copies``: options of the passes of these names, as ``channels=8,
    by=activations`` and ``count=4``; empty: no such pass. ``passes``: a pipeline in place of the usual one; it must end at
    level partitioned. ``calibrate``: whether the program
    begins by calibrating its analog cores. ``auto_chips``: as few of the hardware's chips as the model fits on, whatever
    number of them it says. ``placement``: a file as ``mapping.json`` that says what goes where. ``search``: how long to look
    for a better placement from there on. ``attention``: how products of activations run (:func:`parse_attention`). ``values``: in
    which type values between products are kept and travel (:class:`Halve`). ``lengths``: a dim that stays open, as a parameter
    of the program."""

    hardware: str = hardware_files.DEFAULT
    overrides: tuple[str, ...] = ()
    dims: Mapping[str, int] = field(default_factory=dict[str, int])
    precision: str = "w8a8"
    activations: Literal["dynamic", "static"] = "dynamic"
    passes: str = ""
    choices: Choices = DEFAULT
    digital: tuple[str, ...] = ()
    outliers: str = ""
    calibrate: Literal["never", "start"] = "never"
    auto_chips: bool = False
    copies: str = ""
    placement: str = ""
    search: Plan | None = None
    attention: str = DIGITAL_ATTENTION
    fit: Fit = "off"
    values: Values = "f32"
    lengths: Lengths | None = None


def agree(options: Options) -> None:
    """Raise MAPPING_CHOICE for choices that contradict each other, however they were given."""
    choices, no = options.choices, errors.MAPPING_CHOICE
    if choices.reload and choices.optimize == "throughput":
        why = "weights that take turns in cells, and optimize=throughput keeps all layers in them"
        raise no(text="reload=on", why=why, fix="give one of them")
    if choices.reload and options.auto_chips:
        why = "it does with fewer chips than all weights need, and --chips auto takes as many"
        raise no(text="reload=on", why=why, fix="give one of them, or --chips N")


def pipeline_text(options: Options, hardware: Hardware) -> str:
    """The pipeline that options ask for, as text. Raises PASS_OPTION and ATTENTION for options that contradict a pipeline of
    one's own, or no tile can do, and what their texts raise."""
    apart = parse_pipeline(f"outliers{{{options.outliers}}}", "--outliers") if options.outliers else ()
    several = parse_pipeline(f"copies{{{options.copies}}}", "--copies") if options.copies else ()
    if options.passes and (options.digital or apart or several or options.fit != "off"):
        why = "a pipeline of your own (-p) says itself what is kept out of the cells, in several, or fitted"
        given = "--digital, --outliers, --copies or --fit"
        raise errors.PASS_OPTION(option=given, name="digital", why=why, fix="write it into -p")
    attention = parse_attention(options.attention)
    if options.values not in get_args(Values):
        raise errors.ARGUMENT(name="values", why=f"there is no '{options.values}'", fix="use f32, f16 or bf16")
    if options.passes and options.values != "f32":
        why = "a pipeline of your own (-p) says itself what values are rounded to"
        raise errors.PASS_OPTION(option="--values", name="halve", why=why, fix="write halve{to=f16} into -p")
    if options.passes:
        if options.attention != DIGITAL_ATTENTION:
            why = "a pipeline of your own (-p) says itself how products of activations run"
            raise errors.ATTENTION(text=options.attention, why=why, fix="write decompose or written{cells=nvm} into -p")
        return options.passes
    core = core_of(hardware)
    room = matmul_room(hardware.spec)
    if (options.digital or apart) and not room:
        why = f"no tile of {hardware.name} has a matmul unit"
        raise errors.PASS_OPTION(option="layers", name="digital", why=why, fix="choose hardware that has one")
    return default_pipeline(
        core.rows,
        core.cols,
        weight_bits=weight_bits(options.precision),
        activations=options.activations,
        rounding="fitted" if options.fit in ("rounding", "all") else "nearest",
        smooth=Smooth(weight_bits=weight_bits(options.precision)) if options.fit in ("scales", "all") else None,
        outliers=next((p for p in apart if isinstance(p, Outliers)), None),
        digital=Digital(",".join(options.digital)) if options.digital else None,
        copies=next((p for p in several if isinstance(p, Copies)), None),
        digital_bytes=room // 2 if options.digital or apart else Quantize.digital_bytes,
        attention=attention.passes(hardware.spec, core.cols),
        halve=Halve(options.values) if options.values != "f32" else None,
        split=Split(max(1, weight_cores(hardware.spec, attention.cells))) if options.choices.reload else None,
    )


def weight_bits(precision: str) -> int:
    """Bits of a weight in a precision as ``w8a8``. Raises PRECISION."""
    matched = PRECISION.fullmatch(precision)
    if matched is None:
        raise errors.PRECISION(given=precision, why="it names weight and activation bits, as in w8a8")
    return int(matched.group(1))


def core_of(hardware: Hardware) -> CoreSpec:
    """The core whose size blocks are cut to: that of the first tile kind with cores. Raises NO_CORES."""
    for spec in hardware.spec.tiles.values():
        if spec.core is not None:
            return spec.core
    raise errors.NO_CORES(chip=hardware.name)
