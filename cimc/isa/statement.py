"""One line of program text as a record: what both readers (regular expressions and lark) make, and the assembler takes.

Purely syntactic: names are not resolved, elements and mnemonics not looked up."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cimc.isa.instruction import Value
from cimc.isa.operands import Affine, Extent
from cimc.isa.program import Block, Piece

VERSION = 1
"""Of the text, as its first line says it."""

MAX_DIGITS = 18
"""Longest integer a text may hold: below 10^18, so that no product of two overflows 128 bits anywhere downstream."""

MAX_NAME = 255
"""Longest name of an array, matrix, variable or param."""

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
"""What a name is, its length aside."""

SCALAR = "scalar"
DIRECTIVES = (
    ".cim",
    ".hardware",
    ".param",
    ".global",
    ".input",
    ".output",
    ".origin",
    ".tile",
    ".buffer",
    ".matrix",
)


@dataclass(frozen=True, slots=True)
class VersionLine:
    """``.cim 1``"""

    version: int


@dataclass(frozen=True, slots=True)
class HardwareLine:
    """``.hardware "isaac"``"""

    name: str


@dataclass(frozen=True, slots=True)
class ParamLine:
    """``.param pos 0..511``"""

    name: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ArrayLine:
    """``.buffer`` (an address alone) or ``.global`` (no address, or an address in the local memory of ``tile``, or pieces
    of local arrays)."""

    name: str
    element: str
    shape: tuple[Extent, ...]
    address: int | None
    key: str
    state: bool
    tile: int = -1
    pieces: tuple[Piece, ...] = ()


@dataclass(frozen=True, slots=True)
class PortLine:
    """``.input`` or ``.output``: the model's name and the global buffer's, and the extents of the corner that is meant if
    it is not all of it."""

    output: bool
    name: str
    buffer: str
    shape: tuple[Extent, ...] | None = None


@dataclass(frozen=True, slots=True)
class OriginLine:
    """``.origin 0 "node" OpType``"""

    index: int
    node: str
    op_type: str


@dataclass(frozen=True, slots=True)
class TileLine:
    """``.tile 3``"""

    tile: int


@dataclass(frozen=True, slots=True)
class MatrixLine:
    """``.matrix W0 q8 384x256 = "key"[0,128] { 0 [0:128, 0:128]; ... }``"""

    name: str
    element: str
    shape: tuple[Extent, ...]
    key: str
    corner: tuple[int, int]
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class DerivedText:
    """``name=(of*factor+offset)/divisor%modulus``; modulus None: none."""

    name: str
    of: str
    factor: int
    offset: int
    divisor: int
    modulus: int | None


@dataclass(frozen=True, slots=True)
class RepeatLine:
    """``repeat i 16, w=(i+8)/4%2 {``"""

    variable: str
    count: Extent
    derived: tuple[DerivedText, ...] = ()


@dataclass(frozen=True, slots=True)
class CloseLine:
    """``}``"""


@dataclass(frozen=True, slots=True)
class RawView:
    """``name[offset; shape; strides]``; strides None: row-major."""

    name: str
    offset: Affine
    shape: tuple[Extent, ...]
    strides: tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class Turns:
    """``A|B|C``: values that a keyword takes in turns, two at least."""

    values: tuple[Value, ...]


NO_PHASE = (0, 0, 1)


@dataclass(frozen=True, slots=True)
class InstructionLine:
    """``+stage turn%turns: mnemonic operand, ..., name=value, ...  @origin``; a string operand is a whole buffer or a matrix.
    ``phase``: stage, turn, turns."""

    mnemonic: str
    operands: tuple[str | RawView, ...]
    keywords: tuple[tuple[str, Value | Turns], ...]
    origin: int | None
    phase: tuple[int, int, int] = NO_PHASE


Statement = (
    VersionLine
    | HardwareLine
    | ParamLine
    | ArrayLine
    | PortLine
    | OriginLine
    | TileLine
    | MatrixLine
    | RepeatLine
    | CloseLine
    | InstructionLine
)
