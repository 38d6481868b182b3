"""Spelling of onnxruntime's GroupQueryAttention: grouped heads, a cache, rotary embedding, sliding windows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.attention import Scores, attend, merge_heads, rotary_rows, rotate, split_heads
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib import MS
from cimc.frontend.contrib_cache import lowest_of, placed, put
from cimc.frontend.norm import normalized
from cimc.isa.operands import Element


@dataclass(frozen=True)
class Tokens:
    """Which tokens a call sees: ``new`` ones from position ``start`` on (the same for all samples, or one per sample,
    b × 1 × 1 × 1), ``total`` at most, in a cache that is ``length`` long afterwards."""

    new: int
    total: int
    length: int
    start: int | Value


@spelling("GroupQueryAttention", domain=MS, note="without quantised caches and score outputs")
def group_query_attention(c: Call) -> tuple[Value | None, ...]:
    """Attention of grouped heads over a cache and the new tokens, which go after each sample's own."""
    b, heads, groups = c.b, c.int("num_heads"), c.int("kv_num_heads")
    if any(c.opt(i) is not None for i in (12, 13, 16)) or c.wants(3) or c.int("sliding_window_cache", 0):
        raise Unsupported("quantised or evicting caches, query lengths, score outputs")
    q, k, v = _operands(c, heads, groups)
    q, k = _normed(c, q, 14, "q_norm_epsilon"), _normed(c, k, 15, "k_norm_epsilon")
    tokens = _tokens(c, q, c.opt(3))
    if c.int("do_rotary", 0):
        q, k = (_rotated(c, x, tokens) for x in (q, k))
    k, v = (_cached(b, past, x, tokens) for past, x in ((c.opt(3), k), (c.opt(4), v)))
    used = [f.part(b, x, 2, 0, tokens.total) for x in (k, v)]
    bias = f.add(b, _seen(c, tokens, q.element), c.opt(10))
    how = Scores(c.float("scale", 0.0) or 1 / math.sqrt(q.shape[3]), c.float("softcap", 0.0), guard=False)
    sink = c.opt(11)
    if sink is None and c.int("smooth_softmax", 0) == 1:
        sink = b.constant(np.zeros(heads, q.dtype))
    y = _with_sink(b, q, used, bias, how, sink) if sink is not None else attend(c, q, used[0], used[1], bias, how).y
    return (merge_heads(b, y), k, v)


def _operands(c: Call, heads: int, groups: int) -> tuple[Value, Value, Value]:
    """Query, key and value (b × h × s × d), packed or not."""
    b, q, k, v = c.b, c.x(0), c.opt(1), c.opt(2)
    if k is None or v is None:
        if q.rank != 3 or q.shape[2] % (heads + 2 * groups):
            raise Impossible(f"packed operands {q.type} for {heads} + 2 × {groups} heads")
        d = q.shape[2] // (heads + 2 * groups)
        at = (0, heads * d, (heads + groups) * d)
        q, k, v = (f.part(b, q, 2, a, n * d) for a, n in zip(at, (heads, groups, groups), strict=True))
    return split_heads(b, q, heads), split_heads(b, k, groups), split_heads(b, v, groups)


def _normed(c: Call, x: Value, index: int, epsilon: str) -> Value:
    """Heads normalised by their root mean square, with gain, if the node has one."""
    gain = c.opt(index)
    if gain is None:
        return x
    wanted = c.float(epsilon, 0.0) or c.float("qk_norm_epsilon", 1e-6)
    return f.mul(c.b, normalized(c.b, "rms_norm", x, wanted, 1), gain)


def _tokens(c: Call, q: Value, past: Value | None) -> Tokens:
    """Where the new tokens go. ``total_sequence_length`` is the longest sample's; a lone sample is the longest."""
    b, n, new = c.b, q.shape[0], q.shape[2]
    size = 0 if past is None else past.shape[2]
    known = b.array(c.x(6))
    total = size + new if known is None else int(known.reshape(-1)[0])
    if known is None:
        c.note("GroupQueryAttention: total_sequence_length is taken to be the cache's length and the new tokens")
    if not new <= total <= max(size, size + new):
        raise Impossible(f"{total} tokens in all, {new} of them new, with a cache of {size}")
    length = max(size, total)
    if total == new:
        return Tokens(new, total, length, 0)
    counts = b.array(c.x(5))
    if counts is not None and np.all(counts == counts.reshape(-1)[0]):
        return Tokens(new, total, length, int(counts.reshape(-1)[0]) + 1 - new)
    if n == 1:
        return Tokens(new, total, length, total - new)
    last = f.reshape(b, f.cast(b, c.x(5), Element.I64), (n, 1, 1, 1))
    return Tokens(new, total, length, f.shifted(b, last, 1 - new))


