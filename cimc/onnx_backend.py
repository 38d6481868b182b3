"""cimc as an ONNX backend (``onnx.backend.base.Backend``), for the official test suite and for tools that take one.

A model is compiled for the shapes of the inputs it is run with, and its tile programs are run.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.backend.base import Backend, BackendRep, namedtupledict

from cimc.compiler import compile_model
from cimc.frontend import groups
from cimc.sim.values import run_values

Array = NDArray[np.generic]


Given = Array | Sequence[Array] | None
"""A tensor, a sequence of tensors, or an absent optional."""


def compute(path: Path, inputs: Mapping[str, Given]) -> dict[str, Array]:
    """The model's outputs by name for these inputs: compiled to tile programs for the default hardware and run in ``float``
    numerics. Element i of sequence ``y`` is output ``y.i``. Raises CimcError if the model is not supported."""
    arrays = dict(_tensors(inputs))
    compiled = compile_model(path, inputs=arrays, specialize=True)
    assert compiled is not None
    given = {name: value for name, value in arrays.items() if name not in compiled.fixed}
    outputs, _ = run_values(compiled.program, compiled.weights, given, compiled.hardware.spec)
    return outputs


def _tensors(inputs: Mapping[str, Given]) -> Iterator[tuple[str, Array]]:
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            yield name, value
        elif value is not None:
            yield from ((groups.element_name(name, i), np.asarray(v)) for i, v in enumerate(value))


class CimcRep(BackendRep):
    """A model ready to run; shapes are bound by the inputs of each run."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        initializers = {t.name for t in model.graph.initializer}
        self._inputs = tuple(i.name for i in model.graph.input if i.name not in initializers)
        self._outputs = tuple(o.name for o in model.graph.output)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Inputs as a list in the model's order, a mapping by name, or one array; outputs as a named tuple. Raises
        CimcError."""
        given = self._named(inputs)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            path.write_bytes(self._model.SerializeToString())
            found = compute(path, given)
        return namedtupledict("Outputs", self._outputs)(*groups.gathered(self._outputs, found).values())

    def _named(self, inputs: Any) -> dict[str, Given]:
        if isinstance(inputs, Mapping):
            return {name: _given(v) for name, v in cast("Mapping[str, Any]", inputs).items()}
        return {name: _given(v) for name, v in zip(self._inputs, _listed(inputs), strict=True)}


def _given(value: Any) -> Given:
    """A tensor however it is written; a list of arrays is a sequence."""
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(v, np.ndarray) for v in cast("list[object]", value)):
        return cast("list[Array]", value)
    return np.asarray(value)


def _listed(inputs: Any) -> list[Any]:
    """The inputs of a call in order: a mapping's values, a list's elements, or one array."""
    if isinstance(inputs, Mapping):
        return list(cast("Mapping[str, Any]", inputs).values())
    return list(cast("Sequence[Any]", inputs)) if isinstance(inputs, list | tuple) else [np.asarray(inputs)]


class CimcBackend(Backend):
    """The backend's entry points."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether the device is; what a model needs is known when it is run with shapes."""
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> CimcRep:
        """A model ready to run. Raises ValueError for a device that is not simulated."""
        if not cls.supports_device(device):
            raise ValueError(f"device {device} is not supported, CPU is")
        return CimcRep(model)

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """Prepare and run once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype[Any], tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """One node, as a model of its own."""
        present = [n for n in node.input if n]
        arrays: list[Array] = [np.asarray(v) for v in _listed(inputs)]
        code = onnx.helper.np_dtype_to_tensor_dtype
        infos = [
            onnx.helper.make_tensor_value_info(n, code(a.dtype), a.shape) for n, a in zip(present, arrays, strict=True)
        ]
        outputs = [onnx.ValueInfoProto(name=o) for o in node.output if o]
        graph = onnx.helper.make_graph([node], node.op_type, infos, outputs)
        version = int(kwargs.get("opset_version", min(onnx.defs.onnx_opset_version(), 24)))
        imports = [onnx.helper.make_opsetid("", version)]
        if node.domain:
            imports.append(onnx.helper.make_opsetid(node.domain, 1))
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=imports), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """``CPU``: the chip is simulated on it."""
        return device.split(":")[0] == "CPU"


prepare = CimcBackend.prepare
run_model = CimcBackend.run_model
run_node = CimcBackend.run_node
supports_device = CimcBackend.supports_device
is_compatible = CimcBackend.is_compatible
