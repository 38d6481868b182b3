"""Conversion between element types as ONNX's Cast has it, those of less than a byte and 8-bit floats among them."""

from __future__ import annotations

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Value
from cimc.frontend.call import NeedsHost
from cimc.isa.operands import Element

LARGEST = {
    Element.F8E4M3FN: 448.0,
    Element.F8E4M3FNUZ: 240.0,
    Element.F8E5M2: 57344.0,
    Element.F8E5M2FNUZ: 57344.0,
    Element.F4E2M1: 6.0,
}
"""The largest numbers of the small floating-point types (ONNX, "Float stored in 8 bits" and "Float stored in 4 bits")."""


def converted(b: Builder, x: Value, element: Element, *, saturate: bool = True) -> Value:
    """x in another element type. With ``saturate``, what is beyond the range of an 8-bit float, infinity too, becomes its
    largest number; without, infinity or, where the type has none, NaN. Raises NeedsHost for powers of two (E8M0)."""
    if x.element is element:
        return x
    if element is Element.F8E8M0:
        raise NeedsHost("tiles do not round to powers of two")
    wide = b.wide(x)
    if element in LARGEST:
        wide = wide if wide.floating else f.cast(b, wide, Element.F32)
        wide = clipped(b, wide, LARGEST[element]) if saturate else wide
    return f.cast(b, wide, element)


def clipped(b: Builder, x: Value, largest: float) -> Value:
    """x between two numbers of equal size."""
    x = f.binary(b, "max", x, b.scalar(-largest, x.element))
    return f.binary(b, "min", x, b.scalar(largest, x.element))
