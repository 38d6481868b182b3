"""Spellings of onnxruntime's mixtures of experts: every expert is computed, the routing weights of those not chosen are
0. Which experts a token takes is known only at run time; cells hold all of them in any case."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, spelling
from cimc.frontend.contrib_blocks import BITS, Blocks, block_matrix, known, unpacked
from cimc.frontend.quant import MS, deferred
from cimc.isa.operands import Element

Matrix = Callable[[int, int], Value]
"""Weights (outputs × inputs) of layer 0 (up) or 1 (down) or 2 (the other half of a gated one) of an expert."""


@spelling("MoE", domain=MS, note="every expert computed; relu, gelu, silu, identity, swiglu")
def mixture(c: Call) -> Value:
    """Float experts."""
    at, biases = (2, 4, 6), (3, 5, 7)

    def matrix(expert: int, layer: int) -> Value:
        return _slice(c.b, c.x(at[layer]), expert)

    share = _shares(c, c.x(1), normalized=bool(c.int("normalize_routing_weights", 0)))
    return _mixed(c, matrix, biases, share, gated=c.opt(6) is not None)


@spelling(
    "QMoE",
    domain=MS,
    note="integer experts known, per channel or by blocks; every expert computed; routing as on a CPU",
)
def quantised_mixture(c: Call) -> Value:
    """Experts of 2, 4 or 8-bit integers. onnxruntime's kernel (of CPUs) normalises the shares of the chosen experts whatever
    the node says, unless they are an input of their own. It rounds activations, too, where experts are of 8 bits in blocks; that
    is not done here, nor by ``check`` (:mod:`cimc.frontend.reference_experts`)."""
    if c.text("quant_type", "int") != "int" or any(c.opt(i) is not None for i in range(15, 21)):
        raise Unsupported("weights that are no integers")
    if c.int("weights_prepacked", 0) == 1:
        raise Unsupported("weights in the order of some accelerator")
    at, scales, zeros, biases = (2, 5, 8), (3, 6, 9), (11, 12, 13), (4, 7, 10)

    def matrix(expert: int, layer: int) -> Value:
        packed, scale, zero = known(c, at[layer], "the weights"), c.x(scales[layer]), c.opt(zeros[layer])
        bits = c.int(f"fc{(1, 2, 3)[layer]}_expert_weight_bits", 0) or c.int("expert_weight_bits", 4)
        if bits not in BITS or packed.rank != 3:
            raise Impossible(f"experts {packed.type} of {bits} bits")
        columns = packed.shape[2] * 8 // bits
        how = Blocks(packed.shape[1], columns, bits, c.int("block_size", 0) or columns)
        zero = None if zero is None else _slice(c.b, zero, expert)
        if zero is not None and zero.rank == 1:
            # One per row, and the rows are packed.
            zero = f.cast(c.b, unpacked(c.b, zero, bits), Element.F32)
        return block_matrix(c.b, _slice(c.b, packed, expert), _slice(c.b, scale, expert), zero, how)

    own, logits = c.opt(14), c.x(1)
    share = _own_shares(c, logits, own) if own is not None else _shares(c, logits, normalized=True)
    return _mixed(c, matrix, biases, share, gated=c.opt(8) is not None)


def _slice(b: Builder, x: Value, expert: int) -> Value:
    if not x.rank or expert >= x.shape[0]:
        raise Impossible(f"expert {expert} of {x.type}")
    return f.reshape(b, f.part(b, x, 0, expert, 1), x.shape[1:])


def _mixed(c: Call, matrix: Matrix, biases: tuple[int, int, int], share: Value, *, gated: bool) -> Value:
    """The sum of all experts' results, each times the token's weight of it."""
    b, x, logits = c.b, c.x(0), c.x(1)
    if logits.rank != 2 or not x.rank or x.type.size // max(x.shape[-1], 1) != logits.shape[0]:
        raise Impossible(f"routing {logits.type} of {x.type}")
    rows = f.reshape(b, x, (logits.shape[0], x.shape[-1]))
    total: Value | None = None
    for expert in range(logits.shape[1]):
        y = _expert(c, rows, expert, matrix, biases, gated)
        total = f.add(b, f.mul(b, y, f.part(b, share, 1, expert, 1)), total)
    if total is None:
        raise Impossible("no experts")
    return f.reshape(b, total, x.shape)


def _shares(c: Call, logits: Value, *, normalized: bool) -> Value:
    """Tokens × experts: softmax of the scores where among the ``k`` largest, 0 elsewhere; over these only if routing
    weights are normalised."""
    b, chosen = c.b, _chosen(c, logits)
    if normalized:
        return f.unary(b, "softmax", f.select(b, chosen, logits, b.scalar(-np.inf, logits.element)))
    return f.select(b, chosen, f.unary(b, "softmax", logits), b.scalar(0, logits.element))


def _own_shares(c: Call, logits: Value, own: Value) -> Value:
    """The same from shares that the model computes itself."""
    b = c.b
    if own.shape != logits.shape:
        raise Impossible(f"routing weights {own.type} for scores {logits.type}")
    kept = f.select(b, _chosen(c, logits), own, b.scalar(0, own.element))
    if not c.int("normalize_routing_weights", 0):
        return kept
    return f.binary(b, "div", kept, f.reduce(b, "reduce_sum", kept, (1,), keep=True))


def _chosen(c: Call, logits: Value) -> Value:
    """Tokens × experts: whether the score is among the token's ``k`` largest."""
    b, k = c.b, c.int("k", 1)
    if logits.rank != 2:
        raise Impossible(f"routing {logits.type}")
    if c.int("use_sparse_mixer", 0):
        raise Unsupported("the sparse mixer")
    if not 1 <= k <= logits.shape[1]:
        raise Impossible(f"{k} of {logits.shape[1]} experts")
    numbers = b.constant(np.arange(logits.shape[1], dtype=np.int64))
    low, work = b.scalar(-np.inf, logits.element), logits
    chosen: Value | None = None
    for _ in range(k):
        here = f.binary(b, "eq", numbers, b.emit("reduce_argmax", (work,))[0])
        work = f.select(b, here, low, work)
        chosen = here if chosen is None else f.binary(b, "or", chosen, here)
    assert chosen is not None
    return chosen


