"""Matrix products: static (weights in cells), dynamic (both operands are activations), attention; and the quantisation
around the static ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Node, Type
from cimc.isa.kernels import coded_product, exact_product, quantized_product, softmax, symmetric_codes
from cimc.isa.operands import Element, View, static_shape
from cimc.isa.rules import FLOATING, INTEGER, QUANTIZED
from cimc.ops.op import Access, Arithmetic, Array, Attribute, Emit, Op, broadcast, register
from cimc.ops.written_as import TO, written_as, written_dtype

CORES, DIGITAL = "cores", "digital"
"""Where a static matmul runs: in cells, or on the dynamic matmul units, its weights loaded like any operand."""


class Linear(Op):
    """``y = x · W``: x (… × k), W (k × n) constant. Levels imported and canonical; the quantize pass replaces it."""

    name = "linear"
    arity: ClassVar[tuple[int, int]] = (2, 2)
    attributes = (Attribute("unit", (str,), "cores"),)
    doc = "static matmul: x (… × k) times constant weights (k × n); unit: cores, or digital (matmul units)"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, w = inputs
        assert x is not None
        assert w is not None
        if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[0]:
            raise ValueError(f"linear of {x} and {w}")
        if node.get("unit", CORES) not in (CORES, DIGITAL):
            raise ValueError(f"unit {node.attr('unit')}")
        return (Type(x.element, (*x.shape[:-1], w.shape[1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, w = inputs
        assert x is not None
        assert w is not None
        return (exact_product(x, w).astype(x.dtype, copy=False),)

    def access(self, node: Node, index: int) -> Access:
        return Access.CELLS if index == 1 else Access.ROWS


class Mvm(Op):
    """``acc = x · W`` on cores: x q8, i8 or u8 (… × k), W int8 codes (k × n) constant; exact sums."""

    name = "mvm"
    arity: ClassVar[tuple[int, int]] = (2, 2)
    doc = "static matmul on cores: quantised x (… × k) times weight codes (k × n), exact integer sums"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, w = inputs
        assert x is not None
        assert w is not None
        if len(w.shape) != 2 or not x.shape or x.shape[-1] != w.shape[0]:
            raise ValueError(f"mvm of {x} and {w}")
        return (Type(Element.Q32 if x.element.quantized else Element.I32, (*x.shape[:-1], w.shape[1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, w = inputs
        assert x is not None
        assert w is not None
        real = arithmetic.exact and x.dtype == np.float32
        return (exact_product(x, w) if real else exact_product(x, w).astype(np.int32),)

    def access(self, node: Node, index: int) -> Access:
        return Access.CELLS if index == 1 else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("mvm", emit.output(), emit.matrix(), emit.input(0))


class BlockedMvm(Mvm):
    """An mvm cut into blocks of at most a core's rows × cols; level partitioned. Same sums, block by block."""

    name = "blocked_mvm"
    attributes = (Attribute("rows", (int,)), Attribute("cols", (int,)))
    doc = "an mvm cut into blocks of rows × cols weights, one per core"

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, w = inputs
        assert x is not None
        assert w is not None
        rows, cols = node.whole("rows"), node.whole("cols")
        real = arithmetic.exact and x.dtype == np.float32
        acc = np.zeros((*x.shape[:-1], w.shape[1]), np.float32 if real else np.int32)
        for r in range(0, w.shape[0], rows):
            for c in range(0, w.shape[1], cols):
                part = exact_product(x[..., r : r + rows], w[r : r + rows, c : c + cols])
                acc[..., c : c + cols] += part.astype(acc.dtype, copy=False)
        return (acc,)


class Quantize(Op):
    """Symmetric quantisation with one scale per row, or for each of ``groups`` equal parts of it: outputs codes (q8) and
    scales (… × groups)."""

    name = "quantize"
    arity: ClassVar[tuple[int, int]] = (1, 1)
    attributes = (Attribute("groups", (int,), 1),)
    doc = "codes q8 and scales (… × groups), found at run time: one for each of so many equal parts of a row (heads)"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        (x,) = inputs
        assert x is not None
        groups = groups_of(node)
        if not x.shape or groups < 1 or x.shape[-1] % groups:
            raise ValueError(f"{groups} groups of {x}")
        return (Type(Element.Q8, x.shape), Type(Element.F32, (*x.shape[:-1], groups)))

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        (x,) = inputs
        assert x is not None
        groups = groups_of(node)
        if arithmetic.exact:
            return (x.astype(np.float32, copy=False), np.ones((*x.shape[:-1], groups), np.float32))
        codes, scale = symmetric_codes(x.reshape(*x.shape[:-1], groups, -1), 8, -1)
        return (codes.astype(np.int8).reshape(x.shape), scale[..., 0])

    def lower(self, node: Node, emit: Emit) -> None:
        groups = groups_of(node)
        views = (emit.output(0), emit.output(1), emit.input(0))
        emit.emit("quantize", *(views if groups == 1 else (in_groups(view, groups) for view in views)))


