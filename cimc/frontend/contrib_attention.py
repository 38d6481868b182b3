"""Spellings of onnxruntime's attention nodes (domain com.microsoft)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.attention import Scores, append, attend, merge_heads, rotary_rows, rotate, split_heads
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value, room
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib import MS
from cimc.frontend.contrib_cache import lowest_of, placed, put
from cimc.isa.operands import Element


def _future(b: Builder, s: int, t: int, before: int, element: Element) -> Value:
    room((s, t), 8)
    seen = np.tri(s, t, before, dtype=np.bool_)
    return b.constant(np.where(seen, 0.0, lowest_of(element)).astype(element.dtype(exact=True)))


def _mask_bias(c: Call, mask: Value | None, shape: tuple[int, int, int], element: Element) -> Value | None:
    """onnxruntime's mask forms as a term of the scores, batch × 1 × (1 or s) × t."""
    if mask is None:
        return None
    b, (n, s, t) = c.b, shape
    seen = _from_ends(b, mask, n, t) if mask.rank == 1 else _from_marks(b, mask, shape)
    filtered = c.float("mask_filter_value", -10000.0)
    bias = f.select(b, seen, b.scalar(0, element), b.scalar(filtered, element))
    return f.reshape(b, bias, (bias.shape[0], 1, 1, t) if bias.rank == 2 else (bias.shape[0], 1, s, t))


def _from_ends(b: Builder, mask: Value, n: int, t: int) -> Value:
    """Keys seen (b × t) by the number of keys per sample (b), with the first key of each after them (2b), or with
    cumulated lengths after them, which say nothing more (3b + 2)."""
    if mask.shape[0] not in (n, 2 * n, 3 * n + 2):
        raise Unsupported(f"a mask of shape {list(mask.shape)} for {n} samples")
    keys = b.constant(np.arange(t, dtype=np.int64))
    ends = f.reshape(b, f.cast(b, f.part(b, mask, 0, 0, n), Element.I64), (n, 1))
    seen = f.binary(b, "lt", keys, ends)
    if mask.shape[0] != 2 * n:
        return seen
    starts = f.reshape(b, f.cast(b, f.part(b, mask, 0, n, n), Element.I64), (n, 1))
    return f.binary(b, "and", seen, f.binary(b, "ge", keys, starts))


def _from_marks(b: Builder, mask: Value, shape: tuple[int, int, int]) -> Value:
    """Marks, positive where seen: keys (b × t), pairs (b × s × t), or pairs of a longest sequence (b × 1 × m × m)."""
    n, s, t = shape
    if mask.rank == 4 and mask.shape[1] == 1 and mask.shape[2] >= t and mask.shape[3] >= t:
        mask = f.part(b, f.part(b, f.squeeze(b, mask, (1,)), 1, t - s, s), 2, 0, t)
    if mask.shape not in ((n, t), (1, t), (n, s, t), (1, s, t)):
        raise Unsupported(f"a mask of shape {list(mask.shape)}")
    return mask if mask.element is Element.B8 else f.binary(b, "gt", mask, b.scalar(0, mask.element))


def _biases(
    c: Call, q: Value, t: int, mask: Value | None, term: Value | None, before: int | None = None
) -> Value | None:
    """What is added to the scores of q with t keys. ``before``: keys of the past, which every query sees; None: all that are
    more than queries."""
    n, _, s, _ = q.shape
    bias = _mask_bias(c, mask, (n, s, t), q.element)
    bias = term if bias is None else f.add(c.b, bias, term)
    if c.int("unidirectional", 0) and s > 1:  # a lone query sees all keys, also without a past
        bias = f.add(c.b, _future(c.b, s, t, t - s if before is None else before, q.element), bias)
    return bias


def _scale(c: Call, q: Value) -> float:
    return c.float("scale", 0.0) or 1 / math.sqrt(q.shape[3])


