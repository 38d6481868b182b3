"""Segments with static matmuls: blocks of rows flow from vector tiles to the tiles that hold the weights and back.

A block's instructions are noted in one order for all tiles, and :mod:`cimc.codegen.overlap` makes one order of all blocks of
them; a tile's stream is its share of that order, and every send stands right before its receives, so finite channels cannot
deadlock: the earliest instruction that has not run can always run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod

from cimc.codegen.apart import quantize_apart, quantize_heads
from cimc.codegen.block import BlockEmit
from cimc.codegen.context import Context
from cimc.codegen.movement import Columns, Movement, Shard, State
from cimc.codegen.overlap import BLOCK, PLACES, Overlap, overlapped
from cimc.codegen.push import Push
from cimc.codegen.pushed import Taken, takers
from cimc.codegen.spread import sent_to
from cimc.codegen.tags import PUSHED
from cimc.codegen.tilecode import TileCode, columns, declare
from cimc.ir.graph import Node
from cimc.isa.instruction import Instruction
from cimc.isa.operands import Affine, View, static_shape
from cimc.mapping.lanes import spare
from cimc.mapping.placement import Part, PlacedMatrix, Segment
from cimc.mapping.segment import MATRIX_OPS, Range, Tail, shares
from cimc.mapping.space import Index, Space, shared_row, width
from cimc.mapping.sums import where
from cimc.ops import OPS, Access


@dataclass(frozen=True)
class _Cut:
    """How a share is cut: the axes outside, where the block at hand begins on the others, its rows, how many blocks follow each
    other, and the rows behind the last of them."""

    outer: Sequence[Range]
    first: tuple[Affine, ...]
    rows: int
    blocks: int
    rest: int = 0


class Stream:
    """Emits one replica of a STREAM segment, its share of the rows in blocks of ``rows``."""

    def __init__(self, context: Context, segment: Segment, tails: dict[str, Tail], rows: int, replica: int) -> None:
        self.context = context
        self.graph = context.graph
        self.flow = Movement(context)
        self.segment = segment
        self.tails = tails
        self.rows = rows
        self.replica = replica
        local = frozenset(v for n in segment.nodes for v in n.inputs if v and shared_row(self.graph, v))
        self.stored = context.stored(segment)
        self.dying = context.dying(segment)
        self.space = Space(self.graph, context.homes, segment, tails, self.stored, local)
        self.placement = context.placement
        homes = self.placement.homes[segment.index]
        self.stages = homes[replica]
        self.matrices = {
            n.outputs[0]: self.placement.matrices[n.outputs[0]][replica] for n in segment.nodes if n.op in MATRIX_OPS
        }
        self.number = {n.outputs[0]: i for i, n in enumerate(segment.nodes)}
        self.readers = self._readers()
        self.matrix_tiles = {p.tile for m in self.matrices.values() for p in m.parts}
        self.aside = self.placement.beside.get(segment.index, ({},) * len(homes))[replica]
        self.share = shares(self.space.domain, len(homes))[replica]
        self.storing: dict[int, set[str]] = {}
        self.rotation = context.mapping.choices.rotation
        self.most = PLACES[context.tight.get(segment.index, 0)]
        self.pools: dict[tuple[int, int], list[View]] = {}  # (tile, rows) → buffers that its blocks use
        sent = [sent_to(context, s) for s in takers(context, segment)]
        self.operands = frozenset(operand for found in sent for operand, _ in found)
        self.pushes: dict[str, list[Push]] = {}
        for push in dict.fromkeys(p for found in sent for p in found.values()):
            self.pushes.setdefault(push.root, []).append(push)
        self.taken, self.turn = Taken(), 0
        self.lanes = 1  # variants of a block that send operands on channels of their own

    def emit(self) -> dict[int, frozenset[str]]:
        """Append the code to the tiles; returns what each tile stored."""
        cut = self._cut()
        self.taken = Taken(cut.blocks, min(cut.blocks, max(len(lanes) for lanes in self.stages)))
        self._nest(cut)
        return {tile: frozenset(values) for tile, values in self.storing.items()}

    def _tiles(self) -> list[int]:
        """Every tile the segment may use."""
        return sorted({*self.matrix_tiles, *self.aside.values(), *(tile for lanes in self.stages for tile in lanes)})

    def _cut(self) -> _Cut:
        """Blocks of the inmost axis; or, where one would be all of it, lines of it, one for each index of the axis before."""
        *outer, inmost = self.share
        if outer and inmost.count <= self.rows:
            *outer, along = outer
            return _Cut(outer, (Affine.of(along.low, {BLOCK: 1}), Affine(inmost.low)), inmost.count, along.count)
        blocks, rest = divmod(inmost.count, self.rows)
        return _Cut(outer, (Affine.of(inmost.low, {BLOCK: self.rows}),), self.rows, blocks, rest)

    def _nest(self, cut: _Cut) -> None:
        codes = {t: self.context.code(t) for t in self._tiles()}
        with ExitStack() as stack:
            axes: list[Affine] = []
            for axis, span in enumerate(cut.outer):
                for code in codes.values():
                    stack.enter_context(code.repeat(f"i{axis}", span.count))
                axes.append(Affine.of(span.low, {f"i{axis}": 1} if span.count > 1 else {}))
            rows = Index((*axes, *cut.first), cut.rows)
            if cut.blocks:
                plan = self._overlapped(codes, rows, self.taken.turns)
                if self.pushes and not plan.in_order(PUSHED):
                    self.lanes, self.taken = self.taken.turns, Taken(cut.blocks, self.taken.turns)
                    plan = self._overlapped(codes, rows, self.lanes)
                plan.emit(codes, cut.blocks, f"i{len(cut.outer)}")
            if cut.rest:
                last = Index((*axes, Affine(self.share[-1].low + cut.blocks * cut.rows)), cut.rest)
                for tile, step in self._block(codes, last, cut.blocks):
                    codes[tile].steps.append(step)

    def _overlapped(self, codes: Mapping[int, TileCode], rows: Index, lanes: int) -> Overlap:
        variants = [self._block(codes, rows, k) for k in range(lanes)]
        return overlapped(self.context.chip, codes, variants, self._every(codes), self.rotation, self.most)

    def _every(self, codes: Iterable[int]) -> dict[int, int]:
        """How many blocks there are for each that a tile takes part in."""
        always = {*self.matrix_tiles, *self.aside.values()}
        turns: dict[int, set[tuple[int, int]]] = {t: set() for t in codes}
        for lanes in self.stages:
            for i, tile in enumerate(lanes):
                turns[tile].add((len(lanes), i))
        return {t: 1 if t in always or len(turns[t]) != 1 else next(iter(turns[t]))[0] for t in codes}

    def _block(self, codes: Mapping[int, TileCode], index: Index, turn: int) -> list[tuple[int, Instruction]]:
        """The instructions of a block, in an order for all tiles."""
        self.turn = turn
        homes = [lanes[turn % len(lanes)] for lanes in self.stages]
        state = State(index, homes)
        noted: list[tuple[int, Instruction]] = []
        with ExitStack() as stack:
            for tile, code in codes.items():
                pool = self.pools.setdefault((tile, index.rows), [])
                stack.enter_context(code.again(pool))
                code.journal = noted
            self._nodes(state)
        for code in codes.values():
            code.journal = None
        return noted

    def _nodes(self, state: State) -> None:
        for node in self.segment.nodes:
            if node.op in MATRIX_OPS:
                self._matrix(state, node)
            elif node.op == "quantize" and node.outputs[1] in self.placement.shards:
                quantize_heads(self.flow, state, node, self.tails[node.inputs[0]])
            elif node.outputs[0] in self.placement.shards and node.op == "quantize":
                home = state.homes[self.placement.stages[node.outputs[0]]]
                quantize_apart(self.flow, state, node, self.tails[node.inputs[0]].root, home)
            elif node.outputs[0] in self.placement.shards:
                self._shard(state, node)
            else:
                self._home(state, node)
            self._store(state, node)

    # --- nodes --------------------------------------------------------------------------------
    def _home(self, state: State, node: Node) -> None:
        tile = state.homes[self.placement.stages[node.outputs[0]]]
        code = self.context.code(tile)

        def operand(n: Node, i: int) -> View:
            value = n.inputs[i]
            if OPS[n.op].access(n, i) is Access.TABLE:
                return self.context.table(value)
            if value not in self.tails:
                loaded = state.loaded.setdefault(tile, {})
                return self.context.external(code, self.space, n, value, state.index, loaded)
            tail = self.tails[value]
            whole = self.flow.bring(state, tail.root, [tile], n.origin)[tile]
            return columns(whole, tail.start, tail.step, tail.width)

        block = BlockEmit(self.graph, code, state.index.rows, operand, node, dying=self.dying)
        block.lower()
        for out, view in block.outputs.items():
            state.full[(tile, out)] = view
            state.owner[out] = tile

    def _shard(self, state: State, node: Node) -> None:
        out = node.outputs[0]
        source = self.placement.shards[out]
        shards: list[Shard] = []
        roots = [self.tails[v].root for v in node.inputs if v in self.tails]
        shared = [r for r in roots if r not in self.placement.shards]
        pieces = state.shards[source]
        aside = self.aside if out in self.placement.aside else {}
        tiles = [aside.get(p.tile, p.tile) for p in pieces]
        for root in dict.fromkeys(shared):
            self.flow.bring(state, root, tiles, node.origin)
        for k, (tile, piece) in enumerate(zip(tiles, pieces, strict=True)):
            code = self.context.code(tile)

            def operand(
                n: Node, i: int, piece: Shard = piece, k: int = k, tile: int = tile, code: TileCode = code
            ) -> View:
                value = n.inputs[i]
                if value not in self.tails:
                    whole = width(self.graph, value) == 1
                    first, count = (0, 1) if whole else (piece.first, piece.last - piece.first)
                    return code.constant(value, self.graph.type(value).element, first, count)
                tail = self.tails[value]
                if tail.root in self.placement.shards:
                    return self.flow.shard_on(state, tail.root, k, tile, n.origin)
                return columns(state.full[(tile, tail.root)], tail.start, tail.step, tail.width)

            span = piece.last - piece.first
            block = BlockEmit(self.graph, code, state.index.rows, operand, node, width=span, dying=self.dying)
            block.lower()
            shards.append(Shard(tile, piece.first, piece.last, block.outputs[out]))
        state.shards[out] = shards

    def _matrix(self, state: State, node: Node) -> None:
        placed = self.matrices[node.outputs[0]]
        tail = self.tails.get(node.inputs[0])
        groups: dict[tuple[int, int], list[Shard]] = {}
        for k, part in enumerate(placed.parts):
            code = self.context.code(part.tile)
            x = self._matrix_input(state, node, part, tail)
            name = self._declare(code, node, part, k)
            span = part.cols[1] - part.cols[0]

            def operand(n: Node, i: int, x: View = x) -> View:
                return x

            block = BlockEmit(self.graph, code, state.index.rows, operand, node, matrix_name=name, width=span)
            block.lower()
            view = block.outputs[node.outputs[0]]
            groups.setdefault(part.cols, []).append(Shard(part.tile, *part.cols, view))
        state.shards[node.outputs[0]] = [self._sum(state, node, placed, group) for group in groups.values()]

    def _matrix_input(self, state: State, node: Node, part: Part, tail: Tail | None) -> View:
        first, last = part.rows
        if tail is None:
            code = self.context.code(part.tile)
            loaded = state.loaded.setdefault(part.tile, {})
            x = self.context.external(code, self.space, node, node.inputs[0], state.index, loaded)
            return columns(x, first, 1, last - first)
        if tail.root in self.placement.shards and tail.step == 1:
            if (part.tile, tail.root) not in state.parts:
                self.flow.scatter(state, tail.root, self.readers[tail.root], node.origin)
            low, x = state.parts[(part.tile, tail.root)]
            return columns(x, tail.start + first - low, 1, last - first)
        tiles = list(self.readers[tail.root]) if tail.root in state.owner else [part.tile]
        x = self.flow.bring(state, tail.root, tiles, node.origin)[part.tile]
        return columns(columns(x, tail.start, tail.step, tail.width), first, 1, last - first)

    def _readers(self) -> dict[str, dict[int, list[Columns]]]:
        """Value → the tiles of all matrices that multiply it, with the columns of it that are their inputs."""
        found: dict[str, dict[int, list[Columns]]] = {}
        for node in self.segment.nodes:
            tail = self.tails.get(node.inputs[0]) if node.op in MATRIX_OPS else None
            if tail is not None:
                for part in self.matrices[node.outputs[0]].parts:
                    wanted = found.setdefault(tail.root, {}).setdefault(part.tile, [])
                    if tail.step == 1:
                        wanted.append((tail.start + part.rows[0], tail.start + part.rows[1]))
        return found

    def _declare(self, code: TileCode, node: Node, part: Part, k: int) -> str:
        placed = self.matrices[node.outputs[0]]
        name = f"W{self.segment.index}_{self.number[node.outputs[0]]}_{self.replica}_{k}"
        return declare(code, name, placed, part, self.graph.type(placed.weight).element)

    def _sum(self, state: State, node: Node, placed: PlacedMatrix, group: list[Shard]) -> Shard:
        """Partial sums of row blocks, first of each tile, then of several tiles: their sum is on the first of them."""
        own: dict[int, Shard] = {}
        for shard in group:
            first = own.setdefault(shard.tile, shard)
            if first is not shard:
                self.context.code(shard.tile).emit("add", first.view, first.view, shard.view, origin=node.origin)
        parts = list(own.values())
        if len(parts) > 1:
            elements = prod(static_shape(parts[0].view))
            chip, cols = self.context.chip, (parts[0].first, parts[0].last)
            left = min(spare(chip, placed, p, state.index.rows) for p in placed.parts if p.cols == cols)
            how = where(chip, list(own), elements, self.context.mapping.choices.sums, left)
            self.flow.added(state, how, [(shard.tile, shard.view) for shard in parts], node.origin)
        return parts[0]

    def _store(self, state: State, node: Node) -> None:
        for out in node.outputs:
            if out not in self.stored:
                continue
            if out in self.placement.shards:
                pieces = state.shards[out]
            else:
                tile = state.owner[out]
                pieces = [Shard(tile, 0, width(self.graph, out), state.full[(tile, out)])]
            for push in self.pushes.get(out, ()):
                self._push(state, node, push, pieces)
            low, high = self.context.columns_out(out, self.segment, self.operands)
            for piece in pieces:
                first, last = max(low, piece.first), min(high, piece.last)
                if first >= last:
                    continue
                name = self.context.global_name(out)
                target = self.space.rows_view(node, out, state.index, (first, last - first), name)
                view = columns(piece.view, first - piece.first, 1, last - first)
                self.context.code(piece.tile).emit("store", target, view, origin=node.origin)
                self.storing.setdefault(piece.tile, set()).add(out)

    def _push(self, state: State, node: Node, push: Push, pieces: Sequence[Shard]) -> None:
        """Send an operand's columns of a block to the tiles that read it whole."""
        out, rows = push.root, state.index.rows
        start = self.space.rows_view(node, out, state.index, (0, 1), "").offset
        across = width(self.graph, out)
        row = Affine(start.constant // across, tuple((name, factor // across) for name, factor in start.terms))
        for piece in pieces:
            for channel, part in push.channels:
                tag = channel + self.turn % self.lanes
                first = max(piece.first, push.col + part.low)
                last = min(piece.last, push.col + part.low + part.count)
                if first >= last:
                    continue
                view = columns(piece.view, first - piece.first, 1, last - first)
                code = self.context.code(piece.tile)
                if piece.tile in push.tiles:
                    code.emit("copy", push.part(code, row, rows, first, last), view, origin=node.origin)
                others = tuple(tile for tile in push.tiles if tile != piece.tile)
                if others:
                    code.emit("send", view, origin=node.origin, to=others, tag=tag)
                for tile in others:
                    target = push.part(self.context.code(tile), row, rows, first, last)
                    self.taken.note(self.turn, tile, target, (piece.tile, tag), node.origin)
