"""Every diagnostic cimc can print: its code, exit code, message and what to do about it.

A diagnostic is declared once, here, as a constant; the place that finds the fault calls it with the
fields of its template and raises what it returns::

    raise errors.UNKNOWN_PRESET(name="isac", where="--hw", known="isaac, toy")

``docs/errors.md`` is generated from this table.
"""

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


@dataclass
class Collector:
    """Gathers faults so that all of them are reported at once."""

    found: list[CimcError] = field(default_factory=list[CimcError])

    def add(self, error: CimcError) -> None:
        """Remember one fault."""
        self.found.append(error)

    def raise_if_any(self) -> None:
        """Raise what was gathered: the fault itself if there is one, all together otherwise."""
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise CimcErrors(self.found)


# --- files and options -------------------------------------------------------------------------
FILE_NOT_FOUND = Diagnostic("file-not-found", Exit.USAGE, "{what} not found: {path}", "check the path")
FILE_UNREADABLE = Diagnostic("file-unreadable", Exit.USAGE, "{what} {path} cannot be read: {why}", "check the file")

# --- analog ------------------------------------------------------------------------------------
ANALOG_CONFIG = Diagnostic("analog-config", Exit.USAGE, "analog configuration, key '{key}': {why}", "{fix}")

# --- hardware ----------------------------------------------------------------------------------

# --- programs ----------------------------------------------------------------------------------
PROGRAM_SYNTAX = Diagnostic("program-syntax", Exit.USAGE, "{what}", "{hint}")
PROGRAM_LIMIT = Diagnostic(
    "program-limit", Exit.USAGE, "{what}: {value} is beyond the limit of {limit}", "cut the program into smaller parts"
)
PROGRAM_VERSION = Diagnostic(
    "program-version", Exit.USAGE, "{what}", "the first line of a program is '.cim 1', the version of its text"
)
PROGRAM_ORDER = Diagnostic("program-order", Exit.USAGE, "{what}", "{hint}")
UNKNOWN_NAME = Diagnostic("unknown-name", Exit.USAGE, "{where}no {kind} is called '{name}'", "{hint}")
DUPLICATE_NAME = Diagnostic(
    "duplicate-name", Exit.USAGE, "{where}{kind} '{name}' is declared twice", "give each {kind} a name of its own"
)
UNKNOWN_INSTRUCTION = Diagnostic(
    "unknown-instruction",
    Exit.USAGE,
    "{where}no instruction is called '{name}'",
    "{hint}isa/INSTRUCTIONS.md lists them",
)
WRONG_OPERANDS = Diagnostic("wrong-operands", Exit.USAGE, "{where}{what}", "{usage}")
WRONG_DECLARATION = Diagnostic("wrong-declaration", Exit.USAGE, "{where}{what}", "{hint}")
OUT_OF_BUFFER = Diagnostic(
    "out-of-buffer",
    Exit.USAGE,
    "{where}{name} reaches elements {low} to {high}, and the buffer holds 0 to {last}",
    "over all values of repeat variables and params; offsets and strides count elements",
)
EMPTY_VIEW = Diagnostic(
    "empty-view", Exit.USAGE, "{where}an extent of {name} can be {low}", "extents are {least} at least, for every param"
)
BUFFERS_OVERLAP = Diagnostic(
    "buffers-overlap",
    Exit.USAGE,
    "{where}buffers '{a}' and '{b}' share bytes {low} to {high} of the local memory while both are in use",
    "'{a}' lives over steps {a_life}, '{b}' over steps {b_life}: move one, or use them one after the other",
)
PROGRAM_TOO_BIG = Diagnostic(
    "program-too-big", Exit.DOES_NOT_FIT, "{where}{what}: {need} needed, {have} there", "{hint}"
)
NO_SUCH_UNIT = Diagnostic(
    "no-such-unit", Exit.USAGE, "{where}{mnemonic} needs a {unit} unit, and tile {at} ({kind}) has none", "{hint}"
)
UNPAIRED = Diagnostic("unpaired", Exit.USAGE, "{where}{what}", "{hint}")
NO_HALT = Diagnostic(
    "no-halt", Exit.USAGE, "{where}{what}", "'halt' is the last instruction of every tile, and only that"
)
WRONG_WEIGHTS = Diagnostic(
    "wrong-weights", Exit.USAGE, "{where}{what}", "give the weights file the program was written with"
)

# --- models ------------------------------------------------------------------------------------

# --- mapping -----------------------------------------------------------------------------------

# --- running -----------------------------------------------------------------------------------
