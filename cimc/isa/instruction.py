"""What an instruction is: a frozen record in a program, and the row that declares its mnemonic.

A row (:class:`Spec`) says everything there is to know about a mnemonic in one place: operands, keywords, the unit of
the tile it occupies, what it means (on NumPy arrays), which actions it is billed, and its manual text. Parser,
printer, interpreter, timing engine and ``isa/INSTRUCTIONS.md`` all read the row."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, Protocol

from numpy.typing import NDArray

from cimc.isa.operands import Affine, Element, Extent, View, plain
from cimc.origin import Origin

Array = NDArray[Any]
Value = int | float | str | tuple[int, ...] | Affine
Actions = Mapping[str, int]

WINDOW = 64
"""Instructions in flight per tile (isa/SPEC.md, section 6); estimated: deep enough that a loop body and its successor
overlap."""


class Kind(enum.Enum):
    """What stands at an operand's place."""

    __hash__ = object.__hash__  # each is one object; an enum's own looks at the name, and takes ten times as long

    READ = "read"  # view of a local buffer, read
    WRITE = "write"  # view of a local buffer, written
    UPDATE = "update"  # view of a local buffer, read and written
    GLOBAL_READ = "global read"  # view of a global buffer
    GLOBAL_WRITE = "global write"
    MATRIX = "matrix"  # a matrix of this tile, by name


class Carries(enum.IntEnum):
    """What a channel between two tiles carries: each has channels of its own."""

    DATA = 0  # send, recv
    TOKENS = 1  # signal, wait
    PARTS = 2  # reduce, collect


LOCAL = (Kind.READ, Kind.WRITE, Kind.UPDATE)
GLOBAL = (Kind.GLOBAL_READ, Kind.GLOBAL_WRITE)


class Unit(enum.Enum):
    """The units of a tile. Each executes one instruction at a time; CORE is one unit per matrix."""

    __hash__ = object.__hash__

    CORE = "core"
    MATMUL = "matmul"
    VECTOR = "vector"
    SPECIAL = "special"
    PORT = "port"  # NoC port, sending side
    RECEIVE = "receive"  # NoC port, receiving side
    MEMORY = "memory"  # the tile's path to global memory
    HOST = "host"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Operand:
    """A positional operand: its name in the manual and what may stand there."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Keyword:
    """A ``name=value`` operand. ``type`` is int, float, str, or tuple (a list of integers); no default: required."""

    name: str
    type: type
    default: Value | None = None
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """What timing and energy may see of a view operand: its extents and element type, never its values."""

    extents: tuple[int, ...]
    element: Element

    @property
    def size(self) -> int:
        """Number of elements."""
        n = 1
        for e in self.extents:
            n *= e
        return n

    @property
    def bytes(self) -> int:
        """Bytes of all the elements."""
        return self.size * self.element.bytes

    @property
    def rows(self) -> int:
        """Product of all extents but the last."""
        return self.size // self.extents[-1] if self.extents and self.extents[-1] else 0


class Matrix(Protocol):
    """Weights in the cells of a tile's cores, as the values engine holds them."""

    def mvm(self, x: Array) -> Array:
        """``x`` (rows × inputs, or groups × rows × inputs) times the weights (inputs × outputs): q32 values, all
        rows × outputs."""
        ...

    def program(self, codes: Array, strips: tuple[tuple[int, int], ...] = ()) -> None:
        """Rewrite cells with ``codes`` (rows × outputs). ``strips``: (first, number) of the neighbouring rows they are; none:
        all rows."""
        ...

    def calibrate(self, vectors: int) -> None:
        """Fit a digital correction of every column to ``vectors`` known inputs; exact weights need none."""
        ...


class Machine(Protocol):
    """What an instruction's meaning may ask of the engine that runs it."""

    @property
    def exact(self) -> bool:
        """True in ``float`` numerics: q types are unrounded."""
        ...

    @property
    def operand_bits(self) -> int:
        """Bits of the dynamic matmul unit's operands in ``integer`` and ``analog`` numerics."""
        ...

    def send(self, data: Array, to: tuple[int, ...], tag: int) -> None:
        """Put a copy of ``data`` into the channel to each tile of ``to``."""
        ...

    def receive(self, source: int, tag: int) -> Array | None:
        """Take the oldest message of the channel from ``source``, or None if there is none yet."""
        ...

    def contribute(self, data: Array, to: int, tag: int) -> None:
        """Put a copy of ``data`` into the channel for parts of sums to tile ``to``."""
        ...

    def collect(self, sources: tuple[int, ...], tag: int) -> list[Array] | None:
        """Take the oldest part of the channel from each of the tiles, or None if one of them has none yet."""
        ...

    def host(self, call: str, inputs: list[Array]) -> list[Array]:
        """Run the host call of that name (an ONNX node) on the host controller."""
        ...


class Blocked(Exception):
    """Raised by a meaning that cannot go on until another tile has; the engine tries the instruction again later."""


