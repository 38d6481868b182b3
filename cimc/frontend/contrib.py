"""Spellings of onnxruntime's fused operators (domain com.microsoft): activations, norms, products, embeddings.
Attention nodes are in ``contrib_attention.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Builder, Impossible, Unsupported, Value
from cimc.frontend.call import Call, Translate, spelling
from cimc.frontend.index import gather_rows
from cimc.frontend.matmul import gemm_of
from cimc.frontend.norm import layer_norm_of, rms_norm_of
from cimc.frontend.record import MS
from cimc.isa.operands import Element


def _activated(op: str) -> Translate:
    return lambda c: f.unary(c.b, op, f.add(c.b, c.x(0), c.opt(1)))


for _name, _op in (("Gelu", "gelu"), ("BiasGelu", "gelu"), ("FastGelu", "gelu_tanh")):
    spelling(_name, domain=MS)(_activated(_op))


@spelling("QuickGelu", domain=MS)
def quick_gelu(c: Call) -> Value:
    """``x · sigmoid(alpha · x)``."""
    x = c.x()
    return f.mul(c.b, x, f.unary(c.b, "sigmoid", f.scaled(c.b, x, c.float("alpha", 1.702))))


@spelling("BiasAdd", domain=MS)
def bias_add(c: Call) -> Value:
    """``x + bias + skip``."""
    return f.add(c.b, f.add(c.b, c.x(0), c.x(1)), c.x(2))


@spelling("SkipLayerNormalization", domain=MS)
def skip_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Layer normalisation of ``input + skip + bias``; output 3 is the sum."""
    total = f.add(c.b, f.add(c.b, c.x(0), c.x(1)), c.opt(4))
    found = layer_norm_of(c, total, c.x(2), c.opt(3), c.float("epsilon", 1e-12), -1)
    return (*found, *(None,) * (3 - len(found)), total)


@spelling("SkipSimplifiedLayerNormalization", domain=MS)
def skip_simplified_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Root-mean-square normalisation of ``input + skip + bias``; output 3 is the sum."""
    total = f.add(c.b, f.add(c.b, c.x(0), c.x(1)), c.opt(3))
    if c.wants(1) or c.wants(2):
        raise Unsupported("its training outputs")
    (y,) = rms_norm_of(c, total, c.x(2), c.float("epsilon", 1e-5), -1)
    return (y, None, None, total)


@spelling("SimplifiedLayerNormalization", domain=MS)
def simplified_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Root-mean-square normalisation."""
    return rms_norm_of(c, c.x(0), c.x(1), c.float("epsilon", 1e-5), c.int("axis", -1))


@spelling("EmbedLayerNormalization", domain=MS)
def embed_layer_normalization(c: Call) -> tuple[Value | None, ...]:
    """Word, position and segment embeddings, summed and normalised; output 1 counts the mask's ones per sample."""
    b = c.b
    ids, segments, positions = c.x(0), c.opt(1), c.opt(8)
    total = f.add(b, gather_rows(c, c.x(2), 0, ids), places(c, c.x(3), ids, positions))
    if segments is not None and c.opt(4) is not None:
        total = f.add(b, total, gather_rows(c, c.x(4), 0, segments))
    (y, *_) = layer_norm_of(c, total, c.x(5), c.x(6), c.float("epsilon", 1e-12), -1)
    return (y, ones(c, ids, c.opt(7)), total)


def places(c: Call, table: Value, ids: Value, positions: Value | None) -> Value:
    """Rows of the position table for tokens (b × s), by their positions or in order."""
    if positions is not None:
        return gather_rows(c, table, 0, positions)
    if ids.rank != 2 or ids.shape[1] > table.shape[0]:
        raise Impossible(f"{ids.type} tokens with {table.shape[0]} positions")
    return f.part(c.b, table, 0, 0, ids.shape[1])


def ones(c: Call, ids: Value, mask: Value | None) -> Value:
    """Ones of the mask per sample (int32); 0 without a mask."""
    if mask is None:
        return c.b.constant(np.zeros(ids.shape[0], np.int32))
    return f.reduce(c.b, "reduce_sum", f.cast(c.b, mask, Element.I32), (1,), keep=False)


