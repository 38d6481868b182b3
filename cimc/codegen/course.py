"""What the stages of a region's copy share: the code of its tiles, the values that are made, where the rows of a block are, and
how these go from tile to tile. What the stages do, :mod:`cimc.codegen.flow` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from cimc.codegen.context import Context
from cimc.codegen.fold import BLOCK, ROW, SAMPLE, When
from cimc.codegen.park import Park
from cimc.codegen.stages import Job, Need, Piece, Plan, Rect, Value
from cimc.codegen.tilecode import TileCode, columns
from cimc.ir.graph import Node
from cimc.isa.instruction import Step
from cimc.isa.operands import Affine, Element, View
from cimc.isa.steps import walk
from cimc.mapping.region import Region, Source
from cimc.mapping.segment import pieces
from cimc.mapping.space import Index
from cimc.origin import Origin


class Course:
    """One copy of a region, its share of the batch's samples, while its code is made."""

    def __init__(self, context: Context, plan: Plan) -> None:
        self.context = context
        self.graph = context.graph
        self.placement = context.placement
        self.region = plan.region
        self.plan = plan
        self.copy = plan.copy
        self.samples = plan.region.waves // plan.region.copies
        self.blocks = plan.blocks
        self.park = Park(plan.park, context.chip)
        self.dying = _dying(plan.region)  # values that nothing reads once their only reader has had them
        self.need_of = plan.needs()
        self.wanted: dict[str, dict[Need, None]] = {}  # of every value; dicts, for their order
        for (out, i, _), need in self.need_of.items():
            self.wanted.setdefault(plan.root_of[out, i], {})[need] = None
        # What is emitted.
        self.values: dict[str, Value] = {}
        self.stages: dict[int, dict[When, list[Step]]] = {}  # tile → when → what it does then
        self.aside: dict[int, list[Step]] = {}  # tile → its stream so far
        self.storing: dict[int, set[str]] = {}  # tile → values it stores
        self.tag = 0
        self.strict = False  # whether there is a message of which no two fit a channel
        # Rings that groups of blocks touch, by tile and buffer.
        self.grouped: dict[tuple[int, str], int] = {}  # those for the rows of so many blocks at once
        self.single: set[tuple[int, str]] = set()  # of those, the ones that are needed but once
        self.written: set[tuple[int, str]] = set()  # those that are written by groups
        # What stages take, for drafts.
        self.spent: dict[Job, list[Step]] = {}  # what they do with vectors
        self.fetched: Counter[tuple[Job, int]] = Counter()  # bytes that they load on a tile, for a block
        self.rooms: dict[Job, set[tuple[int, str]]] = {}  # their buffers
        self.received: Counter[Job] = Counter()  # bytes they are brought
        self.sent: Counter[Job] = Counter()  # and hand on
        self.taker: dict[tuple[int, str], Job] = {}  # who has a buffer that something is brought into
        self.messages: list[tuple[int, tuple[Job, int], tuple[tuple[Job, int], ...]]] = []  # bytes, from, to
        self.put_out: Counter[int] = Counter()  # bytes that a tile stores, for a block
        self.full: Counter[tuple[int, int]] = Counter()  # rows of heads that a tile does at each step of a group's

    def at(self, tile: int, start: int, period: int = 1) -> TileCode:
        """The code of a tile, set to go on with the stages that begin at a step and work every ``period``-th."""
        code = self.context.code(tile)
        if tile not in self.aside:
            self.aside[tile] = code.steps
        code.steps = self.stages.setdefault(tile, {}).setdefault(When(start, period), [])
        return code

    def index(self, rect: Rect, middle: Sequence[Affine] = (), group: int = 1, further: int = 0) -> Index:
        """Where rows of a block are in the batch, or of the one ``further`` on; of ``group`` blocks, from that on (of one if
        they overlap)."""
        sample = Affine.of(self.copy * self.samples, {SAMPLE: 1})
        if self.plan.overlap:
            row = Affine.of(rect.row, {f"{ROW}{further}": 1})
            return Index((sample, *middle, row), rect.rows)
        row = Affine.of(rect.row, {BLOCK: self.plan.rows})
        return Index((sample, *middle, row), rect.rows * group)

    # --- values ------------------------------------------------------------------------------------
    def made(self, out: str, job: Job, origin: Origin) -> list[Piece]:
        """The pieces of a value that a stage makes."""
        return self.values.setdefault(out, Value(job, self.plan.starts[job] + self.plan.late(job), origin)).pieces

    def found(self, root: str, out: str, i: int, tile: int) -> Piece:
        """The piece of a value that a node's operand is in, on a tile: brought there, or made there."""
        value, need = self.values[root], self.need_of[out, i, tile]
        home = (p for p in value.pieces if p.tile == tile and p.rect.holds(need.rect))
        return value.brought[need] if need in value.brought else next(home)

    def rows(self, node: Node, index: int, source: Source, tile: int, rect: Rect) -> View:
        """Rows of an operand on a tile: made there, or brought."""
        value = self.values[source.root]
        need = self.need_of.get((node.outputs[0], index, tile))
        cols = (source.shape[-1] - 1) * source.step + 1
        wanted = Rect(rect.row, rect.rows, source.first, cols)
        brought = [value.brought[need]] if need in value.brought else []
        piece = next(p for p in (*brought, *value.pieces) if p.tile == tile and p.rect.holds(wanted))
        return columns(piece.part(wanted), 0, source.step, source.shape[-1])

    def taken(self, value: Value, need: Need, start: int) -> Piece:
        """A buffer for what a stage needs of a value, which is received from a step on."""
        element = self.context.code(value.pieces[0].tile).rooms[value.pieces[0].view.buffer].element
        shape, stem = (need.rect.rows, need.rect.cols), "w" if need.whole else "r"
        view = self.room(need.job, need.tile, start, element, shape, stem)
        self.taker[need.tile, view.buffer] = need.job
        self.received[need.job] += need.rect.rows * need.rect.cols * element.bytes
        return Piece(need.tile, need.rect, view)

    # --- what stages take -------------------------------------------------------------------------
    def spend(self, job: Job, code: TileCode, mark: int, before: set[str]) -> None:
        """Note what a stage added to a tile."""
        self.spent.setdefault(job, []).extend(code.steps[mark:])
        self.keep(job, code, before)
        self.fetch(job, code, code.steps[mark:])

    def room(self, job: Job, tile: int, start: int, element: Element, shape: tuple[int, int], stem: str) -> View:
        """One more buffer of a stage on a tile."""
        view = self.at(tile, start).buffer(element, shape, stem)
        self.rooms.setdefault(job, set()).add((tile, view.buffer))
        return view

    def fetch(self, job: Job, code: TileCode, steps: Sequence[Step]) -> None:
        """Note what a stage loads on a tile."""
        for step in walk(steps):
            if step.mnemonic in ("load", "gather") and isinstance(step.operands[0], View):
                room = code.rooms[step.operands[0].buffer]
                self.fetched[job, code.tile] += room.bytes // self.plan.period(job)

    def keep(self, job: Job, code: TileCode, before: set[str]) -> None:
        """Note the buffers of a stage on a tile: all that were not there before."""
        self.rooms.setdefault(job, set()).update((code.tile, name) for name in code.rooms if name not in before)

    # --- movement ----------------------------------------------------------------------------------
    def copy_within(self, value: Value, piece: Piece, common: Rect, to: Piece) -> None:
        """Copy a rectangle of a piece within its tile."""
        self.at(piece.tile, value.start + 1).emit("copy", to.part(common), piece.part(common), origin=value.origin)

    def move(self, value: Value, piece: Piece, common: Rect, to: Piece) -> None:
        """Copy or send a rectangle of a piece, as soon as it is made."""
        if to.tile == piece.tile:
            self.copy_within(value, piece, common, to)
        else:
            self.send(piece, common, {to.tile: to}, (value.start, value.start + 1), value.origin)

    def send(
        self, piece: Piece, common: Rect, to: Mapping[int, Piece], starts: tuple[int, int], origin: Origin
    ) -> None:
        """Send a rectangle of a piece, in the stage that begins at the first step, and receive it in the second's."""
        for rect in self.messages_of(piece, common):
            tag = self.tag
            self.tag += 1
            self.at(piece.tile, starts[0]).emit("send", piece.part(rect), origin=origin, to=tuple(sorted(to)), tag=tag)
            for tile, target in to.items():
                self.at(tile, starts[1]).emit("recv", target.part(rect), origin=origin, source=piece.tile, tag=tag)

    def messages_of(self, piece: Piece, common: Rect) -> Iterator[Rect]:
        """A rectangle of a piece in messages of which two fit a channel, where rows do."""
        row = common.cols * self.context.code(piece.tile).rooms[piece.view.buffer].element.bytes
        most = self.context.chip.noc.channel_bytes // 2 // row
        self.strict |= most == 0
        for rows in pieces(common.rows, -(-common.rows // max(1, most))):
            yield Rect(common.row + rows.low, rows.count, common.col, common.cols)


def _dying(region: Region) -> frozenset[str]:
    """The values that one node reads, once, and that neither leave the region nor go on to another of its parts."""
    reads = Counter(p.tails[v].root for p in region.parts for n in p.segment.nodes for v in n.inputs if v in p.tails)
    elsewhere = {s.root for p in region.parts for s in p.sources.values()}
    return frozenset(v for v, n in reads.items() if n == 1) - region.stored - elsewhere
