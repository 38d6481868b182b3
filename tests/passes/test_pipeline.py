"""Running pipelines: levels, labels, printing, dumping, stopping, and finding the pass that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from graph_builder import Build, random

from cimc import debug, errors
from cimc.ir.graph import Constants, Graph
from cimc.ir.levels import LEVELS, LawBroken
from cimc.ir.text import parse_graph
from cimc.passes.pipeline_text import parse_pipeline
from cimc.pipeline import (
    AnswerChanged,
    Watch,
    default_pipeline,
    labels,
    made_up_inputs,
    run_pipeline,
    with_calibration,
)


def model() -> tuple[Graph, Constants]:
    """Two layers and an activation in small operators."""
    b = Build()
    x = b.input("x", "f32[4x8]")
    h = b("add", b("matmul", x, b.const(random((8, 6), 1), "w1")), b.const(random((6,), 2), "b1"), out="h")
    g = b("mul", h, b("sigmoid", h), out="g")
    y = b("matmul", g, b.const(random((6, 5), 3), "w2"), out="y")
    return b.graph(y), b.constants


def test_the_default_pipeline_goes_through_all_levels() -> None:
    done = run_pipeline(*model(), default_pipeline(4, 4), Watch(verify=2))
    assert done.graph.level == "partitioned"
    assert [n.op for n in done.graph.nodes] == [
        "quantize", "blocked_mvm", "dequantize", "add", "silu", "quantize", "blocked_mvm", "dequantize",
    ]  # fmt: skip
    assert [label for label, _ in done.seconds] == [
        "integers", "fold", "fuse", "sink", "fold.2", "classify", "dce", "quantize", "partition",
    ]  # fmt: skip


def test_static_activations_take_calibration_inputs() -> None:
    passes = with_calibration(parse_pipeline(default_pipeline(4, 4, activations="static")), [{"x": random((4, 8))}])
    done = run_pipeline(*model(), passes, Watch(verify=2))
    assert sum(n.op == "quantize_static" for n in done.graph.nodes) == 2


def test_labels_tell_runs_apart() -> None:
    assert labels(parse_pipeline("fold,fuse,fold,fold")) == ("fold", "fuse", "fold.2", "fold.3")


def test_stop_print_and_dump(tmp_path: Path) -> None:
    told: list[str] = []
    watch = Watch(frozenset({"fuse"}), "fold.2", tmp_path / "dump", write=told.append)
    done = run_pipeline(*model(), default_pipeline(4, 4), watch)
    assert done.graph.level == "imported"
    assert len(told) == 1
    assert told[0].startswith("# after fuse\ngraph test : imported\n")
    assert "= silu %h" in told[0]
    files = sorted((tmp_path / "dump").iterdir())
    names = ["00-imported.ir", "01-integers.ir", "02-fold.ir", "03-fuse.ir", "04-sink.ir", "05-fold.2.ir"]
    assert [f.name for f in files] == names
    assert parse_graph(files[-1].read_text()) == done.graph


def test_unknown_labels_and_wrong_levels_are_refused() -> None:
    with pytest.raises(errors.CimcError, match="stop after: there is no pass 'fuze'"):
        run_pipeline(*model(), "fold,fuse", Watch(stop_after="fuze"))
    with pytest.raises(errors.CimcError, match="quantize takes a graph at level canonical, but this one is imported"):
        run_pipeline(*model(), "quantize")


@dataclass(frozen=True)
class Wrong:
    """A pass with a bug: an activation becomes another one, or a type is forgotten."""

    how: str

    name: ClassVar[str] = "wrong"
    takes: ClassVar[tuple[str, ...]] = tuple(LEVELS)
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        if self.how == "law":
            return replace(graph, types={v: t for v, t in graph.types.items() if v != "g"}), constants
        nodes = tuple(replace(n, op="gelu") if n.op == "silu" else n for n in graph.nodes)
        return replace(graph, nodes=nodes), constants


def test_the_first_pass_that_changes_the_answer_is_named() -> None:
    passes = (*parse_pipeline("fold,fuse"), Wrong("answer"), *parse_pipeline("fold,classify"))
    with pytest.raises(AnswerChanged, match="wrong changed output y by"):
        run_pipeline(*model(), passes, Watch(verify=2))
    assert run_pipeline(*model(), passes, Watch(verify=1)).graph.level == "canonical"


def test_the_pass_that_breaks_the_law_is_named() -> None:
    passes = (*parse_pipeline("fold,fuse"), Wrong("law"))
    with pytest.raises(LawBroken, match=r"after wrong: graph test breaks the law of level imported\n.*g has no type"):
        run_pipeline(*model(), passes)
    assert run_pipeline(*model(), passes, Watch(verify=0)).graph.level == "imported"


@dataclass(frozen=True)
class Inexact(Wrong):
    """A pass that rounds differently at a level where everything is exact."""

    name: ClassVar[str] = "inexact"

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        scales = {v: constants[v] * np.float32(1.001) for v in graph.constants if v.endswith(".scale")}
        return graph, {**constants, **scales}


def test_below_quantized_the_answer_must_stay_exact() -> None:
    passes = (*parse_pipeline("fold,fuse,fold,classify,quantize"), Inexact(""))
    with pytest.raises(AnswerChanged, match="inexact changed output y in integer numerics"):
        run_pipeline(*model(), passes, Watch(verify=2))


@pytest.mark.parametrize(("value", "level"), [(None, 1), ("0", 0), ("1", 1), ("2", 2), ("yes", 1)])
def test_the_variable_sets_how_much_is_verified(monkeypatch: pytest.MonkeyPatch, value: str | None, level: int) -> None:
    monkeypatch.delenv("CIMC_VERIFY", raising=False)
    if value is not None:
        monkeypatch.setenv("CIMC_VERIFY", value)
    assert debug.verify() == level
    assert Watch().verify == level


def test_made_up_inputs_have_the_declared_types() -> None:
    b = Build()
    b.input("ids", "i64[2x3]")
    b.input("mask", "b8[3]")
    y = b("neg", b.input("x", "f16[4]"))
    found = made_up_inputs(b.graph(y))
    assert {v: (x.dtype, x.shape) for v, x in found.items()} == {
        "ids": (np.int64, (2, 3)),
        "mask": (np.bool_, (3,)),
        "x": (np.float16, (4,)),
    }
    assert set(np.unique(found["ids"])) == {0, 1}
