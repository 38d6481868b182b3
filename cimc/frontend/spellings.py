"""Importing this file fills the table of spellings."""

from cimc.frontend import (
    attention,
    contrib,
    contrib_attention,
    contrib_blocks,
    contrib_experts,
    contrib_groups,
    control,
    conv,
    einsum,
    elementwise,
    index,
    layout,
    matmul,
    norm,
    pool,
    quant,
    quant_attention,
    quant_conv,
    quant_elementwise,
    quant_matmul,
    ragged,
    reduce,
    resize,
    scatter,
)
from cimc.frontend.call import SPELLINGS

FILES = (
    elementwise,
    reduce,
    norm,
    matmul,
    einsum,
    attention,
    conv,
    pool,
    layout,
    index,
    resize,
    scatter,
    ragged,
    quant,
    quant_matmul,
    quant_conv,
    quant_elementwise,
    control,
    contrib,
    contrib_attention,
    contrib_groups,
    quant_attention,
    contrib_blocks,
    contrib_experts,
)
"""In the order of docs/ops.md."""

__all__ = ["FILES", "SPELLINGS"]
