"""What a program's keys name: constants, pieces of constants, weight codes with their unrounded twins, host calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from cimc.ir.constants import derived
from cimc.ir.evaluate import FLOAT_COMPANION
from cimc.ir.graph import Array, Constants, Graph
from cimc.isa.program import Program

Kind = tuple[np.dtype[np.generic], tuple[int, ...]]
"""Type and shape of an array."""


class Contents(Mapping[str, Array]):
    """The arrays of a program by its keys, each computed when it is read, and not held: ``dict(contents)`` has them all in
    memory. :meth:`kind` tells types and shapes without computing anything."""

    def __init__(self, program: Program, graph: Graph, constants: Constants) -> None:
        self._constants = derived(constants)
        self._graph = graph
        self._names = _keys(program, graph, constants)

    def __getitem__(self, key: str) -> Array:
        name, first, last = self._names[key]
        whole = self._constants[name]
        return whole if last is None else np.ascontiguousarray(whole).reshape(-1)[first:last]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def kind(self, key: str) -> Kind:
        """NumPy type and shape of the array of a key."""
        name, first, last = self._names[key]
        type = self._graph.types.get(name)
        if type is None and name.endswith(FLOAT_COMPANION):
            return np.dtype(np.float32), self._graph.types[name.removesuffix(FLOAT_COMPANION)].shape
        if type is None:
            call = self._constants[name]
            return call.dtype, call.shape
        return type.element.dtype(exact=False), type.shape if last is None else (last - first,)

    def release(self) -> None:
        """Give back memory that what was read so far still takes."""
        self._constants.release()


def _keys(program: Program, graph: Graph, constants: Constants) -> dict[str, tuple[str, int, int | None]]:
    """Key → constant, and the first and last element of a piece (no last: all of it)."""
    found: dict[str, tuple[str, int, int | None]] = {}
    for buffer in program.globals:
        if buffer.key:
            found[buffer.key] = (buffer.key, 0, None)
        twin = f"{buffer.key}{FLOAT_COMPANION}"
        if buffer.key and buffer.element.quantized and twin in constants:
            found[twin] = (twin, 0, None)
    for tile in program.tiles:
        for local in tile.buffers:
            if local.key:
                found[local.key] = _piece(local.key)
        for matrix in tile.matrices:
            for key in (matrix.key, f"{matrix.key}{FLOAT_COMPANION}"):
                if key in constants:
                    found[key] = (key, 0, None)
    for node in graph.nodes:
        if node.op == "host":
            call = str(node.attr("call"))
            found[call] = (call, 0, None)
    return dict(sorted(found.items()))


def _piece(key: str) -> tuple[str, int, int]:
    name, _, span = key.rpartition("[")
    first, _, last = span.rstrip("]").partition(":")
    return name, int(first), int(last)
