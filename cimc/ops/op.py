"""What an op is: the row that declares its attributes, types, numeric reference and how a tile computes a block of its rows.

Every op works on rows. Its *domain* is the index space of its output rows (usually the output's shape without the last axis);
each operand says how it is reached from a row (:class:`Access`). Code generation cuts the domain into blocks of rows and calls
:meth:`Op.lower` for one block; the op sees views and emits instructions, nothing else. Cost is derived from those.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from cimc.ir.graph import Attr, Node, Type
from cimc.isa.instruction import Value
from cimc.isa.operands import Element, View, dense_strides

Array = NDArray[np.generic]


class Access(enum.Enum):
    """How an operand is reached from a row of the domain."""

    ROWS = "rows"  # the same row (broadcast where its extent is 1); the last axis is the row's contents
    WHOLE = "whole"  # its last two axes whole, the axes before follow the domain's outer axes (broadcast where 1)
    TABLE = "table"  # all of it, left in global memory
    CELLS = "cells"  # static weights, in crossbars


class Form(enum.Enum):
    """How code generation treats an op."""

    ROWWISE = "rowwise"  # lowered block of rows by block of rows
    VIEW = "view"  # another way to look at the operand's memory: no instruction
    ASSEMBLE = "assemble"  # operands copied (and constants filled) into regions of the result
    HOST = "host"


@dataclass(frozen=True)
class Arithmetic:
    """How ops compute when a graph is evaluated. ``exact``: codes and products are not rounded, as in ``float`` numerics."""

    exact: bool = True
    operand_bits: int = 8  # of the dynamic matmul unit


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the elements of a value lie in a buffer: offset and strides in elements. ``tail``: the axes, as (extent,
    stride), that make up the last one where it is not evenly spaced, as a convolution's windows; its stride is 0 then."""

    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    tail: tuple[tuple[int, int], ...] = ()

    @property
    def row(self) -> tuple[tuple[int, int], ...]:
        """The axes of the last axis, as (extent, stride)."""
        return self.tail or ((self.shape[-1], self.strides[-1]),)

    @staticmethod
    def dense(shape: tuple[int, ...]) -> Layout:
        """Row-major from offset 0."""
        return Layout(0, shape, dense_strides(shape))


@dataclass(frozen=True, slots=True)
class Part:
    """A region of an assembled result: ``start`` per axis; filled from input ``source``, or with ``value`` if -1 (then over
    ``shape``)."""

    start: tuple[int, ...]
    shape: tuple[int, ...]
    source: int
    value: float = 0.0


class Emit(Protocol):
    """What lowering a block of rows may use."""

    @property
    def rows(self) -> int:
        """Rows of the block."""
        ...

    def element(self, index: int) -> Element:
        """The element type of an operand."""
        ...

    def input(self, index: int) -> View:
        """The operand: ROWS (rows or 1 × tail), WHOLE (k × n), TABLE (a view of global memory)."""
        ...

    def output(self, index: int = 0) -> View:
        """The block of an output (rows × tail)."""
        ...

    def matrix(self) -> str:
        """The name of the matrix that holds the CELLS operand's part on this tile."""
        ...

    def scratch(self, element: Element, shape: tuple[int, ...]) -> View:
        """A buffer for the time of this block."""
        ...

    def emit(self, mnemonic: str, *operands: View | str, **keywords: Value) -> None:
        """Append an instruction."""
        ...


@dataclass(frozen=True, slots=True)
class Attribute:
    """An attribute an op has: its name, the Python types its value may have, a default (None: required)."""

    name: str
    types: tuple[type, ...]
    default: Attr | None = None


class Op(ABC):
    """One op's row. Instances are stateless; :data:`OPS` holds one of each."""

    name: str
    form: ClassVar[Form] = Form.ROWWISE
    arity: ClassVar[tuple[int, int]]  # fewest and most inputs
    attributes: tuple[Attribute, ...] = ()
    elementwise: ClassVar[bool] = False  # columns of the result need no other columns of the operands
    doc: str = ""

    @abstractmethod
    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        """Types of the outputs. Raises ValueError, saying why, if the operands do not fit."""

    @abstractmethod
    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        """The op's meaning on whole arrays; the reference that lowering must match bit for bit."""

    def access(self, node: Node, index: int) -> Access:
        """How input ``index`` is reached from a row."""
        return Access.ROWS

    def domain(self, node: Node, inputs: Sequence[Type], outputs: Sequence[Type]) -> tuple[int, ...]:
        """Extents of the index space of rows."""
        return outputs[0].shape[:-1]

    def lower(self, node: Node, emit: Emit) -> None:
        """Emit the instructions for one block of rows (ROWWISE ops)."""
        raise AssertionError(f"{self.name} is not lowered by rows")

    def view(self, node: Node, layout: Layout) -> Layout | None:
        """The output's layout over the operand's memory (VIEW ops), or None if no strides can say it."""
        raise AssertionError(f"{self.name} is not a view")

    def parts(self, node: Node, inputs: Sequence[Type]) -> tuple[Part, ...]:
        """Regions of the result, in the order they are written (ASSEMBLE ops)."""
        raise AssertionError(f"{self.name} is not assembled")


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Enter an op into the table. Raises ValueError if the name is taken."""
    if op.name in OPS:
        raise ValueError(f"op {op.name} declared twice")
    OPS[op.name] = op
    return op


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """NumPy broadcasting of shapes. Raises ValueError if they do not fit."""
    return tuple(np.broadcast_shapes(*shapes))


def call(function: Callable[..., Array], *arrays: Array | None) -> Array:
    """A kernel on contiguous operands, without NumPy's floating-point warnings, as the vector unit runs it."""
    with np.errstate(all="ignore"):
        # not np.ascontiguousarray, which turns a scalar into a vector
        return function(*[np.asarray(a, order="C") for a in arrays if a is not None])
