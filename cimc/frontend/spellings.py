"""Importing this file fills the table of spellings."""

from cimc.frontend import control, elementwise, index, layout, matmul, norm, reduce
from cimc.frontend.call import SPELLINGS

FILES = (control, elementwise, index, layout, matmul, norm, reduce)

__all__ = ["FILES", "SPELLINGS"]
