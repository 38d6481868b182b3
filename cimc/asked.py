"""What a user asks of a compile: the options of ``cimc compile`` by their names, however they are given, as :class:`Options`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypedDict, get_args

from cimc import errors
from cimc.errors import did_you_mean
from cimc.lengths import Lengths
from cimc.mapping.choices import CacheHome, Choices, Objective, parse_choices
from cimc.options import Fit, Options, Values
from cimc.search.plan import parse_plan

Activations = Literal["dynamic", "static"]
Calibrate = Literal["never", "start"]
Size = int | tuple[int, int]
"""Of a dim; two numbers leave it open between them."""

WORDS: Mapping[str, tuple[str, ...]] = {
    "activations": get_args(Activations),
    "calibrate": get_args(Calibrate),
    "optimize": get_args(Objective),
    "cache": get_args(CacheHome),
    "fit": get_args(Fit),
    "values": get_args(Values),
}
"""Options that are one of several words."""


class CompileOptions(TypedDict, total=False):
    """Options of ``cimc compile`` by their names; what is left out is as the command has it.

    ``dims`` are sizes by name; for one of them two numbers, ``{"past_sequence": (1, 511)}``, make one program for all lengths
    from the first to the second. ``digital`` and ``outliers`` are kept out of the cells, ``copies`` in several sets of them;
    ``chips`` is a number or ``"auto"``; ``mapping`` are texts as of ``-m``; ``calibrate="start"`` begins the program with a
    calibration of its analog cores. ``placement`` is a file as ``mapping.json`` that says what goes where, ``search`` a number
    of trials or a text as of ``--search``. ``reload``: weights that find no core are written into cells during the run.
    ``attention``: how products of activations run. ``optimize="throughput"`` lets the samples of a batch stream through all
    layers. ``cache``: where KV caches lie. ``fit``: what of the quantisation is fitted to inputs. ``values``: what values
    between products are rounded to, stored and sent as."""

    hardware: str | None
    dims: Mapping[str, Size] | None
    precision: str
    overrides: Sequence[str]
    digital: Sequence[str]
    outliers: str
    copies: str
    chips: int | str | None
    activations: Activations
    mapping: Sequence[str]
    passes: str
    calibrate: Calibrate
    placement: Path | str
    search: str | int
    reload: bool
    attention: str
    optimize: Objective
    cache: CacheHome
    fit: Fit
    values: Values


def one_of(key: str, given: object, known: tuple[str, ...]) -> None:
    """Refuse a word that is none of those known. Raises ARGUMENT naming ``key``."""
    if given not in known:
        fix = f"{did_you_mean(str(given), known)}give one of {', '.join(known)}"
        raise errors.ARGUMENT(name=key, why=f"{given!r} is unknown", fix=fix)


def options(asked: CompileOptions) -> Options:
    """The same, checked one by one; what contradicts what, the compiler says.

    Raises TypeError for a name that is none of them, as Python does for arguments, and ARGUMENT, LENGTHS, MAPPING_CHOICE,
    SEARCH for values."""
    for name, given in asked.items():
        if name not in CompileOptions.__annotations__:
            meant = did_you_mean(name, CompileOptions.__annotations__)
            raise TypeError(f"unexpected keyword argument '{name}'. {meant}".rstrip())
        if name in WORDS:
            one_of(name, given, WORDS[name])
    hardware, chips, search = asked.get("hardware"), asked.get("chips"), asked.get("search", "")
    sizes, lengths = _sizes(asked.get("dims") or {})
    return Options(
        hardware=Options.hardware if hardware is None else hardware,
        overrides=(*asked.get("overrides", ()), *_chips(chips)),
        dims=sizes,
        precision=asked.get("precision", Options.precision),
        activations=asked.get("activations", Options.activations),
        passes=asked.get("passes", Options.passes),
        choices=_choices(asked),
        digital=tuple(asked.get("digital", ())),
        outliers=asked.get("outliers", Options.outliers),
        calibrate=asked.get("calibrate", Options.calibrate),
        auto_chips=chips == "auto",
        copies=asked.get("copies", Options.copies),
        placement=str(asked.get("placement", Options.placement)),
        search=parse_plan(str(search)) if search != "" else None,
        attention=asked.get("attention", Options.attention),
        fit=asked.get("fit", Options.fit),
        values=asked.get("values", Options.values),
        lengths=lengths,
    )


def _choices(asked: CompileOptions) -> Choices:
    """``mapping``, and the choices about it that have an option of their own: one that is not the default wins."""
    aim, home = asked.get("optimize", Choices.optimize), asked.get("cache", Choices.cache)
    own = (
        ("reload=on", asked.get("reload", False)),
        (f"optimize={aim}", aim != Choices.optimize),
        (f"cache={home}", home != Choices.cache),
    )
    return parse_choices((*asked.get("mapping", ()), *(text for text, given in own if given)))


def _sizes(dims: Mapping[str, object]) -> tuple[dict[str, int], Lengths | None]:
    """The dims that are numbers, and the one that stays open. Raises ARGUMENT, LENGTHS."""
    sizes: dict[str, int] = {}
    lengths: Lengths | None = None
    for name, size in dims.items():
        match size:
            case int():
                sizes[name] = size
            case (int(low), int(high)) if isinstance(size, tuple) and lengths is None:
                lengths = Lengths(name, low, high)
            case _:
                fix = "give whole numbers, and for one of them (least, greatest)"
                raise errors.ARGUMENT(name="dims", why=f"{name} is {size!r}", fix=fix)
    return sizes, lengths


def _chips(chips: int | str | None) -> tuple[str, ...]:
    """``chips`` as an override of the hardware. Raises ARGUMENT."""
    if chips is None or chips == "auto":
        return ()
    number = str(chips)
    if not (number.isascii() and number.isdigit() and int(number[:9]) >= 1):
        why, fix = f"{chips!r} is no number of chips", "give a number from 1 on, or 'auto'"
        raise errors.ARGUMENT(name="chips", why=why, fix=fix)
    return (f"chips={number}",)
