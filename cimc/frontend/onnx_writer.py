"""Records → a serialized ONNX model of one node: what a host call carries, and what type inference is asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cimc.frontend.builder import Unsupported
from cimc.frontend.record import Array, AttrValue, OnnxGraph, OnnxNode, TensorType, Unreadable

IR_VERSION = 10
"""Old enough for every onnxruntime in use, new enough for opset 24."""

NamedTypes = Sequence[tuple[str, tuple[np.dtype[np.generic], tuple[int, ...]]]]


def node_proto(node: OnnxNode) -> onnx.NodeProto:
    """A node as protobuf. Raises Unsupported if an attribute could not be read."""
    proto = helper.make_node(node.op_type, list(node.inputs), list(node.outputs), node.name, domain=node.domain)
    for name, value in node.attributes.items():
        attribute = _attribute(node, name, value)
        if attribute is not None:
            proto.attribute.append(attribute)
    return proto


def _attribute(node: OnnxNode, name: str, value: AttrValue) -> onnx.AttributeProto | None:
    if isinstance(value, Unreadable):
        raise Unsupported(value.reason)
    if isinstance(value, OnnxGraph):
        return helper.make_attribute(name, _graph(value))
    if isinstance(value, np.ndarray):
        return helper.make_attribute(name, numpy_helper.from_array(np.asarray(value, order="C"), name))
    if value == ():
        return None
    return helper.make_attribute(name, value)


def _value_info(name: str, kind: TensorType) -> onnx.ValueInfoProto:
    if isinstance(kind.dtype, Unreadable):
        return onnx.ValueInfoProto(name=name)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(kind.dtype), kind.dims)


def _tensor(name: str, array: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, order="C"), name)


def _graph(graph: OnnxGraph) -> onnx.GraphProto:
    initializers: list[onnx.TensorProto] = []
    for name, array in graph.initializers.items():
        if isinstance(array, Unreadable):
            raise Unsupported(array.reason)
        initializers.append(_tensor(name, array))
    outputs = [_value_info(o, graph.declared.get(o, TensorType(Unreadable(""), None))) for o in graph.outputs]
    inputs = [_value_info(n, k) for n, k in graph.inputs]
    return helper.make_graph([node_proto(n) for n in graph.nodes], graph.name or "body", inputs, outputs, initializers)


def node_model(
    node: OnnxNode, inputs: NamedTypes, constants: Mapping[str, Array], opsets: Mapping[str, int]
) -> onnx.ModelProto:
    """A model of this node alone: ``inputs`` are its run-time operands (and those its subgraphs capture), ``constants``
    its known ones. Output types are not filled in."""
    infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(d), s) for n, (d, s) in inputs]
    outputs = [onnx.ValueInfoProto(name=o) for o in node.outputs if o]
    initializers = [_tensor(n, a) for n, a in constants.items()]
    graph = helper.make_graph([node_proto(node)], "host", infos, outputs, initializers)
    imports = [helper.make_opsetid(d, v) for d, v in sorted(opsets.items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)
