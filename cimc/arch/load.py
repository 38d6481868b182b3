"""Hardware files: YAML → :class:`~cimc.arch.spec.ChipSpec`, with every fault told at its line and column.

The format is described in docs/hardware.md. Presets are files of the same kind inside the package.
"""

from __future__ import annotations

import importlib.resources
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from pydantic import BaseModel, ValidationError

from cimc import errors, files
from cimc.arch.document import MAX_BYTES, Document, Path, Plain, dotted, read
from cimc.arch.inherit import extended
from cimc.arch.overrides import Override, apply, known_keys, record_of
from cimc.arch.spec import ChipSpec
from cimc.errors import Collector, Source, did_you_mean

DEFAULT = "isaac"
"""The preset that is used where none is named."""

_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True)
class Hardware:
    """A chip and where its numbers come from.

    ``name``: what it was asked for by (a preset's name, or the file's name without its folder). ``sources``: dotted key
    → the source beside the number. ``overrides``: the ``-c`` texts that were applied. ``text``: the whole resolved
    hardware, overrides in, as a hardware file that :func:`parse` reads back: equal texts are equal chips."""

    name: str
    spec: ChipSpec = field(hash=False)
    sources: Mapping[str, str] = field(hash=False)
    overrides: tuple[str, ...]
    text: str
    path: str | None = None  # of the file; None for a preset


