"""Who sends what to whom: the keywords of an instruction, as numbers and tiles."""

from __future__ import annotations

from cimc.isa.instruction import INSTRUCTIONS, Instruction, Value

SENDING, TAKING = ("send", "reduce"), ("recv", "collect")
"""Mnemonics of those whose operand is a message: tokens have none."""


def keywords(instruction: Instruction) -> dict[str, Value]:
    """All keywords, with the row's defaults."""
    spec = INSTRUCTIONS[instruction.mnemonic]
    found: dict[str, Value] = {k.name: k.default for k in spec.keywords if k.default is not None}
    found.update(instruction.keywords)
    return found


def integer(instruction: Instruction, name: str) -> int:
    """An integer keyword; 0 for one that the instruction does not have."""
    value = keywords(instruction).get(name, 0)
    return value if isinstance(value, int) else 0


def destinations(instruction: Instruction) -> tuple[int, ...]:
    """The tiles a send, or a part of a sum, goes to."""
    to = keywords(instruction)["to"]
    return to if isinstance(to, tuple) else (to,) if isinstance(to, int) else ()


def parts(instruction: Instruction) -> tuple[int, ...]:
    """The tiles whose parts make the sum that it sends a part of, or takes."""
    of = keywords(instruction)["of"]
    return of if isinstance(of, tuple) else ()