def groups_of(node: Node) -> int:
    """Of a ``quantize``, the scales of a row."""
    return node.whole("groups", 1)


def in_groups(view: View, groups: int) -> View:
    """Columns of rows as (rows × groups × columns of each)."""
    (rows, n), (row, step) = static_shape(view), view.strides
    return View(view.buffer, view.offset, (rows, groups, n // groups), (row, n // groups * step, step))


class QuantizeStatic(Op):
    """Symmetric quantisation with a given scale."""

    name = "quantize_static"
    arity: ClassVar[tuple[int, int]] = (2, 2)
    doc = "codes q8 of x with a constant scale"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x = inputs[0]
        assert x is not None
        return (Type(Element.Q8, x.shape),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, scale = inputs
        assert x is not None
        assert scale is not None
        if arithmetic.exact:
            return (x.astype(np.float32, copy=False),)
        return (np.clip(np.rint(np.divide(np.ascontiguousarray(x), scale)), -127, 127).astype(np.int8),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("quantize_static", emit.output(), emit.input(0), emit.input(1))


class Dequantize(Op):
    """``y = x · (scale · weight_scale)``: q32 sums back to float32."""

    name = "dequantize"
    arity: ClassVar[tuple[int, int]] = (3, 3)
    elementwise: ClassVar[bool] = True
    attributes = (TO,)
    doc = "y = x · (scale · weight_scale): sums (… × n), scale (… × 1 or 1), weight_scale (n)"

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x = inputs[0]
        assert x is not None
        return (Type(written_as(node, Element.F32), x.shape),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, scale, weight_scale = inputs
        assert x is not None
        assert scale is not None
        assert weight_scale is not None
        if arithmetic.exact:
            return (x.astype(np.float32, copy=False),)
        y = np.multiply(x.astype(np.float32), np.multiply(scale, weight_scale))
        return (y.astype(written_dtype(node, np.dtype(np.float32), arithmetic), copy=False),)

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("dequantize", emit.output(), emit.input(0), emit.input(1), emit.input(2))


def _product(a: Array, b: Array, arithmetic: Arithmetic) -> Array:
    if arithmetic.exact or np.issubdtype(a.dtype, np.integer):
        return exact_product(a, b)
    return quantized_product(a, b, arithmetic.operand_bits)


def scales_of(node: Node) -> tuple[str, ...]:
    """Of a product of activations, the scales of its rows and columns where these are codes."""
    return node.inputs[{"matmul": 2, "attention": 4}.get(node.op, len(node.inputs)) :]


def _given(scale: Array | None) -> Array:
    assert scale is not None
    return scale


def _check_codes(codes: tuple[Type, Type], scales: Sequence[Type | None]) -> None:
    """Raises ValueError unless both operands of a product are codes, with a scale for each row and for each column."""
    a, b = codes
    if (a.element, b.element) != (Element.Q8, Element.Q8) or len(scales) != 2:
        raise ValueError(f"{a} and {b} with {len(scales)} scales")
    for name, found, shape in (
        ("row", scales[0], (*a.shape[:-1], 1)),
        ("column", scales[1], (*b.shape[:-2], 1, b.shape[-1])),
    ):
        if found != Type(Element.F32, shape):
            raise ValueError(f"{a} and {b} with a scale {found} for each {name}")


class Matmul(Op):
    """Dynamic matmul: a (… × m × k), b (… × k × n); leading axes broadcast. With scales of a's rows (… × m × 1) and of b's
    columns (… × 1 × n), both are codes (q8), and the result is float32: what the unit makes of the values that they were
    rounded from."""

    name = "matmul"
    arity: ClassVar[tuple[int, int]] = (2, 4)
    attributes = (Attribute("scale", (float,), 1.0), TO)
    doc = (
        "dynamic matmul: scale · a (… × m × k) · b (… × k × n); integer operands give i32, quantised ones q32, or f32 with "
        "scales (… × m × 1) and (… × 1 × n)"
    )

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        a, b, *scales = inputs
        assert a is not None
        assert b is not None
        if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
            raise ValueError(f"matmul of {a} and {b}")
        lead = broadcast(a.shape[:-2], b.shape[:-2])
        if scales:
            _check_codes((a, b), scales)
            return (Type(Element.F32, (*lead, a.shape[-2], b.shape[-1])),)
        if not any(a.element in alike and b.element in alike for alike in (FLOATING, INTEGER, QUANTIZED)):
            raise ValueError(f"matmul of {a} and {b}: both are floating-point, or integer, or quantized")
        whole = a.element in (Element.I8, Element.U8, Element.I16, Element.U16, Element.I32)
        codes = a.element.quantized and not a.element.halved
        result = (
            Element.I32 if whole else Element.Q32 if codes else written_as(node, a.element, () if codes else inputs)
        )
        return (Type(result, (*lead, a.shape[-2], b.shape[-1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        a, b, *scales = inputs
        assert a is not None
        assert b is not None
        scale = node.number("scale", 1.0)
        if scales:
            return (coded_product(a, _given(scales[0]), b, _given(scales[1]), scale),)
        y = _product(a, b, arithmetic)
        if scale != 1.0:
            y = np.multiply(y, np.float32(scale))
        whole = np.issubdtype(a.dtype, np.integer)
        return (y.astype(np.int32 if whole else written_dtype(node, a.dtype, arithmetic), copy=False),)

    def access(self, node: Node, index: int) -> Access:
        return Access.WHOLE if index in (1, 3) else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        scale = node.number("scale", 1.0)
        if len(node.inputs) > 2:
            operands = (emit.input(0), emit.input(2), emit.input(1), emit.input(3))
            emit.emit("matmul_codes", emit.output(), *operands, scale=scale)
            return
        emit.emit("matmul", emit.output(), emit.input(0), emit.input(1), scale=scale)


class Attention(Op):
    """Scaled dot-product attention per head: q (… × s × d), k transposed (… × d × t), v (… × t × e), mask (… × s × t) added
    to the scores; leading axes broadcast (grouped and multi-query heads). With scales of q's rows (… × s × 1) and of k's
    columns (… × 1 × t), both are codes (q8), and the result is float32."""

    name = "attention"
    arity: ClassVar[tuple[int, int]] = (3, 6)
    attributes = (Attribute("scale", (float,)), Attribute("kept", (str,), ""), TO)
    doc = (
        "softmax(scale · q · kᵀ + mask) · v; k arrives transposed (… × d × t); after the mask (or nothing), scales of q (… × s "
        "× 1) and kᵀ (… × 1 × t) if these are codes; kept: why `decompose` left it as it is"
    )

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        q, k, v = inputs[:3]
        assert q is not None
        assert k is not None
        assert v is not None
        fits = min(len(q.shape), len(k.shape), len(v.shape)) >= 2
        if not fits or q.shape[-1] != k.shape[-2] or k.shape[-1] != v.shape[-2]:
            raise ValueError(f"attention of {q}, {k} and {v}")
        lead = broadcast(q.shape[:-2], k.shape[:-2], v.shape[:-2])
        mask = inputs[3] if len(inputs) > 3 else None
        if mask is not None:
            broadcast(mask.shape, (*lead, q.shape[-2], k.shape[-1]))
        coded = len(inputs) > 4
        if coded:
            _check_codes((q, k), inputs[4:])
        element = written_as(node, Element.F32 if coded else q.element, (v,) if coded else (q, k, v))
        return (Type(element, (*lead, q.shape[-2], v.shape[-1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        q, k, v = inputs[:3]
        mask = inputs[3] if len(inputs) > 3 else None
        assert q is not None
        assert k is not None
        assert v is not None
        # Scores are kept in single precision whatever the operands are, as in the unit that computes them.
        if len(inputs) > 4:
            scores = coded_product(q, _given(inputs[4]), k, _given(inputs[5]))
        else:
            scores = _product(q, k, arithmetic)
        scores = np.multiply(scores, np.float32(node.number("scale")))
        scores = scores.astype(np.float32, copy=False)
        if mask is not None:
            scores = np.add(scores, mask).astype(np.float32, copy=False)
        weights = softmax(scores)
        dtype = weights.dtype if len(inputs) > 4 else q.dtype
        return (_product(weights, v, arithmetic).astype(written_dtype(node, dtype, arithmetic), copy=False),)

    def access(self, node: Node, index: int) -> Access:
        return Access.WHOLE if index in (1, 2, 5) else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        q, k, v = emit.input(0), emit.input(1), emit.input(2)
        scores = emit.scratch(Element.F32, (emit.rows, static_shape(k)[-1]))
        scale = node.number("scale")
        if len(node.inputs) > 4:
            emit.emit("matmul_codes", scores, q, emit.input(4), k, emit.input(5), scale=scale)
        else:
            emit.emit("matmul", scores, q, k, scale=scale)
        if len(node.inputs) > 3 and node.inputs[3]:
            mask = emit.input(3)
            if emit.element(3) is not Element.F32:
                wide = emit.scratch(Element.F32, static_shape(mask))
                emit.emit("cast", wide, mask)
                mask = wide
            emit.emit("add", scores, scores, mask)
        emit.emit("softmax", scores, scores)
        emit.emit("matmul", emit.output(), scores, v)


for _op in (Linear(), Mvm(), BlockedMvm(), Quantize(), QuantizeStatic(), Dequantize(), Matmul(), Attention()):
    register(_op)
