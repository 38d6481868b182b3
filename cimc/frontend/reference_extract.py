"""Cutting a part out of a model file: some of its nodes as a model of their own, with the values they read as inputs."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import external_data_helper, helper, numpy_helper

from cimc import errors
from cimc.frontend import onnx_reader
from cimc.frontend.builder import Unsupported, element_of
from cimc.frontend.dims import SEQUENCE, Dims
from cimc.frontend.host import RANDOM
from cimc.frontend.record import Array, Unreadable
from cimc.frontend.reference_values import reads
from cimc.ir.graph import Type

MAX_INLINE = 1_500_000_000
"""Bytes of weights that a cut-out model may hold: they stand in the file itself, which protobuf limits to 2 GiB."""


@dataclass(frozen=True)
class Part:
    """Nodes of a model by index, in order, and the values that leave them."""

    nodes: tuple[int, ...]
    outputs: tuple[str, ...]


class Extractor:
    """Cuts parts out of one model. Nodes that depend on no input (constants and what is computed from them) belong to
    every part that reads them; the others are ``nodes``, in an order in which they can run."""

    def __init__(self, path: Path) -> None:
        """Raises CimcError if the file is no model that cimc can read."""
        model = onnx_reader.read(path)
        self.path = model.path
        self.proto = onnx.ModelProto.FromString(model.path.read_bytes())
        self._graph = self.proto.graph
        self._initializers = {t.name: t for t in self._graph.initializer}
        self._inputs = {i.name for i in self._graph.input}
        place = {o: i for i, n in enumerate(self._graph.node) for o in n.output if o}
        self._producer = place
        order = [place[next(o for o in n.outputs if o)] for n in model.graph.nodes if any(n.outputs)]
        self._order = {node: at for at, node in enumerate(order)}
        self._reads = [tuple(dict.fromkeys(reads(n))) for n in self._graph.node]
        self._static = self._static_nodes(order)
        self.nodes = tuple(i for i in order if i not in self._static)
        self.outputs = tuple(o.name for o in self._graph.output)
        self._open = tuple((n, t) for n, t in model.graph.inputs if n not in model.graph.initializers)

    def _static_nodes(self, order: Sequence[int]) -> set[int]:
        found: set[int] = set()
        for index in order:
            if self._graph.node[index].op_type in RANDOM:
                continue
            if all(self._known(v, found) for v in self._reads[index]):
                found.add(index)
        return found

    def _known(self, value: str, static: Collection[int]) -> bool:
        if value in self._inputs:
            return False
        return value in self._initializers or self._producer.get(value, -1) in static

    def input_types(self, dims: Mapping[str, int]) -> dict[str, Type]:
        """Types of the model's inputs, symbolic dims bound or at their defaults. Raises CimcError."""
        bound = Dims.bind(self.path, self._open, dims, None, SEQUENCE)
        found: dict[str, Type] = {}
        for name, kind in bound.inputs:
            if isinstance(kind.dtype, Unreadable) or kind.dims is None:
                why = "its type or its number of dimensions is not declared"
                raise errors.MODEL_INPUT(path=self.path, name=name, why=why, fix="export the model with typed inputs")
            try:
                found[name] = Type(element_of(kind.dtype), bound.shape(kind))
            except Unsupported as e:
                fix = "export the model with other inputs"
                raise errors.MODEL_INPUT(path=self.path, name=name, why=str(e), fix=fix) from e
        return found

    def table_rows(self) -> int | None:
        """Rows of the smallest table that a Gather picks from along its first axis."""
        tables = (n.input[0] for n in self._graph.node if n.op_type == "Gather" and n.input)
        rows = [self._initializers[t].dims[0] for t in tables if t in self._initializers and self._initializers[t].dims]
        return min(rows, default=None)

    def prefix(self, count: int) -> Part:
        """The first ``count`` nodes; what the rest or the model's user reads of them leaves."""
        first = self.nodes[:count]
        made = {o for i in first for o in self._graph.node[i].output if o}
        read = {v for i in self.nodes[count:] for v in self._reads[i]} | set(self.outputs)
        return Part(first, tuple(v for i in first for v in self._graph.node[i].output if v in made & read))

    def ending(self, part: Part, outputs: Sequence[str]) -> Part:
        """What of a part these outputs depend on."""
        inside = set(part.nodes)
        found: set[int] = set()
        waiting = [self._producer[o] for o in outputs if o in self._producer]
        while waiting:
            index = waiting.pop()
            if index in found or index not in inside:
                continue
            found.add(index)
            waiting.extend(self._producer[v] for v in self._reads[index] if v in self._producer)
        return Part(tuple(i for i in part.nodes if i in found), tuple(outputs))

    def last_outputs(self, part: Part) -> tuple[str, ...]:
        """Outputs of the last node of a part."""
        return tuple(o for o in self._graph.node[part.nodes[-1]].output if o) if part.nodes else ()

    def without(self, part: Part, dropped: Collection[int]) -> Part:
        """The part less some nodes: their outputs come from outside, and what only they needed goes too."""
        return self.ending(Part(tuple(i for i in part.nodes if i not in dropped), part.outputs), part.outputs)

    def crossing(self, part: Part) -> tuple[str, ...]:
        """Values the part reads that neither it nor constants give, in order."""
        made = {o for i in part.nodes for o in self._graph.node[i].output}
        names = itertools.chain.from_iterable(self._reads[i] for i in part.nodes)
        known = (v for v in dict.fromkeys(names) if v not in made and not self._known(v, self._static))
        return tuple(v for v in known if v in self._producer or v in self._inputs)

    def has(self, part: Part) -> bool:
        """Whether every output of the part is made by it."""
        made = {o for i in part.nodes for o in self._graph.node[i].output}
        return bool(part.nodes) and all(o in made for o in part.outputs)

    def model(self, part: Part, values: Mapping[str, Array]) -> tuple[bytes, dict[str, Array]]:
        """The part as a serialized model, and its inputs. ``values``: what :meth:`crossing` and the part's outputs name.
        Small integers that cross (shapes, axes) become constants. Raises MODEL_TOO_LARGE."""
        feeds = {v: values[v] for v in self.crossing(part) if v in self._inputs or not _shape_like(values[v])}
        fixed = [v for v in self.crossing(part) if v not in feeds]
        kept = self._with_static(part)
        needed = {v for i in kept for v in self._reads[i]}
        made = onnx.ModelProto(ir_version=self.proto.ir_version, producer_name="cimc reduce")
        made.opset_import.extend(self.proto.opset_import)
        made.functions.extend(self.proto.functions)
        made.graph.name = self._graph.name or "reduced"
        made.graph.node.extend(self._graph.node[i] for i in kept)
        made.graph.input.extend(_info(n, a) for n, a in feeds.items())
        made.graph.output.extend(_info(o, values[o]) for o in part.outputs)
        size = 0
        for name, tensor in self._initializers.items():
            if name in needed and name not in feeds:
                size += self._copy(tensor, made.graph.initializer.add())
                self._limit(size)
        made.graph.initializer.extend(numpy_helper.from_array(np.ascontiguousarray(values[v]), v) for v in fixed)
        return made.SerializeToString(deterministic=True), feeds

    def _with_static(self, part: Part) -> list[int]:
        found = set(part.nodes)
        waiting = list(part.nodes)
        while waiting:
            for value in self._reads[waiting.pop()]:
                index = self._producer.get(value, -1)
                if index in self._static and index not in found:
                    found.add(index)
                    waiting.append(index)
        return sorted(found, key=self._order.__getitem__)

    def _copy(self, tensor: onnx.TensorProto, to: onnx.TensorProto) -> int:
        to.CopyFrom(tensor)
        if to.data_location == onnx.TensorProto.EXTERNAL:
            external_data_helper.load_external_data_for_tensor(to, str(self.path.resolve().parent))
            to.data_location = onnx.TensorProto.DEFAULT
            del to.external_data[:]
        return to.ByteSize()

    def _limit(self, size: int) -> None:
        if size > MAX_INLINE:
            what, fix = "the weights of a part", "reduce a model of the same kind with fewer or narrower layers"
            raise errors.MODEL_TOO_LARGE(path=self.path, what=what, size=size, limit=f"{MAX_INLINE} bytes", fix=fix)


def _shape_like(array: Array) -> bool:
    return array.ndim <= 1 and array.dtype.kind in "iub"


def _info(name: str, array: Array) -> Any:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