class Fault(Exception):
    """Raised by a meaning that must not go on at all (an index out of range); the engine names the instruction."""


Meaning = Callable[..., None]
"""``meaning(machine, *operands, **keywords)``: views arrive as NumPy arrays (writes in place), matrices as
:class:`Matrix`. It runs where NumPy's floating-point warnings are off: overflow and division by zero give infinities and
NaN. The engine turns them off once, as doing so takes longer than many a meaning."""

Bill = Callable[..., Actions]
"""``bill(units, *operands, **keywords)``: ``units`` is the tile's :class:`cimc.arch.units.TileUnits`, views arrive as
:class:`Shape`, matrices as :class:`cimc.isa.program.MatrixDecl`; returns action → count. Reads and writes of the local
buffer are billed by the engine for every local view, not here."""

Cycles = Callable[..., int]
"""``cycles(units, *operands, **keywords)``, as :data:`Bill`: how long the unit is busy."""


Rule = Callable[..., str]
"""``rule(*operands, **keywords)``, operands as for :data:`Bill`: what is wrong with them together, empty if nothing."""


def any_operands(*operands: object, **keywords: Value) -> str:
    """The rule of instructions that take whatever their operand kinds allow."""
    return ""


@dataclass(frozen=True)
class Spec:
    """One mnemonic's row."""

    mnemonic: str
    operands: tuple[Operand, ...]
    unit: Unit
    meaning: Meaning
    bill: Bill
    doc: str
    keywords: tuple[Keyword, ...] = ()
    cycles: Cycles | None = None  # None: the unit's lanes work off the billed actions (TileUnits.lane_cycles)
    busy: Cycles | None = None  # how long the unit is taken, if not for all of its cycles
    variadic: bool = False  # the last operand may be repeated
    rule: Rule = any_operands
    writes_cells: bool = False  # of its matrix

    def operand(self, index: int) -> Operand:
        """The declaration of the operand at a position (the last one repeats if variadic)."""
        if self.variadic:
            index = min(index, len(self.operands) - 1)
        return self.operands[index]

    def access(self, index: int, keywords: Mapping[str, Value]) -> Kind:
        """The kind of the operand at a position in one instruction: UPDATE with accumulate=0 only writes, and the
        first ``outputs`` operands of a host call are written."""
        kind = self.operand(index).kind
        if kind is Kind.UPDATE and keywords.get("accumulate", 1) == 0:
            return Kind.WRITE
        if kind is Kind.GLOBAL_READ:
            outputs = keywords.get("outputs", 0)
            if isinstance(outputs, int) and index < outputs:
                return Kind.GLOBAL_WRITE
        return kind

    @cached_property
    def names(self) -> frozenset[str]:
        """Of its keywords."""
        return frozenset(k.name for k in self.keywords)

    @cached_property
    def inexact(self) -> bool:
        """Whether a keyword is a floating-point number."""
        return any(k.type is float for k in self.keywords)

    @cached_property
    def reaches(self) -> bool:
        """Whether it has operands in global memory."""
        return any(o.kind in GLOBAL for o in self.operands)

    @cached_property
    def fixed(self) -> tuple[Kind, ...]:
        """The kinds of its operands, where keywords and number do not change them; else empty."""
        varies = self.variadic or self.names & {"accumulate", "outputs"}
        return () if varies else tuple(o.kind for o in self.operands)


MAX_STAGE = 64
"""Of an instruction in a repeat that overlaps, and of the turns its instructions take: what engines unroll stays small then."""


