"""A placement as a file says it: ``mapping.json`` of a compile, or one changed by hand, read and its keys and types checked.

What it says of a model and a chip is held against them later (pinned.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cimc import errors, files
from cimc.mapping.json_value import Json

MOST_BYTES = 256 << 20
MOST_LANES = 64
MOST_ROWS = 1 << 20
"""Of a file; tiles that take turns with a stage; rows of a block. Beyond these a file is a mistake or an attack, and is refused
before anything of its size is made of it."""

NOT_READ = ("chips", "tiles", "dynamic", "work", "host", "totals", "search", "fit", "attention", "cache", "codes")
"""Keys of ``mapping.json`` that tell what follows from the others."""

Index = Annotated[int, Field(ge=0, le=2**40)]
Range = Annotated[list[Index], Field(min_length=2, max_length=2)]
Tiles = Annotated[list[Index], Field(min_length=1, max_length=1 << 16)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class SaidBlock(_Entry):
    """A block of a matrix: ``rows`` and ``cols`` as [first, past the last] of the whole matrix. ``slices`` follows from the
    hardware and is not looked at. ``crossbars``: those of one core of the tile; None: of its first free one."""

    rows: Range
    cols: Range
    tile: Index
    replica: Index = 0
    slices: Index = 0
    crossbars: list[Index] | None = None


class SaidMatrix(_Entry):
    """A static matmul, by the ``value`` it makes. What else describes it is compared where it is given (not "" or 0)."""

    value: str
    blocks: list[SaidBlock]
    node: str = ""
    origin: str = ""
    weight: str = ""
    rows: Index = 0
    cols: Index = 0
    precision: str = ""
    reloaded: bool = False


class SaidAside(_Entry):
    """The tile that does for tile ``of`` what it has no unit for."""

    of: Index
    tile: Index


class SaidSegment(_Entry):
    """A segment, known by ``index``, ``style`` and first ``node``. ``rows`` of its blocks. ``stages``: by replica and vector
    stage the tiles that take turns (STREAM); ``tiles``: of another style. ``streamed`` is not looked at: what a batch streams
    through is balanced anew. ``beside``: by replica. ``push``: operands that are read whole may be sent to it."""

    index: Index
    style: str
    node: str
    rows: Annotated[int, Field(ge=1, le=MOST_ROWS)] | None = None
    stages: list[list[Annotated[Tiles, Field(max_length=MOST_LANES)]]] | None = None
    tiles: Tiles | None = None
    streamed: list[Tiles] | None = None
    beside: Annotated[list[Annotated[list[SaidAside], Field(max_length=1 << 16)]], Field(max_length=1 << 16)] = []
    push: bool = True


class SaidResident(_Entry):
    """Where a value between segments lies: in a tile's local memory, or (None) in global memory. ``bytes`` follow."""

    value: str
    bytes: Index = 0
    tile: Index | None


class Said(_Entry):
    """A whole file. Keys beside these may be there (NOT_READ); others are refused by name."""

    hardware: str
    static: list[SaidMatrix]
    segments: list[SaidSegment] = []
    residents: list[SaidResident] = []
    model_config = ConfigDict(frozen=True, extra="allow", strict=True)


@dataclass(frozen=True)
class Pinned:
    """A placement file, read and not yet held against a model. ``digest``: SHA-256 of its bytes."""

    path: Path
    digest: str
    file: Said

    def refused(self, why: str, fix: str) -> errors.CimcError:
        """The diagnostic of an entry that cannot be."""
        return errors.PLACEMENT(path=self.path, why=why, fix=fix)


def read_placement(path: Path) -> Pinned:
    """Read a placement file. Raises FILE_NOT_FOUND, FILE_UNREADABLE, PLACEMENT (not JSON, keys missing or unknown, types)."""
    files.check_name(Path(path.name), "placement")  # the manifest tells it
    return _parsed(path, files.read_bytes(path, "placement", MOST_BYTES))


def placement_of(mapping: Mapping[str, Json]) -> Pinned:
    """The placement that the dump of a mapping says."""
    return _parsed(Path("mapping.json"), json.dumps(mapping).encode())


def _parsed(path: Path, raw: bytes) -> Pinned:
    try:
        file = Said.model_validate_json(raw)
    except ValidationError as fault:
        fix = "give it the keys of the mapping.json of a compile (docs/contract.md)"
        raise errors.PLACEMENT(path=path, why=_first(fault), fix=fix) from None
    unknown = sorted(set(file.model_extra or {}) - {*NOT_READ})
    if unknown:
        known = ", ".join(("hardware", "static", "segments", "residents"))
        raise errors.PLACEMENT(path=path, why=f"there is no key '{unknown[0]}'", fix=f"what is read: {known}")
    return Pinned(path, hashlib.sha256(raw).hexdigest(), file)


def _first(fault: ValidationError) -> str:
    found = fault.errors(include_url=False, include_context=False, include_input=False)
    where = ".".join(str(part) for part in found[0]["loc"])
    message = "there is no such key" if found[0]["type"] == "extra_forbidden" else found[0]["msg"]
    return f"{where}: {message}" if where else message
