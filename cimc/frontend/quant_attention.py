"""Spellings of onnxruntime's quantised attention and embeddings (domain com.microsoft)."""

from __future__ import annotations

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib import ones, places
from cimc.frontend.contrib_attention import attended
from cimc.frontend.index import gather_rows
from cimc.frontend.norm import layer_norm_of
from cimc.frontend.quant import MS, Grid, dequantize
from cimc.frontend.quant_matmul import integer_product
from cimc.isa.operands import Element


@spelling("QAttention", domain=MS, note="constant weights: their own codes in cells; without shared cache buffers")
def q_attention(c: Call) -> tuple[Value | None, ...]:
    """Projection of 8-bit integers by 8-bit weights, then attention on numbers."""
    b, x, weights, bias = c.b, c.x(0), c.x(1), c.x(2)
    if c.int("do_rotary", 0) or c.int("past_present_share_buffer", 0):
        raise Unsupported("do_rotary and shared cache buffers")
    if weights.rank != 2 or weights.shape[1] % 3:
        raise Impossible(f"attention of {x.type} with weights {weights.type}")
    size = weights.shape[1] // 3
    scale, zero = f.mul(b, f.reshape(b, c.x(3), ()), _vector(c, c.x(4))), c.opt(7)
    zero = None if zero is None else _vector(c, zero)
    parts: list[Value] = []
    for at in (0, size, 2 * size):
        point = zero if zero is None or not zero.rank else f.part(b, zero, 0, at, size)
        acc = integer_product(b, x, f.part(b, weights, 1, at, size), c.opt(6), point)
        factor = scale if not scale.rank else f.part(b, scale, 0, at, size)
        numbers = f.mul(b, f.cast(b, acc, Element.F32), factor)
        parts.append(f.add(b, numbers, f.part(b, bias, 0, at, size)))
    return attended(c, parts, c.opt(5), c.opt(8), None)


def _vector(c: Call, value: Value) -> Value:
    """One number without axes, or several as they are."""
    return f.reshape(c.b, value, ()) if value.type.size == 1 else value


@spelling("QEmbedLayerNormalization", domain=MS)
def q_embed_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Rows of 8-bit tables, dequantised, summed and normalised."""
    b, ids, segments = c.b, c.x(0), c.opt(1)
    total = f.add(b, _numbers(c, 2, gather_rows(c, c.x(2), 0, ids)), _numbers(c, 3, places(c, c.x(3), ids, None)))
    if segments is not None and c.opt(4) is not None:
        total = f.add(b, total, _numbers(c, 4, gather_rows(c, c.x(4), 0, segments)))
    gain, bias = (_numbers(c, i, c.x(i)) for i in (5, 6))
    (y, *_) = layer_norm_of(c, total, gain, bias, c.float("epsilon", 1e-12), -1)
    return (y, ones(c, ids, c.opt(7)))


def _numbers(c: Call, table: int, rows: Value) -> Value:
    """Rows of table 2 to 6 as numbers; scales are inputs 8 to 12, zero points 13 to 17."""
    return dequantize(c.b, rows, Grid(c.x(table + 6), c.opt(table + 11), rows.element))
