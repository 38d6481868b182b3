"""Nodes grouped into segments: those over the same rows run together, so that what flows between them stays on the tiles.

List scheduling over the data flow: the current segment takes every ready node that fits it, and is closed when none does.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cimc.ir.graph import Graph, Node
from cimc.mapping.layout import in_regions, is_view
from cimc.mapping.placement import Segment, Style
from cimc.ops import OPS, Access, Form
from cimc.ops.layout import integer, integers

MATRIX_OPS = ("blocked_mvm",)

ELEMENTWISE = frozenset(name for name, op in OPS.items() if op.elementwise)
"""Ops whose columns need no other columns of their operands."""


@dataclass(frozen=True, slots=True)
class Tail:
    """A value seen inside a segment: columns ``start + step · i`` (``width`` of them) of another value's rows."""

    root: str
    start: int
    step: int
    width: int


@dataclass(frozen=True, slots=True)
class Range:
    """Rows of one axis that a tile does: from ``low``, ``count`` of them."""

    low: int
    count: int


def pieces(extent: int, parts: int, first: int = 0) -> list[Range]:
    """An axis, or ``extent`` rows of it from the ``first``, cut into parts as even as they can be."""
    edges = [first + extent * k // parts for k in range(parts + 1)]
    return [Range(low, high - low) for low, high in pairwise(edges)]


def shares(domain: tuple[int, ...], wanted: int) -> list[tuple[Range, ...]]:
    """The domain cut along one axis into at most ``wanted`` shares: the outermost axis that gives at least half of the
    parallelism any axis would give. A domain with axes merged gives no fewer shares of a number that it gave before."""
    best = max(min(n, wanted) for n in domain)
    axis = next(i for i, n in enumerate(domain) if 2 * min(n, wanted) >= best)
    whole = [Range(0, n) for n in domain]
    return [(*whole[:axis], piece, *whole[axis + 1 :]) for piece in pieces(domain[axis], min(domain[axis], wanted))]


def rows_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape with at least a last axis."""
    return shape if shape else (1,)


def product(extents: tuple[int, ...]) -> int:
    """Product of extents."""
    n = 1
    for e in extents:
        n *= e
    return n


def tail_view(graph: Graph, node: Node, seen: Tail) -> Tail | None:
    """What a view node makes of rows seen as ``seen``: the same rows with other columns, or None if it mixes rows."""
    x, y = (rows_shape(graph.type(v).shape) for v in (node.inputs[0], node.outputs[0]))
    if node.op == "slice":
        start, size, step = (integers(node, a) for a in ("start", "size", "step"))
        if not start or size[:-1] != x[:-1] or any(s != 1 for s in step[:-1]):
            return None
        return Tail(seen.root, seen.start + start[-1] * seen.step, seen.step * step[-1], size[-1])
    same_rows = product(x[:-1]) == product(y[:-1]) and x[-1] == y[-1]
    return seen if node.op in ("reshape", "expand") and same_rows else None


def domain_axes(graph: Graph, node: Node) -> tuple[int, ...]:
    """Axes of a node's raw domain that are not 1; of a dynamic matmul also the last one, whose rows share the whole
    operand, even where it is a single row."""
    op = OPS[node.op]
    extents = raw_domain(graph, node)
    whole = any(op.access(node, i) is Access.WHOLE for i, v in enumerate(node.inputs) if v)
    return tuple(i for i, d in enumerate(extents) if d != 1 or (whole and i == len(extents) - 1))


def domain_of(graph: Graph, node: Node) -> tuple[int, ...]:
    """A node's domain over :func:`domain_axes`, never empty."""
    extents = raw_domain(graph, node)
    return tuple(extents[i] for i in domain_axes(graph, node)) or (1,)


def raw_domain(graph: Graph, node: Node) -> tuple[int, ...]:
    """A node's domain as its op says it."""
    inputs = [graph.type(v) for v in node.inputs if v]
    return OPS[node.op].domain(node, inputs, [graph.type(o) for o in node.outputs if o])


def refine(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    """The finer of two domains if one only merges neighbouring axes of the other."""
    fine, coarse = (a, b) if len(a) >= len(b) else (b, a)
    if product(fine) != product(coarse):
        return None
    i = 0
    for extent in coarse:
        size = 1
        while size < extent and i < len(fine):
            size *= fine[i]
            i += 1
        if size != extent:
            return None
    return fine


@dataclass
class _Open:
    """A segment that still takes nodes."""

    nodes: list[Node] = field(default_factory=list[Node])
    domain: tuple[int, ...] = ()
    tails: dict[str, Tail] = field(default_factory=dict[str, Tail])  # values inside, as rows
    mixed: set[str] = field(default_factory=set[str])  # views of inside values that are not rows
    has_cells: bool = False
    has_whole: bool = False
    held: dict[str, int] = field(default_factory=dict[str, int])  # constants that are read whole, and their bytes
    cores: int = 0  # for its weights


class _Scheduler:
    """Takes nodes from the ready list into segments."""

    def __init__(self, graph: Graph, room: int, cores: int) -> None:
        self.graph = graph
        self.room = room
        self.cores = cores
        self.order = {id(n): i for i, n in enumerate(graph.nodes)}
        self.uses = graph.uses()
        producers = graph.producers()
        self.missing = {id(n): len({v for v in n.inputs if v in producers}) for n in graph.nodes}
        self.ready: list[tuple[int, Node]] = []
        self.segments: list[Segment] = []
        self.open = _Open()

    def run(self) -> tuple[Segment, ...]:
        for node in self.graph.nodes:
            if not self.missing[id(node)]:
                self._offer(node)
        while self.ready:
            if not self._extend():
                self._close()
        self._close()
        return tuple(self.segments)

    def _offer(self, node: Node) -> None:
        heapq.heappush(self.ready, (self.order[id(node)], node))

    def _extend(self) -> bool:
        """Move every ready node that fits into the open segment; an empty segment takes the first ready node."""
        moved = False
        waiting: list[tuple[int, Node]] = []
        while self.ready:
            order, node = heapq.heappop(self.ready)
            if self._take(node):
                moved = True
            else:
                waiting.append((order, node))
        for entry in waiting:
            heapq.heappush(self.ready, entry)
        return moved

    def _done(self, node: Node) -> None:
        for out in node.outputs:
            for user in self.uses.get(out, []):
                self.missing[id(user)] -= 1
                if not self.missing[id(user)]:
                    self._offer(user)

    def _take(self, node: Node) -> bool:
        form = OPS[node.op].form
        if form is Form.VIEW:
            self._take_view(node)
            return True
        if not rowwise(self.graph, node):
            if self.open.nodes:
                return False
            self.open.nodes.append(node)
            style = Style.HOST if form is Form.HOST else Style.ASSEMBLE
            self._finish(style, (1,))
            self._done(node)
            return True
        domain = domain_of(self.graph, node)
        if self.open.nodes:
            merged = self._fits(node, domain)
            if merged is None:
                return False
            domain = merged
        self._add(node, domain)
        self._done(node)
        return True

    def _take_view(self, node: Node) -> None:
        source, out = node.inputs[0], node.outputs[0]
        seen = self.open.tails.get(source)
        if seen is not None:
            tail = tail_view(self.graph, node, seen)
            if tail is None:
                self.open.mixed.add(out)
            else:
                self.open.tails[out] = tail
        elif source in self.open.mixed:
            self.open.mixed.add(out)
        self._done(node)

    def _fits(self, node: Node, domain: tuple[int, ...]) -> tuple[int, ...] | None:
        op = OPS[node.op]
        now = self.open
        merged = refine(now.domain, domain)
        if merged is None:
            return None
        whole = False
        for i, v in enumerate(node.inputs):
            access = op.access(node, i) if v else Access.CELLS
            if access is Access.CELLS:
                continue
            whole = whole or access is Access.WHOLE
            if v in now.mixed or (v in now.tails and not self._aligned(v, access, merged)):
                return None
        if (whole and now.has_cells) or (node.op in MATRIX_OPS and now.has_whole):
            return None
        held = now.held | constants_held(self.graph, (node,))
        if now.held and sum(held.values()) > self.room:
            return None
        if now.cores and now.cores + cores_needed(self.graph, node) > self.cores:
            return None
        return merged

    def _aligned(self, value: str, access: Access, domain: tuple[int, ...]) -> bool:
        shape = rows_shape(self.graph.type(value).shape)
        return access is Access.ROWS and product(shape[:-1]) == product(domain)

    def _add(self, node: Node, domain: tuple[int, ...]) -> None:
        op = OPS[node.op]
        self.open.nodes.append(node)
        self.open.domain = domain
        self.open.held |= constants_held(self.graph, (node,))
        self.open.has_cells |= node.op in MATRIX_OPS
        self.open.cores += cores_needed(self.graph, node)
        self.open.has_whole |= any(op.access(node, i) is Access.WHOLE for i, v in enumerate(node.inputs) if v)
        for out in node.outputs:
            if out:
                self.open.tails[out] = Tail(out, 0, 1, rows_shape(self.graph.type(out).shape)[-1])

    def _close(self) -> None:
        if self.open.nodes:
            self._finish(Style.STREAM if self.open.has_cells else Style.SPREAD, self.open.domain)

    def _finish(self, style: Style, domain: tuple[int, ...]) -> None:
        self.segments.append(Segment(len(self.segments), style, tuple(self.open.nodes), domain))
        self.open = _Open()


def cores_needed(graph: Graph, node: Node) -> int:
    """Cores for a node's weights."""
    if node.op not in MATRIX_OPS:
        return 0
    rows, cols = graph.type(node.inputs[1]).shape
    return -(-rows // integer(node, "rows")) * -(-cols // integer(node, "cols"))


def constants_held(graph: Graph, nodes: Sequence[Node]) -> dict[str, int]:
    """The constants that nodes read whole, and their bytes: a tile loads them once and keeps them through the segment."""
    return {
        v: graph.type(v).bytes
        for node in nodes
        for i, v in enumerate(node.inputs)
        if v in graph.constants and OPS[node.op].access(node, i) is Access.WHOLE
    }


def rowwise(graph: Graph, node: Node) -> bool:
    """Whether a node works row by row: a row-wise op, or a concat of columns."""
    op = OPS[node.op]
    if not any(graph.type(o).size for o in node.outputs if o):
        return False  # nothing to compute
    if op.form is Form.ASSEMBLE and node.op == "concat":
        return not in_regions(graph, node)
    return op.form is Form.ROWWISE


def segments(graph: Graph, room: int = 1 << 40, cores: int = 1 << 40) -> tuple[Segment, ...]:
    """The graph's nodes in segments, in an executable order. View nodes are in none. ``room``: bytes of constants read
    whole that one segment may hold, ``cores``: for how many its weights may be; a node that needs more by itself has a
    segment of its own."""
    return _Scheduler(graph, room, cores).run()


def inside(graph: Graph, uses: Mapping[str, list[Node]], segment: Segment) -> dict[str, Tail]:
    """Values a segment's nodes may read without leaving the tiles: their own outputs and row-preserving views of them."""
    tails: dict[str, Tail] = {}
    for node in segment.nodes:
        for out in node.outputs:
            if out:
                tails[out] = Tail(out, 0, 1, rows_shape(graph.type(out).shape)[-1])
    work = list(tails)
    while work:
        value = work.pop()
        for node in uses.get(value, []):
            if is_view(node):
                tail = tail_view(graph, node, tails[value])
                if tail is not None:
                    tails[node.outputs[0]] = tail
                    work.append(node.outputs[0])
    return tails
