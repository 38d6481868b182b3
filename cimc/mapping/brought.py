"""Operands that tiles of products are brought where a batch streams, by columns: a residual goes to the product it is added to.

The tile that would add both otherwise receives whole rows of both; receiving is what tiles for vector work are busiest with,
and what those of the matrices have most time for.
"""

from __future__ import annotations

from collections.abc import Iterator

from cimc.ir.graph import Graph, Node
from cimc.mapping.region import Part, Region
from cimc.mapping.segment import ELEMENTWISE, MATRIX_OPS
from cimc.mapping.space import width
from cimc.ops import OPS, Access

Brought = frozenset[tuple[str, int]]
"""Operands: (the node's result, position)."""


def brought(graph: Graph, region: Region | None) -> Brought:
    """The operands of elementwise nodes of a region that are whole rows and have another origin than the columns of the
    product that the node works on (of several, the last)."""
    return frozenset(found for part in (region.parts if region else ()) for found in _of_part(graph, part))


def _of_part(graph: Graph, part: Part) -> Iterator[tuple[str, int]]:
    products: dict[str, int] = {}  # value → number of the product whose columns it has
    for number, node in enumerate(() if part.axes else part.segment.nodes):
        out = node.outputs[0]
        if node.op in MATRIX_OPS:
            products[out] = number
        elif node.op in ELEMENTWISE:
            roots = dict(_rows(graph, part, node))
            of = max((products.get(root, -1) for root in roots.values()), default=-1)
            if of >= 0:
                products[out] = of
                yield from ((out, i) for i, root in roots.items() if products.get(root, -1) != of)


def _rows(graph: Graph, part: Part, node: Node) -> Iterator[tuple[int, str]]:
    """A node's operands that are whole rows of values of the region, as wide as its result: position, and the value."""
    wide = width(graph, node.outputs[0])
    for i, value in enumerate(node.inputs):
        tail, source = part.tails.get(value), part.sources.get((node.outputs[0], i))
        if OPS[node.op].access(node, i) is not Access.ROWS or wide == 1:
            continue
        if tail is not None and (tail.start, tail.step, tail.width) == (0, 1, wide):
            yield i, tail.root
        elif tail is None and source is not None and (source.first, source.step, source.shape) == (0, 1, (wide,)):
            yield i, source.root
