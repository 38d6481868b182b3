"""What the tiles of a program share while it is made flat: costs, channels, ways, and numbers for everything."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from cimc.arch import noc
from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Kind, Value
from cimc.isa.operands import Affine, Extent
from cimc.isa.program import MatrixDecl, Program
from cimc.sim.job import Action, Job, action_of
from cimc.sim.tables import ACCUMULATES, READS, WRITES, Ints, Price

Words = tuple[tuple[str, Value], ...]  # an instruction's keywords
K = TypeVar("K")


class Numbers(dict[K, int]):
    """Numbers for things, in the order in which they are first asked for."""

    def __missing__(self, key: K) -> int:
        number = self[key] = len(self)
        return number


@dataclass(frozen=True, slots=True)
class Form:
    """What all instructions of a mnemonic have in common."""

    mnemonic: str
    action: Action
    unit: str
    kinds: tuple[Kind, ...]  # of its operands; the last one stands for all that follow
    variadic: bool
    words: bool  # whether its keywords may change what it costs: those of transfers only say where to
    token: bool
    defaults: Mapping[str, Value]
    place: Mapping[str, int]  # of keywords among all of them

    def complete(self, words: Words) -> Words:
        """Keywords with those left out, in the order of the row."""
        if len(words) == len(self.place):
            return words
        given = {**self.defaults, **dict(words)}
        return tuple([(name, given[name]) for name in self.place])

    @staticmethod
    def of(mnemonic: str) -> Form:
        """The form of a mnemonic."""
        spec = INSTRUCTIONS[mnemonic]
        kind = action_of(mnemonic)
        return Form(
            mnemonic,
            kind,
            "memory" if kind is Action.HOST else spec.unit.value,
            tuple(o.kind for o in spec.operands),
            spec.variadic,
            bool(spec.keywords) and kind in (Action.COMPUTE, Action.HOST, Action.MEMORY, Action.COLLECT),
            not spec.operands,
            {k.name: k.default for k in spec.keywords if k.default is not None},
            {k.name: i for i, k in enumerate(spec.keywords)},
        )

    def shared(self, index: int) -> bool:
        """Whether the operand at a position is a view of a global buffer."""
        return self.kinds[min(index, len(self.kinds) - 1)] in GLOBAL


class Shapes(dict[tuple[Extent, ...], int]):
    """Numbers for extents; ``varies``: whether any is affine."""

    def __init__(self) -> None:
        super().__init__()
        self.varies = array("q")

    def __missing__(self, key: tuple[Extent, ...]) -> int:
        self.varies.append(any(isinstance(e, Affine) for e in key))
        number = self[key] = len(self)
        return number


class Pool:
    """What the tiles of a program share."""

    def __init__(self, program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> None:
        self.program, self.chip, self.bound = program, chip, bound
        self.globals = {g.name: g for g in program.globals}
        self.shapes = Shapes()
        self.units: dict[str, TileUnits] = {}  # by kind of tile
        self.prices: list[Price] = []
        self.priced: list[tuple[int, ...]] = []  # per price: the line of ``costs``
        self.matrices: Numbers[tuple[object, ...]] = Numbers()

    def matrix(self, decl: MatrixDecl, held: int) -> int:
        """A number that is the same for matrices that cost the same and have as many spans of cores among the ranges of
        their instructions."""
        blocks = tuple([(b.row_end - b.row, b.col_end - b.col) for b in decl.blocks])
        cores = len({b.core for b in decl.blocks})
        return self.matrices[decl.rows, decl.cols, bool(decl.key), cores, blocks, held]

    def unit(self, tile: int, kind: str) -> TileUnits:
        """The units of the tiles of a kind, of which ``tile`` is one."""
        if kind not in self.units:
            self.units[kind] = TileUnits(self.chip, tile)
        return self.units[kind]

    def price(self, job: Job, form: Form, kind: str) -> int:
        """Enter what a job costs; its number."""
        chip = self.chip
        request, response = noc.packet_cycles(chip, job.request), noc.packet_cycles(chip, job.response)
        there = job.bytes if form.action in (Action.SEND, Action.REDUCE) else job.request
        cross, back = noc.crossing_cycles(chip, there), noc.crossing_cycles(chip, job.response)
        unit = Action.HOST.name.lower() if form.action is Action.HOST else form.unit
        self.prices.append(Price(job, form.action, unit, kind))
        self.priced.append((job.cycles, job.bytes, request, response, job.busy, job.cores, cross, back, job.added))
        return len(self.prices) - 1


def flags(job: Job) -> tuple[int, ...]:
    """What becomes of a job's ranges, in the order of its operands."""
    return tuple([WRITES * r.writes + ACCUMULATES * r.accumulates + READS * r.reads for r in job.ranges])


def numbers(values: Sequence[int]) -> Ints:
    """Integers as an array, in a third of the time of ``np.array``."""
    return np.fromiter(values, np.int64, len(values))


def looked_up(table: Mapping[K, int], keys: Sequence[K]) -> Ints:
    """The numbers of things in a table."""
    return np.fromiter(map(table.__getitem__, keys), np.int64, len(keys))


def distinct(code: Ints) -> tuple[Ints, Ints]:
    """Of the different values of an array, ascending: where each stands first; and which one stands at each place."""
    order = np.argsort(code, kind="stable")
    new = np.ones(len(code), np.bool_)
    new[1:] = np.diff(code[order]) != 0
    of = np.empty(len(code), np.int64)
    of[order] = np.cumsum(new) - 1
    return order[new], of


def pack(columns: list[tuple[Ints, int]]) -> Ints:
    """One number per row for what stands in its columns, each of numbers from 0 up to its size."""
    code, room = np.zeros(len(columns[0][0]), np.int64), 1
    for values, size in columns:
        if room * size >= 1 << 62:
            code = distinct(code)[1]
            room = len(code)
        code = code * size + values
        room *= size
    return code
