"""What operands may stand together: one small predicate per operand shape, named by the rows.

A rule sees views as :class:`Shape`, matrices as declarations, and the keywords; it returns what is wrong, or nothing. A
program that obeys its rules makes no meaning raise anything but ``Blocked`` and ``Fault``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from cimc.isa.instruction import Rule, Shape
from cimc.isa.operands import Element
from cimc.isa.program import MatrixDecl

SINGLE = frozenset({Element.F32, Element.F16, Element.BF16, Element.QF16, Element.QBF16})
"""What units compute in single precision: halves are widened as they are read."""
FLOATING = SINGLE | {Element.F64}
QUANTIZED = frozenset({Element.Q8, Element.Q16, Element.Q32})
SIGNED = frozenset({Element.I64, Element.I32, Element.I16, Element.I8})
UNSIGNED = frozenset({Element.U64, Element.U32, Element.U16, Element.U8})
INTEGER = SIGNED | UNSIGNED
NUMBER = FLOATING | INTEGER | QUANTIZED
BITS = INTEGER | {Element.B8}
ANY = frozenset(Element)
COMPUTED = frozenset(e for e in Element if not e.narrow)
CODES = frozenset({Element.Q8, Element.Q16, Element.I8, Element.I16})
SUMS = frozenset({Element.Q32, Element.I32})

Elements = frozenset[Element]


def _text(extents: tuple[int, ...]) -> str:
    return "x".join(str(e) for e in extents) or "scalar"


def _among(name: str, shape: Shape, allowed: Elements) -> str:
    if shape.element in allowed:
        return ""
    known = " ".join(e.value for e in Element if e in allowed)
    return f"{name} is {shape.element.value}, and takes {known}"


def _broadcast(name: str, x: Shape, y: Shape) -> str:
    short = len(x.extents) <= len(y.extents)
    tail = y.extents[len(y.extents) - len(x.extents) :] if short else ()
    if short and all(a in (1, b) for a, b in zip(x.extents, tail, strict=True)):
        return ""
    return f"{name} is {_text(x.extents)}, which does not broadcast to y's {_text(y.extents)}"


def _equal(name: str, x: Shape, extents: tuple[int, ...], of: str) -> str:
    return "" if x.extents == extents else f"{name} is {_text(x.extents)}; by {of} it is {_text(extents)}"


def _same(name: str, a: Shape, b: Shape, of: str) -> str:
    if a.element is b.element:
        return ""
    return f"{name} is {a.element.value}, {of} is {b.element.value}: they are of one element type"


def _alike(name: str, a: Shape, b: Shape, of: str) -> str:
    """As :func:`_same`, but that units widen halves."""
    return "" if a.element in SINGLE and b.element in SINGLE else _same(name, a, b, of)


def _first(*complaints: str) -> str:
    return next((c for c in complaints if c), "")


def unary(elements: Elements) -> Rule:
    """y, x: x of these elements broadcasts to y."""

    def rule(y: Shape, x: Shape) -> str:
        return _first(_among("x", x, elements), _written(y, elements), _broadcast("x", x, y))

    return rule


def _written(y: Shape, read: Elements) -> str:
    """Narrow elements are made by what also reads them."""
    return _among("y", y, COMPUTED) if read is not ANY else ""


def binary(elements: Elements, *, alike: bool = True) -> Rule:
    """y, a, b: both broadcast to y, are of these elements and, if ``alike``, of the same one or computed as one."""

    def rule(y: Shape, a: Shape, b: Shape) -> str:
        return _first(
            _among("a", a, elements),
            _among("b", b, elements),
            _alike("b", b, a, "a") if alike else "",
            _written(y, elements),
            _broadcast("a", a, y),
            _broadcast("b", b, y),
        )

    return rule


def reduction(elements: Elements) -> Rule:
    """y, x: y has x's extents, the last of them 1."""

    def rule(y: Shape, x: Shape) -> str:
        return _first(
            _among("x", x, elements), _written(y, elements), _rank(x), _equal("y", y, (*x.extents[:-1], 1), "x")
        )

    return rule


def _rank(x: Shape) -> str:
    return "" if x.extents else "x has no extents: a row is needed"


