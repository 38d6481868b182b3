"""A small writer of ONNX graphs that names nodes and values as PyTorch's TorchScript exporter does.

A node in scope ``encoder/layer.0`` of type ``MatMul`` is called ``/encoder/layer.0/MatMul`` (then ``MatMul_1`` ...) and
its result ``/encoder/layer.0/MatMul_output_0``. Constants are ``Constant`` nodes, weights are initializers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

LOWEST_OPSET = 13
HIGHEST_OPSET = 21
EXTERNAL_DATA_BYTES = 1_500_000_000
"""Weights above this size go to a file beside the model: one protobuf message cannot exceed 2 GiB."""

PAGE_BYTES = 4096

Dim = int | str
Attribute = int | float | str | Sequence[int] | TensorProto


class GraphBuilder:
    """Collects nodes, weights, inputs and outputs; values are referred to by name."""

    def __init__(self, name: str, opset: int) -> None:
        if not LOWEST_OPSET <= opset <= HIGHEST_OPSET:
            raise ValueError(f"opset {opset} is not between {LOWEST_OPSET} and {HIGHEST_OPSET}")
        self.opset = opset
        self._scope: tuple[str, ...] = ()
        self._counts: Counter[str] = Counter()
        self._weights: set[str] = set()
        # The message is filled in place: protobuf copies what it is given, and weights may be gigabytes.
        opsets = [helper.make_opsetid("", opset)]
        self._model = onnx.ModelProto(
            ir_version=helper.find_min_ir_version_for(opsets),
            opset_import=opsets,
            producer_name="cimc.models",
            producer_version="1",
        )
        self._graph = self._model.graph
        self._graph.name = name

    @contextmanager
    def scope(self, *parts: str) -> Iterator[None]:
        """Nodes written inside carry these parts in their names."""
        outer = self._scope
        self._scope = (*outer, *parts)
        try:
            yield
        finally:
            self._scope = outer

    def input(self, name: str, dtype: int, shape: Sequence[Dim]) -> str:
        """Declare a graph input; a string dimension is symbolic."""
        self._graph.input.append(helper.make_tensor_value_info(name, dtype, list(shape)))
        return name

    def output(self, value: str, dtype: int, shape: Sequence[Dim]) -> None:
        """Declare a value that a node already wrote (see ``result``) a graph output."""
        self._graph.output.append(helper.make_tensor_value_info(value, dtype, list(shape)))

    def weight(self, name: str, array: NDArray[np.generic]) -> str:
        """Add an initializer, once: asking again for the same name shares it."""
        if name not in self._weights:
            self._weights.add(name)
            dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
            self._graph.initializer.add(name=name, dims=array.shape, data_type=dtype, raw_data=array.tobytes())
        return name

    def op(self, op_type: str, *inputs: str, result: str | None = None, **attributes: Attribute) -> str:
        """Add a node with one result and return the result's name."""
        return self._add(op_type, inputs, [result] if result else None, 1, attributes)[0]

    def ops(self, op_type: str, *inputs: str, results: int, **attributes: Attribute) -> list[str]:
        """Add a node with several results and return their names."""
        return self._add(op_type, inputs, None, results, attributes)

    def constant(self, value: NDArray[np.generic]) -> str:
        """Add a Constant node."""
        name = self._node_name("Constant")
        tensor = numpy_helper.from_array(np.asarray(value))
        self._graph.node.append(helper.make_node("Constant", [], [f"{name}_output_0"], name=name, value=tensor))
        return f"{name}_output_0"

    def scalar(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.array(value, dtype=np.float32))

    def integer(self, value: int) -> str:
        """An int64 scalar."""
        return self.constant(np.array(value, dtype=np.int64))

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def dim(self, value: str, axis: int) -> str:
        """The extent of one axis as an int64 scalar: Shape, then Gather."""
        return self.op("Gather", self.op("Shape", value), self.integer(axis), axis=0)

    def shape(self, *parts: Dim) -> str:
        """An int64 vector out of known extents and scalars such as ``dim`` gives: Unsqueeze, then Concat."""
        vectors = [self.integers(p) if isinstance(p, int) else self.unsqueeze(p, 0) for p in parts]
        return self.op("Concat", *vectors, axis=0)

    def reshape(self, value: str, *parts: Dim) -> str:
        """Reshape to extents of which some are computed."""
        if all(isinstance(p, int) for p in parts):
            return self.op("Reshape", value, self.integers(*(int(p) for p in parts)))
        return self.op("Reshape", value, self.shape(*parts))

    def unsqueeze(self, value: str, *axes: int) -> str:
        """Insert axes, one Unsqueeze each, as indexing with None exports."""
        for axis in axes:
            value = self.op("Unsqueeze", value, self.integers(axis))
        return value

    def slice(self, value: str, axis: int, start: str, end: str) -> str:
        """``value[start:end]`` along one axis; bounds are int64 vectors of one element."""
        return self.op("Slice", value, start, end, self.integers(axis), self.integers(1))

    def range(self, end: str) -> str:
        """0, 1 ... end - 1, from an int64 scalar."""
        return self.op("Range", self.integer(0), end, self.integer(1))

    def mean(self, value: str, axis: int) -> str:
        """Mean over one axis, which is kept; its axes were an attribute until opset 18."""
        if self.opset < 18:
            return self.op("ReduceMean", value, axes=[axis], keepdims=1)
        return self.op("ReduceMean", value, self.integers(axis), keepdims=1)

    def norm2(self, value: str, axis: int) -> str:
        """Euclidean length over one axis, which is kept."""
        if self.opset < 18:
            return self.op("ReduceL2", value, axes=[axis], keepdims=1)
        return self.op("ReduceL2", value, self.integers(axis), keepdims=1)

    def model(self) -> onnx.ModelProto:
        """The finished model, once the outputs are declared. The same calls give the same bytes."""
        return self._model

    def _add(
        self,
        op_type: str,
        inputs: Sequence[str],
        results: list[str] | None,
        count: int,
        attributes: dict[str, Attribute],
    ) -> list[str]:
        name = self._node_name(op_type)
        outputs = results or [f"{name}_output_{i}" for i in range(count)]
        self._graph.node.append(helper.make_node(op_type, list(inputs), outputs, name=name, **attributes))
        return outputs

    def _node_name(self, op_type: str) -> str:
        base = "/".join(("", *self._scope, op_type))
        seen = self._counts[base]
        self._counts[base] += 1
        return f"{base}_{seen}" if seen else base


def save(model: onnx.ModelProto, path: Path, external_above: int = EXTERNAL_DATA_BYTES) -> None:
    """Write ``path``; if its weights take more than ``external_above`` bytes they go to ``path`` + ``.data``.

    In that case they also leave ``model``, which refers to the file from then on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) > external_above:
        _move_weights(model, path.with_name(path.name + ".data"))
    path.write_bytes(model.SerializeToString(deterministic=True))


def _move_weights(model: onnx.ModelProto, path: Path) -> None:
    """Write each weight of a page or more at the start of a page of its own, so that the file can be mapped."""
    with path.open("wb") as stream:
        for tensor in model.graph.initializer:
            size = len(tensor.raw_data)
            if size < PAGE_BYTES:
                continue
            stream.write(bytes(-stream.tell() % PAGE_BYTES))
            place = {"location": path.name, "offset": str(stream.tell()), "length": str(size)}
            stream.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=v) for k, v in place.items())
