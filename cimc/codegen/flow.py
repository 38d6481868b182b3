"""A region that a batch streams through: all its segments at once, each block of rows one step behind the one before.

Work is cut into *stages* (:class:`Stage`): what a vector tile, the tiles of a product, or the tiles of attention's heads do
with one block of rows. A stage does block g at step ``start + g``. What it hands on is sent at the end of its step and
received at the next, into a ring of buffers that keeps it until the last reader has had it; a whole operand (K, V) is
gathered sample by sample. Tiles need no tokens inside a region.

No deadlock: think of all instructions ordered by step, at each step by stage, later stages first, as every stream is. A
message is received one step after it was sent, so before the next one is sent on its channel: a send always finds its channel
empty, and a receive comes after its send (see docs/architecture.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from math import prod

from cimc.codegen.block import BlockEmit
from cimc.codegen.context import Context
from cimc.codegen.fold import BLOCK, SAMPLE, Turn, fold, instructions
from cimc.codegen.stages import Job, Need, Plan, Rect, Share, heads_columns
from cimc.codegen.tilecode import TileCode, columns, declare
from cimc.ir.graph import Node
from cimc.isa.instruction import Repeat, Step
from cimc.isa.operands import Affine, View
from cimc.mapping.region import Part, Region, Source
from cimc.mapping.segment import MATRIX_OPS
from cimc.mapping.space import Index, shared_row, width
from cimc.ops import OPS, Access
from cimc.origin import Origin

WHOLE = "@whole"
RING = "@ring"


@dataclass(frozen=True, slots=True)
class Piece:
    """A rectangle of a value's block, on a tile."""

    tile: int
    rect: Rect
    view: View


@dataclass
class _Value:
    """Where a value's block is: as it was made, and what has been brought of it where."""

    job: Job
    start: int  # step at which its stage does block 0
    origin: Origin
    pieces: list[Piece] = field(default_factory=list[Piece])
    brought: dict[Need, Piece] = field(default_factory=dict[Need, Piece])


