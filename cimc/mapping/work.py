"""What a model multiplies, however it is mapped: the ``work`` of ``mapping.json``."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from cimc.ir.graph import Graph, Node
from cimc.mapping.caches import grows
from cimc.mapping.json_value import Json
from cimc.ops.written import WRITTEN

_SAME = frozenset(("reshape", "transpose", "window", "expand", "slice", "pad", "copy", "quantize", "quantize_static"))
"""Ops that hand on the elements of their first operand: repeated (window, expand), moved, or as codes."""


def work(graph: Graph) -> dict[str, Json]:
    """``io_bytes``: bytes of the model's inputs and outputs; of an output that is an input with rows added, as a KV cache, only
    those rows: nobody need write the others again. ``products``, in order of execution: static matmuls and
    dynamic ones (attention's two apart), with the extents ``batch · (m × k) · (k × n)`` and, in elements that exist
    only once, the operands ``a`` and ``b`` and the result ``y``: a convolution's windows overlap and grouped heads
    share their keys, so ``a`` and ``b`` may be smaller than the extents say. ``weight`` names a static one's."""
    io = sum(graph.type(v).bytes for v in (*graph.inputs, *graph.outputs)) - sum(
        graph.type(n.inputs[0]).bytes for n in graph.nodes if n.op == "concat" and grows(graph, n)
    )
    return {"io_bytes": io, "products": list(_products(graph))}


def _products(graph: Graph) -> Iterator[dict[str, Json]]:
    producers = graph.producers()
    for node in graph.nodes:
        if node.op in ("mvm", "blocked_mvm", "linear"):
            yield _static(graph, producers, node)
        elif node.op == "matmul":
            a, b = node.inputs[:2]
            yield _dynamic(graph, producers, node, "matmul", a, b, graph.type(node.outputs[0]).shape)
        elif node.op == WRITTEN:
            kind, (a, b) = str(node.get("product", "matmul")), node.inputs[:2]
            yield _dynamic(graph, producers, node, kind, a, b, graph.type(node.outputs[0]).shape)
        elif node.op == "attention":
            yield from _attention(graph, producers, node)


def _static(graph: Graph, producers: dict[str, Node], node: Node) -> dict[str, Json]:
    k, n = graph.type(node.inputs[1]).shape
    m = graph.type(node.inputs[0]).size // k
    a = _unique(graph, producers, node.inputs[0])
    return {**_row(node, "static", (1, m, k, n), a, k * n, m * n), "weight": node.inputs[1]}


def _attention(graph: Graph, producers: dict[str, Node], node: Node) -> Iterator[dict[str, Json]]:
    q, k, v = node.inputs[:3]
    out = graph.type(node.outputs[0]).shape
    scores = (*out[:-1], graph.type(k).shape[-1])
    yield _dynamic(graph, producers, node, "qk", q, k, scores)
    batch, m, t, n = prod(out[:-2]), out[-2], scores[-1], out[-1]
    yield _row(node, "pv", (batch, m, t, n), prod(scores), _unique(graph, producers, v), prod(out))


def _dynamic(
    graph: Graph, producers: dict[str, Node], node: Node, kind: str, a: str, b: str, y: tuple[int, ...]
) -> dict[str, Json]:
    extents = (prod(y[:-2]), y[-2], graph.type(a).shape[-1], y[-1])
    return _row(node, kind, extents, _unique(graph, producers, a), _unique(graph, producers, b), prod(y))


def _unique(graph: Graph, producers: dict[str, Node], value: str) -> int:
    """Elements behind a value: the least of it and of what it is made of by moving and repeating elements."""
    least = graph.type(value).size
    while (maker := producers.get(value)) is not None and maker.op in _SAME:
        value = maker.inputs[0]
        least = min(least, graph.type(value).size)
    return least


def _row(node: Node, kind: str, extents: tuple[int, int, int, int], a: int, b: int, y: int) -> dict[str, Json]:
    batch, m, k, n = extents
    return {"node": str(node.origin), "kind": kind, "batch": batch, "m": m, "k": k, "n": n, "a": a, "b": b, "y": y}
