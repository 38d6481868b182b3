"""``manifest.json`` as the reports need it: a flat list of keys and values, whatever it holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from cimc import errors, files
from cimc.report.figures import MAX_FILE_BYTES
from cimc.report.jsontext import Json

MAX_DEPTH = 20


def read_manifest(path: Path) -> dict[str, str]:
    """``options.dims.sequence`` → ``128`` and so on, in the file's order; values as in JSON, strings without quotes.

    Raises FILE_NOT_FOUND, FILE_UNREADABLE, REPORT_FILE.
    """
    try:
        content = cast(Json, json.loads(files.read_text(path, "manifest", MAX_FILE_BYTES)))
    except (ValueError, RecursionError) as fault:
        raise errors.REPORT_FILE(what="manifest", path=path, why=f"not JSON: {fault}", command="compile") from None
    if not isinstance(content, dict):
        raise errors.REPORT_FILE(what="manifest", path=path, why="an object is expected", command="compile")
    return dict(_leaves(content, "", 0))


def _leaves(value: Json, key: str, depth: int) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value and depth < MAX_DEPTH:
        found: list[tuple[str, str]] = []
        for name, inner in value.items():
            found += _leaves(inner, f"{key}.{name}" if key else name, depth + 1)
        return found
    return [(key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))]
