"""Segments without static matmuls: the rows are spread over tiles, each tile runs the whole chain on its rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from cimc.codegen.block import BlockEmit
from cimc.codegen.context import Context
from cimc.codegen.extend import extend
from cimc.codegen.push import Pushes
from cimc.codegen.pushed import making, pushes
from cimc.codegen.tags import HANDED
from cimc.codegen.tasks import Task, takers, tasks
from cimc.codegen.tilecode import TileCode, columns, narrowed
from cimc.ir.graph import Node
from cimc.isa.instruction import Instruction, Step
from cimc.isa.matrix import PRODUCTS
from cimc.isa.operands import Affine, Element, View, static_shape
from cimc.mapping.placement import Segment
from cimc.mapping.segment import Range, Tail, pieces, product
from cimc.mapping.space import Index, Space, shared_row, width
from cimc.mapping.traffic import hops
from cimc.ops import OPS, Access
from cimc.origin import Origin

MIN_ELEMENTS = 4096
"""Elements that a segment reads and makes which are worth one more tile: a token and the first access take about as long
(1,024: the same for MiniLM, 16,384: 0.6 % more cycles)."""

MIN_ROWS = 128
"""Rows that are worth loading whole operands (the K and V of a head) into one more tile: loading takes about as long as the
rows' own work at half as many."""

SHARED = 2
"""Tiles that need the same whole operand, from which on one loads it and hands it on, in segments that go in loops."""

HANDED_PIECES, HANDED_BYTES = 8, 2048
"""Pieces that an operand is handed on in, at most, and bytes of one, at least: each costs a message's latency."""


def sent_to(context: Context, segment: Segment) -> Pushes:
    """What the segment before sends to the tiles of a SPREAD segment."""
    off = not context.pushing or segment.index in context.placement.loading
    if off or making(context, segment) is None:
        return {}
    found = context.pushes.get(segment.index)
    if found is None:
        spread = Spread(context, segment, context.tails(segment), 1)
        found = context.pushes[segment.index] = pushes(context, segment, spread.tasks, spread.space)
    return found


Ready = tuple[Index, dict[tuple[str, str], View], dict[View, View]]
"""A block, the operands that it reads whole and the rows that it reads, on the tile."""


