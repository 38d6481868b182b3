"""Cells that a program writes as it runs: which rows a ``program`` writes, and which matrices take turns on a core."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from cimc.isa.instruction import INSTRUCTIONS, Instruction, Step
from cimc.isa.program import MatrixDecl, TileProgram
from cimc.isa.steps import walk


def strips(count: int, row: int, run: int, step: int) -> Iterator[tuple[int, int]]:
    """(first, number) of the neighbouring matrix rows that ``count`` rows of codes go to: ``run`` of them from ``row`` on,
    ``run`` from ``row + step`` on, and so forth; a run of 0: all in one."""
    run = run if run > 0 else max(count, 1)
    for done in range(0, count, run):
        yield row + done // run * step, min(run, count - done)


def covered(matrix: MatrixDecl, count: int, row: int, run: int, step: int) -> list[tuple[int, int]]:
    """Per block of a matrix, (rows of it, columns) that a ``program`` of ``count`` rows of codes writes."""
    found = list(strips(count, row, run, step))
    return [
        (sum(max(0, min(b.row_end, at + n) - max(b.row, at)) for at, n in found), b.col_end - b.col)
        for b in matrix.blocks
    ]


def written(steps: Iterable[Step]) -> Iterator[str]:
    """The matrices whose cells a stream writes, once per instruction that does."""
    for step in walk(steps):
        if writes_cells(step):
            yield from (o for o in step.operands if isinstance(o, str))


def written_first(steps: Iterable[Step]) -> frozenset[str]:
    """The matrices that a stream writes before it does anything else with them: nothing is in their cells before."""
    first: dict[str, bool] = {}
    for step in walk(steps):
        for name in (o for o in step.operands if isinstance(o, str)):
            first.setdefault(name, writes_cells(step))
    return frozenset(name for name, writes in first.items() if writes)


def writes_cells(step: Instruction) -> bool:
    """Whether an instruction writes the cells of its matrix."""
    return INSTRUCTIONS[step.mnemonic].writes_cells


def contended(tile: TileProgram) -> frozenset[str]:
    """Matrices with a core whose cells the tile's stream writes, through them or through another matrix: where they are
    used, it matters when the writing ends."""
    changed = frozenset(written(tile.steps)) if tile.matrices else frozenset[str]()
    cores = {b.core for m in tile.matrices if m.name in changed for b in m.blocks}
    return frozenset(m.name for m in tile.matrices if any(b.core in cores for b in m.blocks)) if cores else changed


def spans(cores: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Cores as ranges [first, end) of neighbouring ones, in ascending order."""
    first = end = -1
    for core in sorted(set(cores)):
        if core != end:
            if end >= 0:
                yield first, end
            first = core
        end = core + 1
    if end >= 0:
        yield first, end