def rowwise(y: Shape, x: Shape, **_: float) -> str:
    """y, x of equal extents, in floating point."""
    return _first(_among("x", x, FLOATING), _among("y", y, FLOATING), _rank(x), _equal("y", y, x.extents, "x"))


def select(y: Shape, condition: Shape, a: Shape, b: Shape) -> str:
    """y, condition, a, b: all broadcast to y; a and b are alike."""
    shapes = (("condition", condition), ("a", a), ("b", b))
    narrow = _same("y", y, a, "a") if y.element.narrow or a.element.narrow else ""
    return _first(_alike("b", b, a, "a"), narrow, *(_broadcast(name, x, y) for name, x in shapes))


def move(y: Shape, x: Shape) -> str:
    """y, x of one element; x broadcasts to y."""
    return _first(_same("x", x, y, "y"), _broadcast("x", x, y))


def gather(y: Shape, table: Shape, index: Shape) -> str:
    """y holds one row of the table for every index."""
    if not table.extents:
        return "table has no extents: rows are needed"
    due = index.size * math.prod(table.extents[1:])
    count = f"y holds {y.size} elements, and {due} are gathered" if y.size != due else ""
    return _first(_same("y", y, table, "table"), _among("index", index, INTEGER), count)


def fill(y: Shape, *, value: float) -> str:
    """The value exists in y's element type; of narrow ones, only 0 is made."""
    if y.element in FLOATING:
        return ""
    if y.element.narrow and (value != 0 or y.element is Element.F8E8M0):
        return f"{value!r} is not made in {y.element.value}: 0 is, where it is a value"
    bits = 1 if y.element is Element.B8 else 8 * y.element.bytes
    unsigned = y.element in UNSIGNED or y.element is Element.B8
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if math.isfinite(value) and value.is_integer() and low <= value <= high:
        return ""
    return f"{value!r} is no value of {y.element.value}"


def quantize(y: Shape, scale: Shape, x: Shape) -> str:
    """y like x, one scale per row."""
    return _first(
        _among("y", y, CODES & QUANTIZED),
        _among("scale", scale, frozenset({Element.F32})),
        _among("x", x, FLOATING),
        _rank(x),
        _equal("y", y, x.extents, "x"),
        _equal("scale", scale, (*x.extents[:-1], 1), "x"),
    )


def quantize_static(y: Shape, x: Shape, scale: Shape) -> str:
    """y like x; the scale broadcasts."""
    return _first(
        _among("y", y, CODES & QUANTIZED),
        _among("x", x, FLOATING),
        _among("scale", scale, FLOATING),
        _equal("y", y, x.extents, "x"),
        _broadcast("scale", scale, x),
    )


def dequantize(y: Shape, x: Shape, scale: Shape, weight_scale: Shape) -> str:
    """y like x; both scales broadcast."""
    return _first(
        _among("y", y, FLOATING),
        _among("x", x, QUANTIZED | SIGNED),
        _among("scale", scale, FLOATING),
        _among("weight_scale", weight_scale, FLOATING),
        _equal("y", y, x.extents, "x"),
        _broadcast("scale", scale, x),
        _broadcast("weight_scale", weight_scale, x),
    )


def mvm(acc: Shape, matrix: MatrixDecl, x: Shape, *, accumulate: int) -> str:
    """x: rows × the matrix's rows; acc: as many rows × the matrix's columns."""
    if accumulate not in (0, 1):
        return f"accumulate is {accumulate}, and takes 0 or 1"
    if not x.extents or x.extents[-1] != matrix.rows:
        return f"x is {_text(x.extents)}, and its rows feed {matrix.rows} inputs of {matrix.name}"
    due = (*x.extents[:-1], matrix.cols)
    fits = acc.extents and acc.extents[-1] == matrix.cols and acc.rows == x.rows
    return _first(
        _among("x", x, CODES | {Element.U8}),
        _among("acc", acc, SUMS),
        "" if fits else _equal("acc", acc, due, f"x and {matrix.name}"),
    )


def program(matrix: MatrixDecl, codes: Shape, *, row: int, run: int, step: int) -> str:
    """codes: rows of the matrix, each written once."""
    return _first(
        _among("codes", codes, CODES),
        _equal("codes", codes, (*codes.extents[:1], matrix.cols), matrix.name),
        _runs(matrix, codes, row, run, step),
    )


