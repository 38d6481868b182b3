"""One ONNX node two ways: through onnxruntime, and through the frontend and the graph's evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from cimc.frontend.importer import load
from cimc.ir.evaluate import evaluate
from cimc.ir.graph import Array, Graph
from cimc.ops import Arithmetic
from cimc.passes.fold import Fold
from tests.frontend.onnx_models import close

MS = "com.microsoft"
_NIBBLES = {np.dtype(ml_dtypes.int4): TensorProto.INT4, np.dtype(ml_dtypes.uint4): TensorProto.UINT4}


def tensor(name: str, array: Array) -> onnx.TensorProto:
    """An initializer; 4-bit types packed."""
    kind = _NIBBLES.get(array.dtype)
    if kind is None:
        return onnx.numpy_helper.from_array(array, name)
    return helper.make_tensor(name, kind, array.shape, array.astype(np.int8).reshape(-1).tolist())


def node_model(
    op: str,
    inputs: Sequence[Array | None],
    *,
    fixed: Sequence[int] = (),
    outputs: Sequence[int | None] = (TensorProto.FLOAT,),
    domain: str = MS,
    opset: int = 21,
    attrs: Mapping[str, object] | None = None,
) -> onnx.ModelProto:
    """The node alone. ``fixed``: inputs that are initializers; ``outputs``: element types, None for one left out."""
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    ends = ["" if t is None else f"y{i}" for i, t in enumerate(outputs)]
    node = helper.make_node(op, names, ends, name="it", domain=domain, **(attrs or {}))
    given = [
        helper.make_tensor_value_info(f"x{i}", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for i, x in enumerate(inputs)
        if x is not None and i not in fixed
    ]
    results = [helper.make_tensor_value_info(e, t, None) for e, t in zip(ends, outputs, strict=True) if t is not None]
    constants = [tensor(f"x{i}", x) for i, x in enumerate(inputs) if x is not None and i in fixed]
    graph = helper.make_graph([node], "one", given, results, constants)
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid(MS, 1)], ir_version=10
    )


def by_onnxruntime(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def by_cimc(model: onnx.ModelProto, feeds: Mapping[str, Array], folder: Path) -> tuple[Graph, dict[str, Array]]:
    """The folded graph and its outputs by name, in float numerics."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    imported = load(path, inputs=feeds)
    graph, constants = Fold().run(imported.graph, imported.constants)
    values = evaluate(graph, constants, feeds, Arithmetic())
    return graph, {n: values[v] for n, v in zip(graph.output_names, graph.outputs, strict=True)}


def ops(graph: Graph) -> list[str]:
    """Op names in order."""
    return [n.op for n in graph.nodes]


def both(
    folder: Path,
    op: str,
    inputs: Sequence[Array | None],
    *,
    fixed: Sequence[int] = (),
    outputs: Sequence[int | None] = (TensorProto.FLOAT,),
    domain: str = MS,
    opset: int = 21,
    attrs: Mapping[str, object] | None = None,
    atol: float = 2e-6,
    rtol: float = 2e-6,
) -> Graph:
    """Assert that both ways agree (``atol`` 0 and ``rtol`` 0: bit for bit), and that nothing is left to the host."""
    model = node_model(op, inputs, fixed=fixed, outputs=outputs, domain=domain, opset=opset, attrs=attrs)
    feeds = {f"x{i}": x for i, x in enumerate(inputs) if x is not None and i not in fixed}
    expected = by_onnxruntime(model, feeds)
    graph, found = by_cimc(model, feeds, folder)
    assert "host" not in ops(graph)
    assert found.keys() == expected.keys()
    for name, y in expected.items():
        assert found[name].dtype == y.dtype
        assert found[name].shape == y.shape
        close(found[name], y, rtol, atol, name)
    return graph
