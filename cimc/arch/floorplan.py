"""A floorplan in another size: ``-c layout=8x16``, so that one hardware file describes a family of chips."""

from __future__ import annotations

import re
from collections.abc import Sequence

SIZE = re.compile(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
MAX_TILES = 65536


def size_of(text: str) -> tuple[int, int] | None:
    """Rows and columns of a size like ``8x16``; None for any other text."""
    matched = SIZE.fullmatch(text.strip())
    return (int(matched[1]), int(matched[2])) if matched else None


def stretched(layout: Sequence[str], rows: int, columns: int) -> tuple[str, ...]:
    """The floorplan with ``rows`` × ``columns`` tiles: each takes the kind that stands at the same part of the way along the
    rows and columns of ``layout``, so kinds keep their places and about their shares. Raises ValueError if one is lost
    or if there are too many tiles."""
    if rows * columns > MAX_TILES:
        raise ValueError(f"{rows * columns} tiles; at most {MAX_TILES}")
    height, width = len(layout), len(layout[0])
    found = tuple(
        "".join(layout[r * height // rows][c * width // columns] for c in range(columns)) for r in range(rows)
    )
    lost = sorted(set("".join(layout)) - set("".join(found)))
    if lost:
        raise ValueError(
            f"{rows}x{columns} leaves out every tile with the letter {lost[0]!r}; more rows or columns are needed"
        )
    return found