def presets() -> tuple[str, ...]:
    """Names of the presets, sorted."""
    folder = importlib.resources.files("cimc.arch") / "presets"
    return tuple(sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml")))


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Hardware:
    """The hardware of a preset's name or a file's path, with overrides (``crossbar.rows=256``) applied.

    Raises UNKNOWN_HARDWARE, FILE_NOT_FOUND, FILE_UNREADABLE and the diagnostics of section "hardware"."""
    if name_or_path in presets():
        return _hardware(_preset(name_or_path), overrides, name=name_or_path)
    path = pathlib.Path(name_or_path)
    if not path.is_file() and path.suffix not in _SUFFIXES and len(path.parts) <= 1:
        near = did_you_mean(name_or_path, presets())
        raise errors.UNKNOWN_HARDWARE(name=name_or_path, near=near, known=", ".join(presets()))
    files.check_name(pathlib.Path(path.name), "hardware file")  # the manifest of a compile tells it
    hardware = parse(files.read_text(path, "hardware file", MAX_BYTES), name_or_path, overrides, name=path.name)
    return Hardware(hardware.name, hardware.spec, hardware.sources, hardware.overrides, hardware.text, str(path))


def keys(hardware: Hardware) -> tuple[str, ...]:
    """Every key that an override of this hardware may name in full, dotted."""
    return tuple(known_keys(read(hardware.text, hardware.name).data))


def parse(text: str, path: str, overrides: Sequence[str] = (), *, name: str | None = None) -> Hardware:
    """The hardware a text describes; ``path`` is only what messages call it. Raises as :func:`load`."""
    return _hardware(read(text, path), overrides, name=name)


def _preset(name: str) -> Document:
    resource = importlib.resources.files("cimc.arch") / "presets" / f"{name}.yaml"
    return read(resource.read_text(encoding="utf-8"), f"{name}.yaml")


def _hardware(found: Document, overrides: Sequence[str], *, name: str | None) -> Hardware:
    document = extended(found, presets(), _preset)
    data, changes = apply(document.data, tuple(overrides))
    try:
        spec = ChipSpec.model_validate(data)
    except ValidationError as e:
        raise _faults(e, document, changes) from None
    by_hand = {dotted(c.path): f"-c {c.text}" for c in changes}
    sources = {dotted(p): s for p, s in document.sources.items()} | by_hand
    return Hardware(name or spec.name, spec, sources, tuple(overrides), _canonical(spec, sources))


def dump(hardware: Hardware) -> dict[str, object]:
    """What goes into a manifest: the resolved hardware, JSON-able and without paths of this machine. Keys: ``name``,
    ``overrides``, ``spec`` (all fields), ``sources`` (dotted key → text)."""
    spec = cast("dict[str, object]", hardware.spec.model_dump(mode="json"))
    sources = {k: hardware.sources[k] for k in sorted(hardware.sources)}
    return {"name": hardware.name, "overrides": list(hardware.overrides), "spec": spec, "sources": sources}


# --- faults ------------------------------------------------------------------------------------


def _faults(error: ValidationError, document: Document, changes: tuple[Override, ...]) -> errors.CimcError:
    found = Collector()
    for row in error.errors(include_url=False):
        for fault in _fault(cast("Mapping[str, Any]", row), document, changes):
            found.add(fault)
    found.found.sort(key=_order)
    return found.found[0] if len(found.found) == 1 else errors.CimcErrors(found.found)


def _order(error: errors.CimcError) -> tuple[bool, int, int]:
    """Overrides first, then down the file."""
    return (error.source.path != "-c", error.source.line, error.source.column) if error.source else (True, 0, 0)


def _fault(row: Mapping[str, Any], document: Document, changes: tuple[Override, ...]) -> list[errors.CimcError]:
    path: Path = tuple(p for p in row["loc"] if p != "[key]")
    match row["type"]:
        case "extra_forbidden":
            hint = did_you_mean(str(path[-1]), _fields(path[:-1]))
            known = ", ".join(_fields(path[:-1]))
            source = document.keys.get(path) or document.nearest(path)
            return [errors.HW_UNKNOWN_KEY(key=dotted(path), near=hint, known=known, source=source)]
        case "missing":
            return [errors.HW_MISSING_KEY(key=dotted(path), source=document.nearest(path[:-1]))]
        case "value_error":
            return [_rule(path, line, document, changes) for line in str(row["ctx"]["error"]).splitlines()]
        case _:
            why = f"{_why(row)}, not {_shown(row['input'])}"
            return [errors.HW_VALUE(key=dotted(path), why=why, source=_where(path, document, changes))]


def _rule(path: Path, line: str, document: Document, changes: tuple[Override, ...]) -> errors.CimcError:
    """A rule between several keys was broken; the spec's message names the key first: ``crossbar.active_rows: ...``."""
    key, _, why = line.partition(": ")
    in_costs = path == ("costs",)  # names of actions have dots of their own
    inner: Path = (*path, *key.split(".", 1 if in_costs else -1))
    source = _where(inner, document, changes)
    return errors.HW_VALUE(key=dotted(inner), why=why, source=document.keys.get(inner, source) if in_costs else source)


def _where(path: Path, document: Document, changes: tuple[Override, ...]) -> Source:
    """The override that set the value, or its place in the file."""
    mine = [c for c in changes if c.path == path]
    near = [c for c in changes if len(path) > 1 and c.path[: len(path) - 1] == path[:-1]]
    return next((c.source for c in reversed([*near, *mine])), None) or document.nearest(path)


def _why(row: Mapping[str, Any]) -> str:
    """What is wrong with a value, in our words."""
    limits = row.get("ctx", {})
    match row["type"]:
        case "int_type" | "int_from_float":
            return "a whole number is needed"
        case "float_type" | "finite_number":
            return "a finite number is needed"
        case "bool_type":
            return "true or false is needed"
        case "string_type":
            return "a text is needed"
        case "string_too_short" | "string_too_long":
            return "a single letter is needed"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "a mapping of keys is needed"
        case "tuple_type":
            return "a list is needed"
        case "literal_error":
            return f"one of {limits['expected']} is needed"
        case "greater_than":
            return f"more than {limits['gt']:g} is needed"
        case "greater_than_equal":
            return f"at least {limits['ge']:g} is needed"
        case "less_than_equal":
            return f"at most {limits['le']:,} is possible"
        case _:
            return str(row["msg"])


def _shown(value: object) -> str:
    text = "nothing" if value is None else "a mapping" if isinstance(value, dict) else json.dumps(value, default=str)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _fields(path: Path) -> tuple[str, ...]:
    """Keys the schema knows at a path."""
    model: type[BaseModel] | None = ChipSpec
    for part in path:
        if model is None:
            return ()
        info = model.model_fields.get(str(part))
        if info is None:
            continue  # the name of a tile kind: the record is the one its mapping holds
        model = record_of(info.annotation) or next((m for a in get_args(info.annotation) if (m := record_of(a))), None)
    return tuple(model.model_fields) if model else ()


# --- the resolved hardware as text -------------------------------------------------------------


def _canonical(spec: ChipSpec, sources: Mapping[str, str]) -> str:
    """The resolved hardware as a hardware file; JSON's scalars are YAML's."""
    plain = cast("dict[str, Plain]", spec.model_dump(mode="json", exclude_none=True))
    return "".join(_lines(plain, (), sources))


def _lines(data: Mapping[str, Plain], path: Path, sources: Mapping[str, str]) -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        here = (*path, key)
        head = f"{'  ' * len(path)}{key}:"
        if isinstance(value, dict) and value:
            lines += [f"{head}\n", *_lines(value, here, sources)]
            continue
        text = json.dumps(value, ensure_ascii=False)
        if dotted(here) in sources and not isinstance(value, list):  # a list has no place for a source
            text = f"{{value: {text}, source: {json.dumps(sources[dotted(here)], ensure_ascii=False)}}}"
        lines.append(f"{head} {text}\n")
    return lines
