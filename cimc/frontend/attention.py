"""Spellings of the standard's attention and rotary embedding, and the scaled dot-product all attention nodes share."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Value, room
from cimc.frontend.call import Call, spelling
from cimc.isa.operands import Element


@dataclass(frozen=True)
class Scores:
    """How scores are made: ``softcap`` 0 means none; ``guard`` zeroes rows whose bias masks every key."""

    scale: float
    softcap: float = 0.0
    guard: bool = True


@dataclass(frozen=True)
class Attended:
    """What attention gives: the values (b × h × s × e) and, if they were asked for, scores before the softmax without
    and with the bias, and the weights (each b × h × s × t)."""

    y: Value
    raw: Value | None = None
    capped: Value | None = None
    biased: Value | None = None
    weights: Value | None = None


def split_heads(b: Builder, x: Value, heads: int) -> Value:
    """(b × s × h·d) as (b × h × s × d). Raises Impossible if the heads do not go up."""
    if x.rank != 3 or heads < 1 or x.shape[2] % heads:
        raise Impossible(f"{heads} heads of {x.type}")
    n, s, hidden = x.shape
    return f.transpose(b, f.reshape(b, x, (n, s, heads, hidden // heads)), (0, 2, 1, 3))


def merge_heads(b: Builder, x: Value) -> Value:
    """(b × h × s × d) as (b × s × h·d)."""
    n, h, s, d = x.shape
    return f.reshape(b, f.transpose(b, x, (0, 2, 1, 3)), (n, s, h * d))


def append(b: Builder, past: Value | None, new: Value) -> Value:
    """Cache and new tokens along axis 2 of (b × h × t × d)."""
    return new if past is None else f.concat(b, (past, new), 2)


def causal_bias(b: Builder, s: int, t: int, offset: int, element: Element) -> Value:
    """0 where key ``j <= i + offset``, minus infinity elsewhere (s × t)."""
    room((s, t), 8)
    seen = np.tri(s, t, offset, dtype=np.bool_)
    return b.constant(np.where(seen, 0.0, -np.inf).astype(element.dtype(exact=True)))


def additive(b: Builder, mask: Value, element: Element) -> Value:
    """A mask as a term of the scores: true becomes 0, false minus infinity; numbers stay."""
    if mask.element != Element.B8:
        return f.cast(b, mask, element)
    return f.select(b, mask, b.scalar(0, element), b.scalar(-math.inf, element))


def attend(c: Call, q: Value, k: Value, v: Value, bias: Value | None, how: Scores, *, detail: bool = False) -> Attended:
    """Scaled dot-product attention: q (b × h × s × d), k (b × g × t × d), v (b × g × t × e), bias broadcast to
    (b × h × s × t) added to the scores; groups of h/g heads share a key head. With a soft cap, or ``detail`` of scores,
    as single ops."""
    b = c.b
    if not q.rank == k.rank == v.rank == 4 or q.shape[3] != k.shape[3] or k.shape[2] != v.shape[2]:
        raise Impossible(f"attention of {q.type}, {k.type} and {v.type}")
    n, h, s, _ = q.shape
    g, t = k.shape[1], k.shape[2]
    if g < 1 or h % g or v.shape[1] != g:
        raise Impossible(f"{h} query heads over {g} key heads")
    if g != h:
        q = f.reshape(b, q, (n, g, h // g, s, q.shape[3]))
        k, v = f.unsqueeze(b, k, 2), f.unsqueeze(b, v, 2)
        bias = None if bias is None else _grouped(b, bias, g, h)
    keys = f.swap(b, k, -1, -2)
    if detail or how.softcap:
        found = _by_steps(c, q, keys, v, bias, how)
    else:
        operands = (q, keys, v) if bias is None else (q, keys, v, bias)
        found = Attended(_guarded(c, b.emit("attention", operands, scale=float(how.scale))[0], bias, how))
    parts = (found.raw, found.capped, found.biased, found.weights)
    shaped = [None if p is None else f.reshape(b, p, (n, h, s, t)) for p in parts]
    return Attended(f.reshape(b, found.y, (n, h, s, found.y.shape[-1])), *shaped)


def _grouped(b: Builder, bias: Value, g: int, h: int) -> Value:
    """A bias (… × s × t) with its head axis split in groups."""
    if bias.rank < 3:
        return bias
    n, heads, s, t = (1,) * (4 - bias.rank) + bias.shape
    return f.reshape(b, bias, (n, g, h // g, s, t) if heads != 1 else (n, 1, 1, s, t))


def _by_steps(c: Call, q: Value, keys: Value, v: Value, bias: Value | None, how: Scores) -> Attended:
    b = c.b
    raw = f.matmul(b, q, keys, how.scale)
    capped = raw
    if how.softcap:
        capped = f.scaled(b, f.unary(b, "tanh", f.scaled(b, raw, 1 / how.softcap)), how.softcap)
    biased = f.add(b, capped, bias)
    weights = _guarded(c, b.emit("softmax", (biased,))[0], bias, how)
    return Attended(f.matmul(b, weights, v), raw, capped, biased, weights)


def _guarded(c: Call, y: Value, bias: Value | None, how: Scores) -> Value:
    """Rows that may see no key at all are zero, as the standard says; the softmax alone would give NaN."""
    if bias is None or not how.guard:
        return y
    b = c.b
    peak = b.emit("reduce_max", (bias,))[0]
    blind = f.binary(b, "eq", peak, b.scalar(-math.inf, bias.element))
    known = b.array(blind)
    if known is not None and not known.any():
        return y
    return f.select(b, blind, b.scalar(0, y.element), y)


@spelling("Attention", note="scores, weights, cache, grouped heads and soft cap included; opset 23 and later")
def attention(c: Call) -> tuple[Value | None, ...]:
    """The standard's attention, 3-D or 4-D operands."""
    b = c.b
    q, k, v, mask, past_k, past_v, lengths = c.x(0), c.x(1), c.x(2), c.opt(3), c.opt(4), c.opt(5), c.opt(6)
    flat = q.rank == 3
    if flat:
        q, k, v = (
            split_heads(b, x, c.int(n)) for x, n in ((q, "q_num_heads"), (k, "kv_num_heads"), (v, "kv_num_heads"))
        )
    if q.rank != 4:
        raise Impossible(f"attention of {q.type}")
    past = past_k.shape[2] if past_k is not None and past_k.rank == 4 else 0
    k, v = append(b, past_k, k), append(b, past_v, v)
    bias = _standard_bias(c, q, k.shape[2], mask, past, lengths)
    scale = c.float("scale", 0.0) or 1 / math.sqrt(q.shape[3])
    detail = c.wants(3)
    found = attend(c, q, k, v, bias, Scores(scale, c.float("softcap", 0.0)), detail=detail)
    y = merge_heads(b, found.y) if flat else found.y
    scores = (found.raw, found.capped, found.biased, found.weights)
    if not detail:
        return (y, k, v)
    mode = c.int("qk_matmul_output_mode", 0)
    if mode == 0 and c.version >= 24:
        return (y, k, v, found.capped)
    if not 0 <= mode <= 3:
        raise Impossible(f"qk_matmul_output_mode {mode}")
    return (y, k, v, scores[mode])


