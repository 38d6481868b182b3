"""What tiles cannot do: a node becomes a ``host`` call, run on the host controller by onnxruntime or, where that has no
kernel or one that departs from the standard, by ONNX's reference implementation. A node whose operands are all constants
is run once, while the model is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

from cimc.frontend import onnx_writer, ort
from cimc.frontend.builder import MAX_CONSTANT, Builder, Impossible, Unsupported, Value, element_of, room
from cimc.frontend.call import Operand
from cimc.frontend.record import MS, Array, OnnxGraph, OnnxNode, Unreadable
from cimc.frontend.tensors import dtype_of
from cimc.ir.graph import Type
from cimc.isa.hostnode import STANDARD, HostNode, Refused
from cimc.isa.operands import Element

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli", "Dropout")
)
INEXACT = frozenset(("DFT", "STFT"))
"""Ops whose results in onnxruntime are outside the standard's tolerance, or of other shapes than ONNX infers: ONNX's
reference implementation runs them."""
_REST = tuple(range(1, 8))
BY_VALUE: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("Resize", "Upsample", "Col2Im", "MaxUnpool", "CenterCropPad", "AffineGrid", "DFT"), _REST),
    **dict.fromkeys(("NonZero", "Unique"), (0,)),
    **dict.fromkeys(("NonMaxSuppression", "MelWeightMatrix"), (0, *_REST)),
    "STFT": (1, 3),
}
"""Ops whose outputs' shape is decided by the values of some operands: by the numbers of those."""
DOMAINS = ("ai.onnx.ml", "ai.onnx.preview", "ai.onnx.preview.training")
"""The standard's other domains; nodes of theirs that no function defines are left to the host."""
INFERENCE_ERRORS = (onnx.shape_inference.InferenceError, ValueError, RuntimeError, TypeError)
_EMBEDDED = 4096
_TEXTS = {
    "tensor(double)": Element.F64,
    "tensor(float)": Element.F32,
    "tensor(float16)": Element.F16,
    "tensor(int64)": Element.I64,
    "tensor(int32)": Element.I32,
    "tensor(int16)": Element.I16,
    "tensor(int8)": Element.I8,
    "tensor(uint64)": Element.U64,
    "tensor(uint32)": Element.U32,
    "tensor(uint16)": Element.U16,
    "tensor(uint8)": Element.U8,
    "tensor(bool)": Element.B8,
}
"""onnxruntime's words for element types."""
BF16 = Element.BF16.dtype(exact=True)


def knows(node: OnnxNode) -> bool:
    """Whether the host may know an operator outside the standard's main domain."""
    if node.domain == MS:
        return node.op_type in ort.kernels(MS)
    return node.domain in DOMAINS and onnx.defs.has(node.op_type, node.domain)


def call(
    b: Builder,
    node: OnnxNode,
    operands: Mapping[str, Operand],
    opsets: Mapping[str, int],
    reason: str,
    *,
    standard: bool = False,
) -> tuple[Operand, ...]:
    """The node's outputs, from a host call or, if every operand is a constant, from running it now. ``operands``: the
    inputs and what subgraphs capture. ``standard``: only ONNX's reference implementation does it right. Raises
    Unsupported if the host cannot run it or its types are not static."""
    if node.op_type in RANDOM:
        raise Unsupported("it draws random numbers, which no two runs share")
    values = _tensors(operands)
    known = {n: a for n, v in values.items() if (a := b.array(v)) is not None}
    standard = standard or node.op_type in INEXACT
    if len(known) == len(values):
        return _run_now(b, node, known, opsets, reason, standard=standard)
    embedded = {n: a for n, a in known.items() if a.nbytes <= _EMBEDDED}
    passed = {n: v for n, v in values.items() if n not in embedded}
    model = _model(node, {n: v.type for n, v in passed.items()}, embedded, opsets)
    kinds = _output_types(model, reason)
    _, data = _ready(_typed(model, kinds), standard=standard or _beyond(values.values(), kinds.values()))
    types = tuple(str(k) for k in kinds.values())
    outputs = b.emit("host", tuple(passed.values()), op_type=node.title, call=b.call(data), types=types, reason=reason)
    by_name = dict(zip(kinds, outputs, strict=True))
    return tuple(by_name.get(o) for o in node.outputs)


def _beyond(operands: Iterable[Value], results: Iterable[Type]) -> bool:
    """Whether there are element types that onnxruntime neither takes from NumPy nor gives to it."""
    elements = {v.element for v in operands} | {t.element for t in results}
    return any(e.narrow or e is Element.BF16 for e in elements)


def _ready(model: onnx.ModelProto, *, standard: bool) -> tuple[HostNode, bytes]:
    """The node ready to run, and its serialized model, which says who runs it. Raises Unsupported if nobody can."""
    refused = ""
    if not standard:
        data = model.SerializeToString(deterministic=True)
        try:
            return HostNode(data), data
        except Refused as e:
            refused = f"onnxruntime cannot run it on the host: {e}; and "
    model.producer_name = STANDARD
    data = model.SerializeToString(deterministic=True)
    try:
        return HostNode(data), data
    except Refused as e:
        raise Unsupported(f"{refused}ONNX's reference implementation cannot run it either: {e}") from e


