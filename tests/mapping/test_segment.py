"""Nodes in segments: what runs together, what does not, in what order."""

from __future__ import annotations

import hypothesis
import numpy as np

from cimc.ir.graph import Graph, Type
from cimc.isa.operands import Element
from cimc.mapping.layout import is_view, materialize
from cimc.mapping.placement import Segment, Style
from cimc.mapping.segment import Tail, refine, segments, tail_view
from tests.codegen.random_graphs import Drawn, graphs
from tests.passes.graph_builder import Build


def named(found: tuple[Segment, ...]) -> list[tuple[Style, list[str]]]:
    return [(s.style, [n.op for n in s.nodes]) for s in found]


def static(build: Build, x: str, n: int, tag: str) -> str:
    """A static matmul of k × n weights."""
    k = build.types[x].shape[-1]
    build("quantize", x, out=f"q{tag} s{tag}")
    name = build.const([[1] * n] * k, f"w{tag}", np.int8)
    build.types[name] = Type(Element.Q8, (k, n))
    acc = build("blocked_mvm", f"q{tag}", name, rows=8, cols=8)
    return build("dequantize", acc, f"s{tag}", build.const([1.0] * n))


def test_a_chain_over_the_same_rows_is_one_segment() -> None:
    b = Build("partitioned")
    y = b("softmax", b("add", b("neg", b.input("x", "f32[4x6]")), b.const([1.0] * 6)))
    (segment,) = segments(b.graph(y))
    assert named((segment,)) == [(Style.SPREAD, ["neg", "add", "softmax"])]
    assert segment.domain == (4,)
    assert segment.rows == 4


def test_cells_make_a_stream_that_takes_what_goes_before_and_after() -> None:
    b = Build("partitioned")
    y = b("tanh", static(b, b("neg", b.input("x", "f32[4x6]")), 5, "a"))
    assert named(segments(b.graph(y))) == [(Style.STREAM, ["neg", "quantize", "blocked_mvm", "dequantize", "tanh"])]


def test_attention_between_projections_is_a_segment_of_its_own() -> None:
    """Every row of q needs all of k: the projections must be done first, and what follows starts anew."""
    b = Build("partitioned")
    q = static(b, b.input("x", "f32[4x6]"), 6, "q")
    k = b("transpose", static(b, "x", 6, "k"), perm=(1, 0))
    y = static(b, b("attention", q, k, static(b, "x", 6, "v"), scale=1.0), 6, "o")
    found = segments(b.graph(y))
    assert [s.style for s in found] == [Style.STREAM, Style.SPREAD, Style.STREAM]
    assert [n.op for n in found[1].nodes] == [
        "attention",
        "quantize",
    ]  # rows of the result are quantised where they are
    assert sum(n.op == "blocked_mvm" for n in found[0].nodes) == 3


def test_other_rows_close_the_segment() -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[4x6]"))
    y = b("tanh", b("transpose", a, perm=(1, 0)))
    assert named(segments(b.graph(y))) == [(Style.SPREAD, ["neg"]), (Style.SPREAD, ["tanh"])]


def test_columns_of_rows_stay_in_the_segment() -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[4x6]"))
    left = b("slice", a, start=(0, 0), size=(4, 3), step=(1, 1))
    right = b("slice", a, start=(0, 5), size=(4, 3), step=(1, -1))
    y = b("add", left, right)
    graph = b.graph(y)
    assert named(segments(graph)) == [(Style.SPREAD, ["neg", "add"])]
    nodes = {n.outputs[0]: n for n in graph.nodes}
    assert tail_view(graph, nodes[right], Tail(a, 0, 1, 6)) == Tail(a, 5, -1, 3)
    assert tail_view(graph, nodes[right], Tail(a, 1, 2, 6)) == Tail(a, 11, -2, 3)


def test_rows_of_rows_do_not() -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[4x6]"))
    graph = b.graph(b("slice", a, start=(1, 0), size=(2, 6), step=(1, 1)))
    assert tail_view(graph, graph.nodes[-1], Tail(a, 0, 1, 6)) is None


def test_concat_of_rows_is_assembled_and_of_columns_is_not() -> None:
    b = Build("partitioned")
    a = b("neg", b.input("x", "f32[4x6]"))
    down, across = b("concat", a, a, axis=0), b("concat", a, a, axis=1)
    assert (Style.ASSEMBLE, ["concat"]) in named(segments(b.graph(down, across)))
    assert (Style.SPREAD, ["neg", "concat"]) in named(segments(b.graph(down, across)))


def test_domains_refine_only_by_merging_neighbours() -> None:
    assert refine((2, 3, 4), (6, 4)) == (2, 3, 4)
    assert refine((24,), (2, 3, 4)) == (2, 3, 4)
    assert refine((6, 4), (3, 8)) is None
    assert refine((2, 3), (3, 2)) is None
    assert refine((2, 3), (7,)) is None


def executable(graph: Graph, found: tuple[Segment, ...]) -> None:
    """Every value is there before it is read, views with what they look at."""
    there = {*graph.inputs, *graph.constants}
    views = [n for n in graph.nodes if is_view(n)]

    def look() -> None:
        for node in views:
            if node.inputs[0] in there:
                there.update(node.outputs)

    for segment in found:
        for node in segment.nodes:
            look()
            assert {v for v in node.inputs if v} <= there
            there.update(node.outputs)
    look()
    assert set(graph.outputs) <= there


@hypothesis.settings(max_examples=60, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(graphs())
def test_every_node_once_in_an_order_that_runs(drawn: Drawn) -> None:
    graph, _ = materialize(drawn.graph)
    found = segments(graph)
    listed = [n.outputs for s in found for n in s.nodes]
    assert sorted(listed) == sorted(n.outputs for n in graph.nodes if not is_view(n))
    executable(graph, found)