def _standard_bias(c: Call, q: Value, t: int, mask: Value | None, past: int, lengths: Value | None) -> Value | None:
    """What is added to the scores: mask, causality, the lengths of an external cache."""
    b, element, s = c.b, q.element, q.shape[2]
    bias: Value | None = None
    if mask is not None:
        bias = additive(b, mask, element)
        if bias.shape[-1] < t:
            bias = f.pad(b, bias, [0] * bias.rank, [0] * (bias.rank - 1) + [t - bias.shape[-1]], -math.inf)
    if lengths is not None:
        bias = f.add(b, _length_bias(c, lengths, s, t, element), bias)
    elif c.int("is_causal", 0):
        bias = f.add(b, causal_bias(b, s, t, past, element), bias)
    left, right = c.int("left_window_size", -1), c.int("right_window_size", -1)
    if left < 0 and right < 0:
        return bias
    if lengths is not None:
        return f.add(b, additive(b, _length_window(c, lengths, s, t, (left, right)), element), bias)
    room((s, t), 8)
    window = np.ones((s, t), np.bool_) if right < 0 else np.tri(s, t, past + right, dtype=np.bool_)
    if left >= 0:
        window &= ~np.tri(s, t, past - left - 1, dtype=np.bool_)
    return f.add(b, additive(b, b.constant(window), element), bias)


