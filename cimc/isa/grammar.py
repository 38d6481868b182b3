"""The grammar's reader of program text: lark, by ``isa/cim.lark``. Loaded only where a text needs it, because loading lark
takes longer than compiling a small model."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import lark

from cimc import errors
from cimc.isa.fastline import number, piece, unquoted
from cimc.isa.instruction import Value
from cimc.isa.operands import Affine, Extent, plain
from cimc.isa.program import Block, Piece
from cimc.isa.statement import (
    DIRECTIVES,
    MAX_DIGITS,
    MAX_NAME,
    NO_PHASE,
    ArrayLine,
    CloseLine,
    DerivedText,
    HardwareLine,
    InstructionLine,
    MatrixLine,
    OriginLine,
    ParamLine,
    PortLine,
    RawView,
    RepeatLine,
    Statement,
    TileLine,
    Turns,
    VersionLine,
)

_LONG_NAME = re.compile(rf"[A-Za-z_][A-Za-z0-9_.]{{{MAX_NAME},}}")
_LONG_INTEGER = re.compile(rf"(?<![\w.])[0-9]{{{MAX_DIGITS + 1},}}")


def grammar_path() -> Path:
    """``cim.lark``: in a wheel beside this file, in a checkout under ``isa/`` at the top."""
    here = Path(__file__).resolve().parent
    packaged = here / "cim.lark"
    return packaged if packaged.is_file() else here.parents[1] / "isa" / "cim.lark"


@lark.v_args(inline=True)
class _Statements(lark.Transformer[lark.Token, Statement]):
    """Called by the parser as it reduces each rule: no tree is ever built."""

    def version(self, number: str) -> VersionLine:
        return VersionLine(int(number))

    def hardware(self, name: str) -> HardwareLine:
        return HardwareLine(unquoted(name))

    def param(self, name: str, low: int, high: int) -> ParamLine:
        return ParamLine(str(name), low, high)

    def key(self, text: str) -> str:
        return unquoted(text)

    def global_buffer(
        self,
        name: str,
        element: str,
        shape: tuple[Extent, ...],
        home: tuple[int, int] | None,
        key: str | None,
        state: str | None,
        held: tuple[Piece, ...] | None,
    ) -> ArrayLine:
        tile, address = home or (-1, None)
        return ArrayLine(str(name), str(element), shape, address, key or "", state is not None, tile, held or ())

    def held(self, *pieces: Piece) -> tuple[Piece, ...]:
        return pieces

    def piece(
        self,
        tile: str,
        at: tuple[int, ...],
        name: str,
        offset: str,
        shape: tuple[Extent, ...],
        strides: tuple[int, ...] | None,
    ) -> Piece:
        return piece(int(tile), at, str(name), int(offset), shape, strides)

    def at(self, *first: str) -> tuple[int, ...]:
        return tuple(int(c) for c in first)

    def home(self, tile: str, address: str) -> tuple[int, int]:
        return int(tile), int(address)

    def local_buffer(
        self, name: str, element: str, shape: tuple[Extent, ...], at: str, key: str | None, state: str | None
    ) -> ArrayLine:
        return ArrayLine(str(name), str(element), shape, int(at), key or "", state is not None)

    def input(self, name: str, buffer: str, shape: tuple[Extent, ...] | None) -> PortLine:
        return PortLine(False, unquoted(name), str(buffer), shape)

    def output(self, name: str, buffer: str, shape: tuple[Extent, ...] | None) -> PortLine:
        return PortLine(True, unquoted(name), str(buffer), shape)

    def origin(self, index: str, node: str, op_type: str | None) -> OriginLine:
        return OriginLine(int(index), unquoted(node), op_type or "")

    def op_type(self, text: str) -> str:
        return unquoted(text) if text.startswith('"') else str(text)

    def tile_open(self, number: str) -> TileLine:
        return TileLine(int(number))

    def matrix(
        self,
        name: str,
        element: str,
        shape: tuple[Extent, ...],
        key: str | None,
        corner: tuple[int, int] | None,
        *blocks: Block,
    ) -> MatrixLine:
        return MatrixLine(str(name), str(element), shape, key or "", corner or (0, 0), blocks)

    def corner(self, row: str, col: str) -> tuple[int, int]:
        return int(row), int(col)

    def block(self, core: str, row: str, row_end: str, col: str, col_end: str) -> Block:
        return Block(int(core), int(row), int(row_end), int(col), int(col_end))

    def repeat_open(self, variable: str, count: Extent, *derived: DerivedText) -> RepeatLine:
        return RepeatLine(str(variable), count, derived)

    def derived(
        self, name: str, of: str, factor: str | None, offset: str, divisor: str | None, modulus: str | None
    ) -> DerivedText:
        times, by = (1 if n is None else int(n) for n in (factor, divisor))
        return DerivedText(str(name), str(of), times, int(offset), by, None if modulus is None else int(modulus))

    def close(self) -> CloseLine:
        return CloseLine()

    def instruction(
        self, phase: tuple[int, int, int] | None, name: str, arguments: InstructionLine | None, origin: str | None
    ) -> InstructionLine:
        given = arguments or InstructionLine("", (), (), None)
        number = None if origin is None else int(origin)
        return InstructionLine(str(name), given.operands, given.keywords, number, phase or NO_PHASE)

    def phase(self, first: str | tuple[int, int], turn: tuple[int, int] | None = None) -> tuple[int, int, int]:
        stage, (of, turns) = (0, first) if isinstance(first, tuple) else (int(first), turn or (0, 1))
        return stage, of, turns

    def turn(self, turn: str, turns: str) -> tuple[int, int]:
        return int(turn), int(turns)

    def positional(self, operands: tuple[str | RawView, ...]) -> InstructionLine:
        return InstructionLine("", operands, (), None)

    def named(self, keywords: tuple[tuple[str, Value | Turns], ...]) -> InstructionLine:
        return InstructionLine("", (), keywords, None)

    def mixed(
        self, operands: tuple[str | RawView, ...], keywords: tuple[tuple[str, Value | Turns], ...]
    ) -> InstructionLine:
        return InstructionLine("", operands, keywords, None)

    def operands(
        self, first: str | RawView | tuple[str | RawView, ...], *rest: str | RawView
    ) -> tuple[str | RawView, ...]:
        return (*first, *rest) if isinstance(first, tuple) else (first,)

    def keywords(self, first: tuple[object, ...], *rest: tuple[str, Value | Turns]) -> tuple[object, ...]:
        return (*first, *rest) if rest else (first,)

    def whole(self, name: str) -> str:
        return str(name)

    def view(self, name: str, offset: Affine, shape: tuple[Extent, ...], strides: tuple[int, ...] | None) -> RawView:
        return RawView(str(name), offset, shape, strides)

    def keyword(self, name: str, value: Value, *more: Value) -> tuple[str, Value | Turns]:
        return str(name), Turns((value, *more)) if more else value

    def number(self, text: str) -> int | float:
        return int(text) if text.lstrip("-").isdigit() else number(text)

    def string(self, text: str) -> str:
        return unquoted(text)

    def list(self, *values: int | None) -> tuple[int, ...]:
        return tuple(v for v in values if v is not None)

    def shape(self, *extents: Extent) -> tuple[Extent, ...]:
        return extents

    def scalar(self) -> tuple[Extent, ...]:
        return ()

    def fixed(self, value: str) -> int:
        return int(value)

    def varying(self, value: Affine) -> Extent:
        return plain(value)

    def strides(self, *values: int) -> tuple[int, ...]:
        return values

    def first(self, minus: str | None, term: Affine) -> Affine:
        return term * (-1 if minus else 1)

    def plus(self, left: Affine, term: Affine) -> Affine:
        return left + term

    def minus(self, left: Affine, term: Affine) -> Affine:
        return left + term * -1

    def constant(self, value: str) -> Affine:
        return Affine(int(value))

    def scaled(self, name: str, factor: str | None) -> Affine:
        return Affine.of(0, {str(name): 1 if factor is None else int(factor)})

    def times(self, factor: str, name: str) -> Affine:
        return Affine.of(0, {str(name): int(factor)})

    def signed(self, minus: str | None, value: str) -> int:
        return -int(value) if minus else int(value)

    def repeat(self, first: Statement, *rest: Statement | list[Statement]) -> list[Statement]:
        return _flat((first, *rest))

    def tile(self, first: Statement, *rest: Statement | list[Statement]) -> list[Statement]:
        return _flat((first, *rest))

    def program(self, *parts: Statement | list[Statement]) -> list[Statement]:
        return _flat(parts)


def _flat(parts: Iterable[Statement | list[Statement]]) -> list[Statement]:
    return [s for part in parts for s in (part if isinstance(part, list) else (part,))]


@functools.cache
def _parser() -> lark.Lark:
    text = grammar_path().read_text(encoding="utf-8")
    return lark.Lark(text, parser="lalr", start=["line", "program"], maybe_placeholders=True, transformer=_Statements())


def read_line(text: str, source: errors.Source) -> Statement:
    """One statement by the grammar. Raises CimcError, pointing at the first character that cannot stand there."""
    _guard_line(text, source)
    try:
        return cast(Statement, _parser().parse(text, start="line"))
    except lark.UnexpectedInput as fault:
        raise _syntax_error(text, fault, source) from None
    except ValueError as fault:
        raise errors.PROGRAM_SYNTAX(
            what=f"a string that cannot be read ({fault})", hint="escapes are JSON's", source=source
        ) from None


def read_program(text: str) -> list[Statement]:
    """All statements of a text by the grammar's rule for whole programs, in one go: for tests, which hold the line-wise
    readers against it. Raises lark's exceptions."""
    return cast(list[Statement], _parser().parse(text, start="program"))


