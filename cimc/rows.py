"""What of the inputs that tiles hold is there from the run before: such an input may be left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from math import prod

from cimc import errors
from cimc.ir.graph import Type
from cimc.isa.program import Program

Held = frozenset[tuple[int, str]]
"""Tile and name of the states that hold an array."""


class Rows:
    """The outputs that the last run of a session left in tiles, by the states that hold them."""

    def __init__(self, program: Program) -> None:
        held = {g.name: frozenset((p.tile, p.buffer) for p in g.pieces) for g in program.globals if g.held}
        self._inputs: dict[str, Held] = {p.name: held[p.buffer] for p in program.inputs if p.buffer in held}
        self._outputs: dict[str, Held] = {p.name: held[p.buffer] for p in program.outputs if p.buffer in held}
        self._there: dict[Held, tuple[int, ...]] = {}

    def ran(self, types: Mapping[str, Type]) -> None:
        """A run has come to its end, in which the outputs had these types."""
        self._there = {held: types[name].shape for name, held in self._outputs.items()}

    def kept(self, types: Mapping[str, Type], given: Collection[str]) -> frozenset[str]:
        """The inputs that are not given and need not be: all their elements are in the tiles. Raises STATE_SHORT for one of
        which there are too few; of a program without such inputs, none."""
        found: set[str] = set()
        for name, held in self._inputs.items():
            want = types[name].shape
            there = self._there.get(held, (0,) * len(want))
            if name in given:
                continue
            if prod(want) and any(n > m for n, m in zip(want, there, strict=True)):
                raise errors.STATE_SHORT(
                    name=name, have=prod(min(p) for p in zip(want, there, strict=True)), want=prod(want)
                )
            found.add(name)
        return frozenset(found)
