"""What the tiles of a program share while it is made flat: costs, channels, ways, and numbers for everything."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from cimc.arch.spec import ChipSpec
from cimc.arch.units import TileUnits
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Kind, Value
from cimc.isa.operands import Affine, Extent, View
from cimc.isa.program import MatrixDecl, Program
from cimc.sim import noc
from cimc.sim.job import Action, Job, action_of, over, span
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
            bool(spec.keywords) and kind in (Action.COMPUTE, Action.HOST, Action.MEMORY),
            not spec.operands,
            {k.name: k.default for k in spec.keywords if k.default is not None},
            {k.name: i for i, k in enumerate(spec.keywords)},
        )

    def shared(self, index: int) -> bool:
        """Whether the operand at a position is a view of a global buffer."""
        return self.kinds[min(index, len(self.kinds) - 1)] in GLOBAL


class Layouts(dict[tuple[tuple[Extent, ...], tuple[int, ...]], int]):
    """Numbers for how views lie, by extents and strides. ``low``, ``high``: the elements [low, high) that a view reaches
    from its offset, equal if it has none or if its extents are affine (``varies``). ``shape``: a number for the extents."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: Numbers[tuple[Extent, ...]] = Numbers()
        self.low, self.high, self.shape, self.varies = array("q"), array("q"), array("q"), array("q")

    def __missing__(self, key: tuple[tuple[Extent, ...], tuple[int, ...]]) -> int:
        shape, strides = key
        varies = any(isinstance(e, Affine) for e in shape)
        low, high = (0, 0) if varies else span(View("", Affine(), shape, strides), {})
        for column, value in zip(
            (self.low, self.high, self.shape, self.varies), (low, high, self.shapes[shape], varies), strict=True
        ):
            column.append(value)
        self[key] = number = len(self)
        return number


class Route(NamedTuple):
    """Where a send goes: its parts of the tables ``dests`` and ``trees``; links within chips and between them."""

    dest: int
    dest_end: int
    tree: int
    tree_end: int
    links: int
    crossings: int


class Pool:
    """What the tiles of a program share."""

    def __init__(self, program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> None:
        self.program, self.chip, self.bound = program, chip, bound
        self.globals = {g.name: g for g in program.globals}
        self.ports = noc.memory_ports(chip)
        self.mesh = noc.mesh(chip)
        self.layouts = Layouts()
        self.words: Numbers[Words] = Numbers()
        self.units: dict[str, TileUnits] = {}  # by kind of tile
        self.prices: list[Price] = []
        self.priced: list[tuple[int, ...]] = []  # per price: the columns of its variants
        self.matrices: Numbers[tuple[object, ...]] = Numbers()
        self.channels: Numbers[tuple[Value, int, Value, bool]] = Numbers()  # source, destination, tag, token
        self.servers: Numbers[int] = Numbers({-1: 0})  # by home
        self.ways: dict[tuple[int, int], tuple[int, int, int]] = {}  # tile, where to → number, links, crossings
        self.way_part, self.way_link = array("q", (0,)), array("q")
        self.dest_channel, self.dest_leaf = array("q"), array("q")
        self.tree_link, self.tree_parent = array("q"), array("q")

    def way(self, tile: int, to: int) -> tuple[int, int, int]:
        """The number of the way from a tile to where an access is served and back, and one way its links within chips and
        from chip to chip."""
        found = self.ways.get((tile, to))
        if found is None:
            there = noc.way(self.mesh, tile, to)
            for links in (there, noc.way(self.mesh, to, tile)):
                self.way_link.extend(links)
                self.way_part.append(len(self.way_link))
            crossings = noc.crossings(self.mesh, there)
            found = self.ways[tile, to] = (len(self.ways), len(there) - crossings, crossings)
        return found

    def route(self, source: int, words: Words, form: Form) -> Route:
        """The channels and the tree of a send."""
        given = {**form.defaults, **dict(words)}
        to, tag = given["to"], given["tag"]
        destinations = to if isinstance(to, tuple) else ()
        dest, begin = len(self.dest_channel), len(self.tree_link)
        if len(destinations) == 1:
            links = noc.way(self.mesh, source, destinations[0])
            self.tree_parent.extend(range(-1, len(links) - 1))
            self.dest_leaf.append(len(links) - 1)
        else:
            tree = noc.multicast(self.mesh, source, destinations)
            links = tree.links
            self.tree_parent.extend(tree.parents)
            self.dest_leaf.extend(tree.leaves)
        self.tree_link.extend(links)
        for destination in destinations:
            self.dest_channel.append(self.channels[source, destination, tag, form.token])
        crossings = noc.crossings(self.mesh, links)
        ends = (dest, len(self.dest_channel), begin, len(self.tree_link))
        return Route(*ends, len(links) - crossings, crossings)

    def matrix(self, decl: MatrixDecl) -> int:
        """A number that is the same for matrices that cost the same."""
        blocks = tuple([(b.row_end - b.row, b.col_end - b.col) for b in decl.blocks])
        return self.matrices[decl.rows, decl.cols, len({b.core for b in decl.blocks}), blocks]

    def unit(self, tile: int, kind: str) -> TileUnits:
        """The units of the tiles of a kind, of which ``tile`` is one."""
        if kind not in self.units:
            self.units[kind] = TileUnits(self.chip, tile)
        return self.units[kind]

    def price(self, job: Job, form: Form, kind: str, links: int, crossings: int) -> int:
        """Enter what a job costs over so many links; its number."""
        chip = self.chip
        travels = form.action is Action.SEND or form.action is Action.MEMORY
        actions = over(job, links, crossings) if travels else job.actions
        request, response = noc.packet_cycles(chip, job.request), noc.packet_cycles(chip, job.response)
        there = job.bytes if form.action is Action.SEND else job.request
        cross, back = noc.crossing_cycles(chip, there), noc.crossing_cycles(chip, job.response)
        unit = Action.HOST.name.lower() if form.action is Action.HOST else form.unit
        self.prices.append(Price(job, actions, form.action, unit, kind, links, request, response, cross, back))
        self.priced.append((job.cycles, job.bytes, request, response, 0, job.busy, job.cores, cross, back))
        return len(self.prices) - 1


def flags(job: Job) -> tuple[int, ...]:
    """What becomes of a job's ranges, in the order of its operands."""
    return tuple([WRITES * r.writes + ACCUMULATES * r.accumulates + READS * r.reads for r in job.ranges])


def numbers(values: Sequence[int]) -> Ints:
    """Integers as an array, in a third of the time of ``np.array``."""
    return np.fromiter(values, np.int64, len(values))


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
