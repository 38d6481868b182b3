"""What a ``host`` instruction's key holds: a serialized ONNX model of one node; and how the host controller runs it, with
onnxruntime or, where the model says so, with the reference implementation of the ONNX package.

Neither package has types; both are imported when first needed.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
T = TypeVar("T")

STANDARD = "onnx.reference"
"""The producer name of models that ONNX's reference implementation runs: nodes that onnxruntime has no kernel for, or
one that departs from the standard."""
STANDARD_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What the reference implementation, plain Python, raises for what it does not know or cannot take."""


class Refused(Exception):
    """The host cannot run a node, or not on these operands; the message is one line."""


class HostNode:
    """One node, ready to run. ``names``: its inputs; ``results``: name, element type and extents of its outputs, in
    onnxruntime's words, where that runs it. Raises Refused if there is no way to run it."""

    def __init__(self, model: bytes, threads: int = 0) -> None:
        import onnx

        try:
            self._model = onnx.load_model_from_string(model)
        except (ValueError, RuntimeError, _decode_error()) as e:
            raise Refused("it is no serialized ONNX model") from e
        self.names = tuple(i.name for i in self._model.graph.input)
        self.standard = self._model.producer_name == STANDARD
        self.results: tuple[tuple[str, str, tuple[int | str | None, ...]], ...] = ()
        self._run = self._reference() if self.standard else self._session(model, threads)

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Outputs for the inputs in order. Raises Refused."""
        given = dict(zip(self.names, inputs, strict=True))
        return self._run(given)

    def _session(self, model: bytes, threads: int) -> Callable[[dict[str, Array]], list[Array]]:
        onnxruntime: Any = importlib.import_module("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 4
        if threads:
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        quiet = onnxruntime.RunOptions()
        quiet.log_severity_level = 4
        faults = _runtime_faults()
        session: Any = _guarded(
            lambda: onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), faults
        )
        self.results = tuple((o.name, o.type, tuple(o.shape)) for o in session.get_outputs())
        return lambda given: _arrays(_guarded(lambda: session.run(None, given, quiet), faults))

    def _reference(self) -> Callable[[dict[str, Array]], list[Array]]:
        module: Any = importlib.import_module("onnx.reference")
        evaluator: Any = _guarded(lambda: module.ReferenceEvaluator(self._model), STANDARD_FAULTS)

        def run(given: dict[str, Array]) -> list[Array]:
            # Kernels give NaN and infinity in silence; NumPy warns, of the median of NaN beside errstate too.
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore", RuntimeWarning)
                outputs = _arrays(_guarded(lambda: evaluator.run(None, given), STANDARD_FAULTS))
            return [self._declared(i, y) for i, y in enumerate(outputs)]

        return run

    def _declared(self, index: int, value: Array) -> Array:
        """An output in the element type that the model declares: plain Python is free with those."""
        import onnx

        code = self._model.graph.output[index].type.tensor_type.elem_type
        return value.astype(onnx.helper.tensor_dtype_to_np_dtype(code), copy=False) if code else value


def _arrays(outputs: Sequence[object]) -> list[Array]:
    if any(isinstance(y, list | tuple) or y is None for y in outputs):
        raise Refused("an output is not a tensor")
    return [np.asarray(cast("Array", y)) for y in outputs]


def _guarded(action: Callable[[], T], faults: tuple[type[Exception], ...]) -> T:
    try:
        return action()
    except faults as e:
        raise Refused((str(e).strip().splitlines() or ["no reason given"])[0][:300]) from e


def _runtime_faults() -> tuple[type[Exception], ...]:
    """onnxruntime's own exceptions, which have no base of their own, and what its bindings raise."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    classes = [c for c in vars(state).values() if isinstance(c, type) and issubclass(c, Exception)]
    return (*classes, ValueError, RuntimeError)


def _decode_error() -> type[Exception]:
    module: Any = importlib.import_module("google.protobuf.message")
    return module.DecodeError
