"""What instructions operate on: element types, affine integers, and views of buffers."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from sys import intern

import ml_dtypes
import numpy as np

MAX_RANK = 16
"""Extents of an array or a view."""


class Element(enum.Enum):
    """Element types of buffers. The ``q`` types are what cimc rounds: integers, or floats of 16 bits (``qf16``, ``qbf16``), in
    ``integer`` and ``analog`` numerics, unrounded float32 in ``float`` numerics. The others mean the same in every numerics.
    Numbers of less than a byte and 8-bit floats (the ``narrow`` ones) are stored, moved and converted, never computed with."""

    __hash__ = object.__hash__  # each is one object; an enum's own looks at the name, and takes ten times as long

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    B8 = "b8"
    I4 = "i4"
    U4 = "u4"
    I2 = "i2"
    U2 = "u2"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    F4E2M1 = "f4e2m1"
    Q8 = "q8"
    Q16 = "q16"
    Q32 = "q32"
    QF16 = "qf16"
    QBF16 = "qbf16"

    @property
    def bytes(self) -> int:
        """Bytes one element takes in a buffer and on a link, in every numerics: at least one."""
        return _BYTES[self._value_]

    @property
    def quantized(self) -> bool:
        """Whether ``float`` numerics hold this type unrounded."""
        return self in _QUANTIZED

    @property
    def halved(self) -> bool:
        """Whether it is a float32 that cimc rounds to 16 bits."""
        return self is Element.QF16 or self is Element.QBF16

    @property
    def narrow(self) -> bool:
        """Whether instructions only move and convert it."""
        return self in _NARROW

    def dtype(self, *, exact: bool) -> np.dtype[np.generic]:
        """The NumPy type that holds a value of this element; ``exact`` for ``float`` numerics."""
        if exact and self.quantized:
            return np.dtype(np.float32)
        return _BY_NAME[self._value_]


class Sized:
    """What has elements of one type and a shape: a value, an array in global or in local memory."""

    __slots__ = ()
    element: Element
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Bytes that they take."""
        return self.size * self.element.bytes


_DTYPES: dict[Element, np.dtype[np.generic]] = {
    Element.F64: np.dtype(np.float64),
    Element.F32: np.dtype(np.float32),
    Element.F16: np.dtype(np.float16),
    Element.BF16: np.dtype(ml_dtypes.bfloat16),
    Element.I64: np.dtype(np.int64),
    Element.I32: np.dtype(np.int32),
    Element.I16: np.dtype(np.int16),
    Element.I8: np.dtype(np.int8),
    Element.U64: np.dtype(np.uint64),
    Element.U32: np.dtype(np.uint32),
    Element.U16: np.dtype(np.uint16),
    Element.U8: np.dtype(np.uint8),
    Element.B8: np.dtype(np.bool_),
    Element.I4: np.dtype(ml_dtypes.int4),
    Element.U4: np.dtype(ml_dtypes.uint4),
    Element.I2: np.dtype(ml_dtypes.int2),
    Element.U2: np.dtype(ml_dtypes.uint2),
    Element.F8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    Element.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    Element.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    Element.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    Element.F8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    Element.F4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
    Element.Q8: np.dtype(np.int8),
    Element.Q16: np.dtype(np.int16),
    Element.Q32: np.dtype(np.int32),
    Element.QF16: np.dtype(np.float16),
    Element.QBF16: np.dtype(ml_dtypes.bfloat16),
}
_QUANTIZED = frozenset((Element.Q8, Element.Q16, Element.Q32, Element.QF16, Element.QBF16))
_NARROW = frozenset(
    (
        Element.I4,
        Element.U4,
        Element.I2,
        Element.U2,
        Element.F8E4M3FN,
        Element.F8E4M3FNUZ,
        Element.F8E5M2,
        Element.F8E5M2FNUZ,
        Element.F8E8M0,
        Element.F4E2M1,
    )
)
_BY_NAME = {element.value: dtype for element, dtype in _DTYPES.items()}  # texts remember their hash, members do not
_BYTES = {name: dtype.itemsize for name, dtype in _BY_NAME.items()}


