"""onnxruntime, which ships no types: sessions, and the exceptions by which it refuses. Imported when first needed."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from cimc.frontend.record import Array

SKIPPED = ("MatmulTransposeFusion",)
"""Optimisations left out. In this one onnxruntime 1.32 ends the process by a segmentation fault where a float16 model multiplies
what it transposed over batches, for which no fused kernel exists on a processor."""


def refusals() -> tuple[type[Exception], ...]:
    """onnxruntime's exceptions; they have no base of their own."""
    state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NotImplemented,
        state.RuntimeException,
        state.EPFail,
    )


@functools.cache
def kernels(domain: str) -> frozenset[str]:
    """The operators of a domain that onnxruntime runs on a CPU."""
    state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    found = state.get_all_opkernel_def()
    return frozenset(str(k.op_name) for k in found if k.domain == domain and k.provider == "CPUExecutionProvider")


@functools.cache
def channel_block() -> int:
    """Channels in a block of the order that onnxruntime's optimised convolutions use on this processor; 0: there is none."""
    node = onnx.helper.make_node("ReorderInput", ["x"], ["y"], domain="com.microsoft.nchwc")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 4, 1, 1))
    graph = onnx.helper.make_graph([node], "block", [x], [onnx.ValueInfoProto(name="y")])
    imports = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft.nchwc", 1)]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)
    try:
        size = session(model.SerializeToString()).get_outputs()[0].shape[1]
    except refusals():
        return 0
    return size if isinstance(size, int) and size > 1 else 0


def session(data: bytes | str, *, optimize: bool = False, entries: Mapping[str, str] | None = None) -> Any:
    """A session for a serialized model, or the path of one. Raises one of the refusals."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimize else levels.ORT_DISABLE_ALL
    for key, value in (entries or {}).items():
        if isinstance(data, bytes):
            options.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(data, options, ["CPUExecutionProvider"], disabled_optimizers=SKIPPED)


def run(data: bytes, inputs: Mapping[str, Array]) -> Sequence[object]:
    """A serialized model's outputs, in order. Raises one of the refusals."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    found: Sequence[object] = session(data).run(None, dict(inputs), options)
    return found


_FED = frozenset(
    np.dtype(t)
    for t in (
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e4m3fnuz,
        ml_dtypes.float8_e5m2,
        ml_dtypes.float8_e5m2fnuz,
    )
)


def fed(array: Array) -> Any:
    """An array as a session takes it: of types that NumPy has not, the bytes and ONNX's number of the type."""
    if array.dtype not in _FED:
        return array
    onnxruntime: Any = importlib.import_module("onnxruntime")
    code = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
    data = np.ascontiguousarray(array).view(f"u{array.itemsize}").reshape(array.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(data, code)


def read(array: Array, kind: str) -> Array:
    """What a session gives for an output of this type: the one kind of float8 it gives at all comes as bytes."""
    return array.view(ml_dtypes.float8_e4m3fn) if kind == "tensor(float8e4m3fn)" and array.dtype == np.uint8 else array


def first_line(error: BaseException) -> str:
    """What an exception says, cut to a line."""
    return (str(error).strip().splitlines() or ["no reason given"])[0][:300]
