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
    reduce,
)
from cimc.frontend.call import SPELLINGS

FILES = (attention, contrib, contrib_attention, control, elementwise, index, layout, matmul, norm, reduce)

__all__ = ["FILES", "SPELLINGS"]
