"""``extends: PRESET``: a hardware file that says only what differs from a preset.

Mappings are merged key by key, everything else is replaced whole, and so is a number's source. In the tables of ``costs``
a key replaces all of the same action or part, whatever resolution or size they were given for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cimc import errors
from cimc.arch.actions import base
from cimc.arch.document import Document, Path, Plain
from cimc.errors import did_you_mean

KEY = "extends"
MOST_LEVELS = 8  # of files that extend files; presets have two


def extended(document: Document, known: tuple[str, ...], preset: Callable[[str], Document], level: int = 1) -> Document:
    """The document with what it leaves out taken from the preset that it extends; as it is where it extends none.

    ``known`` are the presets there are, ``preset`` reads one. Raises HW_VALUE for a preset that is unknown, or a chain of
    more than :data:`MOST_LEVELS`."""
    if KEY not in document.data:
        return document
    name = document.data[KEY]
    where = document.nearest((KEY,))
    if not isinstance(name, str) or name not in known:
        why = f"{name!r} is no preset. {did_you_mean(str(name), known)}known: {', '.join(known)}"
        raise errors.HW_VALUE(key=KEY, why=why, source=where)
    if level >= MOST_LEVELS:
        raise errors.HW_VALUE(key=KEY, why=f"more than {MOST_LEVELS} files extend one another", source=where)
    below = extended(preset(name), known, preset, level + 1)
    own = {key: value for key, value in document.data.items() if key != KEY}
    gone: set[Path] = set()
    merged = _merge(below.data, own, (), gone)

    def kept(path: Path) -> bool:
        return not any(path[:n] in gone for n in range(1, len(path) + 1))

    return Document(
        document.path,
        document.lines,
        merged,
        {p: s for p, s in below.places.items() if kept(p)} | document.places,
        {p: s for p, s in below.keys.items() if kept(p)} | document.keys,
        {p: s for p, s in below.sources.items() if kept(p)} | document.sources,
    )


def _merge(below: Mapping[str, Plain], own: Mapping[str, Plain], path: Path, gone: set[Path]) -> dict[str, Plain]:
    """Both mappings as one; ``gone`` gets the paths of ``below`` that are replaced."""
    if path[:1] == ("costs",) and len(path) == 2:
        said = {base(key) for key in own}
        gone.update((*path, key) for key in below if base(key) in said)
        below = {key: value for key, value in below.items() if base(key) not in said}
    merged = dict(below)
    for key, value in own.items():
        old = below.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value, (*path, key), gone)
        else:
            gone.add((*path, key))
            merged[key] = value
    return merged
