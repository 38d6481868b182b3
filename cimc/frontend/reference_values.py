"""Values of a reference run: the outputs, or values inside the graph, which become outputs of a copy of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from cimc import errors
from cimc.frontend import ort
from cimc.frontend.record import Array
from cimc.frontend.reference_twin import ReferenceModel

CHUNK_BYTES = 256 << 20
"""Bytes of values that one reference run gives out for comparing them, a single larger value aside."""

_FOLDER = "session.model_external_initializers_file_folder_path"


def outputs(model: ReferenceModel, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Outputs of the model by name. Raises REFERENCE if onnxruntime refuses the model or the inputs."""
    if model.changed:
        return _run(model, model.proto.SerializeToString(), inputs, names)
    return _run(model, str(model.path), inputs, names)


def inner_names(model: ReferenceModel) -> tuple[str, ...]:
    """Names of the values that nodes of the graph produce, in their order."""
    return tuple(o for n in model.proto.graph.node for o in n.output if o)


def inner(model: ReferenceModel, inputs: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Values inside the graph by name, all in one run. Raises REFERENCE if onnxruntime refuses."""
    cut = onnx.ModelProto()
    cut.CopyFrom(model.proto)
    del cut.graph.output[:]
    declared = {o.name: o for o in model.proto.graph.output}
    cut.graph.output.extend(declared.get(n, onnx.ValueInfoProto(name=n)) for n in names)
    needed = _needed(cut.graph, names)
    kept = [n for i, n in enumerate(model.proto.graph.node) if i in needed]
    del cut.graph.node[:]
    cut.graph.node.extend(kept)
    return _run(model, cut.SerializeToString(), inputs, names)


def chunks(sizes: Mapping[str, int], limit: int = CHUNK_BYTES) -> Iterator[tuple[str, ...]]:
    """Names in their order, cut so that the bytes of each part stay within ``limit``."""
    part: list[str] = []
    total = 0
    for name, size in sizes.items():
        if part and total + size > limit:
            yield tuple(part)
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield tuple(part)


def _needed(graph: onnx.GraphProto, names: Sequence[str]) -> set[int]:
    """Indices of the nodes that the named values depend on; what subgraphs capture counts."""
    producer = {o: i for i, n in enumerate(graph.node) for o in n.output if o}
    found: set[int] = set()
    waiting = [producer[n] for n in names if n in producer]
    while waiting:
        index = waiting.pop()
        if index in found:
            continue
        found.add(index)
        waiting.extend(producer[v] for v in reads(graph.node[index]) if v in producer)
    return found


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Every name that a node or a graph inside it mentions as an operand."""
    yield from (v for v in node.input if v)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield from (o.name for o in attribute.g.output)
            for inside in attribute.g.node:
                yield from reads(inside)


def _run(
    model: ReferenceModel, source: str | bytes, inputs: Mapping[str, Array], names: Sequence[str]
) -> dict[str, Array]:
    try:
        session: Any = ort.session(source, optimize=model.optimize, entries={_FOLDER: str(model.folder)})
        known = {i.name for i in session.get_inputs()}
        found: Sequence[object] = session.run(list(names), {k: ort.fed(v) for k, v in inputs.items() if k in known})
        kinds = {o.name: str(o.type) for o in session.get_outputs()}
    except (RuntimeError, ValueError, *ort.refusals()) as e:
        raise errors.REFERENCE(model=model.path, why=ort.first_line(e)) from None
    return {n: ort.read(np.asarray(v), kinds.get(n, "")) for n, v in zip(names, found, strict=True)}
