"""Putting calibrations into a program: before anything else, every matrix of an analog core that stays what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import INSTRUCTIONS, Instruction, Step, complete
from cimc.isa.program import Program, TileProgram
from cimc.isa.steps import walk
from cimc.origin import Origin


def calibrating(program: Program, chip: ChipSpec) -> Program:
    """The program with a ``calibrate`` of every matrix at the start of each stream. Left out: matrices without weights
    and those that the program writes, and digital cores, which have nothing to calibrate."""
    return replace(program, tiles=tuple(_calibrated(tile, chip) for tile in program.tiles))


def _calibrated(tile: TileProgram, chip: ChipSpec) -> TileProgram:
    core = chip.tile(tile.tile).core
    if core is None or core.digital:
        return tile
    keywords = complete(INSTRUCTIONS["calibrate"], {})
    origins, written = _uses(tile.steps)
    first = tuple(
        Instruction("calibrate", (m.name,), keywords, origins.get(m.name))
        for m in tile.matrices
        if m.key and m.name not in written
    )
    return replace(tile, steps=first + tile.steps)


def _uses(steps: Sequence[Step]) -> tuple[dict[str, Origin | None], set[str]]:
    """The layer that each matrix first serves, and the matrices whose cells are written."""
    origins: dict[str, Origin | None] = {}
    written: set[str] = set()
    for step in walk(steps):
        for name in (o for o in step.operands if isinstance(o, str)):
            origins.setdefault(name, step.origin)
            if INSTRUCTIONS[step.mnemonic].writes_cells:
                written.add(name)
    return origins, written
