"""The stages of a region: which there are, when each does its first block, on which tiles, and what it must be brought."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

from cimc.ir.graph import Graph, Node
from cimc.isa.operands import View
from cimc.mapping.placement import Placement
from cimc.mapping.region import Part, Region, Source
from cimc.mapping.segment import ELEMENTWISE, MATRIX_OPS, pieces
from cimc.mapping.space import shared_row
from cimc.ops import OPS, Access
from cimc.ops.matmul import groups_of
from cimc.origin import Origin


@dataclass(frozen=True, slots=True)
class Rect:
    """Rows of a block, and columns of a value's rows."""

    row: int
    rows: int
    col: int
    cols: int

    def holds(self, other: Rect) -> bool:
        """Whether the other lies within."""
        rows = self.row <= other.row and other.row + other.rows <= self.row + self.rows
        return rows and self.col <= other.col and other.col + other.cols <= self.col + self.cols

    def meet(self, other: Rect) -> Rect | None:
        """What both have in common."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        row_end = min(self.row + self.rows, other.row + other.rows)
        col_end = min(self.col + self.cols, other.col + other.cols)
        return Rect(row, row_end - row, col, col_end - col) if row < row_end and col < col_end else None

    def join(self, other: Rect) -> Rect:
        """The smallest rectangle over both."""
        row, col = min(self.row, other.row), min(self.col, other.col)
        row_end = max(self.row + self.rows, other.row + other.rows)
        return Rect(row, row_end - row, col, max(self.col + self.cols, other.col + other.cols) - col)


BETWEEN = 2
"""Steps between the last two products of a head: what is done with scores has one of its own."""

CODED = 2
"""Steps after the columns of a block are made that they are handed on as codes: the scales of its rows are found between."""

KINDS = ("rows", "columns", "product", "result", "heads")


@dataclass(frozen=True, slots=True)
class Job:
    """What a stage is: of which part (its place in the region), which of its vector stages or products, or its heads. What
    is done with a product where it is made (its "result") is a stage of its own: nobody waits then while it is made."""

    part: int
    stage: int
    kind: str  # one of KINDS


@dataclass(frozen=True, slots=True)
class Need:
    """What a stage must find on a tile of a value made elsewhere. ``whole``: of all blocks of a sample."""

    job: Job
    tile: int
    rect: Rect
    whole: bool


@dataclass(frozen=True, slots=True)
class Share:
    """What one tile does of a stage on middle axes: rows of the block, (low, count) of every axis."""

    tile: int
    rect: Rect
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a value's block, on a tile."""

    tile: int
    rect: Rect
    view: View

    def part(self, rect: Rect) -> View:
        """A rectangle within it."""
        row, col = self.view.strides
        at = (rect.row - self.rect.row) * row + (rect.col - self.rect.col) * col
        return View(self.view.buffer, self.view.offset + at, (rect.rows, rect.cols), self.view.strides)


@dataclass
class Value:
    """Where a value's block is: as it was made, and what has been brought of it where."""

    job: Job
    start: int  # step at which its stage does block 0
    origin: Origin
    pieces: list[Piece] = field(default_factory=list[Piece])
    brought: dict[Need, Piece] = field(default_factory=dict[Need, Piece])


@dataclass(frozen=True, slots=True)
class Strips:
    """How a vector stage is cut by columns, ``width`` in all. ``blocks``: the columns (first, end) that the tiles of products
    make, which are not cut. ``led``: the stage with heads whose tiles make the columns, and do this stage with them too; then
    there are no blocks."""

    width: int
    blocks: tuple[tuple[int, int], ...] = ()
    led: Job | None = None


