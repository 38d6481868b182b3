"""Products of two activations whose second operand is written into cells as the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Node, Type
from cimc.isa.kernels import exact_product, symmetric_codes
from cimc.isa.operands import Element, static_shape
from cimc.ops.op import Access, Arithmetic, Array, Attribute, Emit, Op, broadcast, register

WRITTEN = "written_matmul"
SRAM, NVM = "sram", "nvm"
"""Kinds of cells that operands are written into."""

CODE_BITS = 8


class WrittenMatmul(Op):
    """``y = scale · (x · b)`` on cores whose cells are programmed with b first. x are codes q8 (… × m × k) with their scales
    (… × m × 1); b is float32 (… × k × n), brought to codes with a scale per column as it is written, or codes q8 with
    their scales (… × 1 × n) as the fourth operand. Leading axes broadcast. The integer sums are exact, the scales are
    applied as ``dequantize`` does: the arithmetic of a matmul unit with operands of 8 bits. Levels quantized and
    partitioned."""

    name = WRITTEN
    arity: ClassVar[tuple[int, int]] = (3, 4)
    attributes = (
        Attribute("cells", (str,)),
        Attribute("rows", (int,)),
        Attribute("cols", (int,)),
        Attribute("product", (str,), "matmul"),
        Attribute("kept", (str,), ""),
    )
    doc = (
        "codes x (… × m × k) with scales (… × m × 1) times b (… × k × n), which is written into cells (sram or nvm) in "
        "blocks of rows × cols: float32, or codes with scales (… × 1 × n); product: qk, pv or matmul, for reports; "
        "kept: as of attention"
    )

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, b, scale = inputs[:3]
        assert x is not None
        assert b is not None
        assert scale is not None
        if min(len(x.shape), len(b.shape)) < 2 or x.shape[-1] != b.shape[-2]:
            raise ValueError(f"{WRITTEN} of {x} and {b}")
        due = Element.Q8 if len(inputs) > 3 else Element.F32
        if x.element is not Element.Q8 or b.element is not due or scale.shape != (*x.shape[:-1], 1):
            raise ValueError(
                f"{WRITTEN} of {x} with scales {scale} and {b} {'with' if due is Element.Q8 else 'without'}"
            )
        if len(inputs) > 3 and (inputs[3] is None or inputs[3].shape != (*b.shape[:-2], 1, b.shape[-1])):
            raise ValueError(f"{WRITTEN} by {b} with scales {inputs[3]}")
        if node.attr("cells") not in (SRAM, NVM):
            raise ValueError(f"cells {node.attr('cells')}")
        return (Type(Element.F32, (*broadcast(x.shape[:-2], b.shape[:-2]), x.shape[-2], b.shape[-1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], arithmetic: Arithmetic) -> tuple[Array, ...]:
        x, b, scale = inputs[:3]
        assert x is not None
        assert b is not None
        assert scale is not None
        if arithmetic.exact:
            return (exact_product(x, b).astype(np.float32, copy=False),)
        codes, column = (b, inputs[3]) if len(inputs) > 3 else _written(b)
        assert column is not None
        sums = exact_product(x, codes).astype(np.int32)
        return (np.multiply(sums.astype(np.float32), np.multiply(scale, column)).astype(np.float32, copy=False),)

    def access(self, node: Node, index: int) -> Access:
        return Access.WHOLE if index == 1 else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        # Once b is in the cells, what is left of it on the tile are its scales.
        column = emit.input(3 if len(node.inputs) > 3 else 1)
        sums = emit.scratch(Element.Q32, (emit.rows, static_shape(column)[-1]))
        emit.emit("mvm", sums, emit.matrix(), emit.input(0))
        emit.emit("dequantize", emit.output(), sums, emit.input(2), column)


def _written(b: Array) -> tuple[Array, Array]:
    codes, scale = symmetric_codes(b, CODE_BITS, -2)
    return codes.astype(np.int8), scale


register(WrittenMatmul())
