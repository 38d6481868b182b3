"""Program text: ``parse_program`` / ``print_program``.

A text is read line by line: quickly with regular expressions (:mod:`cimc.isa.fastline`), and by the grammar
``isa/cim.lark`` where that gives up (:mod:`cimc.isa.grammar`); :mod:`cimc.isa.assembler` makes the program of the
statements. All faults of a text are reported at once."""

from __future__ import annotations

from cimc import errors
from cimc.isa.assembler import Assembler
from cimc.isa.fastline import FastReader
from cimc.isa.printer import print_program
from cimc.isa.program import Program
from cimc.isa.statement import Statement

__all__ = ["parse_program", "print_program"]

MAX_BYTES = 512 * 2**20
MAX_LINE = 2**20


def parse_program(text: str, path: str = "<text>", *, fast: bool = True) -> Program:
    """The program of a text. ``fast=False`` reads every line by the grammar (tests hold the two readers together).

    Raises CimcError, or CimcErrors with all the text's faults, each with its line and a caret. Names are resolved here;
    whether the program makes sense on a chip is :func:`cimc.isa.verify.verify`'s matter."""
    if len(text) > MAX_BYTES:
        raise errors.PROGRAM_LIMIT(what=f"characters of {path}", value=len(text), limit=MAX_BYTES)
    assembler = Assembler(path)
    quick = FastReader()
    for at, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(" \t\r")
        if not line:
            continue
        if line.startswith("#"):
            assembler.comment(line)
            continue
        statement = quick.line(line) if fast and len(line) <= MAX_LINE else None
        try:
            if statement is None:
                statement = _slow_line(raw, path, at)
            assembler.take(statement, at, raw)
        except errors.CimcError as fault:
            assembler.fault(fault, line, at)
            if assembler.faults.full:
                break
    return assembler.finish()


def _slow_line(raw: str, path: str, at: int) -> Statement:
    text = raw.rstrip("\r")
    source = errors.Source(path, at, 1, text.replace("\t", " ") if len(text) < 2000 else "")
    if len(text) > MAX_LINE:
        raise errors.PROGRAM_LIMIT(what="characters of a line", value=len(text), limit=MAX_LINE, source=source)
    from cimc.isa.grammar import read_line  # lark takes its time to load, and few texts need it

    return read_line(text, source)
