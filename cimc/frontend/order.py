"""Order and naming of nodes: every name assigned once, nothing read before it exists, no cycles."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from pathlib import Path

from cimc import errors
from cimc.frontend.record import OnnxGraph, OnnxNode, TensorType


def check_single_assignment(
    path: Path,
    where: str,
    inputs: tuple[tuple[str, TensorType], ...],
    initializers: Mapping[str, object],
    nodes: tuple[OnnxNode, ...],
) -> None:
    """Raises CimcError if a name is given to two values. An initializer may share its name with an input: it is the
    input's default."""
    owner = {name: "a graph input" for name, _ in inputs} | dict.fromkeys(initializers, "an initializer")
    for node in nodes:
        for output in node.outputs:
            if output and output in owner:
                why = f"'{output}' is produced by node '{node.name}' and by {owner[output]}"
                raise errors.MODEL_MALFORMED(path=path, where=where, why=why)
            owner[output] = f"node '{node.name}'"


def captures(graphs: Iterable[OnnxGraph]) -> tuple[str, ...]:
    """Names that subgraphs read and do not define: values of an outer graph. Sorted."""
    free: set[str] = set()
    for graph in graphs:
        own = {name for name, _ in graph.inputs} | set(graph.initializers)
        own.update(o for n in graph.nodes for o in n.outputs)
        read = set(graph.outputs)
        for node in graph.nodes:
            read.update(node.inputs)
            read.update(node.captures)
        free.update(read - own)
    return tuple(sorted(free - {""}))


def executable(path: Path, where: str, nodes: tuple[OnnxNode, ...]) -> tuple[OnnxNode, ...]:
    """The nodes in an order in which each runs after what it reads; the file's order where that will do.
    Raises CimcError if they form a cycle."""
    producer = {o: i for i, n in enumerate(nodes) for o in n.outputs if o}
    needs = [{producer[v] for v in (*n.inputs, *n.captures) if v in producer} for n in nodes]
    users: list[list[int]] = [[] for _ in nodes]
    for i, sources in enumerate(needs):
        for s in sources:
            users[s].append(i)
    waiting = [len(s) for s in needs]
    ready = [i for i, count in enumerate(waiting) if count == 0]
    done: list[OnnxNode] = []
    while ready:
        i = heapq.heappop(ready)
        done.append(nodes[i])
        for user in users[i]:
            waiting[user] -= 1
            if waiting[user] == 0:
                heapq.heappush(ready, user)
    if len(done) < len(nodes):
        stuck = [n.name for n, count in zip(nodes, waiting, strict=True) if count]
        why = f"the nodes {', '.join(repr(s) for s in stuck[:4])} wait for each other: the graph has a cycle"
        raise errors.MODEL_MALFORMED(path=path, where=where, why=why)
    return tuple(done)
