"""Static matmuls on the digital units, and outlier channels: the same answers, lawful graphs, clear refusals."""

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
from cimc.passes.digital import Digital
from cimc.passes.outliers import Outliers
from cimc.passes.partition import Partition
from cimc.passes.quantize import Quantize

INTEGER = Arithmetic(exact=False)


def two_layers(rows: int = 6) -> tuple[Graph, Constants]:
    b = Build()
    h = b("matmul", b.input("x", f"f32[{rows}x16]"), b.const(random((16, 24)), "w1"), out="h")
    y = b("matmul", b("tanh", h), b.const(random((24, 10), 1), "w2"), out="y")
    return b.graph(y), b.constants


def run(before: tuple[Graph, Constants], *passes: Pass) -> tuple[Graph, Constants]:
    graph, constants = before
    for one in (Classify(), *passes, Partition(8, 8)):
        graph, constants = one.run(graph, constants)
        check(graph, constants, f"after {one.name}")
    same_answers(before[0], graph, before[1], constants)
    return graph, constants


@pytest.mark.parametrize("layers", ["w1", "/y", "w?", "/h, /y", "*"])
@pytest.mark.parametrize("digital_bytes", [1 << 18, 16 * 7, 1])
def test_digital_layers_give_the_integers_of_the_cells(layers: str, digital_bytes: int) -> None:
    before = two_layers()
    cells = run(before, Quantize())
    apart = run(before, Digital(layers), Quantize(digital_bytes=digital_bytes))
    inputs = numbers(before[0])
    want, got = evaluate(*cells, inputs, INTEGER), evaluate(*apart, inputs, INTEGER)
    np.testing.assert_array_equal(got["y"], want["y"])
    left = {"w1": 1, "/y": 1}.get(layers, 0)
    assert ops(apart[0]).count("blocked_mvm") == left
    if digital_bytes > 1000:
        assert ops(apart[0]).count("matmul") == 2 - left


def test_pieces_fit_the_bytes_given() -> None:
    graph, _ = run(two_layers(), Digital("w1"), Quantize(digital_bytes=16 * 7))
    shapes = [graph.type(n.inputs[1]).shape for n in graph.nodes if n.op == "matmul"]
    assert shapes == [(16, 7), (16, 7), (16, 7), (16, 3)]


def test_the_models_own_integers_go_digital() -> None:
    b = Build()
    codes = np.arange(-16, 16, dtype=np.int8).reshape(8, 4)
    y = b("mvm", b.input("x", "i8[3x8]"), b.const(codes, "w"), out="y")
    before = b.graph(y), b.constants
    graph, constants = Digital("w").run(*Classify().run(*before))
    check(graph, constants, "after digital")
    assert ops(graph) == ["matmul"]
    same_answers(before[0], graph, before[1], constants, 0.0)


def test_an_unknown_layer_is_refused() -> None:
    graph, constants = Classify().run(*two_layers())
    with pytest.raises(CimcError, match="no static matmul is called '/z'") as caught:
        Digital("w1,/z").run(graph, constants)
    assert caught.value.code == "pass-option"
    assert "/h" in caught.value.hint
    with pytest.raises(CimcError, match="quotation mark"):
        Digital('a"b')


def outlying() -> tuple[Graph, Constants]:
    """Channel 3 of the first weights is a hundred times the others, 5 and 6 ten times."""
    b = Build()
    w = random((16, 24))
    w[3] *= 100
    w[5:7] *= 10
    x = b.input("x", "f32[6x16]")
    first = b("matmul", x, b.const(w, "w1"), out="h")
    second = b("matmul", x, b.const(random((16, 24), 1), "w2"), out="g")
    return b.graph(b("add", first, second, out="y")), b.constants


def test_outliers_are_split_off() -> None:
    graph, constants = run(outlying(), Outliers(channels=3), Quantize())
    assert ops(graph).count("matmul") == 2
    assert ops(graph).count("mul") == 1  # one mask for the value that both read
    cells = next(n for n in graph.nodes if n.op == "blocked_mvm")
    assert [int(k) for k in np.flatnonzero(~constants[cells.inputs[1]].any(axis=1))] == [3, 5, 6]


def test_outliers_lower_the_error_of_quantisation() -> None:
    before = outlying()
    inputs = numbers(before[0])
    want = evaluate(*before, inputs, Arithmetic())["y"]

    def error(*passes: Pass) -> float:
        return float(np.linalg.norm(evaluate(*run(before, *passes), inputs, INTEGER)["y"] - want))

    plain = error(Quantize())
    assert error(Outliers(channels=3), Quantize()) < 0.8 * plain


def test_ranges_of_activations_come_from_calibration() -> None:
    before = outlying()
    inputs = numbers(before[0])
    inputs["x"][:, 9] *= 50
    graph, _ = run(before, Outliers(channels=1, by="activations", calibration=(inputs,)), Quantize())
    (peak,) = [n for n in graph.nodes if n.op == "slice"]
    assert peak.attr("start") == (0, 9)
    with pytest.raises(CimcError, match="calibration"):
        Outliers(by="activations").run(*Classify().run(*before))


def test_only_what_lies_above_the_median() -> None:
    graph, _ = run(outlying(), Outliers(channels=4, above=20.0), Quantize())
    (peak,) = [n for n in graph.nodes if n.op == "slice"]
    assert (peak.attr("start"), peak.attr("size")) == ((0, 3), (6, 1))
    graph, _ = run(outlying(), Outliers(channels=4, above=1e6), Quantize())
    assert "matmul" not in ops(graph)


@pytest.mark.parametrize(
    ("options", "words"), [({"channels": 0}, "1..1024"), ({"above": -1.0}, "below 0"), ({"by": "x"}, "'x'")]
)
def test_bad_options(options: dict[str, object], words: str) -> None:
    with pytest.raises(CimcError, match=words):
        Outliers(**options)  # pyright: ignore[reportArgumentType]
