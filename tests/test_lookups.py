"""Sizes that a model's tables allow, where no shape says so: positions counted from the tokens, as RoBERTa does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.checker import CheckOptions, check_model
from cimc.compiler import Compiled, compile_model
from cimc.options import Options

PAD = 7  # the inputs drawn hold some of it, the longest sequences none
WIDTH = 8


@pytest.fixture
def roberta(tmp_path: Path) -> Callable[[int], Path]:
    """Word and position tables: positions are one more than the tokens so far that are no padding."""

    def save(positions: int) -> Path:
        rng = np.random.default_rng(0)
        nodes = [
            helper.make_node("Equal", ["input_ids", "pad"], ["padding"]),
            helper.make_node("Not", ["padding"], ["words"]),
            helper.make_node("Cast", ["words"], ["mask"], to=TensorProto.INT64),
            helper.make_node("CumSum", ["mask", "axis"], ["counted"]),
            helper.make_node("Mul", ["counted", "mask"], ["masked"]),
            helper.make_node("Add", ["masked", "offset"], ["positions"]),
            helper.make_node("Gather", ["word_table", "input_ids"], ["w"]),
            helper.make_node("Gather", ["position_table", "positions"], ["p"], name="look_up"),
            helper.make_node("Add", ["w", "p"], ["y"]),
        ]
        tables = {
            "pad": np.array(PAD, np.int64),
            "offset": np.array(1, np.int64),
            "axis": np.array(1, np.int64),
            "word_table": rng.standard_normal((50, WIDTH), np.float32),
            "position_table": rng.standard_normal((positions, WIDTH), np.float32),
        }
        graph = helper.make_graph(
            nodes,
            "positions",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", "sequence", WIDTH])],
            [numpy_helper.from_array(a, n) for n, a in tables.items()],
        )
        path = tmp_path / f"{positions}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path

    return save


def compiled(path: Path, **dims: int) -> Compiled:
    found = compile_model(path, Options("toy", ("tiles.all.local_bytes=65536",), dims))
    assert found is not None
    return found


@pytest.mark.parametrize(("positions", "length"), [(131, 128), (130, 128), (129, 64), (40, 32), (20, 16)])
def test_the_default_is_what_the_tables_hold(roberta: Callable[[int], Path], positions: int, length: int) -> None:
    made = compiled(roberta(positions))
    assert {b.name: b.value for b in made.bindings}["sequence"] == length
    shortened = [n for n in made.notes if "shortened" in n]
    assert len(shortened) == (length != 128)
    assert all(f"Gather 'look_up' looks up index 129 in a table of {positions} rows" in n for n in shortened)
    ran = check_model(
        str(roberta(positions)), Options("toy", ("tiles.all.local_bytes=65536",)), CheckOptions(timing=False)
    )
    assert ran.report.passed


def test_a_length_that_was_asked_for_stays_and_is_told(roberta: Callable[[int], Path]) -> None:
    made = compiled(roberta(40), sequence=64)
    assert {b.name: b.value for b in made.bindings}["sequence"] == 64
    assert any("drawn inputs will fail: Gather 'look_up' looks up index 65" in n for n in made.notes)


def test_a_table_that_no_length_suits_keeps_the_default(roberta: Callable[[int], Path]) -> None:
    made = compiled(roberta(2))
    assert {b.name: b.value for b in made.bindings}["sequence"] == 128
    assert any("drawn inputs will fail" in n for n in made.notes)
