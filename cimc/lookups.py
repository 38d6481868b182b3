"""Whether a model's tables are long enough for the size its sequence was bound to.

Positions are often computed (counted from the mask, or from the tokens that are no padding), so that no shape in the model
says how many there may be; a run would find out. Here they are computed of drawn inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cimc.inputs import Tokens, draw_graph
from cimc.ir.graph import Array, Constants, Graph, Node
from cimc.isa.operands import Element
from cimc.ops import OPS, Arithmetic

MOST_ELEMENTS = 1 << 24
"""Of all values that are computed to know one table's indices."""
_WHOLE = frozenset(e for e in Element if e is Element.B8 or e.value.startswith(("i", "u")))


def beyond(graph: Graph, constants: Constants, tokens: Tokens) -> str:
    """What the first index of drawn inputs outside its table does, as text; empty if all are inside. Indices that take
    other than integer arithmetic, or more than :data:`MOST_ELEMENTS`, are not looked at."""
    producers = graph.producers()
    drawn: list[dict[str, Array]] = []
    for node in graph.nodes:
        if node.op != "gather" or not (steps := _steps(graph, producers, node.inputs[1])):
            continue
        drawn = drawn or _drawn(graph, tokens)
        for sample in drawn:
            values = dict(sample)
            for step in steps:
                if step.op == "gather" and (told := _outside(graph, constants, values, step)):
                    return told
                _compute(constants, values, step)
            if told := _outside(graph, constants, values, node):
                return told
    return ""


def _drawn(graph: Graph, tokens: Tokens) -> list[dict[str, Array]]:
    """The inputs of seed 0, and the same with one token all over: two, one of which at most is a padding."""
    first = draw_graph(graph, tokens)
    whole = [n for n, a in first.items() if a.size and graph.types[n].element in _WHOLE]
    ones = ({n: np.full_like(first[n], first[n].flat[k * first[n].size // 3]) for n in whole} for k in (1, 2))
    return [first, *(first | one for one in ones)]


def _steps(graph: Graph, producers: Mapping[str, Node], index: str) -> tuple[Node, ...]:
    """What computes an index, in order; empty if that is not integer arithmetic of little size, or nothing."""
    wanted, found, elements = {index}, set[str](), 0
    while wanted:
        value = wanted.pop()
        if not value or value in found or value not in producers:
            continue
        node = producers[value]
        elements += sum(graph.types[v].size for v in node.outputs if v)
        if node.op == "host" or graph.types[value].element not in _WHOLE or elements > MOST_ELEMENTS:
            return ()
        found.add(value)
        wanted.update(node.inputs)
    return tuple(n for n in graph.nodes if not found.isdisjoint(n.outputs))


def _compute(constants: Constants, values: dict[str, Array], node: Node) -> None:
    """The outputs of a node, from inputs and values computed before."""
    operands = [None if not v else values[v] if v in values else constants[v] for v in node.inputs]
    with np.errstate(all="ignore"):
        results = OPS[node.op].evaluate(node, operands, Arithmetic(exact=True))
    values.update((n, np.asarray(y)) for n, y in zip(node.outputs, results, strict=False) if n)


def _outside(graph: Graph, constants: Constants, values: Mapping[str, Array], node: Node) -> str:
    """What a gather reads outside its table; negative indices count from the end."""
    rows, name = graph.types[node.inputs[0]].shape[0], node.inputs[1]
    index = np.asarray(values[name] if name in values else constants[name])
    if not index.size:
        return ""
    low, high = int(index.min()), int(index.max())
    if -rows <= low and high < rows:
        return ""
    what = node.origin.node or node.outputs[0]
    return f"{node.origin.op_type} '{what}' looks up index {high if high >= rows else low} in a table of {rows} rows"
