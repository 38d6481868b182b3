"""What the tiles of a program share while it is made flat: costs, channels, ways, and numbers for everything."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

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
        self.way_part, self.way_link = array("q", (0,)), array("q")
        self.dest_channel, self.dest_leaf = array("q"), array("q")
        self.tree_link, self.tree_parent = array("q"), array("q")

    def between(self, tiles: Ints, to: Ints) -> tuple[Ints, Ints, Ints]:
        """Enter the ways from tiles to where accesses are served and back: their numbers, and one way their links within
        chips and from chip to chip."""
        first = (len(self.way_part) - 1) // 2
        pairs = np.column_stack((tiles, to, to, tiles)).reshape(-1, 2)
        links, lengths = noc.ways(self.mesh, pairs[:, 0], pairs[:, 1])
        self.way_part.extend((len(self.way_link) + np.cumsum(lengths)).tolist())
        self.way_link.extend(links.tolist())
        crossings = self._crossings(links, lengths)[::2]
        return first + np.arange(len(tiles)), lengths[::2] - crossings, crossings

    def routes(self, sources: Sequence[int], words: Sequence[Words], form: Form) -> Ints:
        """Enter the channels and trees of sends. For each: its parts of the tables ``dests`` and ``trees`` (from, to), links
        within chips, links between them."""
        given = [form.complete(w) for w in words]
        to, tag = form.place["to"], form.place["tag"]
        targets = [t if isinstance(t := w[to][1], tuple) else () for w in given]
        single = [t[0] if len(t) == 1 else s for s, t in zip(sources, targets, strict=True)]
        links, lengths = noc.ways(self.mesh, numbers(sources), numbers(single))
        ends = np.cumsum(lengths)
        begin = len(self.tree_link)
        self.tree_link.extend(links.tolist())
        self.tree_parent.extend((np.arange(len(links)) - np.repeat(ends - lengths, lengths) - 1).tolist())
        crossings = self._crossings(links, lengths)
        tree = np.column_stack((begin + ends - lengths, begin + ends, lengths - crossings, crossings))
        many = [i for i, t in enumerate(targets) if len(t) != 1]
        tree[many] = np.array([self._tree(sources[i], targets[i]) for i in many], np.int64).reshape(-1, 4)
        channels = self.channels
        counts = numbers([len(t) for t in targets])
        dests = len(self.dest_channel) + np.cumsum(counts)
        lone = (lengths - 1).tolist()
        for i, (source, t, w) in enumerate(zip(sources, targets, given, strict=True)):
            self.dest_channel.extend([channels[source, d, w[tag][1], form.token] for d in t])
            self.dest_leaf.extend((lone[i],) if len(t) == 1 else noc.multicast(self.mesh, source, t).leaves)
        return np.column_stack((dests - counts, dests, tree))

    def _tree(self, source: int, to: tuple[int, ...]) -> tuple[int, int, int, int]:
        """Enter the tree of a send to several tiles: where it begins and ends, links within chips and between."""
        tree, begin = noc.multicast(self.mesh, source, to), len(self.tree_link)
        self.tree_link.extend(tree.links)
        self.tree_parent.extend(tree.parents)
        crossings = sum(link >= self.mesh[2] for link in tree.links)
        return begin, len(self.tree_link), len(tree.links) - crossings, crossings

    def _crossings(self, links: Ints, lengths: Ints) -> Ints:
        """How many links of each way lead from chip to chip."""
        ends = np.cumsum(lengths)
        before = np.concatenate(([0], np.cumsum(links >= self.mesh[2])))
        return before[ends] - before[ends - lengths]

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
