"""Products with more weights than the chip has cells, in pieces: the same sums, no piece too large."""

from __future__ import annotations

import numpy as np
import pytest

from cimc.errors import CimcError
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Graph
from cimc.ir.levels import check
from cimc.mapping.layout import in_regions
from cimc.mapping.segment import cores_needed
from cimc.ops import Arithmetic
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize
from cimc.passes.split import Split
from tests.passes.graph_builder import Build, random
from tests.passes.rewriting import ops


def network(k: int, n: int) -> tuple[Graph, dict[str, np.ndarray]]:
    """A product with bias and GELU, its rows normed: what follows first goes by columns, then needs whole rows."""
    b = Build("canonical")
    y = b("linear", b.input("x", f"f32[5x{k}]"), b.const(random((k, n), 1), "w"))
    z = b("add", b("mul", b("gelu", b("add", y, b.const(random((n,), 2)))), b.const(3.0)), y)
    return b.graph(b("layer_norm", z, epsilon=1e-5), b("relu", y)), b.constants


@pytest.mark.parametrize(
    ("k", "n", "cores"), [(40, 70, 1), (40, 70, 3), (100, 30, 2), (100, 100, 5), (100, 200, 16), (7, 160, 9)]
)
def test_the_same_answers_from_pieces_that_fit(k: int, n: int, cores: int) -> None:
    graph, constants = network(k, n)
    whole, kept = graph, constants
    for one in (Quantize(), Partition(16, 16)):
        whole, kept = one.run(whole, kept)
    parts, held = Split(cores).run(whole, kept)
    check(parts, held, "after split")
    needed = [cores_needed(parts, node) for node in parts.nodes if cores_needed(parts, node)]
    assert max(needed) <= max(1, cores // 2)
    assert sum(needed) == -(-k // 16) * -(-n // 16)  # every block once
    inputs = {"x": random((5, k), 3)}
    for numerics in (Arithmetic(exact=False), Arithmetic()):
        wanted, got = evaluate(whole, kept, inputs, numerics), evaluate(parts, held, inputs, numerics)
        for name, value in wanted.items():
            if numerics.exact:
                np.testing.assert_allclose(got[name], value, rtol=2e-6, atol=2e-6)
            else:
                np.testing.assert_array_equal(got[name], value)


def test_what_goes_by_columns_stays_apart_and_is_joined_where_it_is_stored() -> None:
    graph, constants = network(16, 64)
    for one in (Quantize(), Partition(16, 16), Split(2)):
        graph, constants = one.run(graph, constants)
    found = ops(graph)
    assert (found.count("blocked_mvm"), found.count("gelu"), found.count("relu")) == (4, 4, 4)
    assert (found.count("layer_norm"), found.count("concat")) == (1, 2)  # for the norm and for the other output
    assert all(in_regions(graph, node) for node in graph.nodes if node.op == "concat")


def test_what_fits_is_left_alone() -> None:
    graph, constants = network(40, 70)
    for one in (Quantize(), Partition(16, 16)):
        graph, constants = one.run(graph, constants)
    assert Split(15).run(graph, constants)[0].nodes == graph.nodes


def test_no_cores_are_refused() -> None:
    with pytest.raises(CimcError, match="0 is below 1"):
        Split(0)
