"""The law of repeats whose rounds overlap: what has a phase stands right in a repeat, which can be written out."""

from __future__ import annotations

from cimc import errors
from cimc.isa.assembler import MAX_STEPS
from cimc.isa.instruction import MAX_FACTOR, MAX_STAGE, Instruction, Repeat
from cimc.isa.phases import at_most, extent_of, phased
from cimc.isa.program import Program, TileProgram
from cimc.isa.steps import each
from cimc.isa.visit import Faults


def check_phases(program: Program, faults: Faults) -> frozenset[int]:
    """Report every phase that means nothing; returns the tiles that have one, by their place in the program."""
    wrong: set[int] = set()
    total = 0
    for place, tile in enumerate(program.tiles):
        for step in tile.steps:
            if isinstance(step, Instruction) and step.phase is not None:
                wrong.add(place)
                _report(tile, step.line, "an instruction with a phase stands outside repeats", faults)
        for repeat in each(tile.steps):
            if not isinstance(repeat, Repeat) or not phased(repeat):
                continue
            fault = _fault(repeat)
            if fault:
                wrong.add(place)
                _report(tile, repeat.line, fault, faults)
            total += at_most(repeat)
    if total > MAX_STEPS:
        what = "instructions, with overlapping repeats written out"
        faults.add(errors.PROGRAM_LIMIT(what=what, value=total, limit=MAX_STEPS))
        wrong.update(range(len(program.tiles)))
    return frozenset(wrong)


def _report(tile: TileProgram, line: int, what: str, faults: Faults) -> None:
    hint = "phases ('+1:', '0%4:') stand before instructions right in the body of a repeat"
    faults.report(errors.WRONG_DECLARATION, line, f"tile {tile.tile}", what=what, hint=hint)


def _fault(repeat: Repeat) -> str:
    if any(isinstance(s, Repeat) for s in repeat.body):
        return f"the repeat of '{repeat.variable}' has phases, and repeats in it"
    if not isinstance(repeat.count, int):
        return f"the repeat of '{repeat.variable}' has phases, and its count varies"
    turns = extent_of(repeat)[1]
    if turns > MAX_STAGE:
        return f"turns in the repeat of '{repeat.variable}' come back after {turns} rounds, at most {MAX_STAGE} are possible"
    if any(d.factor * turns > MAX_FACTOR for d in repeat.derived):
        return f"a factor in the repeat of '{repeat.variable}' times its {turns} turns is more than {MAX_FACTOR}"
    return ""
