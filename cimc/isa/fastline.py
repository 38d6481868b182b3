"""The quick reader: one canonical line → statement, with regular expressions.

It reads what :mod:`cimc.isa.printer` prints and gives up (None) on anything else: odd spacing, comments behind a
statement, errors. The grammar then decides. Whatever it reads, it reads as the grammar does: a property test holds the
two together.
"""

from __future__ import annotations

import json
import math
import re

from cimc.isa.instruction import Value
from cimc.isa.operands import Affine, Extent, implied_strides, plain
from cimc.isa.program import Block, Piece
from cimc.isa.statement import (
    MAX_DIGITS,
    MAX_NAME,
    NO_PHASE,
    SCALAR,
    ArrayLine,
    CloseLine,
    DerivedText,
    InstructionLine,
    MatrixLine,
    OriginLine,
    PortLine,
    RawView,
    RepeatLine,
    Statement,
    TileLine,
    Turns,
)

_NAME = rf"[A-Za-z_][A-Za-z0-9_.]{{0,{MAX_NAME - 1}}}"
_UINT = rf"[0-9]{{1,{MAX_DIGITS}}}"
_STRING = r'"(?:[^"\\\n]|\\.)*"'
_TERM = rf"(?:{_UINT}|{_NAME}(?:\*{_UINT})?)"
_AFFINE = rf"-?{_TERM}(?:[+-]{_TERM})*"
_EXTENT = rf"(?:{_UINT}|\({_AFFINE}\))"
_SHAPE = rf"(?:{SCALAR}|{_EXTENT}(?:x{_EXTENT})*)"

_TERMS = re.compile(rf"([+-]?)(?:({_UINT})|({_NAME})(?:\*({_UINT}))?)")
_EXTENTS = re.compile(rf"({_UINT})|\(({_AFFINE})\)")
_PLAIN = re.compile(_NAME)
_VIEW = re.compile(rf"({_NAME})\[({_AFFINE}); ({_SHAPE})(?:; (-?{_UINT}(?:,-?{_UINT})*))?\]")
_KEYWORD = re.compile(rf"({_NAME})=(.*)")
_INTEGER = re.compile(rf"-?{_UINT}")
_FLOAT = re.compile(rf"-?(?:inf|nan|{_UINT}(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)")
_LIST = re.compile(rf"\[((?:-?{_UINT}(?:,-?{_UINT})*)?)\]")
_QUOTED = re.compile(_STRING)

_INSTRUCTION = re.compile(rf"(?:([+0-9][+0-9% ]*): )?({_NAME})(?: (\S.*?))?(?:  @({_UINT}))?")
_PHASE = re.compile(rf"(?:\+({_UINT}))?/(?:({_UINT})%({_UINT}))?")
_REPEAT = re.compile(rf"repeat ({_NAME}) ({_EXTENT})((?:, {_NAME}=[^,]*)*) {{")
_DERIVED = re.compile(rf"({_NAME})=\(({_NAME})(?:\*({_UINT}))?\+({_UINT})\)(?:/({_UINT}))?(?:%({_UINT}))?")
_TILE = re.compile(rf"\.tile ({_UINT})")
_FIXED = rf"{_UINT}(?:x{_UINT})*"
_PIECE = re.compile(
    rf"({_UINT}) \[({_UINT}(?:,{_UINT})*)\] ({_NAME})\[({_UINT}); ({_FIXED})(?:; (-?{_UINT}(?:,-?{_UINT})*))?\](?:; |$)"
)
_ARRAY = re.compile(
    rf"\.(?:global|buffer) ({_NAME}) ({_NAME}) ({_SHAPE})(?: tile=({_UINT}))?(?: @({_UINT}))?(?: = ({_STRING}))?( state)?"
    r"(?: in \{ (.*) \})?"
)
_MATRIX = re.compile(
    rf"\.matrix ({_NAME}) ({_NAME}) ({_SHAPE})(?: = ({_STRING})(?:\[({_UINT}),({_UINT})\])?)? {{ (.*) }}"
)
_BLOCK = re.compile(rf"({_UINT}) \[({_UINT}):({_UINT}), ({_UINT}):({_UINT})\]")
_PORT = re.compile(rf"\.(input|output) ({_STRING}) ({_NAME})(?: ({_SHAPE}))?")
_ORIGIN = re.compile(rf"\.origin ({_UINT}) ({_STRING})(?: (?:({_NAME})|({_STRING})))?")


