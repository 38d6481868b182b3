"""The order of a STREAM segment's nodes."""

from __future__ import annotations

import heapq
from dataclasses import replace

from cimc.ir.graph import Node
from cimc.mapping.placement import Placement, Segment
from cimc.mapping.segment import MATRIX_OPS


def in_stages(segment: Segment, placement: Placement) -> Segment:
    """The segment with its nodes in an order that keeps the cores busy: stage by stage, and in a stage everything up to the
    matrix products before what works on their results, because a tile issues in order."""
    producers = {o: n for n in segment.nodes for o in n.outputs if o}

    def turn(node: Node) -> tuple[int, bool]:
        value = node.outputs[0]
        late = value in placement.shards and node.op not in MATRIX_OPS
        return placement.stages[value], late

    ready = [(*turn(n), i, n) for i, n in enumerate(segment.nodes)]
    missing = {id(n): 0 for n in segment.nodes}
    users: dict[int, list[tuple[int, bool, int, Node]]] = {}
    for entry in ready:
        for value in dict.fromkeys(placement.reads[entry[-1].outputs[0]]):
            if value in producers:
                missing[id(entry[-1])] += 1
                users.setdefault(id(producers[value]), []).append(entry)
    heap = [e for e in ready if not missing[id(e[-1])]]
    heapq.heapify(heap)
    order: list[Node] = []
    while heap:
        node = heapq.heappop(heap)[-1]
        order.append(node)
        for entry in users.get(id(node), []):
            missing[id(entry[-1])] -= 1
            if not missing[id(entry[-1])]:
                heapq.heappush(heap, entry)
    return replace(segment, nodes=tuple(order))
