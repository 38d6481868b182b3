"""Graphs as text: what prints, parses; errors point."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc import errors
from cimc.ir.graph import Attr, Graph, Node, Type
from cimc.ir.levels import LEVELS
from cimc.ir.text import parse_graph, print_graph
from cimc.isa.operands import Element
from cimc.ops import OPS
from cimc.origin import Origin

F32 = Element.F32
SQUARE = (1, 2, 4, 4)

SAMPLES: dict[str, Attr] = {
    "unit": "digital",
    "to": "qf16",
    "shape": (1, 2, 4, 4),
    "perm": (0, 1, 3, 2),
    "start": (0, 0, 3, 1),
    "size": (1, 1, 2, 3),
    "step": (1, 1, -2, 1),
    "axis": 1,
    "groups": 2,
    "apart": 1,
    "before": (0, 0, 1, 0),
    "after": (0, 0, 0, 2),
    "value": float("-inf"),
    "kernel": (2, 2),
    "stride": (1, 2),
    "dilation": (1, 1),
    "epsilon": 1e-12,
    "scale": 0.125,
    "rows": 3,
    "cells": "nvm",
    "product": "qk",
    "kept": 'a "rotation" stands between',
    "cols": 128,
    "op_type": "Trilu",
    "call": "call:x y",
    "types": ("f32[1x2x4x4]", "i64[]"),
    "reason": 'no "unit"\nfor it',
}
"""A value for every attribute an op has."""

OPERANDS: dict[str, list[Type]] = {
    "linear": [Type(F32, (1, 2, 4, 4)), Type(F32, (4, 3))],
    "mvm": [Type(Element.I8, (1, 2, 4, 4)), Type(Element.I8, (4, 3))],
    "blocked_mvm": [Type(Element.Q8, (1, 2, 4, 4)), Type(Element.Q8, (4, 3))],
    "dequantize": [Type(Element.Q32, (4, 4)), Type(F32, (4, 1)), Type(F32, (4,))],
    "matmul": [Type(Element.Q8, SQUARE), Type(Element.Q8, SQUARE), Type(F32, (1, 2, 4, 1)), Type(F32, (1, 2, 1, 4))],
    "written_matmul": [Type(Element.Q8, (1, 2, 4, 4)), Type(F32, (1, 2, 4, 4)), Type(F32, (1, 2, 4, 1))],
    "gather": [Type(F32, (7, 3)), Type(Element.I64, (2, 1))],
    "host": [],
}
"""Operands of the ops that do not take squares of floats."""


def names() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=12)


@st.composite
def graphs(draw: st.DrawFn, op: str) -> Graph:
    """A graph with one node of that op, on inputs (and constants for weights), under any names."""
    row = OPS[op]
    fewest, most = row.arity
    operands = OPERANDS.get(op, [Type(F32, SQUARE)] * draw(st.integers(fewest, min(most, 4))))
    if op == "select":
        operands[0] = Type(Element.B8, SQUARE)
    attrs = tuple((a.name, SAMPLES[a.name]) for a in row.attributes if a.default is None or draw(st.booleans()))
    node = Node(op, ("",) * len(operands), (), attrs)
    results = row.infer(node, operands)
    used = draw(st.lists(names(), unique=True, min_size=len(operands) + len(results), max_size=8))
    inputs, outputs = tuple(used[: len(operands)]), tuple(used[len(operands) :][: len(results)])
    origins = tuple(Origin(draw(names()), draw(st.text(max_size=5))) for _ in range(draw(st.integers(0, 3))))
    call = frozenset({str(SAMPLES["call"])}) if op == "host" else frozenset[str]()
    weights = frozenset(inputs[1:2]) if op in ("linear", "mvm", "blocked_mvm") else frozenset[str]()
    level = next(level for level in LEVELS.values() if op not in level.forbidden)
    return Graph(
        draw(names()),
        level.name,
        tuple(v for v in inputs if v not in weights),
        outputs,
        (Node(op, inputs, outputs, attrs, origins),),
        dict(zip((*inputs, *outputs), (*operands, *results), strict=True)),
        weights | call,
        tuple(draw(names()) for _ in outputs) if draw(st.booleans()) else (),
        tuple((draw(names()), draw(st.integers(0, 9))) for _ in range(draw(st.integers(0, 2)))),
    )


@pytest.mark.parametrize("op", sorted(OPS))
@settings(deadline=None, max_examples=12, derandomize=True)
@given(data=st.data())
def test_what_prints_parses(op: str, data: st.DataObject) -> None:
    graph = data.draw(graphs(op))
    text = print_graph(graph)
    again = parse_graph(text)
    assert again == graph
    assert print_graph(again) == text


EXAMPLE = """\
# a layer
graph main : canonical
dim "batch size" = 2

