"""The reference of ``check``: the same model and inputs through onnxruntime."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc import errors

Array = NDArray[np.generic]


def session(model: Path | bytes, *, optimize: bool, threads: int = 0) -> Any:
    """An onnxruntime session on the CPU. ``optimize`` off runs the graph literally, node by node."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def run(model: Path, inputs: Mapping[str, Array], outputs: Sequence[str], *, optimize: bool) -> dict[str, Array]:
    """Outputs by name. Raises REFERENCE if onnxruntime refuses the model or the inputs."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    try:
        made = session(model, optimize=optimize)
        known = {i.name for i in made.get_inputs()}
        found = made.run(list(outputs), {k: v for k, v in inputs.items() if k in known})
    # onnxruntime raises classes of its own that share no base but Exception's direct children.
    except (RuntimeError, ValueError, *_failures()) as e:
        raise errors.REFERENCE(model=model, why=str(e).strip().splitlines()[0]) from None
    return dict(zip(outputs, [np.asarray(v) for v in found], strict=True))


def _failures() -> tuple[type[Exception], ...]:
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")  # ships no types
    return tuple(kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
