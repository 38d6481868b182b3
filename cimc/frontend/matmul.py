"""Spellings of matrix products."""

from __future__ import annotations

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Value
from cimc.frontend.call import Call, spelling


@spelling("MatMul", note="constant weights go into crossbars, anything else to the dynamic matmul unit")
def mat_mul(c: Call) -> Value:
    """NumPy's matmul."""
    return f.matmul(c.b, c.x(0), c.x(1))


@spelling("Gemm")
def gemm(c: Call) -> Value:
    """``alpha · A' · B' + beta · C``."""
    return gemm_of(c, c.float("alpha", 1.0), c.float("beta", 1.0))


def gemm_of(c: Call, alpha: float, beta: float) -> Value:
    """A product of matrices, transposed as the node says, and a term."""
    x, y, term = c.x(0), c.x(1), c.opt(2)
    if x.rank != 2 or y.rank != 2:
        raise Impossible(f"Gemm of {x.type} and {y.type}")
    x = f.swap(c.b, x, 0, 1) if c.int("transA", 0) else x
    y = f.swap(c.b, y, 0, 1) if c.int("transB", 0) else y
    z = f.scaled(c.b, f.matmul(c.b, x, y), alpha)
    z = f.cast(c.b, z, x.element)
    return z if term is None or beta == 0.0 else f.add(c.b, z, f.scaled(c.b, term, beta))
