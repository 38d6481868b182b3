"""Programmed cores that are kept from run to run, so that the same cells are not drawn again."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cimc.analog import AnalogMatrix
from cimc.sim.tally import FaultTally

Name = tuple[object, ...]
MOST_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Programmed:
    """One core as it was programmed, before anything was read. ``faults``: the stuck cells it met; ``table_bits``: of the
    tables that say where its rows and columns lie; ``seen``: the vectors that its converters' ranges were calibrated on."""

    matrix: AnalogMatrix
    faults: FaultTally | None
    table_bits: int
    seen: NDArray[np.generic] | None

    def ranged_by(self, seen: NDArray[np.generic] | None) -> bool:
        """Whether its converters have the ranges that ``seen`` gives them."""
        if seen is None or self.seen is None:
            return seen is self.seen
        return np.array_equal(seen, self.seen)


@dataclass
class Kept:
    """Programmed cores by what decides their cells: seed, device, tile and core, the weights' bytes and their place. Of any
    number of programs, but no more than ``most`` bytes: cores of earlier programs then make room (:meth:`begin`), and what
    finds none is programmed in every run anew."""

    most: int = MOST_BYTES
    _size: int = 0
    _cores: dict[Name, Programmed] = field(default_factory=dict[Name, Programmed])
    _used: set[Name] = field(default_factory=set[Name])

    def begin(self) -> None:
        """Another program: what it does not use may go."""
        self._used = set()

    def find(self, name: Name) -> Programmed | None:
        """The core of that name, if it is kept."""
        self._used.add(name)
        return self._cores.get(name)

    def keep(self, name: Name, core: Programmed) -> None:
        """Keep a core, if there is room; in place of one of the same name."""
        self._used.add(name)
        self._drop(name)
        if self._size + core.matrix.nbytes > self.most:
            for old in [n for n in self._cores if n not in self._used]:
                self._drop(old)
        if self._size + core.matrix.nbytes <= self.most:
            self._cores[name] = core
            self._size += core.matrix.nbytes

    def _drop(self, name: Name) -> None:
        old = self._cores.pop(name, None)
        self._size -= 0 if old is None else old.matrix.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of all cores together."""
        return self._size

    def __len__(self) -> int:
        return len(self._cores)
