"""Text fields of a protobuf that are not text: Python's protobuf hands such a field over as bytes, unasked."""

from __future__ import annotations

from typing import Any

import onnx
from google.protobuf.descriptor import FieldDescriptor


def bad_text(message: onnx.ModelProto) -> str:
    """Where a text field holds bytes that are no UTF-8 (``NodeProto.op_type``), or nothing. Skips tensor data."""
    stack: list[Any] = [message]
    while stack:
        part = stack.pop()
        if isinstance(part, onnx.TensorProto):
            # Listing the fields of a tensor would copy its data.
            if isinstance(part.name, bytes):
                return "TensorProto.name"
            stack.extend(part.external_data)
            continue
        for field, value in part.ListFields():
            values = value if field.is_repeated else (value,)
            if field.type == FieldDescriptor.TYPE_STRING and any(isinstance(v, bytes) for v in values):
                return f"{type(part).__name__}.{field.name}"
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                stack.extend(values)
    return ""
