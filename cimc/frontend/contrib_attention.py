"""Spellings of onnxruntime's attention nodes (domain com.microsoft)."""

from __future__ import annotations

import math

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.attention import Scores, append, attend, merge_heads, rotary_rows, rotate, split_heads
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib import MS
from cimc.isa.operands import Element


def _lowest(element: Element) -> float:
    """onnxruntime masks the future with the lowest finite number: rows that see nothing become uniform, not NaN."""
    return {Element.F16: -65504.0, Element.F64: -np.finfo(np.float64).max}.get(
        element, float(-np.finfo(np.float32).max)
    )


def _future(b: Builder, s: int, t: int, element: Element) -> Value:
    seen = np.tri(s, t, t - s, dtype=np.bool_)
    return b.constant(np.where(seen, 0.0, _lowest(element)).astype(element.dtype(exact=True)))


def _mask_bias(c: Call, mask: Value | None, shape: tuple[int, int, int], element: Element) -> Value | None:
    """onnxruntime's mask forms as a term of the scores, batch × 1 × (1 or s) × t: lengths per sample (b), keys to see
    (b × t), pairs to see (b × s × t)."""
    if mask is None:
        return None
    b, (n, s, t) = c.b, shape
    if mask.shape == (n,):
        count = f.reshape(b, f.cast(b, mask, Element.I64), (n, 1))
        mask = f.binary(b, "lt", b.constant(np.arange(t, dtype=np.int64)), count)
    elif mask.element != Element.B8 and mask.shape in ((n, t), (n, s, t)):
        mask = f.binary(b, "gt", mask, b.scalar(0, mask.element))
    if mask.shape not in ((n, t), (n, s, t)):
        raise Unsupported(f"a mask of shape {list(mask.shape)}")
    filtered = c.float("mask_filter_value", -10000.0)
    bias = f.select(b, mask, b.scalar(0, element), b.scalar(filtered, element))
    return f.reshape(b, bias, (n, 1, 1, t) if mask.rank == 2 else (n, 1, s, t))


def _biases(c: Call, q: Value, t: int, mask: Value | None, term: Value | None) -> Value | None:
    n, _, s, _ = q.shape
    bias = _mask_bias(c, mask, (n, s, t), q.element)
    bias = term if bias is None else f.add(c.b, bias, term)
    if c.int("unidirectional", 0):
        bias = f.add(c.b, _future(c.b, s, t, q.element), bias)
    return bias


def _scale(c: Call, q: Value) -> float:
    return c.float("scale", 0.0) or 1 / math.sqrt(q.shape[3])