class Flow:
    """Emits one copy of a region: ``samples`` of the batch, from ``first`` on."""

    def __init__(self, context: Context, region: Region, plan: Plan, copy: int, copies: int) -> None:
        self.context = context
        self.graph = context.graph
        self.region = region
        self.plan = plan
        self.copy = copy
        self.samples = region.waves // copies
        self.blocks = region.rows // plan.rows
        self.placement = context.placement
        self.values: dict[str, _Value] = {}
        self.stages: dict[int, dict[int, list[Step]]] = {}  # tile → start → what it does with a block
        self.aside: dict[int, list[Step]] = {}  # tile → its stream so far
        self.whole: set[tuple[int, str]] = set()  # rings that gather samples
        self.storing: dict[int, set[str]] = {}
        self.tag = 0
        self.loaded: dict[tuple[Job, int, Rect], dict[View, View]] = {}  # what a stage has loaded for a block
        self.need_of = plan.needs()
        self.wanted: dict[str, dict[Need, None]] = {}  # of every value; dicts, for their order
        for (out, i, _), need in self.need_of.items():
            self.wanted.setdefault(plan.root_of[out, i], {})[need] = None
        reads = Counter(
            p.tails[v].root for p in region.parts for n in p.segment.nodes for v in n.inputs if v in p.tails
        )
        elsewhere = {s.root for p in region.parts for s in p.sources.values()}
        self.dying = frozenset(v for v, n in reads.items() if n == 1) - region.stored - elsewhere
        self.spent: dict[Job, list[Step]] = {}  # what each stage does with vectors, for its placement
        self.rooms: dict[Job, set[tuple[int, str]]] = {}  # and its buffers
        self.received: Counter[Job] = Counter()  # and the bytes it is brought and hands on
        self.sent: Counter[Job] = Counter()
        self.rings: dict[int, dict[str, int]] = {}  # tile → buffer → blocks that are kept of it

    def emit(self) -> dict[int, frozenset[str]]:
        """Append the code to the tiles; returns what each tile stored."""
        for part in self.region.parts:
            if part.axes:
                self._heads(part)
                continue
            for node in part.segment.nodes:
                self._node(part, node)
        self.rings = self._rings()
        for tile, stages in self.stages.items():
            code = self.context.code(tile)
            code.steps = self.aside[tile]
            ready = {start: _ringed(steps, self.rings[tile], code) for start, steps in stages.items()}
            turns = {SAMPLE: Turn(self.blocks), BLOCK: Turn(1, self.blocks)}
            for depth in self.rings[tile].values():
                turns[f"{RING}{depth}"] = Turn(1, depth)
                turns[f"{WHOLE}{depth}"] = Turn(self.blocks, max(1, depth // self.blocks))
            code.steps.extend(fold(ready, self.samples * self.blocks, turns))
            for name, depth in self.rings[tile].items():
                room = code.rooms[name]
                code.rooms[name] = replace(room, shape=(depth, *room.shape))
        return {tile: frozenset(values) for tile, values in self.storing.items()}

    # --- where code goes ------------------------------------------------------------------------
    def _at(self, tile: int, start: int) -> TileCode:
        """The code of a tile, set to go on with the stages that begin at a step."""
        code = self.context.code(tile)
        if tile not in self.aside:
            self.aside[tile] = code.steps
        code.steps = self.stages.setdefault(tile, {}).setdefault(start, [])
        return code

    def _rings(self) -> dict[int, dict[str, int]]:
        """By tile and buffer, how many blocks of it are kept: from the step that writes it to the last that reads it, and
        one more, so that nothing waits. A gathered operand is kept for whole samples."""
        found: dict[int, dict[str, int]] = {}
        for tile, stages in self.stages.items():
            code = self.context.code(tile)
            span: dict[str, tuple[int, int]] = {}
            for start, steps in stages.items():
                for step in instructions(steps):
                    for o in step.operands:
                        if isinstance(o, View) and o.buffer in code.rooms and not code.rooms[o.buffer].key:
                            low, high = span.get(o.buffer, (start, start))
                            span[o.buffer] = (min(low, start), max(high, start))
            depths = {n: max(high - low, 1) + self.plan.slack for n, (low, high) in span.items()}
            for name, (low, high) in span.items():
                if (tile, name) in self.whole:
                    samples = -(-(high + self.blocks - 1 - low) // self.blocks)
                    depths[name] = samples * self.blocks
            found[tile] = depths
        return found

    # --- rows -----------------------------------------------------------------------------------
    def _index(self, rect: Rect, middle: Sequence[Affine] = ()) -> Index:
        sample = Affine.of(self.copy * self.samples, {SAMPLE: 1})
        row = Affine.of(rect.row, {BLOCK: self.plan.rows})
        return Index((sample, *middle, row), rect.rows)

    def _node(self, part: Part, node: Node) -> None:
        job = self.plan.job_of[node.outputs[0]]
        if node.op in MATRIX_OPS:
            self._matrix(part, node, job)
        elif node.outputs[0] in self.placement.shards:
            self._shard(part, node, job)
        else:
            for tile, rect in self.plan.lanes(job):
                self._lane(part, node, job, tile, rect)
        for out in node.outputs:
            if out in self.values:
                self._hand_on(out)
                self._store(part, node, out)

    def _lane(self, part: Part, node: Node, job: Job, tile: int, rect: Rect) -> None:
        start = self.plan.starts[job]
        code = self._at(tile, start)
        mark, before = len(code.steps), set(code.rooms)
        loaded = self.loaded.setdefault((job, tile, rect), {})

        def operand(n: Node, i: int) -> View:
            value = n.inputs[i]
            if OPS[n.op].access(n, i) is Access.TABLE:
                return self.context.table(value)
            source = self.plan.source(part, n, i)
            if source is None:
                return self.context.external(code, part.space, n, value, self._index(rect), loaded)
            return self._rows(n, i, source, tile, rect)

        block = BlockEmit(self.graph, code, rect.rows, operand, node, dying=self.dying)
        block.lower()
        self._spend(job, code, mark, before)
        for out, view in block.outputs.items():
            made = self.values.setdefault(out, _Value(job, start, node.origin))
            made.pieces.append(Piece(tile, Rect(rect.row, rect.rows, 0, width(self.graph, out)), view))

    def _rows(self, node: Node, index: int, source: Source, tile: int, rect: Rect) -> View:
        """Rows of an operand on a tile: made there, or brought."""
        value = self.values[source.root]
        need = self.need_of.get((node.outputs[0], index, tile))
        cols = (source.shape[-1] - 1) * source.step + 1
        wanted = Rect(rect.row, rect.rows, source.first, cols)
        brought = [value.brought[need]] if need in value.brought else []
        piece = next(p for p in (*brought, *value.pieces) if p.tile == tile and p.rect.holds(wanted))
        return columns(_sub(piece, wanted), 0, source.step, source.shape[-1])

    # --- products -------------------------------------------------------------------------------
    def _matrix(self, part: Part, node: Node, job: Job) -> None:
        start = self.plan.starts[job]
        placed = self.placement.matrices[node.outputs[0]][self.copy]
        whole = Rect(0, self.plan.rows, 0, placed.rows)
        source = self.plan.source(part, node, 0)
        made = self.values.setdefault(node.outputs[0], _Value(job, start + 1, node.origin))
        stem = f"W{part.segment.index}_{self.plan.number[node.outputs[0]]}_{self.copy}"
        element = self.graph.type(placed.weight).element
        groups: dict[tuple[int, int], list[Piece]] = {}
        for k, block in enumerate(placed.parts):
            code = self._at(block.tile, start)
            first, last = block.rows
            if source is None:
                loaded = self.loaded.setdefault((job, block.tile, whole), {})
                x = self.context.external(code, part.space, node, node.inputs[0], self._index(whole), loaded)
                x = columns(x, first, 1, last - first)
            else:
                own = replace(source, first=source.first + first * source.step, shape=(last - first,))
                x = self._rows(node, 0, own, block.tile, whole)
            name = declare(code, f"{stem}_{k}", placed, block, element)
            span = block.cols[1] - block.cols[0]

            def operand(n: Node, i: int, x: View = x) -> View:
                return x

            emit = BlockEmit(self.graph, code, self.plan.rows, operand, node, matrix_name=name, width=span)
            emit.lower()
            piece = Piece(block.tile, Rect(0, self.plan.rows, block.cols[0], span), emit.outputs[node.outputs[0]])
            groups.setdefault(block.cols, []).append(piece)
        made.pieces = [self._sum(start + 1, node, group) for group in groups.values()]

    def _sum(self, start: int, node: Node, group: Sequence[Piece]) -> Piece:
        """Partial sums of row blocks on several tiles, added on the first of them."""
        owner, *others = group
        for other in others:
            part = other
            if other.tile != owner.tile:
                element = self.context.code(other.tile).rooms[other.view.buffer].element
                shape = (other.rect.rows, other.rect.cols)
                part = Piece(owner.tile, other.rect, self._at(owner.tile, start).buffer(element, shape, "r"))
                self._send(other, other.rect, {owner.tile: part}, (start, start), node.origin)
            self._at(owner.tile, start).emit("add", owner.view, owner.view, part.view, origin=node.origin)
        return owner

    def _shard(self, part: Part, node: Node, job: Job) -> None:
        out = node.outputs[0]
        start = self.plan.starts[job]
        pieces = self.values[self.placement.shards[out]].pieces
        made = self.values.setdefault(out, _Value(job, start, node.origin))
        for k, piece in enumerate(pieces):
            code = self._at(piece.tile, start)

            def operand(n: Node, i: int, piece: Piece = piece, k: int = k, code: TileCode = code) -> View:
                value = n.inputs[i]
                source = self.plan.source(part, n, i)
                if source is None:
                    one = width(self.graph, value) == 1
                    first, count = (0, 1) if one else (piece.rect.col, piece.rect.cols)
                    return code.constant(value, self.graph.type(value).element, first, count)
                if source.root in self.placement.shards:
                    return self.values[source.root].pieces[k].view
                return self._rows(n, i, source, piece.tile, Rect(0, self.plan.rows, 0, 0))

            emit = BlockEmit(self.graph, code, self.plan.rows, operand, node, width=piece.rect.cols, dying=self.dying)
            emit.lower()
            made.pieces.append(replace(piece, view=emit.outputs[out]))

    # --- heads ----------------------------------------------------------------------------------
    def _heads(self, part: Part) -> None:
        """All of a part that works on middle axes: for each of its tiles, the loops over them."""
        job = self.plan.job_of[part.segment.nodes[0].outputs[0]]
        for share in self.plan.shares(job):
            self._share(part, job, share)
        for node in part.segment.nodes:
            for out in node.outputs:
                if out in self.values:
                    self._hand_on(out)

    def _share(self, part: Part, job: Job, share: Share) -> None:
        code = self._at(share.tile, self.plan.starts[job])
        mark, before = len(code.steps), set(code.rooms)
        names = [f"h{i}" for i in range(len(share.ranges))]
        middle = [
            Affine.of(low, {n: 1} if count > 1 else {}) for n, (low, count) in zip(names, share.ranges, strict=True)
        ]
        index = self._index(share.rect, middle)
        loaded: dict[View, View] = {}
        for node in part.segment.nodes:  # what all turns of the loops share is loaded before them
            for i, value in enumerate(node.inputs):
                if self._outside(part, node, i) and not any(part.space.reach(node, value, Access.ROWS).strides[1:-1]):
                    self.context.external(code, part.space, node, value, index, loaded)
        kept = self._kept(part, job, share)
        with ExitStack() as stack:
            for name, (_, count) in zip(names, share.ranges, strict=True):
                stack.enter_context(code.repeat(name, count))
            self._turn(part, share, middle, loaded, kept)
        self._spend(job, code, mark, before)

    def _spend(self, job: Job, code: TileCode, mark: int, before: set[str]) -> None:
        """Note what a stage added to a tile."""
        self.spent.setdefault(job, []).extend(code.steps[mark:])
        self.rooms.setdefault(job, set()).update((code.tile, name) for name in code.rooms if name not in before)

    def _outside(self, part: Part, node: Node, i: int) -> bool:
        """Whether an operand is rows from outside the region that are not constant."""
        value = node.inputs[i]
        if not value or OPS[node.op].access(node, i) is not Access.ROWS or shared_row(self.graph, value):
            return False
        return self.plan.source(part, node, i) is None

    def _kept(self, part: Part, job: Job, share: Share) -> dict[str, Piece]:
        """Buffers for the results that leave the loops: the columns of a share's heads, side by side."""
        start = self.plan.starts[job]
        code = self._at(share.tile, start)
        found: dict[str, Piece] = {}
        for node in part.segment.nodes:
            for out in node.outputs:
                if out in self.wanted:
                    low, cols = heads_columns(part.axes, share.ranges, width(self.graph, out))
                    view = code.buffer(self.graph.type(out).element, (share.rect.rows, cols), "o")
                    found[out] = Piece(share.tile, Rect(share.rect.row, share.rect.rows, low, cols), view)
                    self.values.setdefault(out, _Value(job, start, node.origin)).pieces.append(found[out])
        return found

    def _turn(
        self, part: Part, share: Share, middle: Sequence[Affine], loaded: dict[View, View], kept: Mapping[str, Piece]
    ) -> None:
        """The body of a share's loops."""
        code = self.context.code(share.tile)
        index = self._index(share.rect, middle)
        have: dict[str, View] = {}
        inside = dict(loaded)

        def operand(n: Node, i: int) -> View:
            value = n.inputs[i]
            if OPS[n.op].access(n, i) is Access.TABLE:
                return self.context.table(value)
            tail = part.tails.get(value)
            if tail is not None:
                return columns(have[tail.root], tail.start, tail.step, tail.width)
            source = part.sources.get((n.outputs[0], i))
            if source is None:
                return self.context.external(code, part.space, n, value, index, inside)
            return self._middle(n, i, source, share, middle)

        for node in part.segment.nodes:
            emit = BlockEmit(self.graph, code, share.rect.rows, operand, node, dying=self.dying)
            for out in node.outputs:
                if out in kept:
                    emit.outputs[out] = self._slot(part, kept[out], out, middle)
            emit.lower()
            have.update(emit.outputs)
            for out in node.outputs:
                if out in self.region.stored:
                    name = self.context.global_name(out)
                    target = part.space.rows_view(node, out, index, (0, width(self.graph, out)), name)
                    code.emit("store", target, emit.outputs[out], origin=node.origin)
                    self.storing.setdefault(share.tile, set()).add(out)

    def _slot(self, part: Part, piece: Piece, out: str, middle: Sequence[Affine]) -> View:
        """The columns of a kept result that belong to one index of the middle axes."""
        inner = width(self.graph, out)
        at = piece.view.offset + -piece.rect.col
        for i, place in enumerate(middle):
            at = at + place * (inner * prod(part.axes[i + 1 :]))
        return View(piece.view.buffer, at, (piece.rect.rows, inner), (piece.rect.cols, 1))

    def _middle(self, node: Node, i: int, source: Source, share: Share, middle: Sequence[Affine]) -> View:
        """An operand for one index of the middle axes, in what was brought or made of it on the tile."""
        value = self.values[source.root]
        need = self.need_of[node.outputs[0], i, share.tile]
        home = (p for p in value.pieces if p.tile == share.tile and p.rect.holds(need.rect))
        piece = value.brought[need] if need in value.brought else next(home)
        at = piece.view.offset + (source.first - piece.rect.col)
        for step, place in zip(source.axes, middle, strict=True):
            at = at + place * step
        row = piece.view.strides[0]
        if source.over < 0:
            at = at + (share.rect.row - piece.rect.row) * row
            return View(piece.view.buffer, at, (share.rect.rows, source.shape[-1]), (row, source.step))
        strides = (row, source.step) if source.over == 0 else (source.step, row)
        sample = Affine.of(0, {WHOLE: self.region.rows * row})
        return View(piece.view.buffer, at + sample, source.shape, strides)

    # --- movement -------------------------------------------------------------------------------
    def _hand_on(self, root: str) -> None:
        """Bring a value's block to all that need it: each rectangle once from where it was made, together to all tiles
        that want the same."""
        value = self.values[root]
        same: dict[tuple[int, Rect, bool], Piece] = {}
        for need in self.wanted.get(root, ()):
            if not need.whole and any(p.tile == need.tile and p.rect.holds(need.rect) for p in value.pieces):
                continue
            key = (need.tile, need.rect, need.whole)
            if key not in same:
                code = self._at(need.tile, value.start + 1)
                shape = (need.rect.rows, need.rect.cols)
                view = code.buffer(self.graph.type(root).element, shape, "w" if need.whole else "r")
                same[key] = Piece(need.tile, need.rect, view)
                self.rooms.setdefault(need.job, set()).add((need.tile, view.buffer))
                size = prod(shape) * self.graph.type(root).element.bytes
                self.received[need.job] += size
                if need.whole:
                    self.whole.add((need.tile, view.buffer))
            value.brought[need] = same[key]
        for piece in value.pieces:
            targets: dict[Rect, list[Piece]] = {}
            for target in same.values():
                common = piece.rect.meet(target.rect)
                if common is not None:
                    targets.setdefault(common, []).append(target)
            for common, found in targets.items():
                self._bring(value, piece, common, found)

    def _bring(self, value: _Value, piece: Piece, common: Rect, targets: Sequence[Piece]) -> None:
        """Copy or send a rectangle of a piece; a tile that has two buffers for it gets two messages."""
        left = list(targets)
        while left:
            now = {p.tile: p for p in reversed(left)}
            left = [p for p in left if p is not now[p.tile]]
            own = now.pop(piece.tile, None)
            if own is not None:
                code = self._at(piece.tile, value.start + 1)
                code.emit("copy", _sub(own, common), _sub(piece, common), origin=value.origin)
            if now:
                self.sent[value.job] += self._send(piece, common, now, (value.start, value.start + 1), value.origin)

    def _send(
        self, piece: Piece, common: Rect, to: Mapping[int, Piece], starts: tuple[int, int], origin: Origin
    ) -> int:
        """Send a rectangle of a piece, in the stage that begins at the first step, and receive it in the second's."""
        tag = self.tag
        self.tag += 1
        source = _sub(piece, common)
        self._at(piece.tile, starts[0]).emit("send", source, origin=origin, to=tuple(sorted(to)), tag=tag)
        for tile, target in to.items():
            code = self._at(tile, starts[1])
            code.emit("recv", _sub(target, common), origin=origin, source=piece.tile, tag=tag)
        return common.rows * common.cols * self.context.code(piece.tile).rooms[piece.view.buffer].element.bytes

    def _store(self, part: Part, node: Node, out: str) -> None:
        if out not in self.region.stored:
            return
        name = self.context.global_name(out)
        value = self.values[out]
        for piece in value.pieces:
            cols = (piece.rect.col, piece.rect.cols)
            target = part.space.rows_view(node, out, self._index(piece.rect), cols, name)
            self._at(piece.tile, value.start).emit("store", target, piece.view, origin=node.origin)
            self.storing.setdefault(piece.tile, set()).add(out)


def _sub(piece: Piece, rect: Rect) -> View:
    """The part of a piece's view that a rectangle within it is."""
    row, col = piece.view.strides
    at = (rect.row - piece.rect.row) * row + (rect.col - piece.rect.col) * col
    return View(piece.view.buffer, piece.view.offset + at, (rect.rows, rect.cols), piece.view.strides)


def _ringed(steps: Sequence[Step], depths: Mapping[str, int], code: TileCode) -> list[Step]:
    """Steps whose views of buffers go to the block at hand in the ring that each becomes."""

    def view(old: View) -> View:
        depth = depths.get(old.buffer)
        if depth is None:
            return old
        if any(name == WHOLE for name, _ in old.offset.terms):
            terms = {f"{WHOLE}{depth}" if name == WHOLE else name: factor for name, factor in old.offset.terms}
            return replace(old, offset=Affine.of(old.offset.constant, terms))
        return replace(old, offset=old.offset + Affine.of(0, {f"{RING}{depth}": prod(code.rooms[old.buffer].shape)}))

    def step(old: Step) -> Step:
        if isinstance(old, Repeat):
            return replace(old, body=tuple(step(s) for s in old.body))
        return replace(old, operands=tuple(view(o) if isinstance(o, View) else o for o in old.operands))

    return [step(s) for s in steps]
