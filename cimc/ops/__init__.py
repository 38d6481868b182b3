"""The op table. Importing the package declares every op."""

from cimc.ops import elementwise, layout, matmul, rows, written
from cimc.ops.op import OPS, Access, Arithmetic, Form, Layout, Op

__all__ = ["OPS", "Access", "Arithmetic", "Form", "Layout", "Op", "elementwise", "layout", "matmul", "rows", "written"]
