"""What the names in a tile's instructions mean to the values engine, and what their rows say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction, Kind, Machine, Matrix, Meaning, Spec, Unit
from cimc.isa.kernels import is_float
from cimc.isa.operands import View
from cimc.sim import memory
from cimc.sim.channels import Links
from cimc.sim.memory import Storage

Array = NDArray[np.generic]
ARENA_BYTES = 1 << 21  # about what stays in a processor's second-level cache
_READS = (Kind.READ, Kind.UPDATE, Kind.GLOBAL_READ)
_WRITES = (Kind.WRITE, Kind.UPDATE, Kind.GLOBAL_WRITE)
_STACKED = frozenset({Unit.VECTOR, Unit.SPECIAL, Unit.MATMUL, Unit.MEMORY, Unit.PORT, Unit.RECEIVE})
_STACKED_TOO = frozenset({"mvm", "wait"})


class NotFinite(Exception):
    """Raised where activations that are about to be quantised hold NaN or infinity."""


@dataclass
class Arena:
    """Memory for the buffers of turns that are executed at once: one piece for all tiles, which take turns as well."""

    size: int = ARENA_BYTES
    _raw: NDArray[np.uint8] | None = field(default=None, repr=False)

    @property
    def raw(self) -> NDArray[np.uint8]:
        """The piece, made when first asked for."""
        if self._raw is None:
            self._raw = np.empty(self.size, np.uint8)
        return self._raw


class Recorded(Protocol):
    """What stands for the meanings of a tile's instructions where they are recorded (:mod:`cimc.sim.recording`)."""

    def meaning(self, step: Instruction) -> Meaning:
        """What is called in place of an instruction's meaning."""
        ...


@dataclass(frozen=True)
class Scope:
    """What the names in a tile's instructions mean."""

    tile: int
    machine: Machine  # for instructions with operands
    tokens: Machine  # for those without: their messages are tokens
    links: Links
    local: Mapping[str, Storage]
    shared: Mapping[str, Storage]
    quantized: frozenset[str]  # local buffers of q types
    lasting: frozenset[str]  # local buffers that survive the run
    matrices: Mapping[str, Matrix]
    params: Mapping[str, int]
    check_finite: bool
    steps: memory.Steps
    arena: Arena
    ordered: bool  # whether a matrix must see its vectors in the order of the turns
    recorded: Recorded | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """What decoding needs of a mnemonic's row. ``shared``, per operand: whether it is a global buffer; the last one stands
    for all that follow."""

    spec: Spec
    meaning: Meaning
    shared: tuple[bool, ...]
    defaults: Mapping[str, object]
    written: tuple[int, ...]  # which operands are views of local buffers that are written only
    read: tuple[int, ...]  # and read only
    reads: tuple[bool, ...]  # per operand: whether it is a view that is read
    writes: tuple[bool, ...]
    update: int  # which operand is written only if a keyword says so; -1: none
    stacks: bool
    """Whether its meaning takes operands with one more extent before theirs, the turns of a repeat."""


@cache
def row_of(mnemonic: str) -> Row:
    """The row of a mnemonic."""
    spec = INSTRUCTIONS[mnemonic]
    kinds = [o.kind for o in spec.operands]
    return Row(
        spec,
        spec.meaning,
        tuple(k in GLOBAL for k in kinds),
        {k.name: k.default for k in spec.keywords if k.default is not None},
        tuple(i for i, k in enumerate(kinds) if k is Kind.WRITE),
        tuple(i for i, k in enumerate(kinds) if k is Kind.READ),
        tuple(k in _READS for k in kinds),
        tuple(k in _WRITES for k in kinds),
        kinds.index(Kind.UPDATE) if Kind.UPDATE in kinds else -1,
        spec.unit in _STACKED or mnemonic in _STACKED_TOO,
    )


def meaning_of(step: Instruction, scope: Scope) -> Meaning:
    """The meaning of an instruction. Behind a test of its floating-point operands, if it writes a q type: there NaN and
    infinity would turn into arbitrary codes."""
    if scope.recorded is not None:
        return scope.recorded.meaning(step)
    row = row_of(step.mnemonic)
    meaning = row.meaning
    if not scope.check_finite or not row.written:
        return meaning
    views = [o.buffer if isinstance(o, View) else "" for o in step.operands]
    if not any(views[i] in scope.quantized for i in row.written):
        return meaning
    reads = [i for i in row.read if is_float(scope.local[views[i]].dtype)]
    if not reads:
        return meaning

    def checked(machine: Machine, *arguments: Array, **keywords: object) -> None:
        for i in reads:
            x = arguments[i]
            if not np.isfinite(x).all():
                raise NotFinite("NaN" if np.isnan(x).any() else "infinity")
        meaning(machine, *arguments, **keywords)

    return checked
