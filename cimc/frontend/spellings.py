"""Importing this file fills the table of spellings."""

from cimc.frontend import (
    attention,
    contrib,
    contrib_attention,
    control,
    elementwise,
    index,
    layout,
    matmul,
    norm,
    quant,
    quant_contrib,
    reduce,
)
from cimc.frontend.call import SPELLINGS

FILES = (attention, contrib, contrib_attention, control, elementwise, index, layout, matmul, norm, quant, quant_contrib, reduce)

__all__ = ["FILES", "SPELLINGS"]