def unquoted(text: str) -> str:
    """The string a quoted text stands for. Raises ValueError on a bad escape, a control character, a lone surrogate."""
    value = json.loads(text)
    if not isinstance(value, str):
        raise ValueError("not a string")
    value.encode()
    return value


class FastReader:
    """Reads lines; remembers operands it has seen, because programs repeat them."""

    def __init__(self) -> None:
        self._operands: dict[str, str | RawView] = {}

    def line(self, text: str) -> Statement | None:
        """The statement of a stripped line, or None where only the grammar can tell."""
        if text == "}":
            return CloseLine()
        if text.startswith("."):
            return _directive(text)
        if text.startswith("repeat "):
            match = _REPEAT.fullmatch(text)
            return _repeat(match) if match else None
        if "#" in text:
            return None
        return self._instruction(text)

    def _instruction(self, text: str) -> InstructionLine | None:
        match = _INSTRUCTION.fullmatch(text)
        if match is None or match[2] == "repeat":
            return None
        phase = _phase(match[1]) if match[1] else NO_PHASE
        if phase is None:
            return None
        operands: list[str | RawView] = []
        keywords: list[tuple[str, Value | Turns]] = []
        for part in match[3].split(", ") if match[3] is not None else ():
            operand = self._operands.get(part) or self._operand(part)
            if operand is not None and not keywords:
                operands.append(operand)
                continue
            keyword = _keyword(part)
            if keyword is None:
                return None
            keywords.append(keyword)
        origin = int(match[4]) if match[4] else None
        return InstructionLine(match[2], tuple(operands), tuple(keywords), origin, phase)

    def _operand(self, text: str) -> str | RawView | None:
        if _PLAIN.fullmatch(text):
            return text
        match = _VIEW.fullmatch(text)
        if match is None:
            return None
        strides = tuple(int(s) for s in match[4].split(",")) if match[4] else None
        view = RawView(match[1], _affine(match[2]), _shape(match[3]), strides)
        self._operands[text] = view
        return view


def _repeat(match: re.Match[str]) -> RepeatLine | None:
    derived: list[DerivedText] = []
    for part in match[3].split(", ")[1:]:
        m = _DERIVED.fullmatch(part)
        if m is None:
            return None
        factor, offset, divisor = int(m[3] or 1), int(m[4]), int(m[5] or 1)
        derived.append(DerivedText(m[1], m[2], factor, offset, divisor, int(m[6]) if m[6] else None))
    return RepeatLine(match[1], _extent(match[2]), tuple(derived))


def _affine(text: str) -> Affine:
    constant = 0
    terms: dict[str, int] = {}
    for match in _TERMS.finditer(text):
        sign = -1 if match[1] == "-" else 1
        if match[2]:
            constant += sign * int(match[2])
        else:
            terms[match[3]] = terms.get(match[3], 0) + sign * int(match[4] or 1)
    return Affine.of(constant, terms)


def _extent(text: str) -> Extent:
    return plain(_affine(text[1:-1])) if text.startswith("(") else int(text)


def _shape(text: str) -> tuple[Extent, ...]:
    if text == SCALAR:
        return ()
    return tuple(int(m[1]) if m[1] else plain(_affine(m[2])) for m in _EXTENTS.finditer(text))


def _phase(text: str) -> tuple[int, int, int] | None:
    late, _, turn = text.rpartition(" ") if " " in text else (text, "", "") if text[0] == "+" else ("", "", text)
    match = _PHASE.fullmatch(f"{late}/{turn}")
    if match is None:
        return None
    return int(match[1] or 0), int(match[2] or 0), int(match[3] or 1)


def _keyword(text: str) -> tuple[str, Value | Turns] | None:
    match = _KEYWORD.fullmatch(text)
    if match is None:
        return None
    value = _value(match[2]) if "|" not in text else _turns(match[2])
    return (match[1], value) if value is not None else None


