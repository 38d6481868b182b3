"""How passes write their result: walk the old nodes in order, keep or replace each; names stay deterministic, types are
inferred, dead nodes dropped at the end. Everything takes time linear in the size of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from cimc.ir.constants import Make, derived
from cimc.ir.graph import Array, Attrs, Constants, Graph, Node, Type
from cimc.ir.levels import folds
from cimc.isa.operands import Element
from cimc.ops import OPS, Arithmetic
from cimc.origin import Origin

EAGER_BYTES = 1 << 20
"""Folded constants up to this size are computed at once, larger ones when they are first read."""


def merge_origins(nodes: Iterable[Node]) -> tuple[Origin, ...]:
    """The origins of several nodes, each once, in order."""
    return tuple(dict.fromkeys(o for n in nodes for o in n.origins))


class Editor:
    """A graph under construction. ``producer`` maps each value written so far to its node."""

    def __init__(self, graph: Graph, constants: Constants) -> None:
        self.graph = graph
        self.constants = derived(constants)
        self.nodes: list[Node] = []
        self.types: dict[str, Type] = dict(graph.types)
        self.producer: dict[str, Node] = {}
        self._static = set(graph.constants)
        self._made: set[str] = set()
        self._numbers: dict[tuple[float, Element], str] = {}
        self._alias: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._outputs = frozenset(graph.outputs)

    def resolve(self, value: str) -> str:
        """The name under which an old value is known now."""
        return self._alias.get(value, value)

    def renamed(self, node: Node) -> Node:
        """An old node with its inputs under their present names."""
        inputs = tuple(map(self.resolve, node.inputs))
        return node if inputs == node.inputs else replace(node, inputs=inputs)

    def keep(self, node: Node) -> None:
        """Write a node (its inputs are renamed)."""
        node = self.renamed(node)
        self.nodes.append(node)
        self.producer.update((v, node) for v in node.outputs if v)

    def look_at(self, node: Node) -> None:
        """Let ``producer`` know a node that is about to be written or replaced."""
        self.producer.update((v, node) for v in node.outputs if v)

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        origins: tuple[Origin, ...],
        output: str,
        attrs: Attrs = (),
    ) -> str:
        """Write a new node with one output. ``output`` is an old value that it redefines (same type), or a fresh name
        (:meth:`fresh`). Returns the output. On constants only, what is written is a constant."""
        return self.emit_all(op, inputs, origins=origins, outputs=(output,), attrs=attrs)[0]

    def emit_all(
        self,
        op: str,
        inputs: Sequence[str],
        *,
        origins: tuple[Origin, ...],
        outputs: tuple[str, ...],
        attrs: Attrs = (),
    ) -> tuple[str, ...]:
        """Write a new node. Raises AssertionError if it would change the type of a value that stands already."""
        node = Node(op, tuple(map(self.resolve, inputs)), outputs, attrs, origins)
        types = OPS[op].infer(node, [self.types[v] if v else None for v in node.inputs])
        for v, t in zip(outputs, types, strict=True):
            if self.types.setdefault(v, t) != t:
                raise AssertionError(f"{op} would turn {v} from {self.types[v]} into {t}")
        if self.static(node):
            self.fold(node)
        else:
            self.keep(node)
        return outputs

    def static(self, node: Node) -> bool:
        """Whether a node of one output has only constant inputs, and its result is no larger than folding allows."""
        present = [v for v in node.inputs if v]
        if node.op == "host" or len(node.outputs) != 1 or not present or not all(map(self.is_constant, present)):
            return False
        return folds(node, [self.types[v] for v in present], [self.types[v] for v in node.outputs])

    def fresh(self, hint: str) -> str:
        """A value name nobody has: the hint, or the hint with a number."""
        name = hint
        while name in self.types or name in self.constants:
            self._counts[hint] = self._counts.get(hint, 0) + 1
            name = f"{hint}.{self._counts[hint]}"
        return name

    def is_constant(self, value: str) -> bool:
        """Whether a value (by its present name) is a constant."""
        return value in self._static

    def value(self, name: str) -> Array:
        """A constant's array, computed if it has to be."""
        return self.constants[name]

    def constant(self, name: str, type: Type, make: Make) -> str:
        """Declare a derived constant of that name, or return the one of that name declared here before."""
        if name in self._made:
            return name
        self.types[name] = type
        self._make(name, make)
        self._static.add(name)
        return name

    def companion(self, name: str, make: Make) -> None:
        """Declare an array that stands beside a constant without being a value of the graph."""
        if name not in self._made:
            self._make(name, make)

    def _make(self, name: str, make: Make) -> None:
        self._made.add(name)
        self.constants.add(name, make)

    def fold(self, node: Node) -> None:
        """Turn the (one) output of a node on constants into a constant."""
        (value,) = node.outputs
        self._make(value, _computed(node))
        self._static.add(value)
        if self.types[value].bytes <= EAGER_BYTES:
            # At once, so that a long chain of small constants is no long chain of calls later.
            self.value(value)

    def number(self, value: float, element: Element) -> str:
        """A scalar constant, one for every number and element type."""
        key = (value, element)
        if key not in self._numbers:
            array = np.asarray(value, element.dtype(exact=False))
            name = self.fresh(f"{value:g}.{element.value}")
            self._numbers[key] = self.constant(name, Type(element, ()), lambda _: array)
        return self._numbers[key]

    def replace(self, value: str, by: str) -> bool:
        """Let later nodes read ``by`` instead of ``value``. False if it cannot be: outputs of the graph keep their
        name."""
        if value in self._outputs:
            return False
        self._alias[value] = self.resolve(by)
        return True

    def finish(self, level: str = "") -> tuple[Graph, Constants]:
        """The new graph without dead nodes, and the constants."""
        nodes = live_nodes(self.nodes, self.graph.outputs)
        graph = self.graph.with_nodes(nodes, self.types)
        return replace(graph, level=level or graph.level), self.constants


def _computed(node: Node) -> Make:
    def make(constants: Constants) -> Array:
        operands = [constants[v] if v else None for v in node.inputs]
        with np.errstate(all="ignore"):
            (value,) = OPS[node.op].evaluate(node, operands, Arithmetic(exact=True))
        return np.asarray(value)

    return make


def live_nodes(nodes: Sequence[Node], outputs: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that some output depends on, in order."""
    needed = set(outputs)
    kept: list[Node] = []
    for node in reversed(nodes):
        if needed.isdisjoint(node.outputs):
            continue
        kept.append(node)
        needed.update(node.inputs)
        needed.discard("")
    return tuple(reversed(kept))
