"""The law of held arrays: global arrays whose elements are those of tiles' states."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from cimc import errors
from cimc.isa.program import Buffer, GlobalBuffer, Piece, Program
from cimc.isa.visit import Faults

MAX_CELLS = 2**20
"""Between the edges of all pieces an array falls into cells: at most so many are looked at."""


def check_held(program: Program, faults: Faults) -> None:
    """Report every held array with a home of its own, every piece that is no view of a state of its element type, or no
    rectangle of the array, and arrays that the pieces do not cover."""
    if not any(g.held for g in program.globals):
        return
    local = {(t.tile, b.name): b for t in program.tiles for b in t.buffers}
    for g in program.globals:
        if not g.held:
            continue
        wrong = next(_wrong(g, local), None)
        if wrong is not None:
            what, hint = wrong
            faults.report(errors.WRONG_DECLARATION, g.line, f"global buffer {g.name}", g.name, what=what, hint=hint)


def _wrong(g: GlobalBuffer, local: dict[tuple[int, str], Buffer]) -> Iterator[tuple[str, str]]:
    """What is wrong with a held array, and what to do."""
    if g.resident or g.key or g.state:
        yield f"'{g.name}' is held, and has a tile, a key or a state of its own", "its pieces say where it lies"
    for number, piece in enumerate(g.pieces, start=1):
        found = local.get((piece.tile, piece.buffer))
        which = f"piece {number} of '{g.name}'"
        if found is None or not found.state:
            yield (
                f"{which} names '{piece.buffer}', which is no state of tile {piece.tile}",
                "name a .buffer with 'state'",
            )
            return
        if found.element is not g.element:
            hint = f"'{piece.buffer}' holds {found.element.value}"
            yield f"{which} has {g.element.value} elements", hint
        yield from _outside(g, piece, found, which)
    if not _covered(g):
        yield f"the pieces of '{g.name}' do not cover all of it", "every element lies in some state"


def _outside(g: GlobalBuffer, piece: Piece, state: Buffer, which: str) -> Iterator[tuple[str, str]]:
    ranks = {len(g.shape), len(piece.corner), len(piece.shape), len(piece.strides)}
    if len(ranks) > 1 or min(piece.shape, default=0) < 1:
        yield f"{which} does not have {len(g.shape)} corners, extents and strides", "one of each per axis"
        return
    ends = [c + n for c, n in zip(piece.corner, piece.shape, strict=True)]
    if any(end > extent for end, extent in zip(ends, g.shape, strict=True)):
        yield f"{which} ends at {ends}", f"the array ends at {list(g.shape)}"
    steps = [s * (n - 1) for s, n in zip(piece.strides, piece.shape, strict=True)]
    low = piece.offset + sum(s for s in steps if s < 0)
    high = piece.offset + sum(s for s in steps if s > 0)
    if low < 0 or high >= state.size:
        yield f"{which} reaches elements {low} to {high}", f"'{state.name}' holds 0 to {state.size - 1}"


def _covered(g: GlobalBuffer) -> bool:
    """Whether every element lies in a piece: told on the cells between the pieces' edges. Not, if these are too many."""
    edges = [
        np.array(sorted({0, n, *(p.corner[a] for p in g.pieces), *(p.corner[a] + p.shape[a] for p in g.pieces)}))
        for a, n in enumerate(g.shape)
    ]
    if prod(len(e) - 1 for e in edges) > MAX_CELLS:
        return False
    seen = np.zeros([len(e) - 1 for e in edges], np.bool_)
    for p in g.pieces:
        corners = (np.searchsorted(e, (c, c + n)) for e, c, n in zip(edges, p.corner, p.shape, strict=True))
        seen[tuple(slice(int(low), int(high)) for low, high in corners)] = True
    return bool(seen.all())
