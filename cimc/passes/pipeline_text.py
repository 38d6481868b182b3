"""Pipelines as text: ``fold,fuse,digital{layers="/head/*"},quantize{weight_bits=4}``. What prints, parses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, NoReturn

from cimc import errors
from cimc.errors import Source
from cimc.passes.classify import Classify
from cimc.passes.codes import Codes
from cimc.passes.contract import Pass
from cimc.passes.copies import Copies
from cimc.passes.dce import Dce
from cimc.passes.decompose import Decompose
from cimc.passes.digital import Digital
from cimc.passes.fold import Fold
from cimc.passes.fuse import Fuse
from cimc.passes.halve import Halve
from cimc.passes.integers import Integers
from cimc.passes.online import Online
from cimc.passes.outliers import Outliers
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize
from cimc.passes.sink import Sink
from cimc.passes.smooth import Smooth
from cimc.passes.split import Split
from cimc.passes.written import Written

Option = int | float | str | bool

_ALL: tuple[type[Pass], ...] = (
    Integers,
    Fold,
    Fuse,
    Sink,
    Classify,
    Decompose,
    Online,
    Outliers,
    Digital,
    Copies,
    Smooth,
    Quantize,
    Written,
    Codes,
    Halve,
    Partition,
    Split,
    Dce,
)
PASSES: dict[str, type[Pass]] = {p.name: p for p in _ALL}
"""Every pass by its name."""

MOST_TEXT = 1 << 20
"""Longest pipeline that is parsed, in characters."""

_TOKEN = re.compile(r'\s*([A-Za-z0-9_.+-]+|"[^"\n]*"|[{},=]|$)')
_PLAIN = re.compile(r"[A-Za-z0-9_.+-]+")
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def options(kind: type[Pass]) -> dict[str, Option]:
    """The options of a pass that text can set, with their defaults: its fields, except those left out of comparison
    (data, not choices)."""
    found: Any = fields(kind)  # pyright: ignore[reportArgumentType]  # passes are dataclasses
    return {f.name: f.default for f in found if f.compare}


def print_pipeline(passes: Sequence[Pass]) -> str:
    """The pipeline's text; options at their default are not printed."""
    return ",".join(map(_print_pass, passes))


def _print_pass(one: Pass) -> str:
    defaults = options(type(one))
    given = [(name, getattr(one, name)) for name, default in defaults.items() if getattr(one, name) != default]
    text = ", ".join(f"{name}={_print_option(value)}" for name, value in given)
    return f"{one.name}{{{text}}}" if text else one.name


def _print_option(value: Option) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if _PLAIN.fullmatch(text) else f'"{text}"'


def parse_pipeline(text: str, where: str = "pipeline") -> tuple[Pass, ...]:
    """Read a pipeline. Raises CimcError: pipeline-syntax with a caret, pass-unknown, pass-option."""
    if len(text) > MOST_TEXT:
        raise errors.PIPELINE_SYNTAX(source=Source(where, 1), expected=f"at most {MOST_TEXT} characters")
    return _Reader(text, where).passes()


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0

    def _source(self, at: int) -> Source:
        return Source(self._where, 1, at + 1, self._text)

    def _fail(self, expected: str) -> NoReturn:
        start = len(self._text) - len(self._text[self._at :].lstrip())
        raise errors.PIPELINE_SYNTAX(source=self._source(start), expected=expected)

    def _peek(self) -> str:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            self._fail("a name or one of { } , =")
        return found.group(1)

    def _take(self) -> str:
        found = _TOKEN.match(self._text, self._at)
        token = self._peek()
        self._at = found.end() if found is not None else self._at
        return token

    def _word(self, expected: str) -> tuple[str, int]:
        """A name or number, and where it starts."""
        if self._peek() in ("", "{", "}", ",", "="):
            self._fail(expected)
        word = self._take()
        return word, self._at - len(word)

    def _name(self, expected: str) -> tuple[str, int]:
        """A word without quotes, and where it starts."""
        if self._peek().startswith('"'):
            self._fail(expected)
        return self._word(expected)

    def passes(self) -> tuple[Pass, ...]:
        """All passes, to the end of the text."""
        if not self._peek():
            return ()
        found = [self._pass()]
        while self._peek() == ",":
            self._take()
            found.append(self._pass())
        if self._peek():
            self._fail("',' and another pass, or the end")
        return tuple(found)

    def _pass(self) -> Pass:
        name, start = self._name("the name of a pass")
        kind = PASSES.get(name)
        if kind is None:
            meant = errors.did_you_mean(name, PASSES)
            known = ", ".join(PASSES)
            raise errors.PASS_UNKNOWN(
                source=self._source(start), where=self._where, name=name, meant=meant, known=known
            )
        given: dict[str, Option] = {}
        if self._peek() == "{":
            self._take()
            while self._peek() != "}":
                option, value = self._option(kind)
                given[option] = value
                if self._peek() == ",":
                    self._take()
                elif self._peek() != "}":
                    self._fail("',' or '}'")
            self._take()
        return kind(**given)

    def _option(self, kind: type[Pass]) -> tuple[str, Option]:
        name, start = self._name("the name of an option")
        known = options(kind)
        if name not in known:
            meant = errors.did_you_mean(name, known)
            fix = f"{meant}it has {', '.join(known) or 'no options'}"
            raise errors.PASS_OPTION(
                source=self._source(start), option=name, name=kind.name, why="there is none of that name", fix=fix
            )
        if self._take() != "=":
            self._fail("'=' and a value")
        text, start = self._word("a value")
        value = _convert(text.strip('"'), known[name])
        if value is None:
            wanted = type(known[name]).__name__
            why = f"'{text}' is no {wanted}"
            raise errors.PASS_OPTION(
                source=self._source(start), option=name, name=kind.name, why=why, fix=f"give a value of type {wanted}"
            )
        return name, value


def _convert(text: str, default: Option) -> Option | None:
    """The option's value in the type its default has, or None if it is not of that type."""
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text)
    if isinstance(default, int):
        return int(text) if _NUMBER.fullmatch(text) else None
    if isinstance(default, str):
        return text
    try:
        return float(text)
    except ValueError:
        return None
