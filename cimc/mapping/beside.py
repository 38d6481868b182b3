"""Work on the columns of products for which the products' tiles have no unit: done on digital tiles beside them.

Where the tiles with cores lack a unit (a GELU's, say), a value's columns go each to a tile of its own near the matrix that made
them, instead of all of them to the tile of a vector stage: its links would carry whole rows of the widest values of a
transformer. That pays where what follows is quantised for the next matrices: then codes travel on from there, by columns
(:mod:`cimc.codegen.apart`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from cimc.ir.graph import Graph, Node
from cimc.isa.operands import Element
from cimc.mapping.layout import is_view
from cimc.mapping.placement import PlacedMatrix, Segment
from cimc.mapping.segment import MATRIX_OPS, Tail, rows_shape
from cimc.mapping.traffic import Traffic
from cimc.ops.matmul import groups_of
from cimc.ops.written_as import HALVED


def readers(graph: Graph, tails: Mapping[str, Tail], uses: Mapping[str, list[Node]], value: str) -> list[Node] | None:
    """The nodes that read whole rows of a segment's value; None if anything else looks at it, or something outside."""
    found: list[Node] = []
    whole = Tail(value, 0, 1, rows_shape(graph.type(value).shape)[-1])
    work = [value]
    while work:
        seen = work.pop()
        if seen in graph.outputs:
            return None
        for node in uses.get(seen, []):
            if (is_view(node) and tails.get(node.outputs[0]) != whole) or node.outputs[0] not in tails:
                return None
            if is_view(node):
                work.append(node.outputs[0])
            else:
                found.append(node)
    return found


def by_columns(graph: Graph, tails: Mapping[str, Tail], uses: Mapping[str, list[Node]], node: Node) -> bool:
    """Whether a node is a `quantize` that can be done where the columns are: nothing but matrices reads its codes."""
    if node.op != "quantize" or graph.type(node.inputs[0]).element not in (Element.F32, *HALVED):
        return False
    tail = tails.get(node.inputs[0])
    if tail is None or (tail.start, tail.step, tail.width) != (0, 1, rows_shape(graph.type(tail.root).shape)[-1]):
        return False
    found = readers(graph, tails, uses, node.outputs[0])
    return bool(found) and all(n.op in MATRIX_OPS for n in found or ())


def coded_columns(
    node: Node, tails: Mapping[str, Tail], shards: Mapping[str, str], aside: Collection[str]
) -> tuple[str, int]:
    """The product whose columns a `quantize` brings to codes in groups, each with a scale, and the columns of a group, so that
    tiles which have whole ones can do it; "" if there is none. ``shards``, ``aside``: as of :func:`columns_aside`."""
    tail, groups = tails.get(node.inputs[0]), groups_of(node)
    if tail is None or groups == 1 or tail.step != 1 or tail.root not in shards or tail.root in aside:
        return "", 0
    each = tail.width // groups
    return ("", 0) if tail.start % each else (shards[tail.root], each)


def goes_aside(graph: Graph, tails: Mapping[str, Tail], uses: Mapping[str, list[Node]], node: Node) -> bool:
    """Whether the result of a node on columns is only quantised for matrices: worth a tile beside that of the columns."""
    found = readers(graph, tails, uses, node.outputs[0])
    return bool(found) and all(by_columns(graph, tails, uses, n) for n in found or ())


def columns_aside(
    segment: Segment, aside: Collection[str], shards: Mapping[str, str], matrices: Mapping[str, Sequence[PlacedMatrix]]
) -> list[dict[int, float]]:
    """For each copy of a segment's matrices, the tiles whose columns go to tiles beside them, and how many each has;
    nothing if there are no values ``aside``. ``shards``: the product whose columns a value has."""
    outs = (o for n in segment.nodes for o in n.outputs if o in aside)
    sources = list(dict.fromkeys(shards[o] for o in outs))
    return [column_tiles(copy) for copy in zip(*(matrices[s] for s in sources), strict=True)]


def column_tiles(matrices: Iterable[PlacedMatrix]) -> dict[int, float]:
    """Tiles on which the columns of products come together, and how many on each."""
    found: dict[int, float] = {}
    for matrix in matrices:
        first = {part.cols: part.tile for part in reversed(matrix.parts)}
        for (low, high), tile in first.items():
            found[tile] = found.get(tile, 0.0) + high - low
    return found


def companions(columns: Mapping[int, float], free: Sequence[int], least: int, traffic: Traffic) -> dict[int, int]:
    """For each tile of columns one of the free tiles, so that links carry little; ``least`` free ones stay untouched (but
    one at least is taken)."""
    room = max(1, len(free) - least)
    found: dict[int, int] = {}
    for tile in sorted(columns):
        taken = set(found.values())
        offered = [t for t in free if (t in taken) == (len(taken) >= room)]
        found[tile] = traffic.choose({tile: columns[tile]}, offered)
    return found