class Plan:
    """Stages of a region in blocks of ``rows``. Where these are no part of a sample's rows, blocks *overlap*: block b of B
    begins at row ``b · rows of a sample // B``, and some rows are done twice, with the same results. ``tiles``: of every
    stage that works with vectors or heads; those with heads do ``group`` blocks at once, so that the matmul unit has to be
    loaded less often. ``room``: bytes of each tile's buffer that may be filled with rings that keep more than they must.
    ``park``: bytes of tiles in which rows may wait for those that take them much later; none where the takers have room.
    ``prompt``: whether stages of rows, as products do, begin in the step in which rows come; else in the next. ``strips``:
    whether vector stages whose columns need no others are cut by columns, where these are (:mod:`cimc.codegen.strips`)."""

    def __init__(
        self,
        graph: Graph,
        region: Region,
        placement: Placement,
        rows: int,
        copy: int,
        tiles: Mapping[Job, tuple[int, ...]],
        room: Mapping[int, int] | None = None,
        group: int = 1,
        park: Mapping[int, int] | None = None,
        prompt: bool = False,
        strips: bool = False,
    ) -> None:
        self.graph, self.region, self.placement = graph, region, placement
        self.rows, self.copy, self.room = rows, copy, room or {}
        self.group, self.park, self.prompt = group, park or {}, prompt
        self.blocks = -(-region.rows // rows)
        self.overlap = self.blocks * rows > region.rows
        self.job_of: dict[str, Job] = {}
        self.nodes: dict[Job, list[Node]] = {}
        self.number: dict[str, int] = {}
        self.root_of: dict[tuple[str, int], str] = {}  # of operands that other stages make
        for k, part in enumerate(region.parts):
            for i, node in enumerate(part.segment.nodes):
                job = self._job(k, part, node)
                self.nodes.setdefault(job, []).append(node)
                self.number[node.outputs[0]] = i
                self.job_of.update({o: job for o in node.outputs if o})
        self.strips = self._cut_by_columns() if strips else {}
        self.tiles = {**tiles, **{job: tiles[s.led] for job, s in self.strips.items() if s.led and s.led in tiles}}
        self._meeting = {job for job, nodes in self.nodes.items() if job.kind == "product" and self._apart(nodes)}
        self.starts = self._starts()

    def _cut_by_columns(self) -> dict[Job, Strips]:
        """The vector stages that are cut by columns, which are of another kind from now on."""
        found: dict[Job, Strips] = {}
        for job in [job for job in self.nodes if job.kind == "rows"]:
            strips = self._strips(job)
            if strips is not None:
                now = replace(job, kind="columns")
                self.nodes = {now if j == job else j: nodes for j, nodes in self.nodes.items()}
                self.job_of.update((o, now) for o, j in self.job_of.items() if j == job)
                found[now] = strips
        return found

    def _strips(self, job: Job) -> Strips | None:
        """How a vector stage is cut by columns: None if it does not end with a scale for each row, or a node of it needs whole
        rows. What it reads of other stages must be cut by columns, and alike."""
        *nodes, last = self.nodes[job]
        if last.op != "quantize" or groups_of(last) != 1:
            return None
        cols = self._columns(last.outputs[0])
        if any(n.op not in ELEMENTWISE or self._columns(n.outputs[0]) != cols for n in nodes):
            return None
        roots: set[str] = set()
        for node in (*nodes, last):
            for i, value in enumerate(node.inputs):
                source = self.source(self.region.parts[job.part], node, i)
                if source is None:
                    if value and not shared_row(self.graph, value) and OPS[node.op].access(node, i) is not Access.TABLE:
                        return None
                elif source == Source(source.root, 0, 1, (cols,)) and self._columns(source.root) == cols > 1:
                    roots.add(source.root)
                elif source.over >= 0 or source.shape != (1,):
                    return None
        return self._strips_like([r for r in roots if self.job_of[r] != job], cols)

    def _columns(self, value: str) -> int:
        """Elements that each row of the batch has in a value."""
        return self.graph.type(value).size // (self.region.waves * self.region.rows)

    def _strips_like(self, roots: Collection[str], cols: int) -> Strips | None:
        """Columns as those of the values ``roots``, which must be cut alike."""
        makers = {self.job_of[root] for root in roots}
        if len(makers) == 1 and (maker := makers.pop()).kind == "heads":
            return Strips(cols, led=maker)
        shards, matrices = self.placement.shards, self.placement.matrices
        if not all(root in shards for root in roots):
            return None
        blocks = {tuple(sorted({part.cols for part in matrices[shards[r]][self.copy].parts})) for r in roots}
        return Strips(cols, blocks.pop()) if len(blocks) == 1 else None

    def _apart(self, nodes: Sequence[Node]) -> bool:
        """Whether the row blocks of some columns of a product are on several tiles."""
        tiles: dict[tuple[int, int], set[int]] = {}
        for node in nodes:
            for block in self.placement.matrices[node.outputs[0]][self.copy].parts:
                tiles.setdefault(block.cols, set()).add(block.tile)
        return any(len(found) > 1 for found in tiles.values())

    def _job(self, place: int, part: Part, node: Node) -> Job:
        value = node.outputs[0]
        if part.axes:
            return Job(place, 0, "heads")
        kind = "product" if node.op in MATRIX_OPS else "result" if value in self.placement.shards else "rows"
        return Job(place, self.placement.stages.get(value, 0), kind)

    def on(self, tiles: Mapping[Job, tuple[int, ...]], room: Mapping[int, int] | None = None) -> Plan:
        """This plan on other tiles, or with other room for rings."""
        of, room = (self.graph, self.region, self.placement, self.rows, self.copy), self.room if room is None else room
        return Plan(*of, tiles, room, self.group, self.park, self.prompt, bool(self.strips))

    def moved(self, placement: Placement, to: Mapping[int, int]) -> Plan:
        """This plan with the work of tiles ``to`` others, where a placement has the products."""
        tiles = {job: tuple(to.get(t, t) for t in of) for job, of in self.tiles.items()}
        park = {to.get(t, t): n for t, n in self.park.items()}
        of = (self.graph, self.region, placement, self.rows, self.copy)
        return Plan(*of, tiles, self.room, self.group, park, self.prompt, bool(self.strips))

    def period(self, job: Job) -> int:
        """How many blocks a stage does at once."""
        return self.group if job.kind == "heads" else 1

    def leader(self, job: Job) -> Job:
        """The stage on whose tiles a stage is: itself, or the one whose columns it brings to codes."""
        return self.strips[job].led or job if job in self.strips else job

    def due(self, job: Job) -> int:
        """The step at which a stage must have been brought its first block at the latest."""
        return self.starts[job] - self.period(job)

    def meets(self, job: Job) -> bool:
        """Whether partial sums of a product come from several tiles."""
        return job in self._meeting

    def late(self, job: Job) -> int:
        """Steps after it began that a stage hands on its first block."""
        if job.kind == "product":
            return 1 + self.meets(job)
        if job.kind == "columns":
            return CODED
        return self.group - 1 + BETWEEN if job.kind == "heads" and self.group > 1 else 0

    def beside(self, node: Node, source: Source) -> bool:
        """Whether a node works on columns of a product, and its operand is these, where they are."""
        shards = self.placement.shards
        return (
            node.op not in MATRIX_OPS and source.root in shards and shards.get(node.outputs[0]) == shards[source.root]
        )

    def source(self, part: Part, node: Node, index: int) -> Source | None:
        """Where an operand's rows are, None if it comes from outside the region or is a weight."""
        value = node.inputs[index]
        tail = part.tails.get(value)
        if tail is not None:
            return Source(tail.root, tail.start, tail.step, (tail.width,))
        return part.sources.get((node.outputs[0], index))

    def _operands(self) -> Iterator[tuple[Job, Part, Node, int, Source]]:
        for job, nodes in self.nodes.items():
            part = self.region.parts[job.part]
            for node in nodes:
                for i in range(len(node.inputs)):
                    source = self.source(part, node, i)
                    if source is not None and self.job_of[source.root] != job:
                        yield job, part, node, i, source

    def _starts(self) -> dict[Job, int]:
        """The step at which each stage does its first block: one after those it takes rows from, for a group of blocks one
        after the last of them has come, and a sample after those it takes whole operands from."""
        after: dict[Job, dict[Job, int]] = {job: {} for job in self.nodes}
        for job, _, node, i, source in self._operands():
            self.root_of[node.outputs[0], i] = source.root
            before = self.job_of[source.root]
            own = self.beside(node, source)
            delay = self.blocks + 1 if source.over >= 0 else self.period(job) + self._later(job, own)
            delay += self.late(before) - (own and before.kind == "product")
            after[job][before] = max(delay, after[job].get(before, 0))
        starts: dict[Job, int] = {}
        for job in sorted(after, key=lambda j: (j.part, j.stage, KINDS.index(j.kind))):
            starts[job] = max((starts[b] + delay for b, delay in after[job].items()), default=0)
        return starts

    def _later(self, job: Job, own: bool) -> int:
        """Steps after rows were taken in that a stage begins with them."""
        return int(not own and job.kind != "product" and not (self.prompt and job.kind in ("rows", "columns")))

    # --- tiles ----------------------------------------------------------------------------------
    def lanes(self, job: Job) -> list[tuple[int, Rect]]:
        """Of a vector stage: its tiles, and the rows of a block that each does."""
        tiles = self.tiles[job]
        return [(t, Rect(r.low, r.count, 0, 0)) for t, r in zip(tiles, pieces(self.rows, len(tiles)), strict=True)]

    def rectangles(self, job: Job) -> list[tuple[int, Rect]]:
        """Of a stage cut by columns: its tiles, and the rows and columns of a block that each does."""
        strips = self.strips[job]
        if strips.led is not None:
            axes = self.region.parts[strips.led.part].axes
            columns = (heads_columns(axes, s.ranges, strips.width // prod(axes)) for s in self.shares(strips.led))
            rows = ((s.tile, s.rect.row, s.rect.rows) for s in self.shares(strips.led))
            return [(tile, Rect(row, count, *cols)) for (tile, row, count), cols in zip(rows, columns, strict=True)]
        found: list[tuple[int, Rect]] = []
        for tile, piece in zip(self.tiles[job], pieces(len(strips.blocks), len(self.tiles[job])), strict=True):
            low, high = strips.blocks[piece.low][0], strips.blocks[piece.low + piece.count - 1][1]
            found.append((tile, Rect(0, self.rows, low, high - low)))
        return found

    def shares(self, job: Job) -> list[Share]:
        """Of a stage on middle axes: the first axis is cut, and where that is not enough the block's rows."""
        tiles = self.tiles[job]
        axes = self.region.parts[job.part].axes
        across = min(len(tiles), axes[0])
        down = len(tiles) // across
        rest = tuple((0, n) for n in axes[1:])
        cut = [((p.low, p.count), r) for p in pieces(axes[0], across) for r in pieces(self.rows, down)]
        return [Share(t, Rect(r.low, r.count, 0, 0), (first, *rest)) for t, (first, r) in zip(tiles, cut, strict=True)]

    def needs(self) -> dict[tuple[str, int, int], Need]:
        """By (first output of a node, position of the operand, tile), what must be brought there."""
        found: dict[tuple[str, int, int], Need] = {}
        merged: dict[tuple[Job, str, int], Rect] = {}
        rows: list[tuple[tuple[str, int, int], tuple[Job, str, int]]] = []
        for job, _, node, i, source in self._operands():
            for tile, rect in self._wanted(job, node, source):
                key = (node.outputs[0], i, tile)
                if source.over >= 0:
                    found[key] = Need(job, tile, rect, True)
                    continue
                one = (job, source.root, tile)
                merged[one] = rect.join(merged[one]) if one in merged else rect
                rows.append((key, one))
        found.update({key: Need(one[0], one[2], merged[one], False) for key, one in rows})
        return found

    def _wanted(self, job: Job, node: Node, source: Source) -> Iterator[tuple[int, Rect]]:
        """Tiles that want an operand, and which rectangle of its block."""
        if job.kind == "heads":
            for share in self.shares(job):
                low = source.first + sum(s * at for s, (at, _) in zip(source.axes, share.ranges, strict=True))
                far = sum(s * (n - 1) for s, (_, n) in zip(source.axes, share.ranges, strict=True))
                count = source.shape[1 - source.over] if source.over >= 0 else source.shape[-1]
                row, rows = (0, self.rows) if source.over >= 0 else (share.rect.row, share.rect.rows)
                yield share.tile, Rect(row, rows, low, far + (count - 1) * source.step + 1)
            return
        cols = (source.shape[-1] - 1) * source.step + 1
        if job.kind == "columns":
            for tile, rect in self.rectangles(job):
                yield tile, replace(rect, col=source.first, cols=1) if cols == 1 else rect
            return
        if job.kind == "rows":
            for tile, rect in self.lanes(job):
                yield tile, Rect(rect.row, rect.rows, source.first, cols)
            return
        value = node.outputs[0]
        if self.beside(node, source):
            return  # the product's own columns, where they are
        product = value if node.op in MATRIX_OPS else self.placement.shards[value]
        for part in self.placement.matrices[product][self.copy].parts:
            first, last = part.rows
            if node.op in MATRIX_OPS:
                at = source.first + first * source.step
                yield part.tile, Rect(0, self.rows, at, (last - first - 1) * source.step + 1)
            elif cols == 1:
                yield part.tile, Rect(0, self.rows, source.first, cols)
            elif first == 0:  # where partial sums meet
                low, high = part.cols
                yield part.tile, Rect(0, self.rows, source.first + low, high - low)


def heads_columns(axes: Sequence[int], ranges: Sequence[tuple[int, int]], inner: int) -> tuple[int, int]:
    """The first column and the number of columns of a result's rows that a share makes, ``inner`` for every index."""
    low = inner * sum(at * prod(axes[i + 1 :]) for i, (at, _) in enumerate(ranges))
    return low, inner * prod(count for _, count in ranges)


def by_stage(plans: Sequence[Plan]) -> dict[int, tuple[tuple[int, ...], ...]]:
    """By segment, the tiles of each of its stages that works with vectors or heads, of all copies of the region."""
    found: dict[int, list[tuple[int, ...]]] = {}
    for plan in plans:
        for job in sorted(plan.tiles, key=lambda j: (j.part, j.stage)):
            found.setdefault(plan.region.parts[job.part].segment.index, []).append(plan.tiles[job])
    return {segment: tuple(tiles) for segment, tiles in found.items()}
