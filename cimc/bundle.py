"""What ``compile`` writes and ``run`` reads: program, weights, mapping and manifest in one folder, all at once or not at all."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from cimc import errors, files
from cimc.arch import load as hardware_files
from cimc.arch.document import MAX_BYTES as MAX_HARDWARE_BYTES
from cimc.arch.load import Hardware
from cimc.isa.operands import Element
from cimc.isa.program import Program, Weights
from cimc.isa.text import MAX_BYTES as MAX_TEXT_BYTES
from cimc.isa.text import parse_program
from cimc.mapped import MappedFile

Array = NDArray[np.generic]

PROGRAM = "program.cim"
WEIGHTS = "weights.safetensors"
MAPPING = "mapping.json"
MANIFEST = "manifest.json"
HARDWARE = "hardware.yaml"
RUN = "run.json"

MAX_MANIFEST_BYTES = 16 * 2**20
MAX_HEADER_BYTES = 100 * 2**20  # the limit of the safetensors format
PART_BYTES = 16 * 2**20  # what of an array is written at once

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_DTYPES: dict[str, np.dtype[np.generic]] = {v: np.dtype(k) for k, v in _NAMES.items() if k != "bfloat16"}
_DTYPES["BF16"] = Element.BF16.dtype(exact=False)


@dataclass(frozen=True)
class Bundle:
    """A compiled folder. ``manifest`` and ``mapping`` are None for a bare program file."""

    program: Program
    weights: Weights
    hardware: Hardware
    manifest: Mapping[str, object] | None
    folder: Path | None


class Lazy(Protocol):
    """Arrays by name that are computed when they are read; types and shapes are known before."""

    def __iter__(self) -> Iterator[str]: ...
    def __getitem__(self, name: str, /) -> Array: ...
    def kind(self, key: str) -> tuple[np.dtype[np.generic], tuple[int, ...]]: ...
    def release(self) -> None:
        """Give back memory that what was read so far still takes."""


@dataclass(frozen=True)
class _Present:
    """Arrays that are in memory."""

    arrays: Mapping[str, Array]

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def kind(self, key: str) -> tuple[np.dtype[np.generic], tuple[int, ...]]:
        return self.arrays[key].dtype, self.arrays[key].shape

    def release(self) -> None:
        """Nothing can be given back."""


def write_weights(weights: Mapping[str, Array] | Lazy, path: Path) -> str:
    """Write arrays in the safetensors format, one after another, so that only one is in memory at a time. Returns the
    SHA-256 of the file."""
    source = _Present(weights) if isinstance(weights, Mapping) and not hasattr(weights, "kind") else weights
    lazy = cast(Lazy, source)
    header: dict[str, object] = {}
    names = sorted(lazy)
    at = 0
    for name in names:
        dtype, shape = lazy.kind(name)
        size = math.prod(shape) * dtype.itemsize
        # The format has no names for most narrow types: their bytes, which the program's declarations tell.
        header[name] = {"dtype": _NAMES.get(str(dtype), "U8"), "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for part in (len(text).to_bytes(8, "little"), text):
            stream.write(part)
            digest.update(part)
        for name in names:
            for part in _parts(lazy, name):
                stream.write(part)
                digest.update(part)
            lazy.release()
    return digest.hexdigest()


def _parts(weights: Lazy, name: str) -> Iterator[memoryview]:
    """The bytes of an array, a few rows at a time: one that is no contiguous block is copied to become one."""
    array = weights[name]
    if (array.dtype, array.shape) != weights.kind(name):
        raise AssertionError(f"{name} is {array.dtype}{list(array.shape)}, not {weights.kind(name)}")
    rows = array.reshape(1) if array.ndim == 0 else array
    step = max(1, PART_BYTES * len(rows) // max(1, rows.nbytes))
    for first in range(0, len(rows), step):
        yield np.ascontiguousarray(rows[first : first + step]).reshape(-1).view(np.uint8).data


def read_weights(path: Path) -> dict[str, Array]:
    """Memory-mapped, read-only arrays of a safetensors file. The library checks the file's header; the arrays are mapped here
    because it would copy them. Raises FILE_NOT_FOUND, FILE_UNREADABLE."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise errors.FILE_NOT_FOUND(what="weights file", path=path)
    try:
        with safe_open(str(path), "numpy") as checked:
            names = set(checked.keys())
    except (SafetensorError, OSError, ValueError) as e:
        raise errors.FILE_UNREADABLE(what="weights file", path=path, why=str(e)) from None
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(min(length, MAX_HEADER_BYTES)))
    whole = MappedFile(path)
    found: dict[str, Array] = {}
    for name in sorted(names):
        entry = header[name]
        if entry["dtype"] not in _DTYPES:
            raise errors.FILE_UNREADABLE(what="weights file", path=path, why=f"{name!r} has type {entry['dtype']}")
        first, _ = entry["data_offsets"]
        found[name] = whole.array(8 + length + first, _DTYPES[entry["dtype"]], tuple(entry["shape"]))
    return found


def check_target(folder: Path) -> None:
    """Raise OUTPUT_OCCUPIED if a folder may not be replaced, REPORT_UNWRITABLE if it cannot be looked at or stands in what is no
    folder: commands ask before they work for minutes."""
    try:
        if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _own(folder))):
            raise errors.OUTPUT_OCCUPIED(path=folder)
        above = next(place for place in folder.absolute().parents if place.exists())
        if not above.is_dir():
            raise errors.REPORT_UNWRITABLE(path=folder, why=f"{above} is no folder")
    except OSError as e:
        raise errors.REPORT_UNWRITABLE(path=folder, why=e.strerror) from None


