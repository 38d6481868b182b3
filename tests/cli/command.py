"""Running commands in this process or one of their own, and small models to run them on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.cli.main import run

ROOT = Path(__file__).parents[2]
MAIN = "from cimc.cli.main import main; main()"

IN = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
OUT = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
WEIGHT = numpy_helper.from_array(np.arange(16, dtype=np.float32).reshape(4, 4) / 16, "w")


class Done(NamedTuple):
    """How a command ended."""

    exit: int
    out: str
    err: str


class Cimc:
    """``cimc(...)`` as on the command line; paths may be given as they are."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Done:
        self.capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = self.capsys.readouterr()
        return Done(int(code), said.out, said.err)


def process(*arguments: object, code: str = MAIN, hash_seed: int = 0) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False)


def save(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (IN,),
    weights: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (OUT,),
) -> Path:
    """Write a model of a few nodes."""
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def linear(path: Path) -> Path:
    """y = x · w, 4 × 4."""
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], weights=[WEIGHT])


def external(path: Path, location: str) -> Path:
    """y = x · w with w in another file."""
    w = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 4], data_location=onnx.TensorProto.EXTERNAL)
    w.external_data.add(key="location", value=location)
    return save(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], weights=[w])
