"""Sequences and optionals among a model's inputs and outputs. Programs know tensors only: element i of sequence ``x`` is
the tensor ``x.i``, and an optional that is absent is no tensor at all. How many there are, the given inputs tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import numpy as np
from numpy.typing import NDArray

from cimc.frontend.builder import Value
from cimc.frontend.call import Operand
from cimc.frontend.record import Group, TensorType

NamedTypes = tuple[tuple[str, TensorType], ...]


def element_name(group: str, index: int) -> str:
    """The name of a sequence's element."""
    return f"{group}.{index}"


def elements(group: str, names: Iterable[str]) -> tuple[str, ...]:
    """Those of ``names`` that are a sequence's elements, in order."""
    known = frozenset(names)
    return tuple(takewhile(known.__contains__, (element_name(group, i) for i in count())))


@dataclass(frozen=True)
class Inputs:
    """A model's inputs as tensors. ``whole``: sequences and absent optionals by name, with the tensors they are of (None:
    absent)."""

    tensors: NamedTypes
    whole: Mapping[str, tuple[str, ...] | None]

    def operands(self, values: Mapping[str, Operand]) -> dict[str, Operand]:
        """What the graph reads under the names of groups."""
        found: dict[str, Operand] = {}
        for name, parts in self.whole.items():
            members = [values[p] for p in parts or ()]
            found[name] = None if parts is None else tuple(v for v in members if isinstance(v, Value))
        return found


def opened(inputs: NamedTypes, given: Mapping[str, NDArray[np.generic]] | None) -> Inputs:
    """The inputs with groups taken apart by what is given; without given inputs as they are."""
    tensors: list[tuple[str, TensorType]] = []
    whole: dict[str, tuple[str, ...] | None] = {}
    for name, kind in inputs:
        if given is None or not isinstance(kind.dtype, Group):
            tensors.append((name, kind))
            continue
        parts = elements(name, given)
        present = kind.dtype.optional and name in given
        if not present:
            whole[name] = None if kind.dtype.optional and not parts else parts
        tensors += [(p, TensorType(given[p].dtype, given[p].shape)) for p in ((name,) if present else parts)]
    return Inputs(tuple(tensors), whole)


def gathered(
    names: Sequence[str], found: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic] | list[NDArray[np.generic]]]:
    """A program's outputs under the model's names: sequences as lists, absent optionals as empty ones."""
    return {n: found[n] if n in found else [found[p] for p in elements(n, found)] for n in names}
