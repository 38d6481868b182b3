"""A way to write small graphs in tests: types are inferred, names are given or counted."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from cimc.ir.graph import Attr, Graph, Node, Type
from cimc.isa.operands import Element
from cimc.ops import OPS
from cimc.ops.layout import parse_type
from cimc.origin import Origin

ELEMENTS = {e.dtype(exact=False): e for e in reversed(Element) if not e.quantized}
assert ELEMENTS[np.dtype(ml_dtypes.bfloat16)] is Element.BF16


class Build:
    """A graph under construction."""

    def __init__(self, level: str = "imported") -> None:
        self.level = level
        self.types: dict[str, Type] = {}
        self.inputs: list[str] = []
        self.constants: dict[str, np.ndarray] = {}
        self.nodes: list[Node] = []

    def input(self, name: str, type: str) -> str:
        """A graph input, its type as text."""
        self.types[name] = parse_type(type)
        self.inputs.append(name)
        return name

    def const(self, value: object, name: str = "", dtype: type = np.float32) -> str:
        """A constant."""
        array = np.asarray(value) if isinstance(value, np.ndarray) else np.asarray(value, dtype)
        name = name or f"c{len(self.constants)}"
        self.constants[name] = array
        self.types[name] = Type(ELEMENTS[array.dtype], array.shape)
        return name

    def __call__(self, op: str, *inputs: str, out: str = "", **attrs: Attr) -> str:
        """A node; returns its first output."""
        outs = tuple(out.split()) if out else (f"v{len(self.nodes)}",)
        node = Node(op, inputs, outs, tuple(attrs.items()), (Origin(f"/{outs[0]}", op.title()),))
        types = OPS[op].infer(node, [self.types[v] if v else None for v in inputs])
        self.types.update(zip(outs, types, strict=True))
        self.nodes.append(node)
        return outs[0]

    def graph(self, *outputs: str) -> Graph:
        """The graph with these outputs."""
        static = frozenset(self.constants)
        return Graph("test", self.level, tuple(self.inputs), outputs, tuple(self.nodes), dict(self.types), static)


def random(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Normal numbers, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
