"""Functions: those of the model, and those by which the ONNX standard defines an op. Both are inlined.

``onnx.defs`` schemas are typed Any: the package's stubs lack the function accessors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import onnx

from cimc.frontend import onnx_writer
from cimc.frontend.builder import Value
from cimc.frontend.call import Operand
from cimc.frontend.host import INFERENCE_ERRORS
from cimc.frontend.onnx_reader import read_function
from cimc.frontend.record import AttrRef, AttrValue, OnnxFunction, OnnxGraph, OnnxNode


def bind(node: OnnxNode, values: Mapping[str, AttrValue]) -> OnnxNode:
    """The node with references to the function's attributes replaced by the caller's values; an attribute that the
    caller does not give is left out."""
    bound: dict[str, AttrValue] = {}
    for name, value in node.attributes.items():
        if isinstance(value, AttrRef):
            if value.name in values:
                bound[name] = values[value.name]
        elif isinstance(value, OnnxGraph):
            bound[name] = replace(value, nodes=tuple(bind(n, values) for n in value.nodes))
        else:
            bound[name] = value
    return replace(node, attributes=bound)


def arguments(function: OnnxFunction, node: OnnxNode) -> dict[str, AttrValue]:
    """The values of a function's attributes for one call."""
    values = dict(function.defaults)
    values.update({k: v for k, v in node.attributes.items() if k in function.attributes or k in function.defaults})
    return values


def of_standard(node: OnnxNode, inputs: tuple[Operand, ...], opsets: Mapping[str, int]) -> OnnxFunction | None:
    """The body by which the standard defines this op, if it is defined by one."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        body: onnx.FunctionProto | None = schema.function_body
    elif schema.has_context_dependent_function:
        body = _dependent(schema, node, inputs, opsets)
    else:
        return None
    if body is None or not body.node:
        return None
    function = read_function(body)
    defaults = {n: onnx.helper.get_attribute_value(a.default_value) for n, a in schema.attributes.items() if _given(a)}
    texts = {n: v.decode("utf-8") if isinstance(v, bytes) else v for n, v in defaults.items()}
    names = tuple(schema.attributes)
    return replace(function, opsets={**opsets, **function.opsets}, defaults=texts, attributes=names)


def _given(attribute: Any) -> bool:
    """Whether the standard has a default for the attribute, of a plain kind."""
    kinds = (onnx.AttributeProto.INT, onnx.AttributeProto.FLOAT, onnx.AttributeProto.STRING)
    return attribute.default_value is not None and attribute.default_value.type in kinds


def _type(value: Value, shape: tuple[int, ...] | None) -> onnx.TypeProto:
    return onnx.helper.make_tensor_type_proto(onnx.helper.np_dtype_to_tensor_dtype(value.dtype), shape)


def _dependent(
    schema: Any, node: OnnxNode, inputs: tuple[Operand, ...], opsets: Mapping[str, int]
) -> onnx.FunctionProto | None:
    types: list[bytes] = []
    for value in inputs:
        kind = onnx.TypeProto()
        if isinstance(value, Value):
            kind = _type(value, value.shape)
        elif value:
            kind = onnx.helper.make_sequence_type_proto(_type(value[0], None))
        types.append(kind.SerializeToString())
    proto = onnx_writer.node_proto(node).SerializeToString()
    try:
        version = opsets.get(node.domain, 1)
        versions: list[int] = [v for v in schema.context_dependent_function_opset_versions if v <= version]
        if not versions:
            return None
        data: bytes = schema.get_context_dependent_function_with_opset_version(versions[-1], proto, types)
    except INFERENCE_ERRORS:
        return None
    body = onnx.FunctionProto.FromString(data)
    if not body.opset_import:
        body.opset_import.append(onnx.helper.make_opsetid("", version))
    return body
