"""The graph: typed values, nodes in execution order, an immutable record that passes turn into another one.

Constants stand beside the graph by name (:data:`Constants`), memory-mapped where the model
is, never inside equality or dumps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cimc.isa.operands import Element, Sized
from cimc.origin import Origin

Array = NDArray[np.generic]
Constants = Mapping[str, Array]

Attr = int | float | str | bool | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]
"""Attribute values an op may have; what an op's attributes mean is declared by the op."""
Attrs = tuple[tuple[str, Attr], ...]
"""Attributes by name, in the order they are printed in."""


@dataclass(frozen=True, slots=True)
class Type(Sized):
    """Element type and static shape of a value."""

    element: Element
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.element.value}[{'x'.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Node:
    """One op application. ``inputs`` and ``outputs`` are value names; an absent optional input is ``""``.
    ``origins[0]`` names the layer in reports; a fused node lists all it came from."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attrs: Attrs = ()
    origins: tuple[Origin, ...] = ()

    def attr(self, name: str) -> Attr:
        """The attribute of that name. Raises KeyError if the node has none."""
        return dict(self.attrs)[name]

    def get(self, name: str, default: Attr) -> Attr:
        """The attribute of that name, or a default."""
        return dict(self.attrs).get(name, default)

    def whole(self, name: str, default: int | None = None) -> int:
        """An attribute that its op declares as a whole number, or a default. Raises KeyError if there is neither."""
        found = self.attr(name) if default is None else self.get(name, default)
        assert isinstance(found, int)
        return found

    def number(self, name: str, default: float | None = None) -> float:
        """An attribute that its op declares as a number, or a default. Raises KeyError if there is neither."""
        found = self.attr(name) if default is None else self.get(name, default)
        assert isinstance(found, int | float)
        return float(found)

    @property
    def origin(self) -> Origin:
        """The layer this node is accounted to."""
        return self.origins[0] if self.origins else Origin(self.outputs[0], self.op)


@dataclass(frozen=True)
class Graph:
    """Nodes in an executable order. ``types`` covers every value: inputs, constants and node outputs. ``constants`` are
    the names in :data:`Constants` that the graph uses; those of host calls are no values and have no type."""

    name: str
    level: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    types: Mapping[str, Type]
    constants: frozenset[str] = frozenset()
    output_names: tuple[str, ...] = field(default=())  # the model's names of the outputs, where they differ
    dims: tuple[tuple[str, int], ...] = field(default=())  # how symbolic dims were bound

    def type(self, value: str) -> Type:
        """The type of a value. Raises KeyError if there is none of that name."""
        return self.types[value]

    def producers(self) -> dict[str, Node]:
        """Value name → the node that produces it."""
        return {o: n for n in self.nodes for o in n.outputs if o}

    def uses(self) -> dict[str, list[Node]]:
        """Value name → the nodes that read it (once per node)."""
        found: dict[str, list[Node]] = {}
        for n in self.nodes:
            for v in dict.fromkeys(n.inputs):
                if v:
                    found.setdefault(v, []).append(n)
        return found

    def with_nodes(self, nodes: tuple[Node, ...], types: Mapping[str, Type] | None = None) -> Graph:
        """This graph with other nodes (and types); constants and types nobody uses are dropped."""
        merged = dict(self.types if types is None else types)
        used = set(self.inputs) | set(self.outputs)
        for n in nodes:
            used.update(n.inputs)
            used.update(n.outputs)
        used.discard("")
        produced = {o for n in nodes for o in n.outputs}
        calls = {str(n.attr("call")) for n in nodes if n.op == "host"}
        constants = frozenset(v for v in used if v not in produced and v not in self.inputs) | calls
        return replace(self, nodes=nodes, types={v: t for v, t in merged.items() if v in used}, constants=constants)