@dataclass(frozen=True, slots=True)
class Phase:
    """When an instruction of a repeat is executed: ``stage`` rounds late, and only for the rounds that are ``turn`` modulo
    ``turns``. Raises ValueError for numbers that mean nothing."""

    stage: int = 0
    turn: int = 0
    turns: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.stage <= MAX_STAGE and 0 <= self.turn < self.turns <= MAX_STAGE):
            raise ValueError(f"stages are 0 to {MAX_STAGE}, there are 1 to {MAX_STAGE} turns, numbered from 0")

    def times(self, count: int) -> int:
        """How often it is executed in a repeat of so many rounds."""
        return max(0, -(-(count - self.turn) // self.turns))


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of a tile program. ``operands`` follow the row; a matrix operand is its name. ``keywords`` are
    complete and in the row's order (:func:`complete`), so that equal instructions are equal records. ``phase``: in the body of
    a repeat, if it is not executed in every round for that round; never one that says nothing."""

    mnemonic: str
    operands: tuple[View | str, ...] = ()
    keywords: tuple[tuple[str, Value], ...] = ()
    origin: Origin | None = None
    line: int = field(default=0, compare=False)  # in the text it was parsed from; 0 if built
    phase: Phase | None = None

    def on(self, operands: tuple[View | str, ...]) -> Instruction:
        """The same on other operands: what ``replace`` gives, sooner, for there are many."""
        found, put = object.__new__(Instruction), object.__setattr__
        for name in Instruction.__slots__:
            put(found, name, getattr(self, name))
        put(found, "operands", operands)
        return found


def kinds(step: Instruction) -> tuple[Kind, ...]:
    """The kinds of an instruction's operands, as :meth:`Spec.access` says."""
    spec = INSTRUCTIONS[step.mnemonic]
    if spec.fixed or not step.operands:
        return spec.fixed
    keywords = dict(step.keywords)
    return tuple([spec.access(i, keywords) for i in range(len(step.operands))])


MAX_FACTOR = 1 << 16
"""Of a derived variable: what any engine computes of it fits into 64 bits then."""


@dataclass(frozen=True, slots=True)
class Derived:
    """``name=(variable*factor+offset)/divisor%modulus``: a variable that follows a repeat's own, as the address generators of
    circular buffers do. ``modulus`` 0: none. Raises ValueError for numbers that mean nothing."""

    name: str
    offset: int = 0
    divisor: int = 1
    modulus: int = 0
    factor: int = 1

    def __post_init__(self) -> None:
        if self.offset < 0 or self.divisor < 1 or self.modulus < 0 or not 1 <= self.factor <= MAX_FACTOR:
            raise ValueError(f"{self.name}: offset and modulus are at least 0, the divisor and the factor at least 1")

    def at(self, value: int) -> int:
        """Its value where the repeat's variable has this one."""
        found = (value * self.factor + self.offset) // self.divisor
        return found % self.modulus if self.modulus else found

    def bounds(self, count: int) -> tuple[int, int]:
        """Bounds of its values in a repeat of ``count`` rounds; the least and the greatest, unless it wraps around: then of
        all it has, if it goes on for long enough (steps of ``step`` before the division, from ``first`` on)."""
        low, high = self.offset // self.divisor, (self.offset + max(count - 1, 0) * self.factor) // self.divisor
        if self.modulus and low // self.modulus != high // self.modulus:
            step = math.gcd(self.factor, self.divisor * self.modulus)
            first = self.offset % step
            return first // self.divisor, (self.divisor * self.modulus - step + first) // self.divisor
        return (low % self.modulus, high % self.modulus) if self.modulus else (low, high)


@dataclass(frozen=True, slots=True)
class Repeat:
    """``repeat variable count { body }``: the body with variable = 0 … count-1, and what is derived from it. ``count``
    may be affine in parameters, unless instructions have phases: then it is a number, and the body holds no repeats."""

    variable: str
    count: Extent
    body: tuple[Instruction | Repeat, ...]
    derived: tuple[Derived, ...] = ()
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", plain(self.count))


Step = Instruction | Repeat

INSTRUCTIONS: dict[str, Spec] = {}
"""All rows by mnemonic, in the order they were declared. Complete once :mod:`cimc.isa` is imported."""


def declare(spec: Spec) -> Spec:
    """Enter a row into the instruction set. Raises ValueError if the mnemonic is taken."""
    if spec.mnemonic in INSTRUCTIONS:
        raise ValueError(f"instruction {spec.mnemonic} declared twice")
    INSTRUCTIONS[spec.mnemonic] = spec
    return spec


def coerce(keyword: Keyword, value: Value) -> Value:
    """The value as the keyword's type holds it (an int becomes a float where a float is due, a lone int a tuple).

    Raises TypeError with the reason if it is of another type."""
    if keyword.type is float and isinstance(value, int | float) and not isinstance(value, bool):
        return math.nan if value != value else float(value)  # one NaN: tuples of it compare equal
    if keyword.type is tuple and isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if type(value) is not keyword.type:
        raise TypeError(f"'{keyword.name}' takes {TYPE_NAMES[keyword.type]}")
    return value


TYPE_NAMES: dict[type, str] = {int: "an integer", float: "a number", str: "a string", tuple: "a list of integers"}


def complete(spec: Spec, given: Mapping[str, Value]) -> tuple[tuple[str, Value], ...]:
    """The canonical keywords of an instruction: all of the row's, in its order, defaults filled in.

    Raises TypeError with the reason for one that is unknown, missing or of the wrong type."""
    if not given.keys() <= spec.names:
        raise TypeError(f"{spec.mnemonic} has no keyword '{min(given.keys() - spec.names)}'")
    out: list[tuple[str, Value]] = []
    for keyword in spec.keywords:
        value = given.get(keyword.name, keyword.default)
        if value is None:
            raise TypeError(f"{spec.mnemonic} needs the keyword '{keyword.name}'")
        out.append((keyword.name, value if type(value) is keyword.type is not float else coerce(keyword, value)))
    if spec.inexact:
        return tuple(out)  # 0.0 and -0.0 are equal
    return _shared(spec.mnemonic, tuple(out))


@lru_cache(1 << 12)
def _shared(mnemonic: str, words: tuple[tuple[str, Value], ...]) -> tuple[tuple[str, Value], ...]:
    """Keywords of a mnemonic, the same ones as one object."""
    return words
