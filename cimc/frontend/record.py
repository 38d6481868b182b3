"""What the reader hands on: an ONNX model as plain records. No protobuf beyond this point.

Tensors are NumPy arrays (memory-mapped where the file allows); shapes keep symbols as the text the model has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]

STANDARD = ""
"""The domain of the standard operators (``ai.onnx`` is the same domain by another name)."""
MS = "com.microsoft"
"""The domain of onnxruntime's own operators."""


@dataclass(frozen=True)
class AttrRef:
    """Inside a function: the value of the calling node's attribute of that name."""

    name: str


@dataclass(frozen=True)
class Unreadable:
    """A tensor, type or attribute that has no record here, and why; only a fault if something needs it."""

    reason: str


@dataclass(frozen=True)
class Group(Unreadable):
    """The type of a sequence or an optional."""

    optional: bool = False


@dataclass(frozen=True)
class TensorType:
    """Element type (NumPy) and dims of a declared value: an int, a symbol's text, or None where nothing is said.
    ``dims`` is None if even the rank is not declared."""

    dtype: np.dtype[np.generic] | Unreadable
    dims: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class OnnxNode:
    """One node. ``name`` is unique in the model: unnamed nodes are called ``OpType_index``. Absent optional inputs and
    outputs are ``""``. ``captures`` are names of outer values that its subgraphs read."""

    op_type: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, AttrValue]
    captures: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """``domain::OpType``, or the bare op type in the standard domain."""
        return f"{self.domain}::{self.op_type}" if self.domain else self.op_type


@dataclass(frozen=True)
class OnnxGraph:
    """A graph or subgraph; nodes in an order in which they can run."""

    name: str
    nodes: tuple[OnnxNode, ...]
    inputs: tuple[tuple[str, TensorType], ...]
    outputs: tuple[str, ...]
    initializers: Mapping[str, Array | Unreadable]
    declared: Mapping[str, TensorType] = field(default_factory=dict[str, TensorType])
    """Types of intermediate values as the file states them: never believed, only shown or used for names."""


AttrValue = (
    int
    | float
    | str
    | bytes
    | Array
    | OnnxGraph
    | AttrRef
    | Unreadable
    | tuple[int, ...]
    | tuple[float, ...]
    | tuple[str, ...]
)


@dataclass(frozen=True)
class OnnxFunction:
    """A function of the model: called like an op of its domain."""

    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    defaults: Mapping[str, AttrValue]
    nodes: tuple[OnnxNode, ...]
    opsets: Mapping[str, int]


@dataclass(frozen=True)
class OnnxModel:
    """A whole model file. ``sha256`` covers the file and its external data."""

    path: Path
    graph: OnnxGraph
    functions: Mapping[tuple[str, str], OnnxFunction]
    opsets: Mapping[str, int]
    sha256: str
