"""What the tiles of a program share while it is made flat: costs, channels, ways, and the tables that are being filled."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from cimc.arch.spec import ChipSpec
from cimc.isa.instruction import GLOBAL, INSTRUCTIONS, Instruction
from cimc.isa.operands import Affine, Extent, View
from cimc.isa.program import MatrixDecl, Program
from cimc.sim import noc
from cimc.sim.job import Action, Job, action, is_token, span
from cimc.sim.tables import ACCUMULATES, READS, WRITES, Price

Reach = tuple[int, int] | None  # elements [low, high) of a view from its offset; None without elements


@dataclass(frozen=True, slots=True)
class Form:
    """What all instructions of a mnemonic have in common."""

    action: Action
    unit: str
    shared: tuple[bool, ...]  # per operand: whether it is a global buffer; the last one stands for all that follow
    words: bool  # whether its keywords may change what it costs: those of transfers only say where to
    token: bool

    @staticmethod
    def of(step: Instruction) -> Form:
        """The form of an instruction's mnemonic."""
        spec, kind = INSTRUCTIONS[step.mnemonic], action(step)
        return Form(
            kind,
            spec.unit.value,
            tuple(o.kind in GLOBAL for o in spec.operands),
            kind in (Action.COMPUTE, Action.HOST, Action.MEMORY),
            is_token(step),
        )


@dataclass(frozen=True, slots=True)
class Laid:
    """How views of the same extents and strides lie."""

    shape: int  # a number for the extents
    reach: Reach
    varies: bool  # extents are affine; then ``reach`` says nothing


@dataclass(frozen=True, slots=True)
class Route:
    """Where a send goes: its parts of the tables ``dests`` and ``trees``."""

    channels: tuple[int, ...]
    dest: int
    dest_end: int
    tree: int
    tree_end: int
    links: int  # within chips
    crossings: int  # links from chip to chip


class Pool:
    """What the tiles of a program share: costs and ways, and the tables that are filled tile by tile."""

    def __init__(self, program: Program, chip: ChipSpec, bound: Mapping[str, int]) -> None:
        self.program, self.chip, self.bound = program, chip, bound
        self.globals = {g.name: g for g in program.globals}
        self.ports = noc.memory_ports(chip)
        self.forms: dict[str, Form] = {}
        self.prices: list[Price] = []
        self.flags: list[tuple[int, ...]] = []  # per cost, of its ranges
        self.cost_of: dict[tuple[object, ...], int] = {}
        self.matrices: dict[tuple[object, ...], int] = {}
        self.shapes: dict[tuple[Extent, ...], int] = {}
        self.layouts: dict[tuple[tuple[Extent, ...], tuple[int, ...]], Laid] = {}  # by extents and strides
        self.layers: dict[str, int] = {}
        self.channels: dict[tuple[int, int, int, bool], int] = {}
        self.traffic: dict[int, list[int]] = {}  # channel → messages, smallest
        self.servers: dict[int, int] = {-1: 0}  # home → number
        self.ways: dict[tuple[int, int], tuple[int, int, int]] = {}  # tile, where to → number, links, crossings
        self.routes: dict[tuple[object, ...], Route] = {}
        self.rows, self.variants, self.ranges, self.bounds = array("q"), array("q"), array("q"), array("q")
        self.affine, self.terms = array("q", (0, 0)), array("q")
        self.dests, self.trees = array("q"), array("q")
        self.way_part, self.way_link = array("q", (0,)), array("q")
        self.variant_cost, self.variant_row = array("q"), array("q")
        self.row_tile, self.row_layer = array("q"), array("q")
        self.instructions: list[Instruction | None] = []

    def channel(self, source: int, destination: int, tag: int, token: bool) -> int:
        """The number of a channel."""
        return self.channels.setdefault((source, destination, tag, token), len(self.channels))

    def way(self, tile: int, to: int) -> tuple[int, int, int]:
        """The number of the way from a tile to where an access is served and back, and one way its links within chips and
        from chip to chip."""
        if (tile, to) not in self.ways:
            there = noc.route(self.chip, tile, to)
            for links in (there, noc.route(self.chip, to, tile)):
                self.way_link.extend(links)
                self.way_part.append(len(self.way_link))
            crossings = noc.crossings(self.chip, there)
            self.ways[tile, to] = (len(self.ways), len(there) - crossings, crossings)
        return self.ways[tile, to]

    def route(self, source: int, to: tuple[int, ...], tag: int, token: bool) -> Route:
        """The channels and the tree of a send."""
        key = (source, to, tag, token)
        if key not in self.routes:
            tree = noc.tree(self.chip, source, to)
            dest, begin = len(self.dests) // 2, len(self.trees) // 2
            for link, parent in zip(tree.links, tree.parents, strict=True):
                self.trees.extend((link, parent))
            channels = tuple(self.channel(source, destination, tag, token) for destination in to)
            for channel, leaf in zip(channels, tree.leaves, strict=True):
                self.dests.extend((channel, leaf))
            ends = (dest, len(self.dests) // 2, begin, len(self.trees) // 2)
            crossings = noc.crossings(self.chip, tree.links)
            self.routes[key] = Route(channels, *ends, len(tree.links) - crossings, crossings)
        return self.routes[key]

    def form(self, step: Instruction) -> Form:
        """The form of a mnemonic that has not been seen."""
        return self.forms.setdefault(step.mnemonic, Form.of(step))

    def layout(self, view: View) -> Laid:
        """How a view lies that has not been seen."""
        varies = any(isinstance(e, Affine) for e in view.shape)
        low, high = (0, 0) if varies else span(View(view.buffer, Affine(), view.shape, view.strides), {})
        shape = self.shapes.setdefault(view.shape, len(self.shapes))
        found = Laid(shape, (low, high) if high > low else None, varies)
        return self.layouts.setdefault((view.shape, view.strides), found)

    def matrix(self, decl: MatrixDecl) -> int:
        """A number that is the same for matrices that cost the same."""
        blocks = tuple((b.core, b.row, b.row_end, b.col, b.col_end) for b in decl.blocks)
        kind = (decl.element.name, decl.rows, decl.cols, bool(decl.key), blocks)
        return self.matrices.setdefault(kind, len(self.matrices))

    def add_price(self, key: tuple[object, ...], job: Job, form: Form, kind: str, links: int) -> int:
        """Enter a job that has not been seen."""
        request, response = (noc.packet_cycles(self.chip, size) for size in (job.request, job.response))
        there = job.bytes if form.action is Action.SEND else job.request
        cross, back = (noc.crossing_cycles(self.chip, size) for size in (there, job.response))
        self.cost_of[key] = len(self.prices)
        self.prices.append(Price(job, form.action, form.unit, kind, links, request, response, cross, back))
        flags = (WRITES * r.writes + ACCUMULATES * r.accumulates + READS * r.reads for r in job.ranges)
        self.flags.append(tuple(flags))
        return len(self.prices) - 1