def split(
    domain: tuple[int, ...], tiles: int, work: int, whole: bool = False, least: int = MIN_ROWS
) -> list[tuple[Range, ...]]:
    """The domain cut into at most ``tiles`` shares of at least MIN_ELEMENTS of ``work`` elements: along the outermost axis
    as often as it goes, then along the next. ``whole``: rows of the last axis share operands that depend on the others;
    ``least`` of them are worth loading those once more."""
    left = max(1, min(tiles, work // MIN_ELEMENTS))
    cuts: list[list[Range]] = []
    for axis, extent in enumerate(domain):
        inner = whole and axis == len(domain) - 1 and product(domain) > extent
        parts = max(1, min(extent // least if inner else extent, left))
        cuts.append(pieces(extent, parts))
        left //= parts
    return list(itertools.product(*cuts))


def neighbours(found: Iterable[tuple[int, int, int]], size: int) -> list[tuple[int, ...]]:
    """Tiles, with their columns and rows, in groups of ``size`` that follow each other in a column."""
    columns: dict[int, list[int]] = {}
    for x, _, tile in sorted(found):
        columns.setdefault(x, []).append(tile)
    return [tuple(of[i : i + size]) for of in columns.values() for i in range(0, len(of) - size + 1, size)]


def _by_rows(node: Node) -> list[str]:
    """The operands that a node reads row by row."""
    return [v for i, v in enumerate(node.inputs) if v and OPS[node.op].access(node, i) is Access.ROWS]


class Spread:
    """Emits one SPREAD segment with blocks of ``rows`` rows."""

    def __init__(self, context: Context, segment: Segment, tails: dict[str, Tail], rows: int) -> None:
        self.context = context
        self.segment = segment
        self.tails = tails
        self.rows = rows
        graph = context.graph
        local = frozenset(v for n in segment.nodes for v in n.inputs if v and shared_row(graph, v))
        self.stored = context.stored(segment)
        self.dying = context.dying(segment)
        self.space = Space(graph, context.homes, segment, tails, self.stored, local)
        work = sum(
            graph.type(v).size for n in segment.nodes for v in (*_by_rows(n), *n.outputs) if v and v not in local
        )
        heavy = any(OPS[n.op].access(n, i) is Access.WHOLE for n in segment.nodes for i, v in enumerate(n.inputs) if v)
        tiles = context.placement.tiles[segment.index]
        if heavy and context.held.segments:
            tiles = context.held.roomy(tiles, context.chip)  # what it loads whole needs room beside the caches
        least = context.placement.least_rows.get(segment.index, MIN_ROWS)
        self.tasks: dict[int, tuple[Task, ...]] = {}
        self.staying: Range | None = None  # rows whose constants stay in the tile
        self.held = context.held.of(segment.index)
        if heavy and self.held is None and segment.index not in (*context.tight, *context.placement.least_rows):
            most = max(1, work * 16 // MIN_ELEMENTS)
            cut = tasks(graph, segment.nodes, self.space.domain, context.chip, tiles[:most])
            self.tasks = dict(zip(self._in_columns(tiles, cut), cut, strict=True))
        self.takers = takers(self.tasks)
        self.wholes = dict.fromkeys(
            (n.outputs[0], v) for n in segment.nodes for i, v in enumerate(n.inputs) if v and self._loads_whole(n, i)
        )
        self.shares: list[tuple[int, tuple[Range, ...]]] = []
        if self.held is not None:
            self.shares = list(self.held.shares)
        elif not self.tasks:
            parts = split(self.space.domain, len(tiles), work * (16 if heavy else 1), heavy, least)
            self.shares = list(zip(self._nearest(tiles, len(parts)), parts, strict=True))
        self.share = 0  # that is being emitted

    def nearest_first(self) -> list[int]:
        """The segment's tiles, those nearest to the matrices before and after first."""
        far = hops(self.context.chip, self.context.neighbours(self.segment))

        def way(tile: int) -> int:
            x, y = self.context.position(tile)
            return far.across[x] + far.down[y]

        return sorted(self.context.placement.tiles[self.segment.index], key=way)

    def _nearest(self, tiles: Sequence[int], count: int) -> list[int]:
        """Of the tiles, those nearest to the matrices of the STREAM segments before and after, in the order given: what
        they take and give travels least."""
        mine = frozenset(tiles)
        chosen = frozenset([t for t in self.nearest_first() if t in mine][:count])
        return [t for t in tiles if t in chosen]

    def _in_columns(self, tiles: Sequence[int], cut: Sequence[Sequence[Task]]) -> list[int]:
        """Tiles for tasks: those of a head next to each other in one column of the mesh, where there are enough, so that
        operands that one of them hands on to the others cross no links of other heads; without those that take the first
        rows in the next segment, if there are enough others."""
        sizes = {len(list(found)) for _, found in itertools.groupby(cut, lambda mine: mine[0].at)}
        size = next(iter(sizes), 1)
        ranks = {tile: i for i, tile in enumerate(self.nearest_first())}
        taking = self.context.taking(self.segment)
        for free in ([t for t in tiles if t not in taking], tiles):
            groups = neighbours([(*self.context.position(t), t) for t in free], size)
            if len(sizes) == 1 and size > 1 and len(groups) * size >= len(cut):
                near = sorted(groups, key=lambda group: sum(ranks[t] for t in group))[: len(cut) // size]
                return [tile for group in groups if group in near for tile in group]
        return self._nearest(tiles, len(cut))

    def emit(self) -> dict[int, frozenset[str]]:
        """Append the code to the tiles; returns what each tile stored."""
        for number, (tile, share) in enumerate(self.shares):
            self.share, self.staying = number, share[-1]
            if self.held is not None:
                extend(self.held, self.context, self.context.code(tile), number)
            self._loops(self.context.code(tile), share, 0, (), {})
        for tile, found in self.tasks.items():
            self.staying = Range(0, self.space.domain[-1]) if len({t.rows for t in found}) > 1 else found[0].rows
            self._in_turn(self.context.code(tile), found)
        return dict.fromkeys((*(tile for tile, _ in self.shares), *self.tasks), self.stored)

    def kept(self, value: str, view: View) -> View | None:
        """A view of an operand that is a cache, in the state of the share's tile; None for other operands."""
        return self.held.view(self.context.homes[value].buffer, self.share, view) if self.held is not None else None

    def _in_turn(self, code: TileCode, found: Sequence[Task]) -> None:
        """Tasks one after the other, in blocks. Of two products of activations the second one of a block stands behind the
        first one of the next block: the matmul unit does that while the softmax of this one is worked on. What the block
        after that reads is loaded then."""
        blocks = [(t.at, b) for t in found for b in pieces(t.rows.count, -(-t.rows.count // self.rows), t.rows.low)]
        again = len({t.at for t in found}) < len(list(itertools.groupby(found, lambda t: t.at)))
        known: dict[tuple[int, ...], dict[tuple[str, str], View]] = {}

        def ahead(i: int) -> Ready:
            """Load what a block reads, but whole operands that the block before it has, or any if heads come again."""
            at, rows = blocks[i]
            whole = known.get(at, {}) if again or (i and blocks[i - 1][0] == at) else {}
            ready = self._ahead(code, at, rows, whole)
            known[at] = ready[1]
            return ready

        ready = [ahead(0)]
        late: list[Step] = []
        for i in range(len(blocks)):
            if i == 0 and len(blocks) > 1:
                ready.append(ahead(1))
            mark = len(code.steps)
            self._block(code, *ready[i])
            steps = code.steps[mark:]
            products = [
                k for k, step in enumerate(steps) if isinstance(step, Instruction) and step.mnemonic in PRODUCTS
            ]
            cut = products[-1] if len(products) > 1 else len(steps)
            code.steps[mark:] = [*steps[:cut], *late]
            late = steps[cut:]
            if 0 < i < len(blocks) - 1:
                ready.append(ahead(i + 1))
        code.steps += late

    def _ahead(self, code: TileCode, at: tuple[int, ...], rows: Range, whole: dict[tuple[str, str], View]) -> Ready:
        """Load all that a block reads but what is ``whole`` already, in the order in which it is read."""
        axes = tuple(Affine(n) for n in at)
        index, loaded, found = Index((*axes, Affine(rows.low)), rows.count), dict[View, View](), dict(whole)
        for node in self.segment.nodes:
            for i, value in enumerate(node.inputs):
                access = OPS[node.op].access(node, i) if value else Access.CELLS
                key = (node.outputs[0], value)
                if access is Access.WHOLE and key not in found:
                    found[key] = self._load(code, node, value, axes)
                elif (
                    access is Access.ROWS
                    and value not in self.tails
                    and not self._constant_rows(code, node, value, index)
                ):
                    self.context.external(code, self.space, node, value, index, loaded)
        return index, found, loaded

    def _loops(
        self,
        code: TileCode,
        share: tuple[Range, ...],
        axis: int,
        at: tuple[Affine, ...],
        whole: dict[tuple[str, str], View],
    ) -> None:
        """Nested loops over the axes; whole operands are loaded as soon as the axes they depend on are fixed."""
        found = {**whole, **self._load_whole(code, axis, at)}
        here = share[axis]
        if axis == len(share) - 1:
            self._blocks(code, here, at, found)
            return
        name = f"i{axis}"
        with code.repeat(name, here.count):
            index = Affine.of(here.low, {name: 1} if here.count > 1 else {})
            self._loops(code, share, axis + 1, (*at, index), found)

    def _blocks(self, code: TileCode, here: Range, at: tuple[Affine, ...], found: dict[tuple[str, str], View]) -> None:
        """The rows of the last axis, block by block."""
        blocks, rest = divmod(here.count, self.rows)
        name = f"i{len(at)}"
        if blocks:
            with code.repeat(name, blocks):
                index = Affine.of(here.low, {name: self.rows} if blocks > 1 else {})
                self._block(code, Index((*at, index), self.rows), found)
        if rest:
            self._block(code, Index((*at, Affine(here.low + blocks * self.rows)), rest), found)

    def _load_whole(self, code: TileCode, axis: int, at: tuple[Affine, ...]) -> dict[tuple[str, str], View]:
        found: dict[tuple[str, str], View] = {}
        for node in self.segment.nodes:
            for i, value in enumerate(node.inputs):
                if not value or not self._loads_whole(node, i):
                    continue
                if self.space.depth(node, value) == axis and self.segment.index not in self.context.tight:
                    found[(node.outputs[0], value)] = self._load(code, node, value, at)
        return found

    def _load(self, code: TileCode, node: Node, value: str, at: tuple[Affine, ...]) -> View:
        """All of an operand (k × n), for a position of the axes it depends on."""
        operands = sent_to(self.context, self.segment) if self.tasks else {}
        sent = operands.get(((node.outputs[0], value), tuple(a.constant for a in at)))
        if sent is not None:
            return sent.operand(code)
        index = Index((*at, *(Affine() for _ in range(len(self.space.domain) - len(at)))), 1)
        view = self.space.whole_view(node, value, index, self.context.global_name(value))
        kept = self.kept(value, view)
        if kept is not None:
            return kept
        element = self.context.graph.type(value).element
        turn = list(self.wholes).index((node.outputs[0], value))
        if len(self._sharing(code.tile, at, turn)) > 1:
            return self._shared(code, node, view, element, at, turn)
        target = code.buffer(element, static_shape(view), "w")
        code.emit("load", target, view, origin=node.origin)
        return target

    def _shared(
        self, code: TileCode, node: Node, view: View, element: Element, at: Sequence[Affine], turn: int
    ) -> View:
        """An operand that one tile loads for several, in pieces: one is sent while the next is loaded. The pieces are rows of
        the value as it lies in its home, and stay so on the tile."""
        k, n = static_shape(view)
        turned = abs(view.strides[1]) > abs(view.strides[0])
        source = View(view.buffer, view.offset, (n, k), view.strides[::-1]) if turned else view
        rows = n if turned else k
        target = code.buffer(element, static_shape(source), "w")
        for piece in pieces(rows, max(1, min(rows, HANDED_PIECES, k * n * element.bytes // HANDED_BYTES))):
            here, there = (narrowed(v, 0, piece.low, piece.count) for v in (target, source))
            if self._first(code, at, turn):
                code.emit("load", here, there, origin=node.origin)
            self._hand_on(code, at, (here,), node.origin, turn)
        return View(target.buffer, Affine(), (k, n), (1, k)) if turned else target

    def _sharing(self, tile: int, at: Sequence[Affine], turn: int = 0) -> list[int]:
        """The tiles that need the same operand at these positions of the outer axes, if those are enough to hand it on; the one
        that loads it first. ``turn``: of the operand among a node's; tasks of a head load one each."""
        if self.held is not None:
            return [tile]  # each has its own heads
        if self.tasks:
            found = self.takers.get(tuple(a.constant for a in at), [tile])
            return found if turn % 2 == 0 else found[::-1]
        mine = self.shares[self.share][1][: len(at)]
        found = [t for t, share in self.shares if share[: len(at)] == mine]
        return found if len(found) >= SHARED else [tile]

    def _first(self, code: TileCode, at: Sequence[Affine], turn: int = 0) -> bool:
        """Whether a tile loads an operand itself: its home would serve those that share it one after the other."""
        return self._sharing(code.tile, at, turn)[0] == code.tile

    def _hand_on(
        self, code: TileCode, at: Sequence[Affine], views: Sequence[View], origin: Origin, turn: int = 0
    ) -> None:
        """Send what the first of the tiles that share it has to the others, or receive it. All do so in the same order, that of
        heads and of a head's operands, and so no channel can block for good."""
        first, *others = self._sharing(code.tile, at, turn)
        for view in views if others else ():
            if code.tile == first:
                code.emit("send", view, origin=origin, to=tuple(sorted(others)), tag=HANDED)
            else:
                code.emit("recv", view, origin=origin, source=first, tag=HANDED)

    def _loads_whole(self, node: Node, index: int) -> bool:
        """Whether an operand is loaded whole, as it is."""
        return OPS[node.op].access(node, index) is Access.WHOLE

    def _matrix(self, code: TileCode, node: Node) -> str:
        """The matrix on the tile that a node multiplies with, if it does."""
        return ""

    def _constant_rows(self, code: TileCode, node: Node, value: str, index: Index) -> View | None:
        """Rows of a constant that stay in the tile."""
        return self.context.constant_rows(code, self.space, node, value, index, self.staying) if self.staying else None

    def _block(
        self,
        code: TileCode,
        index: Index,
        whole: dict[tuple[str, str], View],
        kept: dict[View, View] | None = None,
    ) -> None:
        """One block; ``kept``: rows that are on the tile already."""
        graph = self.context.graph
        have: dict[str, View] = {}
        loaded: dict[View, View] = dict(kept or {})

        def operand(node: Node, i: int) -> View:
            value = node.inputs[i]
            access = OPS[node.op].access(node, i)
            if access is Access.WHOLE:
                at_once = whole.get((node.outputs[0], value))
                return at_once if at_once is not None else self._load(code, node, value, index.axes)
            if access is Access.TABLE:
                return self.context.table(value)
            if value in self.tails:
                tail = self.tails[value]
                return columns(have[tail.root], tail.start, tail.step, tail.width)
            constant = self._constant_rows(code, node, value, index)
            return constant or self.context.external(code, self.space, node, value, index, loaded)

        for node in self.segment.nodes:
            matrix = self._matrix(code, node)
            block = BlockEmit(graph, code, index.rows, operand, node, matrix_name=matrix, dying=self.dying)
            block.lower()
            have.update(block.outputs)
            for out in node.outputs:
                if out in self.stored:
                    target = self.space.rows_view(
                        node, out, index, (0, width(graph, out)), self.context.global_name(out)
                    )
                    code.emit("store", target, block.outputs[out], origin=node.origin)
