"""A program without its reloads: what it would be if all weights had been in their cells from the start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cimc.isa.cells import writes_cells
from cimc.isa.instruction import INSTRUCTIONS, LOCAL, Instruction, Kind, Repeat, Step, Unit
from cimc.isa.operands import View
from cimc.isa.program import Program, TileProgram
from cimc.isa.steps import walk


def reloading(tile: TileProgram) -> tuple[frozenset[str], frozenset[str]]:
    """The matrices with a key that a tile's stream writes, and the local buffers that only hold codes for them on the
    way (messages may go through them: they put tiles in order)."""
    keyed = frozenset(m.name for m in tile.matrices if m.key)
    steps = list(walk(tile.steps))
    turning = frozenset(n for s in steps if writes_cells(s) for n in s.operands if isinstance(n, str) and n in keyed)
    if not turning:
        return turning, frozenset()
    codes = {v.buffer for s in steps if _writes(s, turning) for v in s.operands if isinstance(v, View)}
    for step in steps:
        if not _writes(step, turning) and INSTRUCTIONS[step.mnemonic].unit not in (Unit.PORT, Unit.RECEIVE):
            codes -= {v.buffer for v, fills in _locals(step) if not fills}
    return turning, frozenset(codes)


def is_reload(step: Instruction, turning: frozenset[str], codes: frozenset[str]) -> bool:
    """Whether an instruction writes the cells of one of these matrices, or brings codes for it."""
    return _writes(step, turning) or any(fills and v.buffer in codes for v, fills in _locals(step))


def without_reloads(program: Program) -> Program:
    """The program without its reloads. It may have several matrices on one core at once: it can be timed, as nothing asks
    what is in cells, but is no lawful program."""
    return replace(program, tiles=tuple(_without(tile) for tile in program.tiles))


def _without(tile: TileProgram) -> TileProgram:
    turning, codes = reloading(tile)
    return replace(tile, steps=tuple(_kept(tile.steps, turning, codes))) if turning else tile


def _kept(steps: tuple[Step, ...], turning: frozenset[str], codes: frozenset[str]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Repeat):
            body = tuple(_kept(step.body, turning, codes))
            if body:
                yield replace(step, body=body)
        elif not is_reload(step, turning, codes):
            yield step


def _writes(step: Instruction, turning: frozenset[str]) -> bool:
    return writes_cells(step) and any(o in turning for o in step.operands if isinstance(o, str))


def _locals(step: Instruction) -> Iterator[tuple[View, bool]]:
    """Local operands, and whether a load from global memory fills them."""
    spec, words = INSTRUCTIONS[step.mnemonic], dict(step.keywords)
    loads = any(spec.operand(i).kind is Kind.GLOBAL_READ for i in range(len(step.operands)))
    for i, operand in enumerate(step.operands):
        if isinstance(operand, View) and spec.operand(i).kind in LOCAL:
            yield operand, loads and spec.access(i, words) is Kind.WRITE
