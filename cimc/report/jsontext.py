"""JSON that every parser reads: no NaN, no infinity, keys in the order the contract lists them."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from cimc import files

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = "dict[str, Json]"


def number(value: float | None) -> float | None:
    """A float as JSON can hold it: NaN and infinity become null."""
    return value if value is not None and math.isfinite(value) else None


def dumps(value: Json) -> str:
    """The text, indented, ending in a newline. Raises ValueError for NaN and infinity."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(value: Json, target: str | Path) -> None:
    """Write to a file, or to stdout if ``target`` is ``-``. Raises REPORT_UNWRITABLE."""
    write_text(dumps(value), target)


def write_text(text: str, target: str | Path) -> None:
    """Write a report's text to a file, or to stdout if ``target`` is ``-``. Raises REPORT_UNWRITABLE."""
    if str(target) == "-":
        sys.stdout.write(text)
        return
    files.write(Path(target), text)