def _cached(b: Builder, past: Value | None, new: Value, tokens: Tokens) -> Value:
    """The cache with the new tokens; zeros behind them, as onnxruntime leaves a buffer that is longer than its tokens."""
    if isinstance(tokens.start, int):
        end = tokens.start + tokens.new
        before = None if past is None else f.part(b, past, 2, 0, tokens.start)
        return f.pad(b, put(b, before, new, tokens.start, end), (0,) * 4, (0, 0, tokens.length - end, 0))
    assert past is not None
    wide = placed(b, past, new, tokens.start, tokens.length)
    places = b.constant(np.arange(tokens.length, dtype=np.int64).reshape(-1, 1))
    return f.select(b, f.binary(b, "le", places, tokens.start), wide, b.scalar(0, wide.element))


def _positions(b: Builder, tokens: Tokens) -> Value:
    """The new tokens' positions, (1 or b) × 1 × s × 1."""
    steps = np.arange(tokens.new, dtype=np.int64).reshape(1, 1, tokens.new, 1)
    if isinstance(tokens.start, int):
        return b.constant(steps + tokens.start)
    return f.binary(b, "add", tokens.start, b.constant(steps))


def _rotated(c: Call, x: Value, tokens: Tokens) -> Value:
    b, cos, sin, given = c.b, c.x(7), c.x(8), c.opt(9)
    at = _positions(b, tokens)
    places = f.reshape(b, at, (at.shape[0], tokens.new)) if given is None else given
    tables = [rotary_rows(c, v, places) for v in (cos, sin)]
    return rotate(c, x, tables[0], tables[1], 2 * cos.shape[-1], interleaved=bool(c.int("rotary_interleaved", 0)))


def _seen(c: Call, tokens: Tokens, element: Element) -> Value:
    """A term of the scores that hides the future, what lies before the window, and what the cache does not hold yet."""
    b, window = c.b, c.int("local_window_size", -1)
    keys = b.constant(np.arange(tokens.total, dtype=np.int64))
    last = _positions(b, tokens)
    if not c.int("causal", 1):
        last = f.part(b, last, 2, tokens.new - 1, 1)
    seen = f.binary(b, "le", keys, last)
    if window > 0:
        seen = f.binary(b, "and", seen, f.binary(b, "gt", keys, f.shifted(b, last, -window)))
    return f.select(b, seen, b.scalar(0, element), b.scalar(lowest_of(element), element))


def _with_sink(b: Builder, q: Value, used: list[Value], bias: Value, how: Scores, sink: Value) -> Value:
    """Attention whose softmax has one more score per head, which takes weight away and adds nothing."""
    n, h, s, d = q.shape
    g, t = used[0].shape[1], used[0].shape[2]
    keys, values = f.unsqueeze(b, f.swap(b, used[0], 2, 3), 2), f.unsqueeze(b, used[1], 2)
    scores = f.matmul(b, f.reshape(b, q, (n, g, h // g, s, d)), keys, how.scale)
    if how.softcap:
        scores = f.scaled(b, f.unary(b, "tanh", f.scaled(b, scores, 1 / how.softcap)), how.softcap)
    scores = f.add(b, f.reshape(b, scores, (n, h, s, t)), bias)
    extra = f.expand(b, f.reshape(b, f.cast(b, sink, scores.element), (1, h, 1, 1)), (n, h, s, 1))
    weights = f.part(b, f.unary(b, "softmax", f.concat(b, (scores, extra), 3)), 3, 0, t)
    y = f.matmul(b, f.reshape(b, weights, (n, g, h // g, s, t)), values)
    return f.reshape(b, y, (n, h, s, y.shape[-1]))
