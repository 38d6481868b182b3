"""Where a thing came from: carried by every IR node and every instruction, so that time, energy and error can be told
per layer of the user's model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """An ONNX node by name and op type. ``node`` is unique in its model; unnamed nodes get ``OpType_index``."""

    node: str
    op_type: str = ""

    def __str__(self) -> str:
        return self.node
