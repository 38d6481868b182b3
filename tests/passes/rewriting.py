"""Tests of passes on text: the graph before, the pass, the graph after, and the same answers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ir.text import parse_graph, print_graph
from cimc.ops import Arithmetic
from cimc.passes.contract import Pass


def numbers(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs for a graph: normal numbers, coin flips."""
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for v in graph.inputs:
        dtype, shape = graph.types[v].element.dtype(exact=True), graph.types[v].shape
        whole = dtype == np.bool_ or np.issubdtype(dtype, np.integer)
        found[v] = (rng.integers(0, 2, shape) if whole else rng.standard_normal(shape)).astype(dtype)
    return found


def same_answers(before: Graph, after: Graph, old: Constants, new: Constants, tolerance: float = 1e-5) -> None:
    """Both graphs give the same outputs on random inputs."""
    inputs = numbers(before)
    want, got = evaluate(before, old, inputs, Arithmetic()), evaluate(after, new, inputs, Arithmetic())
    assert want.keys() == got.keys()
    for name in want:
        np.testing.assert_allclose(
            got[name].astype(np.float64), want[name].astype(np.float64), rtol=tolerance, atol=tolerance
        )


def rewritten(
    text: str, constants: Mapping[str, np.ndarray], *passes: Pass, tolerance: float = 1e-5
) -> tuple[Graph, Constants]:
    """The graph of this text after the passes: lawful, and with the same answers."""
    before = parse_graph(text)
    graph, held = before, constants
    check(graph, held, "before")
    for one in passes:
        graph, held = one.run(graph, held)
        check(graph, held, f"after {one.name}")
    same_answers(before, graph, constants, held, tolerance)
    return graph, held


def body(graph: Graph) -> str:
    """The graph's text without its header line."""
    return print_graph(graph).split("\n", 1)[1]


def ops(graph: Graph) -> list[str]:
    """The nodes' ops in order."""
    return [n.op for n in graph.nodes]