def _expert(c: Call, x: Value, expert: int, matrix: Matrix, biases: tuple[int, int, int], gated: bool) -> Value:
    def layer(v: Value, index: int) -> Value:
        with deferred(c.b):
            weights = f.cast(c.b, f.swap(c.b, matrix(expert, index), 0, 1), v.element)
        bias = c.opt(biases[index])
        return f.add(c.b, f.matmul(c.b, v, weights), None if bias is None else _slice(c.b, bias, expert))

    up = layer(x, 0)
    return layer(_activated(c, up, layer(x, 2) if gated else None), 1)


_PLAIN = {"relu": "relu", "gelu": "gelu_tanh", "silu": "silu"}


def _activated(c: Call, up: Value, other: Value | None) -> Value:
    b, name = c.b, c.text("activation_type", "relu")
    if name == "swiglu":
        return _gated(c, *_halves(c, up, other))
    if name != "identity" and name not in _PLAIN:
        raise Unsupported(f"activation {name}")
    y = up if name == "identity" else f.unary(b, _PLAIN[name], up)
    return f.mul(b, y, other)


def _halves(c: Call, up: Value, other: Value | None) -> tuple[Value, Value]:
    """Gate and linear part: of two layers, or of one, every second element or one half after the other."""
    fusion, half = c.int("swiglu_fusion", 0), up.shape[-1] // 2
    if fusion == 0:
        if other is None:
            raise Impossible("swiglu without its second layer")
        return up, other
    if fusion not in (1, 2) or up.shape[-1] % 2:
        raise Impossible(f"swiglu_fusion {fusion} of {up.type}")
    step, start = (2, 1) if fusion == 1 else (1, half)
    return f.part(c.b, up, 1, 0, half, step), f.part(c.b, up, 1, start, half, step)


def _gated(c: Call, gate: Value, linear: Value) -> Value:
    """``gate · sigmoid(alpha · gate) · (linear + beta)``, both clamped first."""
    b = c.b
    if c.int("swiglu_limit_after_activation", 0):
        raise Unsupported("a limit after the activation")
    if c.has("swiglu_limit"):
        limit = c.float("swiglu_limit")
        high, low = b.scalar(limit, gate.element), b.scalar(-limit, gate.element)
        gate = f.binary(b, "min", gate, high)
        linear = f.binary(b, "max", f.binary(b, "min", linear, high), low)
    opened = f.mul(b, gate, f.unary(b, "sigmoid", f.scaled(b, gate, c.float("activation_alpha", 1.0))))
    return f.mul(b, opened, f.shifted(b, linear, c.float("activation_beta", 0.0)))
