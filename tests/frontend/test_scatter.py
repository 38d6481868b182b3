"""Writes at indices known only at run time, as exporters write key and value caches, against onnxruntime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cimc.frontend.importer import load
from tests.frontend.one_node import both, node_model, ops
from tests.frontend.onnx_models import save

RNG = np.random.default_rng(3)


def draw(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_tuples_of_run_time(tmp_path: Path, depth: int, reduction: str) -> None:
    """Negative indices too, and without a reduction no row twice (which of two writes stays is not defined)."""
    x = draw(5, 4, 3)
    extents = x.shape[:depth]
    flat = RNG.permutation(int(np.prod(extents)))[:4] if reduction == "none" else RNG.integers(0, 5, 4)
    tuples = np.stack(np.unravel_index(flat, extents), -1).astype(np.int64)
    tuples[0] -= extents
    tuples = tuples.reshape(2, 2, depth)
    inputs = (x, tuples, draw(2, 2, *x.shape[depth:]))
    both(tmp_path, "ScatterND", inputs, domain="", opset=18, attrs={"reduction": reduction}, atol=1e-6, rtol=1e-6)


def test_codes_are_written_too(tmp_path: Path) -> None:
    inputs = (RNG.integers(0, 9, (6, 2)), np.array([[4], [1]]), RNG.integers(10, 20, (2, 2)))
    both(tmp_path, "ScatterND", inputs, domain="", opset=18, outputs=(7,), atol=0, rtol=0)


def test_many_writes_are_left_to_the_host(tmp_path: Path) -> None:
    inputs = (draw(100, 2), np.arange(65).reshape(65, 1), draw(65, 2))
    imported = load(save(tmp_path, node_model("ScatterND", inputs, domain="", opset=18)))
    assert ops(imported.graph) == ["host"]


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("axis", [-2, 1])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_cache_takes_new_tokens(tmp_path: Path, mode: str, axis: int, indexed: bool) -> None:
    x, new = draw(2, 8, 3, 4), draw(2, 3, 3, 4)
    if axis == -2:
        x, new = x.swapaxes(1, 2).copy(), new.swapaxes(1, 2).copy()
    last = 5 if mode == "linear" else 7
    inputs = (x, new, np.array([2, last])) if indexed else (x, new)
    attrs = {"axis": axis, "mode": mode}
    both(tmp_path, "TensorScatter", inputs, domain="", opset=24, attrs=attrs, atol=0, rtol=0)
