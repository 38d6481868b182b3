"""Products of two activations whose second operand is written into cells as the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Node, Type
from cimc.isa.kernels import exact_product
from cimc.isa.operands import Element
from cimc.ops.op import Access, Array, Attribute, Emit, Numerics, Op, broadcast, register

WRITTEN = "written_mvm"
SRAM, NVM = "sram", "nvm"
"""Kinds of cells that operands are written into."""


class WrittenMvm(Op):
    """``acc = x · b`` on cores whose cells are programmed with b first: x q8 (… × m × k), b q8 codes (… × k × n), leading
    axes broadcast; exact integer sums, as of ``mvm``. Levels quantized and partitioned."""

    name: ClassVar[str] = WRITTEN
    arity: ClassVar[tuple[int, int]] = (2, 2)
    attributes: ClassVar[tuple[Attribute, ...]] = (
        Attribute("cells", (str,)),
        Attribute("rows", (int,)),
        Attribute("cols", (int,)),
        Attribute("product", (str,), "matmul"),
        Attribute("kept", (str,), ""),
    )
    doc: ClassVar[str] = (
        "x (… × m × k) times codes (… × k × n) that are written into cells (sram or nvm) in blocks of rows × cols; "
        "product: qk, pv or matmul, for reports; kept: as of attention"
    )

    def infer(self, node: Node, inputs: Sequence[Type | None]) -> tuple[Type, ...]:
        x, b = inputs
        assert x is not None
        assert b is not None
        if min(len(x.shape), len(b.shape)) < 2 or x.shape[-1] != b.shape[-2]:
            raise ValueError(f"{WRITTEN} of {x} and {b}")
        if x.element is not Element.Q8 or b.element is not Element.Q8:
            raise ValueError(f"{WRITTEN} of {x} and {b}: both are q8")
        if node.attr("cells") not in (SRAM, NVM):
            raise ValueError(f"cells {node.attr('cells')}")
        lead = broadcast(x.shape[:-2], b.shape[:-2])
        return (Type(Element.Q32, (*lead, x.shape[-2], b.shape[-1])),)

    def evaluate(self, node: Node, inputs: Sequence[Array | None], numerics: Numerics) -> tuple[Array, ...]:
        x, b = inputs
        assert x is not None
        assert b is not None
        product = exact_product(x, b)
        return (product if numerics.exact and x.dtype == np.float32 else product.astype(np.int32),)

    def access(self, node: Node, index: int) -> Access:
        return Access.WHOLE if index == 1 else Access.ROWS

    def lower(self, node: Node, emit: Emit) -> None:
        emit.emit("mvm", emit.output(), emit.matrix(), emit.input(0))


register(WrittenMvm())
