"""Host calls: single-node ONNX models that the host controller runs, through onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.isa.program import Weights

if TYPE_CHECKING:
    import onnxruntime as ort

Array = NDArray[np.generic]
T = TypeVar("T")
MAX_MODEL_BYTES = 256 << 20  # one node and what its attributes hold; weights come in as inputs
THREADS = 2


class HostCalls:
    """The host calls of a program: sessions made on first use and kept."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._sessions: dict[str, ort.InferenceSession] = {}

    def run(self, call: str, inputs: Sequence[Array]) -> list[Array]:
        """Run the node under key ``call`` on its inputs in order. Raises HOST_CALL, WEIGHT_MISSING."""
        session = self._session(call)
        names = [i.name for i in session.get_inputs()]
        if len(names) != len(inputs):
            raise errors.HOST_CALL(
                call=call, why=f"it takes {len(names)} inputs, {len(inputs)} are given", fix="fix the program"
            )
        feeds = dict(zip(names, inputs, strict=True))
        outputs = _guarded(call, lambda: session.run(None, feeds))
        return [np.asarray(o) for o in outputs]

    def _session(self, call: str) -> ort.InferenceSession:
        if call in self._sessions:
            return self._sessions[call]
        if call not in self._weights:
            raise errors.WEIGHT_MISSING(key=call, what=f"host call '{call}'")
        data = self._weights[call]
        if data.dtype != np.uint8 or data.ndim != 1 or data.size > MAX_MODEL_BYTES:
            want = f"at most {MAX_MODEL_BYTES} bytes of a serialized ONNX model (uint8)"
            raise errors.WEIGHT_MISMATCH(key=call, got=f"{data.dtype} of {data.size}", what="a host call", want=want)
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = THREADS
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        payload = data.tobytes()
        session = _guarded(call, lambda: ort.InferenceSession(payload, options, providers=["CPUExecutionProvider"]))
        self._sessions[call] = session
        return session


def _guarded(call: str, action: Callable[[], T]) -> T:
    """What ``action`` returns; onnxruntime's own errors become one message. Its exception classes have no common
    base of their own, so they are collected from the module that defines them."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    classes = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    try:
        return action()
    except (*classes, ValueError, RuntimeError) as error:
        why = str(error).strip().splitlines()[0][:300]
        fix = "the node must be valid ONNX for the inputs the program gives it"
        raise errors.HOST_CALL(call=call, why=why, fix=fix) from error
