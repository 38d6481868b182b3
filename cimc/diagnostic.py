"""What a diagnostic is: a row of the table in :mod:`cimc.errors`, the error it makes, the exit code a command ends with."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from dataclasses import dataclass, field


class Exit(enum.IntEnum):
    """Exit codes of every command (docs/architecture.md, the contract)."""

    OK = 0
    DIFFERS = 1
    USAGE = 2
    DOES_NOT_FIT = 3
    PROGRAM_FAILED = 4
    BUG = 70
    INTERRUPTED = 130


@dataclass(frozen=True)
class Source:
    """A place in a text file; prints as ``file:line:col`` with the line and a caret below it."""

    path: str
    line: int
    column: int = 1
    text: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """The source line with a caret under the column, or nothing if the line is unknown."""
        if not self.text:
            return ""
        return f"  {self.text}\n  {' ' * (self.column - 1)}^"


class CimcError(Exception):
    """A fault that is told in one message: what, where, what to do. Never a traceback."""

    def __init__(self, diagnostic: Diagnostic, message: str, hint: str, source: Source | None) -> None:
        super().__init__(message)
        self.diagnostic = diagnostic
        self.message = message
        self.hint = hint
        self.source = source

    @property
    def code(self) -> str:
        """The diagnostic's code, stable over versions."""
        return self.diagnostic.code

    @property
    def exit(self) -> Exit:
        """The exit code the command ends with."""
        return self.diagnostic.exit

    def render(self) -> str:
        """The message as the command prints it: place, ``error[code]``, excerpt with caret, help."""
        head = f"{self.source}: " if self.source else ""
        lines = [f"{head}error[{self.code}]: {self.message}"]
        if self.source and self.source.excerpt():
            lines.append(self.source.excerpt())
        if self.hint:
            lines.append(f"help: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class CimcErrors(CimcError):
    """Several faults found in one go, printed together."""

    def __init__(self, errors: Iterable[CimcError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.diagnostic, first.message, first.hint, first.source)

    def render(self) -> str:
        """All the messages, one after another."""
        return "\n".join(e.render() for e in self.errors)


@dataclass(frozen=True)
class Diagnostic:
    """One row of the table. ``message`` and ``hint`` are ``str.format`` templates."""

    code: str
    exit: Exit
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        if self.code in DIAGNOSTICS:
            raise ValueError(f"diagnostic {self.code} declared twice")
        DIAGNOSTICS[self.code] = self

    def __call__(self, *, source: Source | None = None, **fields: object) -> CimcError:
        return CimcError(self, self.message.format(**fields), self.hint.format(**fields), source)


DIAGNOSTICS: dict[str, Diagnostic] = {}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'? `` or nothing: a prefix for hints about names."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'? " if close else ""


MOST_TOLD = 50
"""Faults of one program that are gathered: nobody reads more, and a damaged text may have millions."""


@dataclass
class Collector:
    """Gathers faults so that all of them are reported at once."""

    found: list[CimcError] = field(default_factory=list[CimcError])

    def add(self, error: CimcError) -> None:
        """Remember one fault."""
        self.found.append(error)

    @property
    def full(self) -> bool:
        """Whether there are as many as are told."""
        return len(self.found) >= MOST_TOLD

    def raise_if_any(self) -> None:
        """Raise what was gathered: the fault itself if there is one, all together otherwise."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise CimcErrors(self.found)
