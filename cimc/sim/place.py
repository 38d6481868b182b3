"""Naming places in a program for messages: which tile, which line or step, which instruction, which layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cimc import errors
from cimc.isa.instruction import Instruction
from cimc.isa.printer import instruction_text

MAX_LINES = 12  # of a deadlock report: a chip may have thousands of tiles


def text(instruction: Instruction) -> str:
    """One line that shows an instruction in a message: as the program's text has it, and its layer."""
    origin = f"  ({instruction.origin})" if instruction.origin else ""
    return instruction_text(instruction, {}, {}) + origin


def where(tile: int, step: int, instruction: Instruction) -> str:
    """``tile 3, line 17`` for a parsed program, ``tile 3, instruction 4`` for a built one."""
    place = f"line {instruction.line}" if instruction.line else f"instruction {step}"
    return f"tile {tile}, {place}"


@dataclass(frozen=True, slots=True)
class Stuck:
    """A tile that cannot go on: where it stands, and what it waits for in words."""

    tile: int
    step: int
    instruction: Instruction
    reason: str

    def line(self) -> str:
        """One line of a deadlock report."""
        return f"  {where(self.tile, self.step, self.instruction)}: {text(self.instruction)} {self.reason}"


def deadlock(stuck: Sequence[Stuck], tiles: int) -> errors.CimcError:
    """The error that says who waits for what, at which line."""
    lines = [s.line() for s in stuck[:MAX_LINES]]
    if len(stuck) > MAX_LINES:
        lines.append(f"  … and {len(stuck) - MAX_LINES} more")
    fix = "pair every recv with a send (and every wait with a signal) of the same two tiles and tag, in the same order"
    return errors.DEADLOCK(count=len(stuck), tiles=tiles, report="\n".join(lines), fix=fix)


def failed(tile: int, step: int, instruction: Instruction, why: str) -> errors.CimcError:
    """The error of one instruction that could not be carried out."""
    return errors.INSTRUCTION_FAILED(where=where(tile, step, instruction), why=why, text=text(instruction))


def not_finite(tile: int, step: int, instruction: Instruction, what: str) -> errors.CimcError:
    """The error of activations that cannot be quantised."""
    layer = f"layer {instruction.origin.node}, " if instruction.origin is not None else ""
    return errors.NOT_FINITE(where=layer + where(tile, step, instruction), what=what, text=text(instruction))


def waits(instruction: Instruction) -> str:
    """What a stuck instruction waits for, in words."""
    keywords = dict(instruction.keywords)
    tag = keywords.get("tag", 0)
    if "of" in keywords and "to" not in keywords:
        return f"waits for parts of a sum of the tiles {keywords['of']} with tag {tag} that never all come"
    if "source" in keywords:
        return f"waits for a message from tile {keywords['source']} with tag {tag} that never comes"
    if "to" in keywords:
        return f"waits for room in the channel to {keywords['to']} with tag {tag}: nobody takes what is in it"
    return "waits for an earlier instruction of this tile"
