"""Programmed cores that are kept from run to run, so that the same cells are not drawn again."""

from __future__ import annotations

from dataclasses import dataclass, field

from cimc.analog import AnalogMatrix
from cimc.sim.tally import FaultTally, Samples

Name = tuple[object, ...]
MOST_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class Programmed:
    """One core as it was programmed, before anything was read. ``faults``: the stuck cells it met; ``table_bits``: of the
    tables that say where its rows and columns lie; ``samples``: what its converters' ranges were calibrated on."""

    matrix: AnalogMatrix
    faults: FaultTally | None
    table_bits: int
    samples: Samples | None


@dataclass
class Kept:
    """Cores of one program and its weights, by seed, device, tile and place. No more than ``most`` bytes of them: what comes
    later is programmed in every run anew."""

    most: int = MOST_BYTES
    _size: int = 0
    _cores: dict[Name, Programmed] = field(default_factory=dict[Name, Programmed])

    def find(self, name: Name) -> Programmed | None:
        """The core of that name, if it is kept."""
        return self._cores.get(name)

    def keep(self, name: Name, core: Programmed) -> None:
        """Keep a core, if there is room; in place of one of the same name."""
        old = self._cores.get(name)
        size = self._size + core.matrix.nbytes - (0 if old is None else old.matrix.nbytes)
        if size <= self.most:
            self._cores[name] = core
            self._size = size

    @property
    def nbytes(self) -> int:
        """Bytes of all cores together."""
        return self._size

    def __len__(self) -> int:
        return len(self._cores)
