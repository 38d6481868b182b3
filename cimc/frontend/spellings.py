"""Importing this file fills the table of spellings."""

from cimc.frontend import (
    attention,
    contrib,
    contrib_attention,
    contrib_blocks,
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
    quant_conv,
    quant_elementwise,
    quant_matmul,
    reduce,
    scatter,
)
from cimc.frontend.call import SPELLINGS

FILES = (
    attention,
    contrib,
    contrib_attention,
    contrib_blocks,
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
    quant_conv,
    quant_elementwise,
    quant_matmul,
    reduce,
    scatter,
)

__all__ = ["FILES", "SPELLINGS"]