@spelling("BiasSplitGelu", domain=MS)
def bias_split_gelu(c: Call) -> Value:
    """The first half of ``x + bias`` times the gelu of the second."""
    x = f.add(c.b, c.x(0), c.x(1))
    if not x.rank or x.shape[-1] % 2:
        raise Impossible(f"halves of {x.type}")
    half = x.shape[-1] // 2
    left, right = f.part(c.b, x, x.rank - 1, 0, half), f.part(c.b, x, x.rank - 1, half, half)
    return f.mul(c.b, left, f.unary(c.b, "gelu", right))


@spelling("FusedMatMul", "TransposeMatMul", domain=MS)
def fused_mat_mul(c: Call) -> Value:
    """``alpha · A' · B'``; with ``transBatch`` an operand has the rows before its batch axes."""
    x = _laid_out(c, c.x(0), "A")
    return f.matmul(c.b, x, _laid_out(c, c.x(1), "B"), c.float("alpha", 1.0))


def _laid_out(c: Call, x: Value, which: str) -> Value:
    if x.rank < 2:
        return x
    x = f.move_axis(c.b, x, 0, -2) if c.int(f"transBatch{which}", 0) else x
    return f.swap(c.b, x, -1, -2) if c.int(f"trans{which}", 0) else x


_PLAIN = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Gelu": "gelu", "Softplus": "softplus"}
_LARGEST = float(np.finfo(np.float32).max)
_PARAMETERS: Mapping[str, tuple[float, ...]] = {
    "LeakyRelu": (0.01,),
    "Elu": (1.0,),
    "HardSigmoid": (0.2, 0.5),
    "HardSwish": (1 / 6, 0.5),
    "Clip": (-_LARGEST, _LARGEST),
    "Softsign": (),
    "ThresholdedRelu": (1.0,),
}
"""Activations with parameters, and the standard's defaults."""


@spelling("FusedGemm", domain=MS, note="with the activations onnxruntime fuses")
def fused_gemm(c: Call) -> Value:
    """Gemm and an activation."""
    y, name = gemm_of(c, c.float("alpha", 1.0), c.float("beta", 1.0)), c.text("activation", "")
    alpha, beta = (*_PARAMETERS.get(name, ()), 0.0, 0.0)[:2]
    return activated(c.b, y, name, (c.float("activation_alpha", alpha), c.float("activation_beta", beta)))


def activated(b: Builder, y: Value, name: str, given: Sequence[float]) -> Value:
    """An activation that onnxruntime fuses, none without a name. ``given``: its parameters, the standard's defaults for those
    that are missing."""
    if not name:
        return y
    if name in _PLAIN:
        return f.unary(b, _PLAIN[name], y)
    if name not in _PARAMETERS:
        raise Unsupported(f"activation {name}")
    first, second = (*given, *_PARAMETERS[name][len(given) :], 0.0)[:2]
    return _with_parameters(b, y, name, first, second)


def _with_parameters(b: Builder, y: Value, name: str, alpha: float, beta: float) -> Value:
    zero, one = b.scalar(0, y.element), b.scalar(1, y.element)
    if name == "LeakyRelu":
        return f.select(b, f.binary(b, "lt", y, zero), f.scaled(b, y, alpha), y)
    if name == "Elu":
        low = f.unary(b, "exp", f.binary(b, "min", y, zero))
        return f.select(b, f.binary(b, "lt", y, zero), f.scaled(b, f.shifted(b, low, -1.0), alpha), y)
    if name in ("HardSigmoid", "HardSwish"):
        line = f.shifted(b, f.scaled(b, y, alpha), beta)
        gate = f.binary(b, "min", f.binary(b, "max", line, zero), one)
        return gate if name == "HardSigmoid" else f.mul(b, y, gate)
    if name == "Clip":
        return f.binary(b, "min", f.binary(b, "max", y, b.scalar(alpha, y.element)), b.scalar(beta, y.element))
    if name == "Softsign":
        return f.binary(b, "div", y, f.add(b, f.unary(b, "abs", y), one))
    return f.select(b, f.binary(b, "gt", y, b.scalar(alpha, y.element)), y, zero)