@spelling("Attention", domain=MS, note="without shared cache buffers; masks of lengths, keys or pairs")
def attention(c: Call) -> tuple[Value | None, ...]:
    """Projection, attention and cache in one node."""
    b, x, weights, bias, past = c.b, c.x(0), c.x(1), c.opt(2), c.opt(4)
    if c.int("do_rotary", 0) or c.int("past_present_share_buffer", 0):
        raise Unsupported("do_rotary and shared cache buffers")
    sizes = c.ints("qkv_hidden_sizes") or (weights.shape[-1] // 3,) * 3
    if weights.rank != 2 or x.rank != 3 or len(sizes) != 3 or sum(sizes) != weights.shape[1]:
        raise Impossible(f"attention of {x.type} with weights {weights.type}")
    starts = (0, sizes[0], sizes[0] + sizes[1])
    # One product per projection: each then sits in crossbars of its own, as in a graph that was never fused.
    parts = [f.matmul(b, x, f.part(b, weights, 1, a, n)) for a, n in zip(starts, sizes, strict=True)]
    if bias is not None:
        parts = [f.add(b, p, f.part(b, bias, 0, a, n)) for p, a, n in zip(parts, starts, sizes, strict=True)]
    return attended(c, parts, c.opt(3), past, c.opt(5))


def attended(
    c: Call, parts: Sequence[Value], mask: Value | None, past: Value | None, term: Value | None
) -> tuple[Value | None, ...]:
    """Output and cache (2 × b × h × t × d) of projected queries, keys and values (b × s × h·d)."""
    b, heads = c.b, c.int("num_heads")
    q, k, v = (split_heads(b, p, heads) for p in parts)
    if past is not None:
        old = [f.squeeze(b, f.part(b, past, 0, i, 1), (0,)) for i in (0, 1)]
        k, v = append(b, old[0], k), append(b, old[1], v)
    term = _biases(c, q, k.shape[2], mask, term)
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
    q, k, v = _projected(c, [c.x(0), c.opt(1), c.opt(2)], c.opt(3), heads)
    past_k, past_v = c.opt(6), c.opt(7)
    k, v = append(b, past_k, k), append(b, past_v, v)
    term = _biases(c, q, k.shape[2], c.opt(4), c.opt(5), 0 if past_k is None else past_k.shape[2])
    found = attend(c, q, k, v, term, Scores(_scale(c, q), guard=False), detail=c.wants(3))
    return (merge_heads(b, found.y), k, v, found.biased) if c.wants(3) else (merge_heads(b, found.y), k, v)


def _projected(c: Call, operands: Sequence[Value | None], bias: Value | None, heads: int) -> tuple[Value, Value, Value]:
    """Query, key and value as (b × h × s × d), out of the node's packed and unpacked forms, bias added."""
    b, parts = c.b, list[Value]()
    q, k, v = operands
    if q is None:
        raise Impossible("the query is missing")
    if q.rank == 5:
        parts = [f.squeeze(b, f.part(b, q, 3, i, 1), (3,)) for i in range(3)]
    elif k is not None and k.rank == 5:
        parts = [q, *(f.squeeze(b, f.part(b, k, 3, i, 1), (3,)) for i in range(2))]
    elif k is not None and v is not None:
        parts = [q, k, v]
    else:
        raise Impossible("key and value are missing")
    # Keys and values with heads of their own, and not unpacked, are a cache (b × h × s × d) that has its bias.
    kept = len(parts) > 1 and parts[1] is k and k is not None and k.rank == 4
    if bias is not None:
        parts = _with_bias(b, parts, bias, 1 if kept else 3)
    found = [p if kept and i else _heads_first(b, p, heads) for i, p in enumerate(parts)]
    return found[0], found[1], found[2]


def _with_bias(b: Builder, parts: list[Value], bias: Value, count: int) -> list[Value]:
    """The first ``count`` parts with the bias (one vector for all three) added."""
    at, done = 0, list[Value]()
    for p in parts[:count]:
        n = p.shape[2] if p.rank == 3 else p.shape[2] * p.shape[3]
        piece = f.part(b, bias, 0, at, n)
        done.append(f.add(b, p, piece if p.rank == 3 else f.reshape(b, piece, p.shape[2:])))
        at += n
    return [*done, *parts[count:]]


def _heads_first(b: Builder, x: Value, heads: int) -> Value:
    return split_heads(b, x, heads) if x.rank == 3 else f.transpose(b, x, (0, 2, 1, 3))


@spelling("DecoderMaskedMultiHeadAttention", domain=MS, note="without beams (cache indirection) and score outputs")
def decoder_masked_multi_head_attention(c: Call) -> tuple[Value | None, ...]:
    """One new token per sample, after those in the cache: a buffer of its final length with the number of tokens so
    far, or a cache that grows."""
    b, heads, bias = c.b, c.int("num_heads"), c.opt(10)
    if c.opt(9) is not None or c.wants(3):
        raise Unsupported("beams and score outputs")
    parts = [c.x(0), c.opt(1), c.opt(2)]
    q, k, v = (p for p in _projected(c, parts, bias, heads))
    past_k, past_v, so_far = c.opt(5), c.opt(6), c.opt(7)
    if past_k is None or past_v is None or not c.int("past_present_share_buffer", 0):
        k, v = append(b, past_k, k), append(b, past_v, v)
        return _decoded(c, q, (k, v), (k, v), None)
    if so_far is None or so_far.type.size != 1:
        raise Impossible("a shared buffer without the number of tokens so far")
    known = b.array(so_far)
    if known is None:
        start = f.reshape(b, f.cast(b, so_far, Element.I64), (1, 1, 1, 1))
        new = [placed(b, past, x, start) for past, x in ((past_k, k), (past_v, v))]
        seen = f.binary(b, "le", b.constant(np.arange(past_k.shape[2], dtype=np.int64)), start)
        lowest = f.select(b, seen, b.scalar(0, q.element), b.scalar(lowest_of(q.element), q.element))
        return _decoded(c, q, (new[0], new[1]), (new[0], new[1]), lowest)
    at = int(known.reshape(-1)[0])
    new = [put(b, past, x, at, past.shape[2]) for past, x in ((past_k, k), (past_v, v))]
    used = [f.part(b, x, 2, 0, at + q.shape[2]) for x in new]
    return _decoded(c, q, (used[0], used[1]), (new[0], new[1]), None)


def _decoded(
    c: Call, q: Value, used: tuple[Value, Value], cache: tuple[Value, Value], hidden: Value | None
) -> tuple[Value | None, ...]:
    bias = _biases(c, q, used[0].shape[2], c.opt(3), c.opt(4))
    bias = hidden if bias is None else f.add(c.b, bias, hidden)
    y = attend(c, q, *used, bias, Scores(_scale(c, q), guard=False)).y
    return (merge_heads(c.b, y), *cache)


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