def _length_bias(c: Call, lengths: Value, s: int, t: int, element: Element) -> Value:
    """Masks keys beyond each sample's length and, if causal, beyond the row's own position counted from its end."""
    b = c.b
    count = f.reshape(b, f.cast(b, lengths, Element.I64), (lengths.type.size, 1, 1, 1))
    keys = b.constant(np.arange(t, dtype=np.int64))
    seen = f.binary(b, "lt", keys, count)
    if c.int("is_causal", 0):
        rows = b.constant(np.arange(s, dtype=np.int64).reshape(s, 1) - s)
        seen = f.binary(b, "and", seen, f.binary(b, "le", keys, f.binary(b, "add", count, rows)))
    return additive(b, seen, element)


def _length_window(c: Call, lengths: Value, s: int, t: int, sides: tuple[int, int]) -> Value:
    """Whether key j is within the window of row i, which stands ``length - s`` from the start of its sample's cache
    (b × 1 × s × t); a side of less than 0 has no bound."""
    b, (left, right) = c.b, sides
    room((lengths.type.size, s, t), 8)
    count = f.reshape(b, f.cast(b, lengths, Element.I64), (lengths.type.size, 1, 1, 1))
    ahead = b.constant(np.arange(t, dtype=np.int64) - np.arange(s, dtype=np.int64).reshape(s, 1) + s)
    seen: Value | None = None
    if right >= 0:
        seen = f.binary(b, "le", ahead, f.shifted(b, count, right))
    if left >= 0:
        near = f.binary(b, "ge", ahead, f.shifted(b, count, -left))
        seen = near if seen is None else f.binary(b, "and", seen, near)
    assert seen is not None
    return seen


@spelling("RotaryEmbedding", note="opset 23 and later")
def rotary_embedding(c: Call) -> Value:
    """The standard's rotary embedding, 3-D or 4-D operand."""
    x, cos, sin, positions = c.x(0), c.x(1), c.x(2), c.opt(3)
    heads = split_heads(c.b, x, c.int("num_heads")) if x.rank == 3 else x
    cos, sin = (rotary_rows(c, v, positions) for v in (cos, sin))
    y = rotate(c, heads, cos, sin, c.int("rotary_embedding_dim", 0), interleaved=bool(c.int("interleaved", 0)))
    return merge_heads(c.b, y) if x.rank == 3 else y


def rotary_rows(c: Call, table: Value, positions: Value | None) -> Value:
    """Rows of a cache (positions × d/2) as (b × 1 × s × d/2); already (b × s × d/2) where there are no positions."""
    if positions is not None:
        from cimc.frontend.index import gather_rows

        table = gather_rows(c, table, 0, positions)
    if table.rank != 3:
        raise Impossible(f"rotary cache of {table.type}")
    return f.unsqueeze(c.b, table, 1)


def rotate(c: Call, x: Value, cos: Value, sin: Value, size: int, *, interleaved: bool) -> Value:
    """Pairs of elements of x (b × h × s × d) turned by the angles; elements from ``size`` on stay (0: none stay)."""
    b = c.b
    if x.rank != 4:
        raise Impossible(f"rotary embedding of {x.type}")
    d = x.shape[3]
    size = size or d
    half = size // 2
    if size > d or size % 2 or cos.shape[-1] != half:
        raise Impossible(f"rotary embedding of {size} of {d} elements with a cache of {cos.shape[-1]}")
    step, start = (2, 1) if interleaved else (1, half)
    one, two = f.part(b, x, 3, 0, half, step), f.part(b, x, 3, start, half, step)
    real = f.binary(b, "sub", f.mul(b, cos, one), f.mul(b, sin, two))
    imaginary = f.add(b, f.mul(b, sin, one), f.mul(b, cos, two))
    if interleaved:
        pairs = f.concat(b, (f.unsqueeze(b, real, -1), f.unsqueeze(b, imaginary, -1)), 4)
        turned = f.reshape(b, pairs, (*x.shape[:3], size))
    else:
        turned = f.concat(b, (real, imaginary), 3)
    return turned if size == d else f.concat(b, (turned, f.part(b, x, 3, size, d - size)), 3)
