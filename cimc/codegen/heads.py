"""What a tile does of a stage on middle axes (attention's heads): for the rows of some blocks at once, index after index.

The chains of neighbouring indices are interleaved, each a product behind the one before: while the vector units work on one,
the matmul unit works on the next. Buffers are shared by every second index."""

from __future__ import annotations

from collections.abc import Container, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from math import prod

from cimc.codegen.block import BlockEmit
from cimc.codegen.course import Course
from cimc.codegen.fold import WHOLE
from cimc.codegen.stages import BETWEEN, Job, Piece, Rect, Share, heads_columns
from cimc.codegen.tilecode import TileCode, columns
from cimc.ir.graph import Node
from cimc.isa.instruction import Instruction
from cimc.isa.matrix import PRODUCTS
from cimc.isa.operands import Affine, View, dense_strides, static_shape
from cimc.mapping.region import Part, Source
from cimc.mapping.segment import ELEMENTWISE, Range
from cimc.mapping.space import Index, shared_row, width
from cimc.ops import OPS, Access

WRITTEN_OUT = 24
"""Indices of a share that are written out, at most, so that they can be spread over steps (estimated)."""

SETS = 3
"""Indices that are worked on at once: one in each of the units (two products, and what is between them)."""

UNROLLED = 6
"""Indices of the last middle axis, at most, that are written out to be interleaved (estimated)."""


@dataclass
class _Chain:
    """One index of the middle axes: the affine place on each, what is loaded for it, and what it has made."""

    middle: tuple[Affine, ...]
    loaded: dict[View, View]
    have: dict[str, View] = field(default_factory=dict[str, View])


