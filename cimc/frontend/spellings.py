"""Importing this file fills the table of spellings."""

from cimc.frontend import (
    attention,
    contrib,
    contrib_attention,
    contrib_blocks,
    contrib_groups,
    control,
    elementwise,
    index,
    layout,
    matmul,
    norm,
    quant,
    quant_conv,
    quant_elementwise,
    quant_matmul,
    reduce,
)
from cimc.frontend.call import SPELLINGS

FILES = (
    *(attention, contrib, contrib_attention, control, elementwise, index, layout, matmul, norm, reduce),
    *(contrib_blocks, contrib_groups, quant, quant_conv, quant_elementwise, quant_matmul),
)

__all__ = ["FILES", "SPELLINGS"]
