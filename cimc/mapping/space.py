"""The row space of a segment: its loops, and where each operand lies for a block of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cimc.ir.graph import Graph, Node
from cimc.isa.operands import Affine, View
from cimc.mapping.placement import Home, Segment
from cimc.mapping.segment import Tail, domain_axes, domain_of, product, raw_domain, rows_shape
from cimc.ops import OPS, Access
from cimc.ops.op import Layout


@dataclass(frozen=True, slots=True)
class Reach:
    """An operand in global memory: element offset, a stride per domain axis, and the layout of what a row holds."""

    offset: int
    strides: tuple[int, ...]
    inner_shape: tuple[int, ...]
    inner_strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Index:
    """Position in the domain: an affine index per axis; on the last axis the first row of the block."""

    axes: tuple[Affine, ...]
    rows: int


def spread_strides(
    layout_shape: tuple[int, ...],
    layout_strides: tuple[int, ...],
    rank: int,
    axes: tuple[int, ...],
    extents: tuple[int, ...],
    fine: tuple[int, ...],
) -> tuple[int, ...]:
    """Strides over the axes of ``fine`` of an operand whose leading axes broadcast against a raw domain of ``rank`` axes, of
    which ``axes`` (with ``extents``) are kept; ``fine`` refines the kept ones."""
    over_raw = [0] * (rank - len(layout_shape))
    over_raw += [0 if n == 1 else s for n, s in zip(layout_shape, layout_strides, strict=True)]
    over = [over_raw[i] for i in axes] or [0]
    result: list[int] = []
    at = 0
    for extent, stride in zip(extents, over, strict=True):
        group: list[int] = []
        size = 1
        while size < extent or (extent == 1 and not group and at < len(fine) and fine[at] == 1):
            group.append(fine[at])
            size *= fine[at]
            at += 1
        steps: list[int] = []
        for n in reversed(group):
            steps.append(stride)
            stride *= n
        result.extend(reversed(steps))
    return tuple(result + [0] * (len(fine) - len(result)))


class Space:
    """A segment's domain with everything its nodes read from and write to global memory."""

    def __init__(
        self,
        graph: Graph,
        homes: dict[str, Home],
        segment: Segment,
        tails: dict[str, Tail],
        stored: frozenset[str],
        local: frozenset[str],
        *,
        merged: bool = True,
    ) -> None:
        """``local``: constants that stay on the tiles. ``merged``: neighbouring axes that every operand walks evenly
        become one."""
        self.graph = graph
        self.homes = homes
        self.domain = segment.domain
        self._reach: dict[tuple[str, str, Access], Reach] = {}  # a node may read one value both ways
        for node in segment.nodes:
            for i, value in enumerate(node.inputs):
                access = OPS[node.op].access(node, i) if value else Access.CELLS
                kept = value in tails or (value in local and access is Access.ROWS)
                if access in (Access.ROWS, Access.WHOLE) and not kept:
                    self._reach[(node.outputs[0], value, access)] = self._measure(node, value, access)
            for out in node.outputs:
                if out in stored:
                    self._reach[(node.outputs[0], out, Access.ROWS)] = self._measure(node, out, Access.ROWS)
        if merged:
            self._merge()

    def _measure(self, node: Node, value: str, access: Access) -> Reach:
        layout = self.homes[value].layout
        if not layout.shape:
            layout = Layout(layout.offset, (1,), (0,))
        inner = 2 if access is Access.WHOLE else 1
        row = layout.row if access is Access.ROWS else tuple(zip(layout.shape[-2:], layout.strides[-2:], strict=True))
        rank, axes, extents = (
            len(raw_domain(self.graph, node)),
            domain_axes(self.graph, node),
            domain_of(self.graph, node),
        )
        shape, strides = layout.shape[:-inner], layout.strides[:-inner]
        if access is Access.WHOLE:
            # The last axis of the domain runs over the rows that share the operand.
            shape, strides = (*shape, 1), (*strides, 0)
        over = spread_strides(shape, strides, rank, axes, extents, self.domain)
        return Reach(layout.offset, over, tuple(n for n, _ in row), tuple(s for _, s in row))

    def _merge(self) -> None:
        """Join neighbouring axes that every operand walks evenly."""
        axis = len(self.domain) - 2
        while axis >= 0:
            extent = self.domain[axis + 1]
            if all(r.strides[axis] == r.strides[axis + 1] * extent for r in self._reach.values()):
                self.domain = (*self.domain[:axis], self.domain[axis] * extent, *self.domain[axis + 2 :])
                self._reach = {
                    k: Reach(r.offset, (*r.strides[:axis], *r.strides[axis + 1 :]), r.inner_shape, r.inner_strides)
                    for k, r in self._reach.items()
                }
            axis -= 1

    def reach(self, node: Node, value: str, access: Access) -> Reach:
        """Where a value that the node reads or writes in global memory lies."""
        return self._reach[(node.outputs[0], value, access)]

    def depth(self, node: Node, value: str) -> int:
        """Number of leading axes a whole operand depends on."""
        strides = self.reach(node, value, Access.WHOLE).strides
        return max((i + 1 for i, s in enumerate(strides) if s), default=0)

    def rows_view(self, node: Node, value: str, index: Index, columns: Sequence[int], buffer: str) -> View:
        """The block's rows (or the one row it shares) of a value in global memory; ``columns`` = (first, count): all of
        them where a row has several axes."""
        r = self.reach(node, value, Access.ROWS)
        first, count = columns
        if len(r.inner_shape) > 1:
            rows = index.rows if r.strides[-1] else 1
            return View(buffer, self._offset(r, index), (rows, *r.inner_shape), (r.strides[-1], *r.inner_strides))
        offset = self._offset(r, index) + first * r.inner_strides[-1]
        rows = index.rows if r.strides[-1] else 1
        return View(buffer, offset, (rows, count), (r.strides[-1], r.inner_strides[-1]))

    def whole_view(self, node: Node, value: str, index: Index, buffer: str) -> View:
        """A whole operand (k × n) in global memory for the block's outer axes."""
        r = self.reach(node, value, Access.WHOLE)
        return View(buffer, self._offset(r, index), r.inner_shape, r.inner_strides)

    @staticmethod
    def _offset(r: Reach, index: Index) -> Affine:
        offset = Affine(r.offset)
        for stride, at in zip(r.strides, index.axes, strict=True):
            offset = offset + at * stride
        return offset


def width(graph: Graph, value: str) -> int:
    """Extent of a value's last axis."""
    return rows_shape(graph.type(value).shape)[-1]


def shared_row(graph: Graph, value: str) -> bool:
    """Whether a value is a constant that every row of any domain shares."""
    return value in graph.constants and product(graph.type(value).shape[:-1]) == 1