@spelling("Attention", domain=MS, note="without shared cache buffers; masks of lengths, keys or pairs")
def attention(c: Call) -> tuple[Value | None, ...]:
    """Projection, attention and cache in one node."""
    b, x, weights, bias, past = c.b, c.x(0), c.x(1), c.opt(2), c.opt(4)
    if c.int("do_rotary", 0) or c.int("past_present_share_buffer", 0):
        raise Unsupported("do_rotary and shared cache buffers")
    heads = c.int("num_heads")
    sizes = c.ints("qkv_hidden_sizes") or (weights.shape[-1] // 3,) * 3
    if weights.rank != 2 or x.rank != 3 or len(sizes) != 3 or sum(sizes) != weights.shape[1]:
        raise Impossible(f"attention of {x.type} with weights {weights.type}")
    starts = (0, sizes[0], sizes[0] + sizes[1])
    # One product per projection: each then sits in crossbars of its own, as in a graph that was never fused.
    parts = [f.matmul(b, x, f.part(b, weights, 1, a, n)) for a, n in zip(starts, sizes, strict=True)]
    if bias is not None:
        parts = [f.add(b, p, f.part(b, bias, 0, a, n)) for p, a, n in zip(parts, starts, sizes, strict=True)]
    q, k, v = (split_heads(b, p, heads) for p in parts)
    if past is not None:
        old = [f.squeeze(b, f.part(b, past, 0, i, 1), (0,)) for i in (0, 1)]
        k, v = append(b, old[0], k), append(b, old[1], v)
    term = _biases(c, q, k.shape[2], c.opt(3), c.opt(5))
    y = merge_heads(b, attend(c, q, k, v, term, Scores(_scale(c, q), guard=False)).y)
    if not c.wants(1):
        return (y,)
    return (y, f.concat(b, [f.unsqueeze(b, p, 0) for p in (k, v)], 0))


@spelling("MultiHeadAttention", domain=MS, note="without shared cache buffers and cache indirection")
def multi_head_attention(c: Call) -> tuple[Value | None, ...]:
    """Attention of projected operands, with cache."""
    b, heads = c.b, c.int("num_heads")
    if c.opt(8) is not None or c.opt(9) is not None:
        raise Unsupported("shared cache buffers and cache indirection")
    q, k, v = _projected(c, heads)
    past_k, past_v = c.opt(6), c.opt(7)
    k, v = append(b, past_k, k), append(b, past_v, v)
    term = _biases(c, q, k.shape[2], c.opt(4), c.opt(5))
    found = attend(c, q, k, v, term, Scores(_scale(c, q), guard=False), detail=c.wants(3))
    return (merge_heads(b, found.y), k, v, found.biased) if c.wants(3) else (merge_heads(b, found.y), k, v)


def _projected(c: Call, heads: int) -> tuple[Value, Value, Value]:
    """Query, key and value as (b × h × s × d), out of the node's packed and unpacked forms, bias added."""
    b, q, k, v, bias = c.b, c.x(0), c.opt(1), c.opt(2), c.opt(3)
    parts: list[Value]
    if q.rank == 5:
        parts = [f.squeeze(b, f.part(b, q, 3, i, 1), (3,)) for i in range(3)]
    elif k is not None and k.rank == 5:
        parts = [q, *(f.squeeze(b, f.part(b, k, 3, i, 1), (3,)) for i in range(2))]
    elif k is not None and v is not None:
        parts = [q, k, v]
    else:
        raise Impossible("key and value are missing")
    if bias is not None:
        parts = _with_bias(b, parts, bias)
    q, k, v = (_heads_first(b, p, heads, old=i > 0) for i, p in enumerate(parts))
    return q, k, v


def _with_bias(b: Builder, parts: list[Value], bias: Value) -> list[Value]:
    at, done = 0, list[Value]()
    for p in parts:
        n = p.shape[2] if p.rank == 3 else p.shape[2] * p.shape[3]
        piece = f.part(b, bias, 0, at, n)
        done.append(f.add(b, p, piece if p.rank == 3 else f.reshape(b, piece, p.shape[2:])))
        at += n
    return done


def _heads_first(b: Builder, x: Value, heads: int, *, old: bool) -> Value:
    if x.rank == 3:
        return split_heads(b, x, heads)
    # 4-D keys and values are a cache, heads first already; unpacked ones have the heads third.
    if old and x.shape[1] == heads and x.shape[2] != heads:
        return x
    return f.transpose(b, x, (0, 2, 1, 3))


@spelling("GroupQueryAttention", domain=MS, note="every sample of a batch uses its whole cache (said in a note)")
def group_query_attention(c: Call) -> tuple[Value | None, ...]:
    """Causal attention of grouped heads with cache and rotary embedding."""
    b, heads, groups = c.b, c.int("num_heads"), c.int("kv_num_heads")
    past_k, past_v = c.opt(3), c.opt(4)
    _refuse_variants(c)
    q, k, v = _grouped(c, heads, groups)
    s = q.shape[2]
    past = past_k.shape[2] if past_k is not None else 0
    if c.int("do_rotary", 0):
        q, k = (_rotated(c, x, past, s) for x in (q, k))
    k, v = append(b, past_k, k), append(b, past_v, v)
    t = k.shape[2]
    bias = _window(b, s, t, c.int("local_window_size", -1), q.element)
    bias = f.add(b, bias, c.opt(10))
    c.note("GroupQueryAttention: every sample is taken to fill its cache, seqlens_k = past + new tokens - 1")
    y = attend(c, q, k, v, bias, Scores(_scale(c, q), c.float("softcap", 0.0), guard=False)).y
    return (merge_heads(b, y), k, v)


def _refuse_variants(c: Call) -> None:
    if any(c.opt(i) is not None for i in range(11, 17)) or c.int("smooth_softmax", 0) == 1 or c.wants(3):
        raise Unsupported("attention sinks, quantised caches, normed heads, score outputs")
    if not c.int("causal", 1):
        raise Unsupported("attention that is not causal")


def _grouped(c: Call, heads: int, groups: int) -> tuple[Value, Value, Value]:
    b, q, k, v = c.b, c.x(0), c.opt(1), c.opt(2)
    if k is None or v is None:
        if q.rank != 3 or q.shape[2] % (heads + 2 * groups):
            raise Impossible(f"packed operands {q.type} for {heads} + 2 × {groups} heads")
        d = q.shape[2] // (heads + 2 * groups)
        at = (0, heads * d, (heads + groups) * d)
        q, k, v = (f.part(b, q, 2, a, n * d) for a, n in zip(at, (heads, groups, groups), strict=True))
    return split_heads(b, q, heads), split_heads(b, k, groups), split_heads(b, v, groups)


def _rotated(c: Call, x: Value, past: int, s: int) -> Value:
    cos, sin, positions = c.x(7), c.x(8), c.opt(9)
    at = positions if positions is not None else c.b.constant(np.arange(past, past + s, dtype=np.int64).reshape(1, s))
    tables = [rotary_rows(c, v, at) for v in (cos, sin)]
    return rotate(c, x, tables[0], tables[1], 2 * cos.shape[-1], interleaved=bool(c.int("rotary_interleaved", 0)))


def _window(b: Builder, s: int, t: int, window: int, element: Element) -> Value:
    seen = np.tri(s, t, t - s, dtype=np.bool_)
    if window > 0:
        seen &= ~np.tri(s, t, t - s - window, dtype=np.bool_)
    return b.constant(np.where(seen, 0.0, _lowest(element)).astype(element.dtype(exact=True)))


@spelling("RotaryEmbedding", domain=MS)
def rotary_embedding(c: Call) -> Value:
    """Operand (b × s × h·d) or (b × h × s × d); positions (b × s), or one offset for all."""
    b, x, positions = c.b, c.x(0), c.x(1)
    cos, sin = c.x(2), c.x(3)
    if c.float("scale", 1.0) != 1.0 or c.int("is_packed_batching", 0):
        raise Unsupported("scale and packed batching")
    size = c.int("rotary_embedding_dim", 0)
    s = x.shape[1] if x.rank == 3 else x.shape[2]
    heads = c.int("num_heads", 0) or (x.shape[2] // (2 * cos.shape[-1]) if x.rank == 3 else x.shape[1])
    if positions.shape in ((1,), ()):
        steps = b.constant(np.arange(s, dtype=np.int64).reshape(1, s))
        positions = f.binary(b, "add", steps, f.cast(b, f.reshape(b, positions, (1, 1)), Element.I64))
    flat = x.rank == 3
    y = split_heads(b, x, heads) if flat else x
    tables = [rotary_rows(c, v, positions) for v in (cos, sin)]
    y = rotate(c, y, tables[0], tables[1], size, interleaved=bool(c.int("interleaved", 0)))
    return merge_heads(b, y) if flat else y
