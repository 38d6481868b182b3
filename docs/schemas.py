"""Puts into every schema of ``docs/schema`` the others that it refers to, so that each file is enough by itself.

python -m docs.schemas            write them
python -m docs.schemas --check    fail if one is out of date

A schema is written by hand in the file of its own name. Copies stand under ``$defs`` of the files that refer to it, by
the name of its file, as a "compound schema document" (JSON Schema 2020-12, section 9.3.1): references stay as they are.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).with_name("schema")
SUFFIX = ".schema.json"


def bundled() -> dict[Path, str]:
    """File → its text with the copies it needs."""
    own = {
        path.name: _without_copies(json.loads(path.read_text("utf-8"))) for path in sorted(FOLDER.glob("*" + SUFFIX))
    }
    return {FOLDER / name: _text(_with_copies(name, own)) for name in own}


def _without_copies(schema: dict[str, Any]) -> dict[str, Any]:
    kept = {name: part for name, part in schema.get("$defs", {}).items() if not name.endswith(SUFFIX)}
    rest = {key: part for key, part in schema.items() if key != "$defs"}
    return {**rest, "$defs": kept} if kept else rest


def _with_copies(name: str, own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    needed: list[str] = []
    ahead = [name]
    while ahead:
        found = [r for r in _references(own[ahead.pop()]) if r in own and r not in (name, *needed)]
        needed += found
        ahead += found
    if not needed:
        return own[name]
    return {**own[name], "$defs": {**own[name].get("$defs", {}), **{n: own[n] for n in sorted(needed)}}}


def _references(part: Any) -> Iterator[str]:
    """Every ``$ref`` within, once each."""
    if isinstance(part, dict):
        if isinstance(part.get("$ref"), str):
            yield part["$ref"]
        part = list(part.values())
    if isinstance(part, list):
        yield from dict.fromkeys(r for below in part for r in _references(below))


def _text(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def main(arguments: list[str]) -> int:
    """Write the files, or check them."""
    late = {path: text for path, text in bundled().items() if path.read_text("utf-8") != text}
    if "--check" in arguments:
        for path in late:
            print(f"docs/schema/{path.name} is out of date: python -m docs.schemas", file=sys.stderr)
        return 1 if late else 0
    for path, text in late.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
