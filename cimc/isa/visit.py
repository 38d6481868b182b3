"""Walking a tile program with what is known of its variables at every step, and telling where a fault is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from cimc import errors
from cimc.isa.instruction import Instruction, Phase, Repeat
from cimc.isa.operands import Extent
from cimc.isa.printer import instruction_text
from cimc.isa.program import Program, TileProgram
from cimc.isa.ranges import Box, Span, bounds


@dataclass(slots=True)  # not frozen: that takes longer to make, and there is one for every instruction
class Visit:
    """One instruction of a tile: its number in program order, the box of its variables, the counts of the repeats
    around it, outermost first (of the innermost, the rounds that it is executed for)."""

    step: Instruction
    index: int
    box: Box
    counts: tuple[Extent, ...]


@dataclass
class Walk:
    """All of a tile's instructions in program order, a body once, and the spans of its repeats (innermost first)."""

    visits: list[Visit] = field(default_factory=list[Visit])
    repeats: list[tuple[Repeat, Span, Box]] = field(default_factory=list[tuple[Repeat, Span, Box]])
    unknown: list[tuple[Repeat, str]] = field(default_factory=list[tuple[Repeat, str]])


def walk_tile(tile: TileProgram, params: Box) -> Walk:
    """Walk without recursion: programs may be nested as deeply as their maker liked."""
    walk = Walk()
    boxes: list[Box] = [params]
    counts: list[tuple[Extent, ...]] = [()]
    open_: list[tuple[Repeat, int]] = []
    stack = [iter(tile.steps)]
    while stack:
        step = next(stack[-1], None)
        if isinstance(step, Instruction):
            around = counts[-1] if step.phase is None else _taken(step.phase, counts[-1])
            walk.visits.append(Visit(step, len(walk.visits), boxes[-1], around))
        elif isinstance(step, Repeat):
            walk.unknown += [(step, name) for name in _strangers(step, params)]
            high = 1 if _strangers(step, params) else bounds(step.count, params)[1]
            derived = {d.name: d.bounds(high) for d in step.derived}
            boxes.append({**boxes[-1], step.variable: (0, max(high - 1, 0)), **derived})
            counts.append((*counts[-1], step.count))
            open_.append((step, len(walk.visits)))
            stack.append(iter(step.body))
        else:
            stack.pop()
            if open_:
                repeat, first = open_.pop()
                walk.repeats.append((repeat, Span(first, len(walk.visits) - 1), boxes[-2]))
                boxes.pop()
                counts.pop()
    return walk


def _taken(phase: Phase, counts: tuple[Extent, ...]) -> tuple[Extent, ...]:
    inmost = counts[-1] if counts else 0
    return (*counts[:-1], phase.times(inmost)) if counts and isinstance(inmost, int) else counts


def _strangers(repeat: Repeat, params: Box) -> list[str]:
    if isinstance(repeat.count, int):
        return []
    return [name for name, _ in repeat.count.terms if name not in params]


class Faults:
    """Gathers faults of a program, each with its place: file, line and caret if it was parsed from a text, else the
    tile, the step's number (from 1, in program order) and the instruction's text."""

    def __init__(self, program: Program, text: str) -> None:
        self._program = program
        self._lines: Sequence[str] = text.split("\n") if text else ()
        self._globals = {g.name: g.shape for g in program.globals}
        self._collector = errors.Collector()

    def report(self, diagnostic: errors.Diagnostic, line: int, place: str, word: str = "", **fields: object) -> None:
        """Add a fault at a line of the text, or at a place told in words if there is no text."""
        source = self._source(line, word) if line > 0 else None
        where = "" if source else f"{place}: "
        self.add(diagnostic(source=source, where=where, **fields))

    def step(
        self, diagnostic: errors.Diagnostic, tile: TileProgram, visit: Visit, word: str = "", **fields: object
    ) -> None:
        """Add a fault at an instruction."""
        self.report(diagnostic, visit.step.line, self.place(tile, visit), word, **fields)

    def add(self, error: errors.CimcError) -> None:
        """Add a fault that knows its place, unless it has been told already."""
        known = self._collector.found
        if not self._collector.full and not any(e.message == error.message and e.source == error.source for e in known):
            known.append(error)

    def place(self, tile: TileProgram, visit: Visit) -> str:
        """Where an instruction of a built program stands, in words."""
        text = instruction_text(visit.step, {b.name: b.shape for b in tile.buffers}, self._globals)
        return f"tile {tile.tile}, step {visit.index + 1} `{text}`"

    def source(self, line: int, word: str) -> errors.Source | None:
        """The place in the text, None for a built program."""
        return self._source(line, word) if line > 0 else None

    def _source(self, line: int, word: str) -> errors.Source:
        text = self._lines[line - 1].rstrip().replace("\t", " ") if line <= len(self._lines) else ""
        found = re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", text) if word else None
        column = found.start() + 1 if found else len(text) - len(text.lstrip()) + 1
        return errors.Source(self._program.source or "<program>", line, column, text if len(text) < 2000 else "")

    def raise_if_any(self) -> None:
        """Raise everything gathered."""
        self._collector.raise_if_any()
