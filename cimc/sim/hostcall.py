"""Host calls: single-node ONNX models that the host controller runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.isa.hostnode import HostNode, Refused
from cimc.isa.program import Weights

Array = NDArray[np.generic]
MAX_MODEL_BYTES = 256 << 20  # one node and what its attributes hold; weights come in as inputs
THREADS = 2  # of onnxruntime: so many on every computer, so that sums have one order
FIX = "the node must be valid ONNX for the inputs the program gives it"


class HostCalls:
    """The host calls of a program: made ready on first use and kept."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._nodes: dict[str, HostNode] = {}

    def run(self, call: str, inputs: Sequence[Array]) -> list[Array]:
        """Run the node under key ``call`` on its inputs in order. Raises HOST_CALL, WEIGHT_MISSING."""
        try:
            node = self._node(call)
            if len(node.names) == len(inputs):
                return node.run(inputs)
        except Refused as e:
            raise errors.HOST_CALL(call=call, why=e, fix=FIX) from e
        why = f"it takes {len(node.names)} inputs, {len(inputs)} are given"
        raise errors.HOST_CALL(call=call, why=why, fix="fix the program")

    def _node(self, call: str) -> HostNode:
        if call in self._nodes:
            return self._nodes[call]
        if call not in self._weights:
            raise errors.WEIGHT_MISSING(key=call, what=f"host call '{call}'")
        data = self._weights[call]
        if data.dtype != np.uint8 or data.ndim != 1 or data.size > MAX_MODEL_BYTES:
            want = f"at most {MAX_MODEL_BYTES} bytes of a serialized ONNX model (uint8)"
            raise errors.WEIGHT_MISMATCH(key=call, got=f"{data.dtype} of {data.size}", what="a host call", want=want)
        self._nodes[call] = HostNode(data.tobytes(), THREADS)
        return self._nodes[call]
