"""Static matmuls in several sets of cells: the same answers to the bit, and independent errors averaged."""

from __future__ import annotations

import numpy as np
import pytest
from graph_builder import Build, random
from rewriting import numbers, ops, same_answers

from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import check
from cimc.ops import Arithmetic
from cimc.passes.classify import Classify
from cimc.passes.contract import Pass
from cimc.passes.copies import Copies
from cimc.passes.digital import Digital
from cimc.passes.partition import Partition
from cimc.passes.pipeline_text import parse_pipeline, print_pipeline
from cimc.passes.quantize import Quantize


def two_layers() -> tuple[Graph, Constants]:
    b = Build()
    h = b("matmul", b.input("x", "f32[6x16]"), b.const(random((16, 24)), "w1"), out="h")
    y = b("matmul", b("tanh", h), b.const(random((24, 10), 1), "w2"), out="y")
    return b.graph(y), b.constants


def run(before: tuple[Graph, Constants], *passes: Pass) -> tuple[Graph, Constants]:
    graph, constants = before
    for one in (Classify(), *passes, Quantize(), Partition(8, 8)):
        graph, constants = one.run(graph, constants)
        check(graph, constants, f"after {one.name}")
    same_answers(before[0], graph, before[1], constants)
    return graph, constants


@pytest.mark.parametrize("count", [2, 4, 8])
@pytest.mark.parametrize("layers", ["*", "w1", "/y"])
def test_copies_change_no_bit(count: int, layers: str) -> None:
    before = two_layers()
    plain, copied = run(before), run(before, Copies(count, layers))
    inputs = numbers(before[0])
    for exact in (True, False):
        want, got = (evaluate(*made, inputs, Arithmetic(exact=exact)) for made in (plain, copied))
        np.testing.assert_array_equal(got["y"], want["y"])
    assert ops(copied[0]).count("blocked_mvm") == (2 * count if layers == "*" else count + 1)
    assert ops(copied[0]).count("quantize") == 2  # what they read is quantised once
    weights = {n.inputs[1] for n in copied[0].nodes if n.op == "blocked_mvm"}
    assert len(weights) == 2  # and so are the weights


def test_digital_layers_have_no_copies() -> None:
    graph, _ = run(two_layers(), Digital("w1"), Copies(4))
    assert ops(graph).count("blocked_mvm") == 4
    assert ops(graph).count("matmul") == 1


@pytest.mark.parametrize("count", [0, 1, 3, 16])
def test_counts_that_are_no_power_of_two_are_refused(count: int) -> None:
    with pytest.raises(CimcError, match="power of two"):
        Copies(count)


def test_names_and_text() -> None:
    with pytest.raises(CimcError, match="no static matmul is called 'nobody'"):
        run(two_layers(), Copies(2, "nobody"))
    text = 'copies{count=4, layers="/h,/y"}'
    assert print_pipeline(parse_pipeline(text)) == text