def _turns(text: str) -> Value | Turns | None:
    if text.startswith('"'):
        return _value(text)
    values = [v for v in map(_value, text.split("|")) if v is not None]
    return Turns(tuple(values)) if len(values) > text.count("|") else None


def _value(text: str) -> Value | None:
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return None if text.lstrip("-").isdigit() else number(text)
    if _QUOTED.fullmatch(text):
        return _string(text)
    match = _LIST.fullmatch(text)
    if match is None:
        return None
    return tuple(int(v) for v in match[1].split(",")) if match[1] else ()


def number(text: str) -> float:
    """A float keyword's value; NaN is one object, so that equal texts give equal records."""
    return math.nan if text.endswith("nan") else float(text)


def _string(text: str) -> str | None:
    try:
        return unquoted(text)
    except ValueError:
        return None


def _directive(text: str) -> Statement | None:
    word = text.split(" ", 1)[0]
    if word in (".buffer", ".global"):
        return _array(text, word == ".buffer")
    if word == ".matrix":
        return _matrix(text)
    if word == ".origin":
        return _origin(text)
    if word in (".input", ".output"):
        match = _PORT.fullmatch(text)
        name = _string(match[2]) if match else None
        if match is None or name is None:
            return None
        return PortLine(match[1] == "output", name, match[3], _shape(match[4]) if match[4] else None)
    match = _TILE.fullmatch(text)
    return TileLine(int(match[1])) if match else None


def _array(text: str, local: bool) -> ArrayLine | None:
    match = _ARRAY.fullmatch(text)
    if match is None:
        return None
    tile, address = (None if m is None else int(m) for m in (match[4], match[5]))
    placed = address is not None and tile is None if local else (address is None) == (tile is None)
    key = _string(match[6]) if match[6] else ""
    pieces = _pieces(match[8]) if match[8] is not None else ()
    if not placed or key is None or pieces is None or (local and match[8] is not None):
        return None
    at = -1 if tile is None else tile
    return ArrayLine(match[1], match[2], _shape(match[3]), address, key, bool(match[7]), at, pieces)


def _pieces(text: str) -> tuple[Piece, ...] | None:
    found: list[Piece] = []
    end = 0
    while end < len(text) or not found:
        match = _PIECE.match(text, end)
        if match is None:
            return None
        corner = tuple(int(c) for c in match[2].split(","))
        strides = tuple(int(s) for s in match[6].split(",")) if match[6] else None
        found.append(piece(int(match[1]), corner, match[3], int(match[4]), _shape(match[5]), strides))
        end = match.end()
    return None if text.endswith("; ") else tuple(found)


def piece(
    tile: int,
    corner: tuple[int, ...],
    name: str,
    offset: int,
    shape: tuple[Extent, ...],
    strides: tuple[int, ...] | None,
) -> Piece:
    """A piece of a held array as its parts say it; without strides, row-major. Extents that vary count as none: the
    verifier tells then that the piece has too few."""
    fixed = tuple(e for e in shape if isinstance(e, int))
    return Piece(tile, corner, name, offset, fixed, (implied_strides(fixed) or ()) if strides is None else strides)


def _matrix(text: str) -> MatrixLine | None:
    match = _MATRIX.fullmatch(text)
    key = _string(match[4]) if match and match[4] else ""
    if match is None or key is None:
        return None
    blocks: list[Block] = []
    for part in match[7].split("; "):
        cut = _BLOCK.fullmatch(part)
        if cut is None:
            return None
        blocks.append(Block(*(int(v) for v in cut.groups())))
    corner = (int(match[5] or 0), int(match[6] or 0))
    return MatrixLine(match[1], match[2], _shape(match[3]), key, corner, tuple(blocks))


def _origin(text: str) -> OriginLine | None:
    match = _ORIGIN.fullmatch(text)
    node = _string(match[2]) if match else None
    if match is None or node is None:
        return None
    op_type = _string(match[4]) if match[4] else match[3] or ""
    return OriginLine(int(match[1]), node, op_type) if op_type is not None else None