input %x : f32[2x4]
const %w : f32[4x3]
%y : f32[2x3] = linear %x, %w from /encoder/query/MatMul MatMul  # the query
%z : f32[2x3] = layer_norm{epsilon=1e-05} %y
output %z "last_hidden_state"
"""


def test_an_example_reads_as_it_says() -> None:
    graph = parse_graph(EXAMPLE)
    assert graph.nodes[0] == Node("linear", ("x", "w"), ("y",), (), (Origin("/encoder/query/MatMul", "MatMul"),))
    assert graph.nodes[1].attr("epsilon") == 1e-5
    assert graph.dims == (("batch size", 2),)
    assert (graph.outputs, graph.output_names) == (("z",), ("last_hidden_state",))
    assert graph.constants == {"w"}
    assert graph.types["y"] == Type(F32, (2, 3))


@pytest.mark.parametrize(
    ("line", "column", "expected"),
    [
        ("input x : f32[2]", 7, "'%'"),
        ("input %x f32[2]", 10, "':'"),
        ("input %x : f33[2]", 12, "a type like f32[2x3]"),
        ("input %x : f32[99999999999999]", 12, "a type like f32[2x3]"),
        ("input %x : f32[2] more", 19, "the end of the line"),
        ("dim n = many", 9, "a size"),
        ("%y : f32[2] =", 14, "an op"),
        ("%y : f32[2] = neg %x,", 22, "'%'"),
        ("%y : f32[2] = pad{before=(0, 1.5)} %x", 33, "values of one type"),
        ("%y : f32[2] = neg{a=1.2.3} %x", 21, "a number, a string, true or false"),
        ('%"y : f32[2] = neg %x', 2, "a name, a number or a string"),
    ],
)
def test_errors_point_at_the_place(line: str, column: int, expected: str) -> None:
    with pytest.raises(errors.CimcError) as caught:
        parse_graph(f"graph g : imported\n{line}\n", "g.ir")
    assert caught.value.code == "ir-syntax"
    source = caught.value.source
    assert source is not None
    assert (source.line, source.column) == (2, column)
    assert caught.value.message == f"expected {expected}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line 'graph NAME : LEVEL'"),
        ("graph g : imported\n%y : f32[2] = nag %x", "no op 'nag': did you mean 'neg'"),
        ("graph g : imported\n%y : f32[2] = neg %x", "reads x, which nothing before it produces"),
        ("graph g : imported\ninput %x : f32[2]\n%y : f32[3] = neg %x", r"declares y as f32\[3\], but it is f32\[2\]"),
        ("graph g : imported\ninput %x : f32[2]\n%y : f32[2] = neg{a=1} %x", "undeclared attribute a"),
        ("graph g : imported\ninput %x : f32[2]\n%y : f32[2] = concat{axis=7} %x", "does not fit its operands"),
        ("graph g : sometimes\n", "there is no level 'sometimes'"),
    ],
)
def test_graphs_that_break_the_law_are_refused(text: str, why: str) -> None:
    with pytest.raises(errors.CimcError, match=why) as caught:
        parse_graph(text, "g.ir")
    assert caught.value.code == "ir-law"


@settings(deadline=None, max_examples=300, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(EXAMPLE) - 1), st.sampled_from('%{}(),=x[]"0 _\n'), st.integers(0, 2))))
def test_damaged_text_gives_one_clear_message_or_a_graph(damage: list[tuple[int, str, int]]) -> None:
    text = list(EXAMPLE)
    for at, character, gone in damage[:4]:
        text[at : at + gone] = character
    try:
        graph = parse_graph("".join(text))
    except errors.CimcError:
        return  # anything else, a traceback, fails the test
    assert parse_graph(print_graph(graph)) == graph
