"""Key and value caches of onnxruntime's attention nodes: buffers (b × h × length × d) that new tokens are put into."""

from __future__ import annotations

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value
from cimc.isa.operands import Element

_LOWEST = {
    Element.F16: -65504.0,
    Element.BF16: -(2.0**128 - 2.0**120),
    Element.F32: -(2.0**128 - 2.0**104),
    Element.F64: -float(2**1024 - 2**971),
}


def lowest_of(element: Element) -> float:
    """The lowest finite number, with which onnxruntime masks: rows that see nothing become uniform, not NaN."""
    return _LOWEST[element]


def put(b: Builder, past: Value | None, new: Value, at: int, length: int) -> Value:
    """The buffer, ``length`` long, with the new tokens from ``at`` on. Raises Impossible if they do not fit."""
    size = 0 if past is None else past.shape[2]
    end = at + new.shape[2]
    if not 0 <= at <= size or end > length or length > max(size, end):
        raise Impossible(f"tokens {at} to {end} in a cache of {size}, {length} after")
    if past is None:
        return new
    return f.concat(b, (f.part(b, past, 2, 0, at), new, f.part(b, past, 2, min(end, size), max(size - end, 0))), 2)


def placed(b: Builder, past: Value, new: Value, at: Value, length: int = 0) -> Value:
    """The same with one new token per sample, at positions known only at run time (b × 1 × 1 × 1, int64)."""
    if new.shape[2] != 1:
        raise Impossible(f"{new.shape[2]} new tokens at positions known only at run time")
    length = max(length, past.shape[2])
    wide = f.pad(b, past, (0,) * 4, (0, 0, length - past.shape[2], 0))
    here = f.binary(b, "eq", b.constant(np.arange(length, dtype=np.int64).reshape(length, 1)), at)
    return f.select(b, here, new, wide)