def _runs(matrix: MatrixDecl, codes: Shape, row: int, run: int, step: int) -> str:
    if row < 0 or run < 0 or step < run:
        return f"row {row}, run {run}, step {step}: none is negative, and a step is at least a run"
    whole, rest = divmod(max(codes.rows - 1, 0), run) if run else (0, codes.rows - 1)
    last = row + whole * step + rest
    if run == 0 and row == 0:
        return _equal("codes", codes, (matrix.rows, matrix.cols), matrix.name)
    return f"codes reach row {last} of {matrix.name}, which has {matrix.rows}" if last >= matrix.rows else ""


def calibrate(matrix: MatrixDecl, *, vectors: int) -> str:
    """Enough vectors for three numbers a column, and not without end."""
    return "" if 4 <= vectors <= 65536 else f"vectors is {vectors}: give 4 to 65536"


def matmul(y: Shape, a: Shape, b: Shape, *, scale: float) -> str:
    """a (… × m × k), b (… × k × n), y (… × m × n), leading extents equal; both floating-point or both integers."""
    if len(a.extents) < 2 or len(b.extents) < 2:
        return f"a is {_text(a.extents)}, b is {_text(b.extents)}: both need two extents at least"
    classes = [c for c in (FLOATING, INTEGER, QUANTIZED) if a.element in c and b.element in c]
    if not classes:
        return f"a is {a.element.value}, b is {b.element.value}: both are floating-point, or integer, or quantized"
    batch, (m, k), n = a.extents[:-2], a.extents[-2:], b.extents[-1]
    due = (*b.extents[:-2], k, n) if b.extents[:-2] == batch else (*batch, k, n)
    return _first(_equal("b", b, due, "a"), _equal("y", y, (*batch, m, n), "a and b"), _among("y", y, NUMBER))


def matmul_codes(y: Shape, a: Shape, a_scale: Shape, b: Shape, b_scale: Shape, *, scale: float) -> str:
    """a (… × m × k) and b (… × k × n) of codes, with a scale for each row of a and each column of b."""
    codes, single = frozenset({Element.Q8}), frozenset({Element.F32})
    return _first(
        matmul(y, a, b, scale=scale),
        _among("a", a, codes),
        _among("b", b, codes),
        _among("a_scale", a_scale, single),
        _among("b_scale", b_scale, single),
        _equal("a_scale", a_scale, (*a.extents[:-1], 1), "a"),
        _equal("b_scale", b_scale, (*b.extents[:-2], 1, b.extents[-1]), "b"),
        _among("y", y, FLOATING),
    )


def host(*values: Shape, call: str, outputs: int) -> str:
    """As many operands as are written stand there."""
    if 1 <= outputs <= len(values):
        return ""
    return f"outputs is {outputs}, with {len(values)} operands"


def channels(ends: Sequence[str]) -> Callable[..., str]:
    """Tags and tiles are not negative, destinations are there and differ."""

    def rule(*_: Shape, tag: int, **tiles: int | tuple[int, ...]) -> str:
        given = [tiles[e] for e in ends]
        numbers = [n for g in given for n in (g if isinstance(g, tuple) else (g,))]
        if tag < 0 or any(n < 0 for n in numbers):
            return "tiles and tags are not negative"
        if not numbers:
            return "no destination is given"
        return "a destination stands twice" if len(set(numbers)) < len(numbers) else ""

    return rule


def part(x: Shape, *, of: tuple[int, ...], to: int, tag: int) -> str:
    """x is a part of a sum of several tiles."""
    return _first(total(x, of=of, tag=tag), "" if to >= 0 else "tiles and tags are not negative")


def total(y: Shape, *, of: tuple[int, ...], tag: int) -> str:
    """y is a sum, or a part of one: of elements that routers add, and of several tiles."""
    if tag < 0 or any(n < 0 for n in of):
        return "tiles and tags are not negative"
    if len(of) < 2 or len(set(of)) < len(of):
        return f"of names {len(of)} tiles, {len(set(of))} different: two at least, each once"
    return _among("what is added", y, SUMS)
