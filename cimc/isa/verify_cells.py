"""The law of cores that several matrices take turns on."""

from __future__ import annotations

from cimc import errors
from cimc.isa.instruction import Kind
from cimc.isa.lives import Repeats, life
from cimc.isa.program import Buffer, MatrixDecl, TileProgram
from cimc.isa.ranges import Span
from cimc.isa.verify_steps import Uses
from cimc.isa.visit import Faults, Walk


def check_cells(tile: TileProgram, uses: Uses, walk: Walk, faults: Faults) -> None:
    """Report every two matrices that share a core while both live. A matrix lives as a local buffer does: from the
    ``program`` that writes it to its last use; one that is used before it is written, or never, lives always."""
    holders: dict[int, list[MatrixDecl]] = {}
    for m in tile.matrices:
        for core in {b.core for b in m.blocks}:
            holders.setdefault(core, []).append(m)
    shared = {core: found for core, found in holders.items() if len(found) > 1}
    if not shared:
        return
    last = max(len(walk.visits) - 1, 0)
    repeats = Repeats(walk.repeats)
    spans = {m.name: _life(m, uses, repeats, last) for found in shared.values() for m in found}
    for core, found in sorted(shared.items()):
        order = sorted(found, key=lambda m: (spans[m.name].first, spans[m.name].last))
        longest = order[0]
        for m in order[1:]:
            if spans[m.name].first <= spans[longest.name].last:
                _report(tile, core, longest, m, spans, faults)
            if spans[m.name].last > spans[longest.name].last:
                longest = m


def _life(matrix: MatrixDecl, uses: Uses, repeats: Repeats, last: int) -> Span:
    accesses = uses.of.get(matrix.name, ())
    if not accesses or accesses[0][1] is not Kind.WRITE:
        return Span(0, last)
    return life(Buffer(matrix.name, matrix.element, (), 0), accesses, repeats, last) or Span(0, last)


def _report(
    tile: TileProgram, core: int, first: MatrixDecl, second: MatrixDecl, spans: dict[str, Span], faults: Faults
) -> None:
    a, b = spans[first.name], spans[second.name]
    what = f"core {core} holds '{first.name}' in steps {a.first + 1} to {a.last + 1}, and '{second.name}' in steps "
    what += f"{b.first + 1} to {b.last + 1}"
    hint = "matrices that share a core are written by 'program' before they are used, and after the other's last use"
    place = f"tile {tile.tile}, matrix {second.name}"
    faults.report(errors.WRONG_DECLARATION, second.line, place, second.name, what=what, hint=hint)
