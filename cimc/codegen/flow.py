"""A region that a batch streams through: all its segments at once, each block of rows one step behind the one before.

Work is cut into *stages* (:class:`~cimc.codegen.stages.Job`): what a vector tile, the tiles of a product, or the tiles of
attention's heads do with one block of rows. A stage does block g at step ``start + g``. What it hands on is sent in its step
and received in the next, into a ring of buffers that keeps it until the last reader has had it; a whole operand (K, V) is
gathered sample by sample. Rows that wait long may do so on other tiles (:mod:`cimc.codegen.park`). Attention's heads may work
on a group of blocks at every so-many-th step; what they make is handed on block by block all the same. Tiles need no tokens
inside a region.

No deadlock: a message is received one step after it was sent, or at the same step if what it brings was put off
(:func:`cimc.codegen.order.put_off`): such messages a tile sends before it takes any in. So within a step no tile depends on what
another does when it has taken something in; when a message is sent its channel holds at most the one of the step before, and
two fit. Where two do not fit, stages keep their order, later ones first: then think of all instructions ordered by step and
stage; the message of the step before is received before the next one is sent (see docs/architecture.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from cimc.codegen.ahead import awaited
from cimc.codegen.apart import heads_codes
from cimc.codegen.block import BlockEmit
from cimc.codegen.context import Context
from cimc.codegen.course import Course
from cimc.codegen.fold import BLOCK, RING, ROW, SAMPLE, WHOLE, Ring, Turn, When, fold, ringed, spans
from cimc.codegen.heads import Heads
from cimc.codegen.order import Order, put_off
from cimc.codegen.stages import Job, Piece, Plan, Rect, Value
from cimc.codegen.strips import emit_strips
from cimc.codegen.tilecode import TileCode, columns, declare, instruction
from cimc.codegen.waiting import waited
from cimc.ir.graph import Node
from cimc.isa.instruction import Step
from cimc.isa.operands import View
from cimc.mapping.allocate import aligned
from cimc.mapping.region import Part
from cimc.mapping.segment import MATRIX_OPS
from cimc.mapping.space import width
from cimc.mapping.sums import where
from cimc.ops import OPS, Access
from cimc.ops.matmul import groups_of
from cimc.origin import Origin


class Flow(Course):
    """Emits one copy of a region, its share of the batch's samples."""

    def __init__(self, context: Context, plan: Plan) -> None:
        super().__init__(context, plan)
        self.loaded: dict[tuple[Job, int, Rect], dict[View, View]] = {}  # what a stage has loaded for a block
        self.whole: set[tuple[int, str]] = set()  # rings that gather samples
        self.rings: dict[int, dict[str, Ring]] = {}  # tile → buffer → how much is kept of it
        self.awaited: dict[int, frozenset[int]] = {}  # tile → those whose token it waits for, for every sample

    def emit(
        self, draft: bool = False, makers: Mapping[str, Sequence[int]] = MappingProxyType({})
    ) -> dict[int, frozenset[str]]:
        """Append the code to the tiles; returns what each tile stored. A ``draft`` only finds out what the stages take, and
        which buffers: that is most of what there is to know, and far less work. ``makers``: by global array, tiles that
        store it sample by sample and give a token for each."""
        for part in self.region.parts:
            if part.axes:
                self._heads(part)
                continue
            for node in part.segment.nodes:
                self._node(part, node)
        if not self.strict:
            for tile, stages in self.stages.items():
                put_off(stages, self.context.code(tile), self.context.chip)
        if makers:
            self._await(makers)
        self.rings = self._rings()
        for tile, stages in self.stages.items():
            code = self.context.code(tile)
            code.steps = self.aside[tile]
            if not draft:
                self._fold(code, stages)
            for name, ring in self.rings[tile].items():
                room = code.rooms[name]
                code.rooms[name] = replace(room, shape=ring.shape(room.shape))
        return {tile: frozenset(values) for tile, values in self.storing.items()}

    def _await(self, makers: Mapping[str, Sequence[int]]) -> None:
        """Wait for the tokens of a sample in the step before its first rows are read."""
        last = (self.blocks - 1) * self.region.rows // self.blocks
        box = {BLOCK: (0, self.blocks - 1), **{f"{ROW}{k}": (0, last) for k in range(self.plan.group)}}
        sizes = self.context.sample_sizes(self.samples)
        for tile, stages in self.stages.items():
            found = awaited(stages, makers, SAMPLE, sizes, box)
            for source, start in sorted(found.items()):
                stages.setdefault(When(start - 1, self.blocks), []).append(instruction("wait", source=source))
            self.awaited[tile] = frozenset(found)

    def _fold(self, code: TileCode, stages: Mapping[When, Sequence[Step]]) -> None:
        """Append a tile's stages, side by side in repeats."""
        rings = self.rings[code.tile]
        ready = {when: ringed(steps, rings, code) for when, steps in stages.items()}
        turns = {SAMPLE: Turn(self.blocks), BLOCK: Turn(1, self.blocks)}
        rows = self.region.rows
        turns.update((f"{ROW}{k}", Turn(self.blocks, rows, rows, k)) for k in range(self.plan.group))
        for ring in rings.values():
            turns[ring.name(RING)] = ring.turn(self.blocks)
            turns[ring.name(WHOLE)] = ring.samples(self.blocks)
        order = None if self.strict else Order(ready, code, self.context.chip, rings)
        code.steps.extend(fold(ready, self.samples * self.blocks, turns, order))

    # --- rings ----------------------------------------------------------------------------------
    def _rings(self) -> dict[int, dict[str, Ring]]:
        """By tile and buffer, how much is kept: from the step that writes it to the last that reads it; a gathered operand for
        whole samples, what groups of blocks touch for whole groups. And one more of each, so that nobody waits to write,
        while the plan has room for it: of what products touch first, as they take longest, and of the smallest."""
        found: dict[int, dict[str, Ring]] = {}
        for tile in self.stages:
            rooms = self.context.code(tile).rooms
            span, rank = spans(self.stages[tile], rooms)
            least = {name: self._ring((tile, name), 0, *at) for name, at in span.items()}
            more = {name: self._ring((tile, name), 1, *at) for name, at in span.items()}
            size = {name: aligned(rooms[name].bytes) for name in span}
            extra = {name: size[name] * (more[name].depth - least[name].depth) for name in span}
            kept = (ring.depth * size[name] // (self.plan.rows if ring.rows else 1) for name, ring in least.items())
            left = self.plan.room.get(tile, 0) - sum(kept)
            left -= sum(aligned(room.bytes) for room in rooms.values() if room.key)
            for name in sorted(span, key=lambda n: (rank[n], extra[n], n)):
                if extra[name] <= left:
                    left -= extra[name]
                    least[name] = more[name]
            found[tile] = least
        return found

    def _ring(self, buffer: tuple[int, str], slack: int, low: int, high: int, group: int) -> Ring:
        """Of a buffer that stages from ``low`` to ``high`` touch, in groups of so many blocks at most."""
        if buffer in self.grouped:
            least = -(-(high - low + 1) // self.grouped[buffer])
            return Ring(least if buffer in self.single else least + slack, self.grouped[buffer])
        if buffer in self.whole:
            samples = -(-(high + self.blocks - group - low) // self.blocks)
            if self.plan.overlap:
                return Ring(samples * self.region.rows, rows=self.region.rows)
            return Ring(samples * self.blocks)
        late = group - 1 if buffer in self.written else 0
        return Ring(-(-(max(high - low, 1) + late + slack) // group) * group)

    # --- vectors --------------------------------------------------------------------------------
    def _node(self, part: Part, node: Node) -> None:
        job = self.plan.job_of[node.outputs[0]]
        if node.op in MATRIX_OPS:
            self._matrix(part, node, job)
        elif node.op == "quantize" and node.outputs[1] in self.placement.shards:
            self._codes(part, node, job)
        elif node.outputs[0] in self.placement.shards:
            self._shard(part, node, job)
        elif job.kind == "columns":
            emit_strips(self, part, node, job)
        else:
            for tile, rect in self.plan.lanes(job):
                self._lane(part, node, job, tile, rect)
        for out in node.outputs:
            if out in self.values:
                self._hand_on(out)
                self._store(part, node, out)

    def _lane(self, part: Part, node: Node, job: Job, tile: int, rect: Rect) -> None:
        start = self.plan.starts[job]
        code = self.at(tile, start)
        mark, before = len(code.steps), set(code.rooms)
        loaded = self.loaded.setdefault((job, tile, rect), {})

        def operand(n: Node, i: int) -> View:
            value = n.inputs[i]
            if OPS[n.op].access(n, i) is Access.TABLE:
                return self.context.table(value)
            source = self.plan.source(part, n, i)
            if source is None:
                return self.context.external(code, part.space, n, value, self.index(rect), loaded)
            return self.rows(n, i, source, tile, rect)

        block = BlockEmit(self.graph, code, rect.rows, operand, node, dying=self.dying)
        block.lower()
        self.spend(job, code, mark, before)
        for out, view in block.outputs.items():
            made = self.values.setdefault(out, Value(job, start, node.origin))
            made.pieces.append(Piece(tile, Rect(rect.row, rect.rows, 0, width(self.graph, out)), view))

    # --- products -------------------------------------------------------------------------------
    def _matrix(self, part: Part, node: Node, job: Job) -> None:
        start = self.plan.starts[job]
        placed = self.placement.matrices[node.outputs[0]][self.copy]
        whole = Rect(0, self.plan.rows, 0, placed.rows)
        source = self.plan.source(part, node, 0)
        made = self.values.setdefault(node.outputs[0], Value(job, start + self.plan.late(job), node.origin))
        stem = f"W{part.segment.index}_{self.plan.number[node.outputs[0]]}_{self.copy}"
        element = self.graph.type(placed.weight).element
        groups: dict[tuple[int, int], list[Piece]] = {}
        for k, block in enumerate(placed.parts):
            code = self.at(block.tile, start)
            first, last = block.rows
            if source is None:
                loaded = self.loaded.setdefault((job, block.tile, whole), {})
                x = self.context.external(code, part.space, node, node.inputs[0], self.index(whole), loaded)
                x = columns(x, first, 1, last - first)
            else:
                own = replace(source, first=source.first + first * source.step, shape=(last - first,))
                x = self.rows(node, 0, own, block.tile, whole)
            name = declare(code, f"{stem}_{k}", placed, block, element)
            span = block.cols[1] - block.cols[0]

            def operand(n: Node, i: int, x: View = x) -> View:
                return x

            emit = BlockEmit(self.graph, code, self.plan.rows, operand, node, matrix_name=name, width=span)
            emit.lower()
            piece = Piece(block.tile, Rect(0, self.plan.rows, block.cols[0], span), emit.outputs[node.outputs[0]])
            groups.setdefault(block.cols, []).append(piece)
        made.pieces = [self._sum(start + 1, made.start, node, group) for group in groups.values()]

    def _sum(self, start: int, end: int, node: Node, group: Sequence[Piece]) -> Piece:
        """Partial sums of row blocks on several tiles, handed on at one step and added on the first of them at another, or by
        the routers between."""
        own: dict[int, Piece] = {}
        for piece in group:
            first = own.setdefault(piece.tile, piece)
            if first is not piece:
                self.at(piece.tile, start).emit("add", first.view, first.view, piece.view, origin=node.origin)
        owner, *others = own.values()
        elements, chip, choices = owner.rect.rows * owner.rect.cols, self.context.chip, self.context.mapping.choices
        if others and where(chip, list(own), elements, choices.sums) == "network":
            part = self._through_routers(others, owner.tile, start, node.origin)
            self.at(owner.tile, end).emit("add", owner.view, owner.view, part.view, origin=node.origin)
            return owner
        for other in others:
            element = self.context.code(other.tile).rooms[other.view.buffer].element
            shape = (other.rect.rows, other.rect.cols)
            part = Piece(owner.tile, other.rect, self.at(owner.tile, start).buffer(element, shape, "r"))
            self.send(other, other.rect, {owner.tile: part}, (start, start), node.origin)
            self.at(owner.tile, end).emit("add", owner.view, owner.view, part.view, origin=node.origin)
        return owner

    def _through_routers(self, parts: Sequence[Piece], to: int, start: int, origin: Origin) -> Piece:
        """The sum of partial sums in a buffer of another tile, added by the routers: sent and taken in the stage that begins
        at a step."""
        of, rect = tuple(piece.tile for piece in parts), parts[0].rect
        element = self.context.code(of[0]).rooms[parts[0].view.buffer].element
        total = Piece(to, rect, self.at(to, start).buffer(element, (rect.rows, rect.cols), "r"))
        for message in self.messages_of(parts[0], rect):
            tag = self.context.sum_tag(of, to, self.tag)
            self.tag = tag + 1
            for piece in parts:
                self.at(piece.tile, start).emit("reduce", piece.part(message), origin=origin, of=of, to=to, tag=tag)
            self.at(to, start).emit("collect", total.part(message), origin=origin, of=of, tag=tag)
        return total

    def _shard(self, part: Part, node: Node, job: Job) -> None:
        out = node.outputs[0]
        start = self.plan.starts[job]
        pieces = self.values[self.placement.shards[out]].pieces
        made = self.values.setdefault(out, Value(job, start, node.origin))
        for k, piece in enumerate(pieces):
            code = self.at(piece.tile, start)

            def operand(n: Node, i: int, piece: Piece = piece, k: int = k, code: TileCode = code) -> View:
                value = n.inputs[i]
                source = self.plan.source(part, n, i)
                if source is None:
                    one = width(self.graph, value) == 1
                    first, count = (0, 1) if one else (piece.rect.col, piece.rect.cols)
                    return code.constant(value, self.graph.type(value).element, first, count)
                if self.plan.beside(n, source):
                    return self.values[source.root].pieces[k].view
                if source.shape[-1] > 1:  # of a residual, the columns of the product
                    source = replace(source, first=source.first + piece.rect.col, shape=(piece.rect.cols,))
                return self.rows(n, i, source, piece.tile, Rect(0, self.plan.rows, 0, 0))

            emit = BlockEmit(self.graph, code, self.plan.rows, operand, node, width=piece.rect.cols, dying=self.dying)
            emit.lower()
            made.pieces.append(replace(piece, view=emit.outputs[out]))

    def _codes(self, part: Part, node: Node, job: Job) -> None:
        """Columns of a product brought to codes where they are, a scale for each of their groups."""
        start, tail = self.plan.starts[job], part.tails[node.inputs[0]]
        codes, scales = (self.values.setdefault(out, Value(job, start, node.origin)) for out in node.outputs)
        each, wanted = tail.width // groups_of(node), Rect(0, self.plan.rows, tail.start, tail.width)
        for piece in self.values[tail.root].pieces:
            common = piece.rect.meet(wanted)
            if common is None:
                continue
            low, groups = common.col - tail.start, common.cols // each
            made = heads_codes(self.at(piece.tile, start), piece.part(common), groups, node.origin)
            codes.pieces.append(Piece(piece.tile, replace(common, col=low), made[0]))
            scales.pieces.append(Piece(piece.tile, replace(common, col=low // each, cols=groups), made[1]))

    # --- heads ----------------------------------------------------------------------------------
    def _heads(self, part: Part) -> None:
        """All of a part that works on middle axes: for each of its tiles, the loops over them."""
        job = self.plan.job_of[part.segment.nodes[0].outputs[0]]
        for share in self.plan.shares(job):
            code = self.at(share.tile, self.plan.starts[job], self.plan.period(job))
            marks = {when: len(steps) for when, steps in self.stages[share.tile].items()}
            before = set(code.rooms)
            Heads(self, part, job, share).emit()
            for when, steps in self.stages[share.tile].items():
                more = steps[marks.get(when, 0) :]
                self.spent.setdefault(job, []).extend(more)
                self.fetch(job, code, more)
            self.keep(job, code, before)
        for node in part.segment.nodes:
            for out in node.outputs:
                if out in self.values:
                    self._hand_on(out)

    # --- movement -------------------------------------------------------------------------------
    def _hand_on(self, root: str) -> None:
        """Bring a value's block to all that need it: each rectangle once from where it was made, together to all tiles
        that want the same."""
        value = self.values[root]
        same: dict[tuple[int, Rect, bool], Piece] = {}
        for need in self.wanted.get(root, ()):
            if not need.whole and waited(self, value, need):
                continue
            if not need.whole and any(p.tile == need.tile and p.rect.holds(need.rect) for p in value.pieces):
                size = need.rect.rows * need.rect.cols * self.graph.type(root).element.bytes
                self.messages.append((size, (value.job, need.tile), ((need.job, need.tile),)))
                continue
            key = (need.tile, need.rect, need.whole)
            if key not in same:
                same[key] = self.taken(value, need, value.start + 1)
                if need.whole:
                    self.whole.add((need.tile, same[key].view.buffer))
            value.brought[need] = same[key]
        bring: list[tuple[Piece, Rect, list[Piece]]] = []
        for piece in value.pieces:
            targets: dict[Rect, list[Piece]] = {}
            for target in same.values():
                common = piece.rect.meet(target.rect)
                if common is not None:
                    targets.setdefault(common, []).append(target)
            bring += ((piece, common, found) for common, found in targets.items())
        for piece, common, found in bring:  # before anything is received beside it, which a copy would have to wait for
            for target in found:
                if target.tile == piece.tile:
                    self.copy_within(value, piece, common, target)
        for piece, common, found in bring:
            self._bring(value, piece, common, found)

    def _bring(self, value: Value, piece: Piece, common: Rect, targets: Sequence[Piece]) -> None:
        """Send a rectangle of a piece to the other tiles of those that want it; one that has two buffers for it gets two
        messages."""
        left = list(targets)
        while left:
            now = {p.tile: p for p in reversed(left)}
            left = [p for p in left if p is not now[p.tile]]
            size = common.rows * common.cols * self.context.code(piece.tile).rooms[piece.view.buffer].element.bytes
            ends = tuple((self.taker[p.tile, p.view.buffer], p.tile) for p in now.values())
            self.messages.append((size, (value.job, piece.tile), ends))
            others = {tile: p for tile, p in now.items() if tile != piece.tile}
            if others:
                self.sent[value.job] += size
                self.send(piece, common, others, (value.start, value.start + 1), value.origin)

    def _store(self, part: Part, node: Node, out: str) -> None:
        if out not in self.region.stored:
            return
        name = self.context.global_name(out)
        value = self.values[out]
        for piece in value.pieces:
            cols = (piece.rect.col, piece.rect.cols)
            target = part.space.rows_view(node, out, self.index(piece.rect), cols, name)
            self.at(piece.tile, value.start).emit("store", target, piece.view, origin=node.origin)
            self.put_out[piece.tile] += piece.rect.rows * piece.rect.cols * self.graph.type(out).element.bytes
            self.storing.setdefault(piece.tile, set()).add(out)


def drafted(context: Context, plans: Sequence[Plan]) -> list[Flow]:
    """Drafts of a region's copies, together, in a context of their own."""
    trial = context.apart()
    flows = [Flow(trial, plan) for plan in plans]
    for flow in flows:
        flow.emit(draft=True)
    return flows
