"""``-c KEY=VALUE``: one number of a hardware file changed from the command line.

KEY is a path into the file, or any tail of one that fits a single key: ``crossbar.rows`` for
``tiles.cim.core.crossbar.rows``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import cast, get_args

from pydantic import BaseModel

from cimc import errors
from cimc.arch.actions import ACTIONS, PARTS
from cimc.arch.document import Path, Plain, dotted, put, scalar
from cimc.arch.floorplan import size_of, stretched
from cimc.arch.spec import ChipSpec
from cimc.errors import Source


@dataclass(frozen=True)
class Override:
    """One override: the text as given, the path it resolved to, its value and the place of the value in the text."""

    text: str
    path: Path
    value: Plain
    source: Source


def apply(data: dict[str, Plain], texts: tuple[str, ...]) -> tuple[dict[str, Plain], tuple[Override, ...]]:
    """The data with all overrides made, later ones winning. Raises HW_OVERRIDE for a key that fits none or several."""
    done: list[Override] = []
    for text in texts:
        override = _parse(text, data)
        data = put(data, override.path, override.value)
        done.append(override)
    return data, tuple(done)


def _parse(text: str, data: Mapping[str, Plain]) -> Override:
    key, equals, value = text.partition("=")
    place = Source("-c", 1, 1, text)
    if not equals or not key.strip() or not value.strip():
        fix = "for example -c crossbar.rows=256"
        raise errors.HW_OVERRIDE(key=text, why="KEY=VALUE is needed", fix=fix, source=place)
    known = known_keys(data)
    wanted = key.strip()
    fits = [wanted] if wanted in known else [k for k in known if k.endswith(f".{wanted}")]
    section = next((k for k in known if f".{wanted}." in f".{k}"), None)
    if not fits and section is not None:
        why = "it holds keys and is no value itself"
        fix = f"override one of them, as {section}, or write a hardware file"
        raise errors.HW_OVERRIDE(key=wanted, why=why, fix=fix, source=place)
    if not fits:
        near = nearest(wanted, known)
        fix = f"did you mean '{near}'?" if near else "`cimc hw show HARDWARE` prints every key"
        raise errors.HW_OVERRIDE(key=wanted, why="the hardware has no such key", fix=fix, source=place)
    if len(fits) > 1:
        fix = f"give more of the path: {', '.join(sorted(fits)[:8])}"
        raise errors.HW_OVERRIDE(key=wanted, why=f"{len(fits)} keys end like that", fix=fix, source=place)
    at = Source("-c", 1, len(key) + 2, text)
    try:
        plain = scalar(value, "-c")
    except errors.CimcError as e:
        why = f"its value cannot be read: {e.message}"
        raise errors.HW_OVERRIDE(key=wanted, why=why, fix="give a number or a word", source=at) from None
    path = known[fits[0]]
    if path == ("layout",) and isinstance(plain, str):
        plain = _resized(plain, data, wanted, at)
    return Override(text, path, plain, at)


def _resized(size: str, data: Mapping[str, Plain], key: str, at: Source) -> Plain:
    """The file's layout in a size given as ``ROWSxCOLUMNS``."""
    wanted, layout = size_of(size), data.get("layout")
    rows = [r for r in layout if isinstance(r, str)] if isinstance(layout, list) else []
    if wanted is None or not rows or not rows[0] or any(len(r) != len(rows[0]) for r in rows):
        fix = "for example -c layout=8x16, 8 rows of 16 tiles"
        raise errors.HW_OVERRIDE(key=key, why="a size is needed", fix=fix, source=at)
    try:
        return list(stretched(rows, *wanted))
    except ValueError as e:
        raise errors.HW_OVERRIDE(key=key, why=str(e), fix="choose another size", source=at) from None


def known_keys(data: Mapping[str, Plain]) -> dict[str, Path]:
    """Every key that an override of a hardware file may name in full, dotted, and its path."""
    return {dotted(path): path for path in _leaves(ChipSpec, data, ())}


def nearest(wanted: str, known: Iterable[str]) -> str | None:
    """The key that looks most like the one given, compared with as many last parts as it has; None if none does."""
    parts = wanted.count(".") + 1
    tails = dict.fromkeys(".".join(k.split(".")[-parts:]) for k in known)
    close = difflib.get_close_matches(wanted, tails, n=1, cutoff=0.6)
    return close[0] if close else None


def _leaves(model: type[BaseModel], data: object, path: Path) -> Iterator[Path]:
    """Paths of everything the schema knows at this place, whether the file says it or not; a part that the file leaves
    out altogether (a unit that a tile does not have) is one key."""
    given = cast("dict[str, Plain]", data if isinstance(data, dict) else {})
    for name, info in model.model_fields.items():
        inner = record_of(info.annotation)
        here = (*path, name)
        value = given.get(name)
        if inner is not None:
            yield from _leaves(inner, value, here) if isinstance(value, dict) else iter((here,))
        elif name in _TABLES:
            extra = value if isinstance(value, dict) else {}
            yield from ((*here, key) for key in {**dict.fromkeys(_TABLES[name]), **extra})
        elif isinstance(value, dict):
            kinds = record_of(get_args(info.annotation)[-1])
            for key, item in value.items():
                yield from _leaves(kinds, item, (*here, key)) if kinds else iter(((*here, key),))
        else:
            yield here


_TABLES = {"energy_pj": ACTIONS, "leakage_mw": PARTS, "area_um2": PARTS}


def record_of(annotation: object) -> type[BaseModel] | None:
    """The record behind ``X`` or ``X | None``, None for anything else."""
    options = [annotation, *get_args(annotation)] if not hasattr(annotation, "__origin__") else [annotation]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
