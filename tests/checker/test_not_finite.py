"""NaN and infinity, in weights, inputs and between: named with the layer, in every numerics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

import cimc
from cimc.errors import CimcError
from tests.cli.command import save
from tests.report.test_run_report import validate

ONES = np.ones((4, 4), np.float32)


def model(path: Path, weights: np.ndarray) -> Path:
    """Two matmuls with a logarithm between them."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="first"),
        helper.make_node("Log", ["h"], ["l"], name="log"),
        helper.make_node("MatMul", ["l", "v"], ["y"], name="second"),
    ]
    return save(path, nodes, weights=[numpy_helper.from_array(weights, "w"), numpy_helper.from_array(ONES, "v")])


@pytest.mark.parametrize("numerics", ["float", "integer", "analog"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights(tmp_path: Path, numerics: str, bad: float) -> None:
    weights = ONES.copy()
    weights[1, 2] = bad
    with pytest.raises(CimcError, match="weights w of layer first hold 1 values") as caught:
        cimc.check(model(tmp_path / "m.onnx", weights), hardware="toy", dims={"n": 2}, numerics=numerics)  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "weight-not-finite"


@pytest.mark.parametrize(("x", "first", "node", "layer"), [(-1.0, "l", "log", "second"), (np.nan, "x", "", "first")])
def test_activations(tmp_path: Path, x: float, first: str, node: str, layer: str) -> None:
    path, feeds = model(tmp_path / "m.onnx", ONES), {"x": np.full((2, 4), x, np.float32)}
    found = cimc.check(path, hardware="toy", inputs=feeds)
    validate(found, "check")
    assert found["not_finite"] == {"value": first, "node": node, "holds": "NaN"}
    for numerics in ("integer", "analog"):
        with pytest.raises(CimcError, match=f"layer {layer}, tile .*: the activations to quantise hold NaN"):
            cimc.check(path, hardware="toy", inputs=feeds, numerics=numerics)  # pyright: ignore[reportArgumentType]


def test_nothing_is_said_of_finite_outputs(tmp_path: Path) -> None:
    feeds = {"x": np.ones((2, 4), np.float32)}
    assert "not_finite" not in cimc.check(model(tmp_path / "m.onnx", ONES), hardware="toy", inputs=feeds)
