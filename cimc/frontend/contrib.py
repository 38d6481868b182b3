"""Spellings of onnxruntime's fused operators (domain com.microsoft): activations, norms, products, embeddings.
Attention nodes are in ``contrib_attention.py``."""

from __future__ import annotations

import numpy as np

from cimc.frontend import compose as f
from cimc.frontend.builder import Impossible, Unsupported, Value
from cimc.frontend.call import Call, Translate, spelling
from cimc.frontend.index import gather_rows
from cimc.frontend.matmul import gemm_of
from cimc.frontend.norm import layer_norm_of, rms_norm_of
from cimc.isa.operands import Element

MS = "com.microsoft"


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
    ids, segments, mask, positions = c.x(0), c.opt(1), c.opt(7), c.opt(8)
    total = gather_rows(c, c.x(2), 0, ids)
    place = c.x(3)
    if positions is not None:
        total = f.add(b, total, gather_rows(c, place, 0, positions))
    else:
        if ids.rank != 2 or ids.shape[1] > place.shape[0]:
            raise Impossible(f"{ids.type} tokens with {place.shape[0]} positions")
        total = f.add(b, total, f.part(b, place, 0, 0, ids.shape[1]))
    if segments is not None and c.opt(4) is not None:
        total = f.add(b, total, gather_rows(c, c.x(4), 0, segments))
    (y, *_) = layer_norm_of(c, total, c.x(5), c.x(6), c.float("epsilon", 1e-12), -1)
    count = b.constant(np.zeros(ids.shape[0], np.int32))
    if mask is not None:
        count = f.reduce(b, "reduce_sum", f.cast(b, mask, Element.I32), (1,), keep=False)
    return (y, count, total)


@spelling("FusedMatMul", "TransposeMatMul", domain=MS, note="without transBatchA and transBatchB")
def fused_mat_mul(c: Call) -> Value:
    """``alpha · A' · B'``."""
    x, y = c.x(0), c.x(1)
    if c.int("transBatchA", 0) or c.int("transBatchB", 0):
        raise Unsupported("transBatchA and transBatchB")
    x = f.swap(c.b, x, -1, -2) if c.int("transA", 0) and x.rank > 1 else x
    y = f.swap(c.b, y, -1, -2) if c.int("transB", 0) and y.rank > 1 else y
    return f.matmul(c.b, x, y, c.float("alpha", 1.0))


_ACTIVATIONS = {"": "", "Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid", "Gelu": "gelu", "Softplus": "softplus"}


@spelling("FusedGemm", domain=MS, note="with Relu, LeakyRelu, Tanh, Sigmoid, Softplus or Gelu")
def fused_gemm(c: Call) -> Value:
    """Gemm and an activation."""
    y = gemm_of(c, c.float("alpha", 1.0), c.float("beta", 1.0))
    activation = c.text("activation", "")
    if activation == "LeakyRelu":
        below = f.scaled(c.b, y, c.float("activation_alpha", 0.01))
        return f.select(c.b, f.binary(c.b, "lt", y, c.b.scalar(0, y.element)), below, y)
    if activation not in _ACTIVATIONS:
        raise Unsupported(f"activation {activation}")
    return f.unary(c.b, _ACTIVATIONS[activation], y) if activation else y


@spelling("MatMulNBits", domain=MS, note="2, 4 and 8 bits, weights known; they are dequantised while the model is read")
def mat_mul_n_bits(c: Call) -> Value:
    """A product with block-quantised weights (n × blocks × bytes)."""
    x, n, k = c.x(0), c.int("N"), c.int("K")
    bits, block = c.int("bits", 4), c.int("block_size")
    if c.opt(4) is not None:
        raise Unsupported("g_idx: columns out of order")
    packed, scales, zeros = c.known(1, "the weights"), c.known(2, "the scales"), c.known(3, "the zero points")
    if packed is None or scales is None or bits not in (2, 4, 8) or block < 1 or n < 1 or k < 1:
        raise Impossible(f"weights of {n} × {k} in blocks of {block} at {bits} bits")
    blocks = -(-k // block)
    codes = unpacked(packed, bits).reshape(-1)
    if codes.size != n * blocks * block or scales.size != n * blocks:
        raise Impossible(f"{packed.size} bytes and {scales.size} scales for {n} × {k} weights in blocks of {block}")
    centre = _zero_points(zeros, bits, n, blocks)
    weight = (codes.reshape(n, blocks, block).astype(np.float32) - centre) * scales.reshape(n, blocks, 1).astype(
        np.float32
    )
    weight = weight.reshape(n, blocks * block)[:, :k].T
    y = f.matmul(c.b, x, c.b.constant(weight.astype(x.dtype), f"{c.node.inputs[1]}.dequantized"))
    return f.add(c.b, y, c.opt(5))


def unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    """Codes of 2, 4 or 8 bits out of bytes (lowest bits first), along a doubled (or more) last axis."""
    data = np.ascontiguousarray(packed).view(np.uint8)
    if bits == 8:
        return data
    parts = [(data >> shift) & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.stack(parts, axis=-1).reshape(*data.shape[:-1], data.shape[-1] * len(parts))


def _zero_points(zeros: np.ndarray | None, bits: int, n: int, blocks: int) -> np.ndarray:
    if zeros is None:
        return np.full((1, 1, 1), 1 << (bits - 1), np.float32)
    if zeros.dtype != np.uint8:
        if zeros.size != n * blocks:
            raise Impossible(f"{zeros.size} zero points for {n * blocks} blocks")
        return zeros.reshape(n, blocks, 1).astype(np.float32)
    row = -(-blocks * bits // 8)
    if zeros.size != n * row:
        raise Impossible(f"{zeros.size} bytes of zero points for {n} rows of {blocks} blocks")
    return unpacked(zeros.reshape(n, row), bits)[:, :blocks].reshape(n, blocks, 1).astype(np.float32)


@spelling("GatherBlockQuantized", domain=MS, note="table known; it is dequantised while the model is read")
def gather_block_quantized(c: Call) -> Value:
    """Rows of a block-quantised table."""
    data, scales, zeros = c.known(0, "the table"), c.known(2, "the scales"), c.known(3, "the zero points")
    if data is None or scales is None:
        raise Impossible("the table or its scales are missing")
    bits, block = c.int("bits", 4), c.int("block_size", 128)
    narrow = c.x(0).narrow
    packed = not narrow and data.dtype == np.uint8 and bits < 8
    codes = unpacked(data, bits) if packed else data
    axis = c.axis(c.int("quantize_axis", 1), codes.ndim)
    centre = 0.0 if narrow == "int4" or data.dtype == np.int8 else (1 << (bits - 1) if packed or bits == 8 else 0.0)
    spread = np.repeat(scales, block, axis=axis)[_within(codes.shape)].astype(np.float32)
    middle: np.ndarray | float = centre
    if zeros is not None:
        wide = unpacked(zeros, bits) if packed else zeros
        wide = wide[_within(scales.shape)]
        middle = np.repeat(wide, block, axis=axis)[_within(codes.shape)].astype(np.float32)
    table = ((codes.astype(np.float32) - middle) * spread).astype(scales.dtype)
    value = c.b.constant(table, f"{c.node.inputs[0]}.dequantized")
    return gather_rows(c, value, c.axis(c.int("gather_axis", 0), value.rank), c.x(1))


def _within(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(n) for n in shape)
