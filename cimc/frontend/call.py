"""What a spelling is: the translation of an ONNX op into IR ops, entered into a table by domain and op type.

A spelling gets a :class:`Call` (operands, attributes, opset version, the builder) and returns the values of the node's
outputs. It raises :class:`NeedsHost` for what tiles cannot do, Unsupported for what nobody here does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cimc.frontend.builder import Builder, Impossible, Unsupported, Value, element_of
from cimc.frontend.record import Array, AttrValue, OnnxGraph, OnnxNode, Unreadable


class NeedsHost(Exception):
    """The op, or this use of it, is left to the host controller; the message says why. ``standard``: only ONNX's
    reference implementation does it as the standard says."""

    def __init__(self, why: str, *, standard: bool = False) -> None:
        super().__init__(why)
        self.standard = standard


Operand = Value | tuple[Value, ...] | None
"""A tensor, a sequence of tensors (its length is known when the model is compiled), or an absent optional."""
Result = Value | Sequence[Operand]


class Run(Protocol):
    """Translates a subgraph in place: its outputs for these arguments. ``suffix`` tells rounds of a loop apart."""

    def __call__(self, graph: OnnxGraph, arguments: Sequence[Operand], suffix: str = "") -> tuple[Operand, ...]:
        """The subgraph's outputs."""
        ...


@dataclass(frozen=True)
class Call:
    """One ONNX node with its operands at hand."""

    node: OnnxNode
    inputs: tuple[Operand, ...]
    version: int
    b: Builder
    run: Run
    note: Callable[[str], None]
    ask: Callable[[Value], None]
    """Remembers that a value must be known: model inputs it comes from may then be compiled in."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def outputs(self) -> int:
        """Number of outputs the node lists."""
        return len(self.node.outputs)

    def wants(self, index: int) -> bool:
        """Whether output ``index`` is used."""
        return index < len(self.node.outputs) and bool(self.node.outputs[index])

    def opt(self, index: int) -> Value | None:
        """Input ``index``, or None if it is absent."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if isinstance(value, tuple):
            raise Unsupported(f"input {index} is a sequence of tensors")
        return value

    def x(self, index: int = 0) -> Value:
        """Input ``index``. Raises Impossible if it is absent."""
        value = self.opt(index)
        if value is None:
            raise Impossible(f"input {index} is missing")
        return value

    def tensors(self) -> tuple[Value, ...]:
        """All inputs, each a tensor."""
        return tuple(self.x(i) for i in range(len(self.inputs)))

    def known(self, index: int, what: str) -> Array | None:
        """The elements of an optional input that must be known when the model is compiled."""
        value = self.opt(index)
        if value is None:
            return None
        array = self.b.array(value)
        if array is None:
            self.ask(value)
            raise NeedsHost(f"{what} (input {index}) is known only at run time")
        return array

    def known_ints(self, index: int, what: str) -> tuple[int, ...] | None:
        """The same as a flat list of integers."""
        array = self.known(index, what)
        return None if array is None else tuple(int(v) for v in array.reshape(-1).tolist())

    def _attr(self, name: str) -> AttrValue | None:
        value = self.node.attributes.get(name)
        if isinstance(value, Unreadable):
            raise Unsupported(value.reason)
        return value

    def _list(self, name: str) -> tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | None:
        value = self._attr(name)
        if value is not None and not isinstance(value, tuple):
            raise Impossible(f"attribute '{name}' is no list")
        return value

    def int(self, name: str, default: int | None = None) -> int:
        """An integer attribute. Raises Impossible if it is missing and has no default."""
        value = self._attr(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, int):
            raise Impossible(f"attribute '{name}' is missing or no integer")
        return value

    def float(self, name: str, default: float | None = None) -> float:
        """A number attribute. Raises Impossible if it is missing and has no default."""
        value = self._attr(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, float | int):
            raise Impossible(f"attribute '{name}' is missing or no number")
        return float(value)

    def text(self, name: str, default: str | None = None) -> str:
        """A string attribute. Raises Impossible if it is missing and has no default."""
        value = self._attr(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise Impossible(f"attribute '{name}' is missing or no text")
        return value

    def ints(self, name: str) -> tuple[int, ...] | None:
        """A list of integers, or None if the node does not have it."""
        value = self._list(name)
        if value is None:
            return None
        whole = tuple(v for v in value if isinstance(v, int))
        if len(whole) != len(value):
            raise Impossible(f"attribute '{name}' is no list of integers")
        return whole

    def floats(self, name: str) -> tuple[float, ...] | None:
        """A list of numbers, or None if the node does not have it."""
        value = self._list(name)
        if value is None:
            return None
        numbers = tuple(float(v) for v in value if isinstance(v, float | int))
        if len(numbers) != len(value):
            raise Impossible(f"attribute '{name}' is no list of numbers")
        return numbers

    def tensor(self, name: str) -> Array | None:
        """A tensor attribute, or None if the node does not have it."""
        value = self._attr(name)
        if value is None:
            return None
        if not isinstance(value, np.ndarray):
            raise Impossible(f"attribute '{name}' is no tensor")
        return value

    def graph(self, name: str) -> OnnxGraph:
        """A subgraph attribute. Raises Impossible if it is missing."""
        value = self._attr(name)
        if not isinstance(value, OnnxGraph):
            raise Impossible(f"attribute '{name}' is missing or no graph")
        return value

    def has(self, name: str) -> bool:
        """Whether the node has the attribute."""
        return name in self.node.attributes

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as one from 0. Raises Impossible if it is outside ``rank``."""
        if not -rank <= axis < rank:
            raise Impossible(f"axis {axis} of a tensor with {rank} dimensions")
        return axis % rank if rank else 0

    def axes(self, axes: Sequence[int], rank: int) -> tuple[int, ...]:
        """Several axes, from 0. Raises Impossible if one is outside ``rank`` or occurs twice."""
        found = tuple(self.axis(a, rank) for a in axes)
        if len(set(found)) != len(found):
            raise Impossible(f"axes {tuple(axes)} name an axis twice")
        return found


@dataclass(frozen=True)
class Spelling:
    """A row of the table: how nodes of one op type are translated. ``runs``: ``tiles``, ``view`` (no instruction),
    ``folded`` (gone before run time) or ``host``; ``note``: restrictions, for docs/ops.md."""

    domain: str
    op_type: str
    translate: Callable[[Call], Result]
    runs: str
    note: str
    module: str


SPELLINGS: dict[tuple[str, str], Spelling] = {}

Translate = Callable[[Call], Result]


def spelling(*op_types: str, domain: str = "", runs: str = "tiles", note: str = "") -> Callable[[Translate], Translate]:
    """Enter a translation into the table under these op types. Raises ValueError if one is taken."""

    def enter(translate: Translate) -> Translate:
        for op_type in op_types:
            if (domain, op_type) in SPELLINGS:
                raise ValueError(f"{domain}::{op_type} is spelled twice")
            SPELLINGS[domain, op_type] = Spelling(domain, op_type, translate, runs, note, translate.__module__)
        return translate

    return enter


def same_element(c: Call, values: Sequence[Value]) -> None:
    """Raises Impossible unless all values have one element type."""
    if len({v.element for v in values}) > 1:
        raise Impossible("operands have element types " + ", ".join(v.element.value for v in values))


__all__ = [
    "SPELLINGS",
    "Call",
    "Impossible",
    "NeedsHost",
    "Operand",
    "Result",
    "Spelling",
    "Unsupported",
    "Value",
    "element_of",
    "same_element",
    "spelling",
]
