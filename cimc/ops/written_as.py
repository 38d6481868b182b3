"""The element type that an op's result is written as, where it is not that of its operands.

Units compute in float32. Values that cimc keeps in 16 bits (pass ``halve``) are rounded as they are written, once, and widened
as they are read, so an op that reads or writes one says what it writes: ``to``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cimc.ir.graph import Node, Type
from cimc.isa.operands import Element
from cimc.ops.op import Arithmetic, Attribute

TO = Attribute("to", (str,), "")
"""qf16, qbf16 or f32; without it, the type of the operands."""
HALVED = (Element.QF16, Element.QBF16)
_WRITTEN = frozenset((Element.F32, *HALVED))


def written_as(node: Node, element: Element, operands: Sequence[Type | None] = ()) -> Element:
    """What the op writes, if by its operands it would be ``element``. Raises ValueError for operands in 16 bits if the op
    does not say what it writes, and for what it cannot write."""
    to = str(node.get("to", ""))
    floats = [t.element for t in operands if t is not None and t.element is not Element.B8]
    if not to:
        if any(e.halved for e in (element, *floats)):
            raise ValueError(f"{node.op} reads values of 16 bits, and does not say what it writes")
        return element
    try:
        found = Element(to)
    except ValueError:
        raise ValueError(f"{node.op} cannot write {to}") from None
    if found not in _WRITTEN or element not in _WRITTEN or not all(e in _WRITTEN for e in floats):
        raise ValueError(f"{node.op} of {element.value} cannot write {to}")
    return found


def written_dtype(node: Node, dtype: np.dtype[np.generic], arithmetic: Arithmetic) -> np.dtype[np.generic]:
    """The NumPy type of what the op writes, if by its operands it would be ``dtype``."""
    to = str(node.get("to", ""))
    return Element(to).dtype(exact=arithmetic.exact) if to else dtype