@dataclass(frozen=True, slots=True)
class Affine:
    """``constant + Σ coefficient · variable`` over ``repeat`` variables and runtime parameters; sorted, no zeros."""

    constant: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def of(constant: int, terms: Mapping[str, int]) -> Affine:
        """Canonical form: terms sorted by name, zero coefficients dropped."""
        return Affine(constant, tuple(sorted((v, c) for v, c in terms.items() if c)))

    def evaluate(self, env: Mapping[str, int]) -> int:
        """The value for the variables in ``env``. Raises KeyError for a variable that has none."""
        return self.constant + sum(c * env[v] for v, c in self.terms)

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.constant + other, self.terms)
        if not other.terms or not self.terms:
            return Affine(self.constant + other.constant, self.terms or other.terms)
        terms = dict(self.terms)
        for v, c in other.terms:
            terms[v] = terms.get(v, 0) + c
        return Affine.of(self.constant + other.constant, terms)

    def __mul__(self, factor: int) -> Affine:
        if not factor:
            return Affine()
        return Affine(self.constant * factor, tuple([(v, c * factor) for v, c in self.terms]) if self.terms else ())


Extent = int | Affine


def extent(value: Extent, env: Mapping[str, int]) -> int:
    """An extent's value for the variables in ``env``."""
    return value if isinstance(value, int) else value.evaluate(env)


def plain(value: Extent) -> Extent:
    """The extent as an int if it does not vary: the canonical form."""
    return value.constant if isinstance(value, Affine) and not value.terms else value


SHARED = 1 << 12  # different parts of views that are kept once


@dataclass(frozen=True, slots=True, eq=False)
class Lie:
    """How a view lies in its buffer. Views that lie alike share one of these (as long as it is remembered), so that who
    goes through thousands of views can tell by identity which of them to look at."""

    offset: Affine
    shape: tuple[Extent, ...]
    strides: tuple[int, ...]


@lru_cache(SHARED)
def _lie(constant: int, terms: tuple[tuple[str, int], ...], shape: tuple[Extent, ...], strides: tuple[int, ...]) -> Lie:
    return Lie(Affine(constant, terms), tuple([plain(e) for e in shape]), strides)


@dataclass(frozen=True, slots=True, init=False)
class View:
    """A strided rectangle of a buffer. Offset and strides count elements; a stride of 0 broadcasts.

    Text: ``name`` is the whole buffer; ``name[offset; 8x384]`` a dense rectangle; ``name[offset; 8x384; 1536,1]`` names
    the strides. Offset and extents may be affine: ``k[pos*32; 1x32]``, ``k[0; (pos+1)x32]``.
    """

    buffer: str
    offset: Affine
    shape: tuple[Extent, ...]
    strides: tuple[int, ...]
    lie: Lie = field(init=False, repr=False, compare=False)

    def __init__(self, buffer: str, offset: Affine, shape: tuple[Extent, ...], strides: tuple[int, ...]) -> None:
        """Parts that are the same in thousands of views are one object: less memory, and faster to go through."""
        put, lie = object.__setattr__, _lie(offset.constant, offset.terms, shape, strides)
        put(self, "buffer", intern(buffer))
        put(self, "offset", lie.offset)
        put(self, "shape", lie.shape)
        put(self, "strides", lie.strides)
        put(self, "lie", lie)

    def of(self, buffer: str) -> View:
        """The same rectangle of another buffer."""
        found, put = object.__new__(View), object.__setattr__
        put(found, "buffer", intern(buffer))
        put(found, "offset", self.offset)
        put(found, "shape", self.shape)
        put(found, "strides", self.strides)
        put(found, "lie", self.lie)
        return found

    def at(self, offset: Affine) -> View:
        """A rectangle like it that begins elsewhere."""
        return View(self.buffer, offset, self.shape, self.strides)


def static_shape(view: View) -> tuple[int, ...]:
    """A view's extents where they are known: while a program is made for one length, it has no runtime parameters."""
    return _static(view.shape)


@lru_cache(SHARED)
def _static(shape: tuple[Extent, ...]) -> tuple[int, ...]:
    assert all(isinstance(n, int) for n in shape), f"{shape} depends on a runtime parameter"
    return tuple(n for n in shape if isinstance(n, int))


@lru_cache(SHARED)
def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(reversed(strides))


def implied_strides(shape: tuple[Extent, ...]) -> tuple[int, ...] | None:
    """The strides of a view whose text names none: row-major; None if one would depend on an affine extent (so only
    the first extent may vary)."""
    inner = tuple(e for e in shape[1:] if isinstance(e, int))
    if len(inner) + 1 < len(shape):
        return None
    return dense_strides((1, *inner)) if shape else ()


def dense_view(
    buffer: str, shape: tuple[Extent, ...], offset: Affine | int = 0, strides: tuple[int, ...] | None = None
) -> View:
    """A view with row-major strides unless others are given.

    Raises ValueError if an extent other than the first varies and no strides are given."""
    steps = implied_strides(shape) if strides is None else strides
    if steps is None:
        raise ValueError(f"view of {buffer}: strides are needed where an inner extent varies")
    return View(buffer, Affine(offset) if isinstance(offset, int) else offset, shape, steps)
