"""The op table. Importing the package declares every op."""

from cimc.ops import elementwise, layout, matmul, rows, written
from cimc.ops.op import OPS, Access, Form, Layout, Numerics, Op

__all__ = ["OPS", "Access", "Form", "Layout", "Numerics", "Op", "elementwise", "layout", "matmul", "rows", "written"]
