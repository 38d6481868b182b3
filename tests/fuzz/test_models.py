"""Damaged and lying models: a clear message (exit code 2 or 3), or a result that is right. Never a traceback (70), a
signal, a hang or memory beyond the worker's limit.

The seed is fixed; ``--slow`` tries many more. A model that is damaged and still means something is compared with
onnxruntime like any other: exit code 1 would be a wrong answer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from models import small

CLEAR = (0, 2, 3)
COMMAND = ["check", "--no-timing", "-q"]
HUGE = 1 << 40


class Worker:
    """Feeds models to ``tests/fuzz/worker.py``."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "model.onnx"
        worker = [sys.executable, str(Path(__file__).with_name("worker.py")), *COMMAND]
        self.process = subprocess.Popen(worker, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def check(self, data: bytes) -> int:
        """The exit code, or minus the signal, of checking a model of these bytes; asserts that it is a clear end."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.path.write_bytes(data)
        self.process.stdin.write(f"{self.path}\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        told = Path(f"{self.path}.log").read_text(encoding="utf-8", errors="replace")
        assert "Traceback" not in told, told
        assert code in CLEAR, f"exit code {code}\n{told}"
        assert code == 0 or "error[" in told, told
        return code

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """One worker for all trials."""
    made = Worker(tmp_path_factory.mktemp("fuzz"))
    yield made
    made.close()


def models() -> list[onnx.ModelProto]:
    """Small ones of several kinds."""
    return [
        small.bert(layers=1, hidden=8, heads=2, ffn=8, vocab=10, positions=8),
        small.gpt2(layers=1, hidden=8, heads=2, ffn=8, vocab=10, positions=8),
        small.llama(layers=1, hidden=8, heads=2, kv_heads=1, ffn=8, vocab=10),
        small.cnn(),
    ]


MODELS = models()
BYTES = [m.SerializeToString(deterministic=True) for m in MODELS]


def drawn(examples: int) -> settings:
    """Settings for that many examples, always the same ones."""
    return settings(
        max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A model with bytes changed, or cut short, or both."""
    data = bytearray(draw(st.sampled_from(BYTES)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] ^= 1 << draw(st.integers(0, 7))
    if draw(st.integers(0, 4)) == 0:
        del data[draw(st.integers(0, len(data))) :]
    return bytes(data)


@st.composite
def lying(draw: st.DrawFn) -> bytes:
    """A well-formed model in which shapes, types, names or attributes are wrong."""
    model = onnx.ModelProto()
    model.CopyFrom(draw(st.sampled_from(MODELS)))
    graph = model.graph
    for _ in range(draw(st.integers(1, 3))):
        match draw(st.sampled_from(("initializer", "kind", "input", "attribute", "name", "op", "value", "output"))):
            case "initializer":
                tensor = draw(st.sampled_from(graph.initializer))
                if tensor.dims:
                    tensor.dims[draw(st.integers(0, len(tensor.dims) - 1))] = draw(sizes)
            case "kind":
                draw(st.sampled_from(graph.initializer)).data_type = draw(st.integers(0, 25))
            case "input":
                dims = draw(st.sampled_from(graph.input)).type.tensor_type.shape.dim
                if dims:
                    dims[draw(st.integers(0, len(dims) - 1))].dim_value = draw(sizes)
            case "attribute":
                change_attribute(draw, graph)
            case "name":
                node = draw(st.sampled_from([n for n in graph.node if n.input]))
                other = draw(st.sampled_from([o for n in graph.node for o in n.output]))
                node.input[draw(st.integers(0, len(node.input) - 1))] = other
            case "op":
                draw(st.sampled_from(graph.node)).op_type = draw(st.sampled_from([n.op_type for n in graph.node]))
            case "value":
                constants = [n for n in graph.node if n.op_type == "Constant"]
                if constants:
                    change_constant(draw, draw(st.sampled_from(constants)).attribute[0].t)
            case _:
                graph.output[0].name = draw(st.sampled_from([o for n in graph.node for o in n.output]))
    return model.SerializeToString(deterministic=True)


sizes = st.sampled_from((0, 1, 2, 3, 5, 7, 1000, 1 << 31, HUGE, (1 << 62) + 1, -1, -(1 << 63)))


def change_attribute(draw: st.DrawFn, graph: onnx.GraphProto) -> None:
    """Give a node's integer attribute another value."""
    found = [
        a for n in graph.node for a in n.attribute if a.type in (onnx.AttributeProto.INT, onnx.AttributeProto.INTS)
    ]
    if not found:
        return
    attribute = draw(st.sampled_from(found))
    if attribute.type == onnx.AttributeProto.INT:
        attribute.i = draw(sizes)
    elif attribute.ints:
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = draw(sizes)


def change_constant(draw: st.DrawFn, tensor: onnx.TensorProto) -> None:
    """Give an integer constant another value: shapes, axes, indices."""
    if tensor.data_type != TensorProto.INT64 or len(tensor.raw_data) < 8:
        return
    values = np.frombuffer(tensor.raw_data, np.int64).copy()
    values[draw(st.integers(0, len(values) - 1))] = draw(sizes)
    tensor.raw_data = values.tobytes()


def test_the_models_themselves_pass(worker: Worker) -> None:
    """The oracle works: undamaged models are right."""
    assert [worker.check(data) for data in BYTES] == [0] * len(BYTES)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@drawn(60)
@given(data=damaged())
def test_damaged_models(worker: Worker, data: bytes) -> None:
    """Bits flipped, files cut short."""
    worker.check(data)


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@drawn(60)
@given(data=lying())
def test_lying_models(worker: Worker, data: bytes) -> None:
    """Readable models that contradict themselves."""
    worker.check(data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of a failing model: it would hide the failure
@drawn(1500)
@given(data=st.one_of(damaged(), lying()))
def test_many_models(worker: Worker, data: bytes) -> None:
    """Both kinds, many more."""
    worker.check(data)