def _own(folder: Path) -> frozenset[str]:
    """The files of an earlier compile in a folder, none if it holds none: many things other than cimc write a file called
    ``manifest.json``."""
    try:
        found = _manifest(folder / MANIFEST).get("files") if (folder / MANIFEST).is_file() else None
    except errors.CimcError:
        return frozenset()
    names: frozenset[str] = frozenset(cast("dict[str, object]", found)) if isinstance(found, dict) else frozenset()
    return names | {MANIFEST, RUN} if PROGRAM in names else frozenset()


def write(
    folder: Path, texts: Mapping[str, str], weights: Mapping[str, Array] | Lazy, manifest: Mapping[str, object]
) -> None:
    """Write a compiled folder: into a temporary one beside it first, then put in its place. A folder that is there already is
    replaced only if it is empty or holds an earlier compile; files in it that are no part of that stay. Where another disk
    is mounted cannot be replaced itself: there the files are, the manifest last. Raises OUTPUT_OCCUPIED, REPORT_UNWRITABLE."""
    check_target(folder)
    place = Path(os.path.realpath(folder))
    inside = place.is_mount()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}.", dir=place if inside else place.parent))
    except OSError as e:
        raise errors.REPORT_UNWRITABLE(path=folder, why=e.strerror) from None
    try:
        for name, text in texts.items():
            (made / name).write_text(text, encoding="utf-8")
        hashes = {WEIGHTS: write_weights(weights, made / WEIGHTS), **{name: _sha256(made / name) for name in texts}}
        hashes = dict(sorted(hashes.items()))
        (made / MANIFEST).write_text(json.dumps({**manifest, "files": hashes}, indent=2) + "\n", encoding="utf-8")
        made.chmod(0o755)
        _fill(place, made, (*texts, WEIGHTS)) if inside else _replace(place, made)
    except OSError as e:
        raise errors.REPORT_UNWRITABLE(path=folder, why=e.strerror) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(place: Path, made: Path, names: Iterable[str]) -> None:
    for old in (MANIFEST, RUN):
        (place / old).unlink(missing_ok=True)
    for name in (*names, MANIFEST):
        os.replace(made / name, place / name)


def _replace(place: Path, made: Path) -> None:
    if not place.exists():
        os.replace(made, place)
        return
    own, old = _own(place), made.with_name(f"{made.name}.old")
    os.replace(place, old)
    try:
        os.replace(made, place)
    finally:
        if not place.exists():
            os.replace(old, place)
    for entry in old.iterdir():
        if entry.name not in own:
            os.replace(entry, place / entry.name)
    shutil.rmtree(old)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(path: Path, hardware: str | None = None, overrides: tuple[str, ...] = ()) -> Bundle:
    """A compiled folder (or the ``program.cim`` in it), or a bare ``.cim`` file with its weights (``NAME.safetensors``) beside
    it. ``hardware`` replaces what it was compiled for. Raises the diagnostics of missing and damaged files."""
    path = path.parent if _compiled(path) else path
    folder = path if path.is_dir() else None
    if path.suffix == ".onnx" and folder is None and path.is_file():
        raise errors.NOT_COMPILED(path=path, why="it is a model")
    program_path = path / PROGRAM if folder else path
    if folder and not (path / MANIFEST).is_file():
        raise errors.NOT_COMPILED(path=path, why="there is no manifest.json")
    program = parse_program(files.read_text(program_path, "program", MAX_TEXT_BYTES), str(program_path))
    weights_path = path / WEIGHTS if folder else path.with_suffix(".safetensors")
    weights = read_weights(weights_path) if folder or weights_path.is_file() else {}
    chosen = _hardware(program, path, hardware, overrides)
    manifest = _manifest(path / MANIFEST) if folder else None
    return Bundle(program, weights, chosen, manifest, folder)


def _compiled(path: Path) -> bool:
    """Whether this is the program of a compiled folder, whose weights and hardware stand beside it under other names."""
    return path.name == PROGRAM and path.is_file() and (path.parent / MANIFEST).is_file()


def _hardware(program: Program, path: Path, hardware: str | None, overrides: tuple[str, ...]) -> Hardware:
    """What the user names, or the folder holds, or a bare program names: a preset, or a file beside it."""
    if hardware is not None:
        return hardware_files.load(hardware, overrides)
    if path.is_dir():
        file = path / HARDWARE
        text = files.read_text(file, "hardware file", MAX_HARDWARE_BYTES)
        return hardware_files.parse(text, str(file), overrides, name=program.hardware)
    if program.hardware in hardware_files.presets():
        return hardware_files.load(program.hardware, overrides)
    file, folder = path.parent / program.hardware, path.parent.resolve()
    if not file.resolve().is_relative_to(folder):
        why = f"the .hardware of {path} leaves the program's folder"
        raise errors.FILE_UNREADABLE(what="hardware file", path=program.hardware, why=why)
    return hardware_files.load(str(file) if file.suffix else program.hardware, overrides)


def _manifest(path: Path) -> dict[str, object]:
    text = files.read_text(path, "manifest", MAX_MANIFEST_BYTES)
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        raise errors.FILE_UNREADABLE(what="manifest", path=path, why=str(e)) from None
    if not isinstance(found, dict):
        raise errors.FILE_UNREADABLE(what="manifest", path=path, why="it is no JSON object")
    return found
