"""Small ONNX models for tests, and the comparison with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from cimc.frontend.importer import Imported, load
from cimc.ir.evaluate import evaluate
from cimc.ir.levels import check
from cimc.ops import Arithmetic

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
F32 = np.dtype(np.float32)
Shape = Sequence[int | str | None] | None


def value(name: str, shape: Shape, element: int = FLOAT) -> onnx.ValueInfoProto:
    """A typed graph input or output."""
    return helper.make_tensor_value_info(name, element, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str | onnx.ValueInfoProto],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """A model that onnxruntime loads too."""
    ends = [onnx.ValueInfoProto(name=o) if isinstance(o, str) else o for o in outputs]
    tensors = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "g", list(inputs), ends, tensors)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, v) for d, v in (domains or {"com.microsoft": 1}).items()]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def save(folder: Path, proto: onnx.ModelProto, name: str = "m.onnx") -> Path:
    """The model as a file."""
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def reference(path: Path, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime gives, node by node as written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def run(imported: Imported, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The imported graph's outputs, the graph checked against its level's law."""
    check(imported.graph, imported.constants)
    given = {n: feeds[n] for n in imported.graph.inputs}
    found = evaluate(imported.graph, imported.constants, given, Arithmetic())
    return [found[o] for o in imported.graph.outputs]


def agree(
    folder: Path, proto: onnx.ModelProto, feeds: Mapping[str, np.ndarray], *, rtol: float = 1e-5, atol: float = 1e-6
) -> Imported:
    """Import for the shapes of ``feeds`` and compare with onnxruntime on the same file."""
    path = save(folder, proto)
    imported = load(path, inputs=feeds)
    for got, want in zip(run(imported, feeds), reference(path, feeds), strict=True):
        assert got.shape == want.shape
        assert got.dtype == want.dtype
        close(got, want, rtol, atol)
    return imported


def close(got: np.ndarray, want: np.ndarray, rtol: float, atol: float, name: str = "") -> None:
    """Assert that values agree. ``atol`` is in parts of the largest of ``want`` if that is above 1: the processor's kernels
    decide in which order terms of that size are added, and so what is left where they cancel."""
    if not np.issubdtype(want.dtype, np.floating):
        np.testing.assert_allclose(got, want, rtol=rtol, atol=atol, err_msg=name)
        return
    got, want = got.astype(np.float64), want.astype(np.float64)
    largest = np.abs(want[np.isfinite(want)]).max(initial=1.0)
    np.testing.assert_allclose(got, want, rtol=rtol, atol=atol * largest, err_msg=name)


def ops(imported: Imported) -> list[str]:
    """Op names in order."""
    return [n.op for n in imported.graph.nodes]