def _tensors(operands: Mapping[str, Operand]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for name, operand in operands.items():
        if isinstance(operand, tuple):
            raise Unsupported(f"its operand '{name}' is a sequence of tensors")
        if operand is not None:
            found[name] = operand
    return found


def _model(
    node: OnnxNode, inputs: Mapping[str, Type], constants: Mapping[str, Array], opsets: Mapping[str, int]
) -> onnx.ModelProto:
    if any(_foreign(v, opsets) for v in node.attributes.values() if isinstance(v, OnnxGraph)):
        raise Unsupported("its subgraph calls functions of the model")
    types = [(n, (t.element.dtype(exact=True), t.shape)) for n, t in inputs.items()]
    return onnx_writer.node_model(node, types, constants, _stamp(node, opsets))


def _stamp(node: OnnxNode, opsets: Mapping[str, int]) -> Mapping[str, int]:
    """The oldest opset in which the op is the same: more onnxruntimes run it. A subgraph needs the model's own."""
    if any(isinstance(v, OnnxGraph) for v in node.attributes.values()):
        return opsets
    try:
        schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError as e:
        if node.domain == MS:
            return {MS: 1, "": opsets.get("", 1)}
        raise Unsupported(f"neither ONNX nor cimc knows this operator in opset {opsets.get(node.domain, 1)}") from e
    return {node.domain: max(schema.since_version, 7 if not node.domain else 1)}


def _foreign(graph: OnnxGraph, opsets: Mapping[str, int]) -> bool:
    nested = (v for n in graph.nodes for v in n.attributes.values() if isinstance(v, OnnxGraph))
    known = ("", MS, *DOMAINS)
    return any(n.domain not in known or n.domain not in opsets for n in graph.nodes) or any(
        _foreign(g, opsets) for g in nested
    )


def _output_types(model: onnx.ModelProto, reason: str) -> dict[str, Type]:
    """Static types by ONNX's own inference. Constants too large to embed are shown to it as types only."""
    if model.graph.node[0].domain == MS:
        return _runtime_types(model, reason)
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except INFERENCE_ERRORS as e:
        raise Unsupported(f"{reason}; and ONNX cannot tell the types of its outputs") from e
    kinds: dict[str, Type] = {}
    for info in inferred.graph.output:
        tensor = info.type.tensor_type
        _state(model.graph, tensor)
        dims = tensor.shape.dim
        if not tensor.HasField("shape") or not all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims):
            raise Unsupported(f"{reason}; and the shape of its output '{info.name}' is known only at run time")
        dtype = dtype_of(tensor.elem_type)
        if isinstance(dtype, Unreadable):
            raise Unsupported(dtype.reason)
        kinds[info.name] = Type(element_of(dtype), tuple(d.dim_value for d in dims))
    return kinds


def _state(graph: onnx.GraphProto, tensor: onnx.TypeProto.Tensor) -> None:
    """Extents of outputs that constant operands give and ONNX's inference does not (MaxUnpool) or wrongly (STFT of real
    signals: all frequencies, where half of them and one are asked for) read from them."""
    node, known = graph.node[0], {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    operands = [known.get(i) for i in node.input]
    if node.op_type == "MaxUnpool" and len(operands) > 2 and operands[2] is not None:
        tensor.shape.CopyFrom(onnx.TensorShapeProto())
        tensor.shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=int(n)) for n in operands[2])
    if node.op_type == "STFT" and len(tensor.shape.dim) == 4 and all(a.i for a in node.attribute):
        bins = tensor.shape.dim[2]
        bins.dim_value = bins.dim_value // 2 + 1


def _runtime_types(model: onnx.ModelProto, reason: str) -> dict[str, Type]:
    """Static types by onnxruntime's inference, of operators that only it knows."""
    try:
        runner = HostNode(model.SerializeToString(deterministic=True))
    except Refused as e:
        raise Unsupported(f"{reason}; and onnxruntime cannot run it on the host: {e}") from e
    kinds: dict[str, Type] = {}
    for name, text, dims in runner.results:
        if text not in _TEXTS or not all(isinstance(d, int) and d >= 0 for d in dims):
            raise Unsupported(f"{reason}; and the type of its output '{name}', {text} {list(dims)}, is not static")
        kinds[name] = Type(_TEXTS[text], tuple(d for d in dims if isinstance(d, int)))
    return kinds


def _typed(model: onnx.ModelProto, kinds: Mapping[str, Type]) -> onnx.ModelProto:
    outputs = [
        onnx.helper.make_tensor_value_info(
            n, onnx.helper.np_dtype_to_tensor_dtype(k.element.dtype(exact=True)), k.shape
        )
        for n, k in kinds.items()
    ]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return model


def _run_now(
    b: Builder, node: OnnxNode, known: Mapping[str, Array], opsets: Mapping[str, int], reason: str, *, standard: bool
) -> tuple[Operand, ...]:
    model = _model(node, {n: Type(element_of(a.dtype), a.shape) for n, a in known.items()}, {}, opsets)
    _check_size(_model(node, {}, {n: a for n, a in known.items() if a.nbytes <= _EMBEDDED}, opsets))
    standard = standard or any(element_of(a.dtype).narrow or a.dtype == BF16 for a in known.values())
    runner, _ = _ready(model, standard=standard)
    try:
        results = runner.run([np.asarray(known[n], order="C") for n in runner.names])
    except Refused as e:
        raise Impossible(f"{reason}; the host says: {e}") from e
    names = [o for o in node.outputs if o]
    found: dict[str, Value] = {}
    for name, output in zip(names, results, strict=True):
        found[name] = b.constant(_checked(output))
    return tuple(found.get(o) for o in node.outputs)


def _check_size(model: onnx.ModelProto) -> None:
    """Raises Unsupported if ONNX can tell that an output would be too large to compute while the model is read."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except INFERENCE_ERRORS:
        return
    for info in inferred.graph.output:
        room([max(d.dim_value, 1) for d in info.type.tensor_type.shape.dim])


def _checked(array: Array) -> Array:
    if array.nbytes > MAX_CONSTANT:
        raise Unsupported(f"the constant it makes has {array.nbytes} bytes, more than the limit of {MAX_CONSTANT}")
    return array