def _guard_line(text: str, source: errors.Source) -> None:
    word = text.split(maxsplit=1)[0]
    if word.startswith(".") and word not in DIRECTIVES:
        hint = errors.did_you_mean(word, DIRECTIVES) + f"known: {', '.join(DIRECTIVES)}"
        raise errors.PROGRAM_SYNTAX(what=f"unknown directive '{word[:40]}'", hint=hint, source=source)
    bare = _STRING.sub(lambda m: " " * len(m[0]), text)
    for pattern, what, limit in (
        (_LONG_INTEGER, "digits of an integer", MAX_DIGITS),
        (_LONG_NAME, "a name's length", MAX_NAME),
    ):
        long = pattern.search(bare)
        if long:
            place = replace(source, column=source.column + long.start())
            raise errors.PROGRAM_LIMIT(what=what, value=len(long[0]), limit=limit, source=place)


def _syntax_error(text: str, fault: lark.UnexpectedInput, source: errors.Source) -> errors.CimcError:
    column, expected = fault.column, set[str]()
    what = f"unexpected '{text[column - 1 : column]}'"
    if isinstance(fault, lark.UnexpectedToken):
        expected = fault.accepts or fault.expected
        what = f"unexpected '{fault.token[:40]}'"
        if fault.token.type == "$END":
            what, column = "the line ends too early", len(text.partition("#")[0].rstrip()) + 1
    elif isinstance(fault, lark.UnexpectedCharacters):
        expected = fault.allowed
    if text[column - 1 : column] == '"':
        what = "a string that is not closed"
    names = sorted({_terminal(e) for e in expected if e != "_NL"})
    place = replace(source, column=source.column + column - 1)
    return errors.PROGRAM_SYNTAX(what=what, hint=f"expected {', '.join(names)}", source=place)


def _terminal(name: str) -> str:
    if name in _TERMINALS:
        return _TERMINALS[name]
    pattern = next((t.pattern for t in _parser().terminals if t.name == name), None)
    return f"'{pattern.value}'" if pattern else name


_TERMINALS = {
    "NAME": "a name",
    "UINT": "an integer",
    "NUMBER": "a number",
    "STRING": "a string",
    "$END": "the end of the line",
}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