class Heads:
    """Emits what one tile does of a part on middle axes."""

    def __init__(self, flow: Course, part: Part, job: Job, share: Share) -> None:
        self.flow, self.part, self.job, self.share = flow, part, job, share
        self.group = flow.plan.period(job)
        self.rows = self.group * share.rect.rows
        self.code: TileCode = flow.at(share.tile, flow.plan.starts[job], self.group)
        self.kept: dict[str, Piece] = {}
        self.pools: dict[tuple[int, int], list[View]] = {}
        self.common = self._common()
        once = {n.outputs[0] for n in self.common}
        self.apart = tuple(n for n in part.segment.nodes if n.outputs[0] not in once)
        lasting = {t.root for n in self.apart for v in n.inputs if (t := part.tails.get(v))}
        self.dying = flow.dying - (once & lasting)

    def emit(self) -> None:
        """Append the work on all indices of the middle axes: a part of them in each of the stage's phases, or in loops where
        they are too many to be written out."""
        code = self.code
        self._keep()
        before = set(code.rooms)
        if prod(count for _, count in self.share.ranges) <= WRITTEN_OUT:
            lone = self._phases()
        else:
            lone = self._loops()
        made = prod(count for _, count in self.share.ranges) > 1
        for name in code.rooms.keys() - before:
            self.flow.grouped[code.tile, name] = self.group
            if made and name not in lone:
                self.flow.single.add((code.tile, name))

    def _phases(self) -> set[str]:
        """Every index written out; the buffers of what is loaded for all."""
        indices = list(product(*(range(low, low + count) for low, count in self.share.ranges)))
        start = self.flow.plan.starts[self.job]
        loaded = self._load([Affine(low) for low, _ in self.share.ranges])
        have = self._once([Affine(low) for low, _ in self.share.ranges], loaded)
        lone = set(self.code.rooms)
        chains = [_Chain(tuple(Affine(i) for i in index), dict(loaded), dict(have)) for index in indices]
        if self.group == 1:  # chosen where buffers are short: these are shared
            self._interleave(chains)
            return lone
        phases: list[list[_Chain]] = [[] for _ in range(self.group)]
        for chain in chains:
            phases[self._freest()].append(chain)
        turns = 2 if self.group % 4 == 0 else self.group
        for phase, some in enumerate(phases):
            for k, chain in enumerate(some):
                self._written(chain, start + phase, self.pools.setdefault((phase % turns, k), []))
        return lone

    def _freest(self) -> int:
        """The phase in which one more index makes the least of what its tile then has to do at most in a step; and note it. Its
        products are in that phase but the last, which is two later: a tile with much to do in one step and little in
        another keeps all that take its messages waiting."""
        full, tile, start = self.flow.full, self.share.tile, self.flow.plan.starts[self.job]
        products = sum(node.op == "matmul" for node in self.part.segment.nodes)
        first = max(1, products - 1) * self.rows
        last = self.rows if products > 1 else 0

        def then(phase: int) -> tuple[int, int, int]:
            now, later = (full[tile, (start + phase + k) % self.group] for k in (0, BETWEEN))
            return max(now + first, later + last), now + later, phase

        best = min(range(self.group), key=then)
        full[tile, (start + best) % self.group] += first
        full[tile, (start + best + BETWEEN) % self.group] += last
        return best

    def _written(self, chain: _Chain, start: int, pool: list[View]) -> None:
        """One index written out: what stands between its last two products a step after the first of these, and what follows
        two steps after it. So within a step nothing waits for a product, and each unit has work of its own. ``pool``: its
        buffers, which are taken for three steps."""
        self.code = self.flow.at(self.share.tile, start, self.group)
        mark = len(self.code.steps)
        with self.code.again(pool):
            for node in self.apart:
                self._node(node, chain)
        steps = self.code.steps[mark:]
        products = [i for i, s in enumerate(steps) if isinstance(s, Instruction) and s.mnemonic in PRODUCTS]
        if len(products) > 1:
            first, last = products[-2] + 1, products[-1]
            del self.code.steps[mark + first :]
            for later, some in ((1, steps[first:last]), (BETWEEN, steps[last:])):
                self.flow.at(self.share.tile, start + later, self.group).steps.extend(some)

    def _loops(self) -> set[str]:
        code = self.code
        names = [f"h{i}" for i in range(len(self.share.ranges))]
        counts = [count for _, count in self.share.ranges]
        together = max(n for n in range(1, UNROLLED + 1) if counts[-1] % n == 0)
        turns = [*counts[:-1], counts[-1] // together]
        steps = [*(1 for _ in counts[:-1]), together]
        middle = [
            Affine.of(low, {name: step} if turn > 1 else {})
            for name, (low, _), turn, step in zip(names, self.share.ranges, turns, steps, strict=True)
        ]
        loaded = self._load(middle)
        have = self._once(middle, loaded)
        lone = set(code.rooms)
        with ExitStack() as stack:
            for name, turn in zip(names, turns, strict=True):
                stack.enter_context(code.repeat(name, turn))
            self._interleave(
                [_Chain((*middle[:-1], middle[-1] + k), dict(loaded), dict(have)) for k in range(together)]
            )
        return lone

    def _load(self, middle: Sequence[Affine]) -> dict[View, View]:
        """Load what all indices share."""
        loaded: dict[View, View] = {}
        for node in self.part.segment.nodes:
            for i, value in enumerate(node.inputs):
                if self._outside(node, i) and not any(self.part.space.reach(node, value, Access.ROWS).strides[1:-1]):
                    self._external(node, value, middle, loaded)
        return loaded

    def _common(self) -> tuple[Node, ...]:
        """Elementwise nodes that come to the same for all indices of the middle axes, as a mask does."""
        part, made = self.part, set[str]()
        found: list[Node] = []
        for node in part.segment.nodes:
            leaves = any(o in self.flow.wanted or o in self.flow.region.stored for o in node.outputs)
            alike = all(self._alike(node, i, made) for i in range(len(node.inputs)))
            if node.op in ELEMENTWISE and alike and not leaves:
                found.append(node)
                made.update(node.outputs)
        return tuple(found)

    def _alike(self, node: Node, i: int, made: Container[str]) -> bool:
        """Whether an operand is the same for all indices of the middle axes; ``made``: values that are."""
        value, tail = node.inputs[i], self.part.tails.get(node.inputs[i])
        if not value or shared_row(self.flow.graph, value):
            return True
        if tail is not None:
            return tail.root in made
        outside = self._outside(node, i)
        return outside and not any(self.part.space.reach(node, value, Access.ROWS).strides[1:-1])

    def _once(self, middle: Sequence[Affine], loaded: dict[View, View]) -> dict[str, View]:
        """Do what comes to the same for all indices; the results."""
        chain = _Chain(tuple(middle), loaded)
        for node in self.common:
            self._node(node, chain)
        return chain.have

    def _external(self, node: Node, value: str, middle: Sequence[Affine], loaded: dict[View, View]) -> View:
        """Rows of a value from outside the region: of all blocks of the group at once, or block by block where they
        overlap. Those of a constant that all samples and indices share stay on the tile."""
        flow, space = self.flow, self.part.space
        index = flow.index(self.share.rect, middle, self.group)
        one_row = shared_row(flow.graph, value) or not space.reach(node, value, Access.ROWS).strides[-1]
        if one_row or not flow.plan.overlap or self.group == 1:
            constant = self._constant(node, value, index)
            return constant or flow.context.external(self.code, space, node, value, index, loaded)
        cols, name = width(flow.graph, value), flow.context.global_name(value)
        view = space.rows_view(node, value, index, (0, cols), name)
        if view not in loaded:
            loaded[view] = self.code.buffer(flow.graph.type(value).element, (self.rows, cols), "x")
            for k, target in enumerate(self._by_block(loaded[view])):
                index = flow.index(self.share.rect, middle, 1, k)
                here = self._constant(node, value, index)
                view_k = here or space.rows_view(node, value, index, (0, cols), name)
                dense = dense_strides(tuple(static_shape(view_k)))
                split = View(target.buffer, target.offset, view_k.shape, dense)
                self.code.emit("copy" if here else "load", split, view_k, origin=node.origin)
        return loaded[view]

    def _constant(self, node: Node, value: str, index: Index) -> View | None:
        """Rows of a constant of which those of a whole sample stay on the tile."""
        flow = self.flow
        return flow.context.constant_rows(self.code, self.part.space, node, value, index, Range(0, flow.region.rows))

    def _by_block(self, view: View) -> list[View]:
        """The rows of each block of the group."""
        rows, step = self.share.rect.rows, view.strides[0]
        shape = (rows, *view.shape[1:])
        return [View(view.buffer, view.offset + k * rows * step, shape, view.strides) for k in range(self.group)]

    def _outside(self, node: Node, i: int) -> bool:
        """Whether an operand is rows from outside the region that are not constant."""
        value = node.inputs[i]
        if not value or OPS[node.op].access(node, i) is not Access.ROWS or shared_row(self.flow.graph, value):
            return False
        return self.flow.plan.source(self.part, node, i) is None

    def _keep(self) -> None:
        """Buffers for the results that leave the loops: the columns of a share's heads, side by side."""
        share, graph = self.share, self.flow.graph
        for node in self.part.segment.nodes:
            for out in node.outputs:
                if out in self.flow.wanted:
                    low, cols = heads_columns(self.part.axes, share.ranges, width(graph, out))
                    view = self.code.buffer(graph.type(out).element, (share.rect.rows, cols), "o")
                    self.kept[out] = Piece(share.tile, Rect(share.rect.row, share.rect.rows, low, cols), view)
                    self.flow.made(out, self.job, node.origin).append(self.kept[out])
                    self.flow.written.add((share.tile, view.buffer))

    def _interleave(self, chains: Sequence[_Chain]) -> None:
        """Cut each chain before its products; do the first cut of one, then the second of the one before, and so on."""
        cuts: list[list[Node]] = []
        for node in self.apart:
            if not cuts or (node.op == "matmul" and any(n.op == "matmul" for n in cuts[-1])):
                cuts.append([])
            cuts[-1].append(node)
        for turn in range(len(chains) + len(cuts) - 1):
            for c, nodes in enumerate(cuts):
                k = turn - c
                if 0 <= k < len(chains):
                    with self.code.again(self.pools.setdefault((c, k % max(SETS, len(cuts))), [])):
                        for node in nodes:
                            self._node(node, chains[k])

    def _node(self, node: Node, chain: _Chain) -> None:
        flow, code = self.flow, self.code

        def operand(n: Node, i: int) -> View:
            value = n.inputs[i]
            if OPS[n.op].access(n, i) is Access.TABLE:
                return flow.context.table(value)
            tail = self.part.tails.get(value)
            if tail is not None:
                return columns(chain.have[tail.root], tail.start, tail.step, tail.width)
            source = self.part.sources.get((n.outputs[0], i))
            if source is None:
                return self._external(n, value, chain.middle, chain.loaded)
            return self._middle(n, i, source, chain.middle)

        emit = BlockEmit(flow.graph, code, self.rows, operand, node, dying=self.dying)
        for out in node.outputs:
            if out in self.kept:
                emit.outputs[out] = self._slot(self.kept[out], out, chain.middle)
        emit.lower()
        chain.have.update(emit.outputs)
        for out in node.outputs:
            if out in flow.region.stored:
                self._store(node, out, emit.outputs[out], chain)

    def _store(self, node: Node, out: str, view: View, chain: _Chain) -> None:
        """Store a result that is read outside the region."""
        flow, code = self.flow, self.code
        name, cols = flow.context.global_name(out), (0, width(flow.graph, out))
        apart = self._by_block(view) if flow.plan.overlap else [view]
        for k, piece in enumerate(apart):
            index = flow.index(self.share.rect, chain.middle, self.group, k)
            target = self.part.space.rows_view(node, out, index, cols, name)
            code.emit("store", target, piece, origin=node.origin)
        flow.storing.setdefault(code.tile, set()).add(out)
        flow.put_out[code.tile] += self.rows * cols[1] * flow.graph.type(out).element.bytes // self.group

    def _slot(self, piece: Piece, out: str, middle: Sequence[Affine]) -> View:
        """The columns of a kept result that belong to one index of the middle axes."""
        inner = width(self.flow.graph, out)
        at = piece.view.offset + -piece.rect.col
        for i, place in enumerate(middle):
            at = at + place * (inner * prod(self.part.axes[i + 1 :]))
        return View(piece.view.buffer, at, (self.rows, inner), (piece.rect.cols, 1))

    def _middle(self, node: Node, i: int, source: Source, middle: Sequence[Affine]) -> View:
        """An operand for one index of the middle axes, in what was brought or made of it on the tile."""
        piece = self.flow.found(source.root, node.outputs[0], i, self.share.tile)
        at = piece.view.offset + (source.first - piece.rect.col)
        for step, place in zip(source.axes, middle, strict=True):
            at = at + place * step
        row = piece.view.strides[0]
        if source.over < 0:
            at = at + (self.share.rect.row - piece.rect.row) * row
            return View(piece.view.buffer, at, (self.rows, source.shape[-1]), (row, source.step))
        strides = (row, source.step) if source.over == 0 else (source.step, row)
        sample = Affine.of(0, {WHOLE: self.flow.region.rows * row})
        return View(piece.view.buffer, at + sample, source.shape, strides)
