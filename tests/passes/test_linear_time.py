"""Passes take time linear in the size of the graph. Counted in calls of Python functions, not in seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import numpy as np
import pytest
from graph_builder import Build, random

from cimc.ir.graph import Constants, Graph
from cimc.ir.text import parse_graph, print_graph
from cimc.pipeline import Watch, run_pipeline

PIPELINE = "fold,fuse,fold,classify,dce,quantize,partition{rows=4, cols=4}"


def layers(count: int) -> tuple[Graph, Constants]:
    """Layers of norm, attention and activation in small operators, each with weights of its own."""
    b = Build()
    x = b.input("x", "f32[6x8]")
    for layer in range(count):
        d = b("sub", x, b("reduce_mean", x))
        n = b("div", d, b("sqrt", b("add", b("reduce_mean", b("mul", d, d)), b.const(1e-5))))
        q, k, v = (b("matmul", n, b.const(random((8, 8), 3 * layer + i))) for i in range(3))
        s = b("mul", b("matmul", q, b("transpose", k, perm=(1, 0))), b.const(0.5))
        a = b("matmul", b("softmax", b("add", s, b.const(np.zeros((6, 6), np.float32) - 1))), v)
        x = b("add", x, b("mul", a, b("sigmoid", a)))
    return b.graph(x), b.constants


def calls(work: Callable[[], object]) -> int:
    """How many Python functions the work calls."""
    count = 0

    def watch(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def steps(size: int) -> int:
    graph, constants = layers(size)
    done = run_pipeline(graph, constants, PIPELINE, Watch(verify=0))
    assert sum(n.op == "attention" for n in done.graph.nodes) == size
    return calls(lambda: run_pipeline(graph, constants, PIPELINE, Watch(verify=1)))


def text_steps(size: int) -> int:
    graph, _ = layers(size)
    return calls(lambda: parse_graph(print_graph(graph)))


@pytest.mark.parametrize("count", [steps, text_steps])
def test_twice_the_layers_take_twice_the_steps(count: Callable[[int], int]) -> None:
    few, twice, four = count(8), count(16), count(32)
    assert twice < 2.1 * few
    assert four < 2.1 * twice
