"""The model that ``check`` takes for exact: which one, run how, and why it can be believed.

onnxruntime's kernels for uint8 activations × int8 weights add pairs of products in 16 bits on CPUs without VNNI
instructions and saturate there; uint8 × uint8 kernels do not. A graph with such products gets an unsigned *twin*: before
every int8 operand of an integer product stands ``Cast(int32) → Add(128) → Cast(uint8)``, and its zero point moves by
128 too, which leaves every ``code − zero point`` and so every exact sum as it is. The other graphs that bring
quantisation are run literally, node by node: onnxruntime's optimiser would fuse their DequantizeLinear into those same
kernels, or move roundings.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, inliner, numpy_helper

from cimc import errors
from cimc.frontend import onnx_reader
from cimc.frontend.record import MS
from cimc.frontend.reference_experts import exact_experts

DEFAULT = "onnxruntime"
LITERAL = "onnxruntime, optimisations off"
TWIN = "onnxruntime, optimisations off, int8 operands of integer products shifted to uint8"
PRODUCTS = " with float32 products in MatMulNBits and QMoE"

SHIFT = 128


@dataclass(frozen=True)
class Product:
    """Where an integer product has its operands: (codes, zero point) input positions, and where the output's zero point
    is, whose type is the output's."""

    pairs: tuple[tuple[int, int], ...]
    result: int | None = None


PRODUCTS_OF: Mapping[tuple[str, str], Product] = {
    ("", "MatMulInteger"): Product(((0, 2), (1, 3))),
    ("", "ConvInteger"): Product(((0, 2), (1, 3))),
    ("", "QLinearMatMul"): Product(((0, 2), (3, 5)), 7),
    ("", "QLinearConv"): Product(((0, 2), (3, 5)), 7),
    (MS, "QGemm"): Product(((0, 2), (3, 5)), 8),
    (MS, "QLinearConv"): Product(((0, 2), (3, 5)), 7),
    (MS, "MatMulIntegerToFloat"): Product(((0, 4), (1, 5))),
    (MS, "DynamicQuantizeMatMul"): Product(((1, 3),)),
    (MS, "QAttention"): Product(((0, 6), (1, 7))),
}
"""The positions are those of the ONNX standard and of onnxruntime's ContribOperators.md."""

_TYPED_BY: Mapping[str, int] = {"QuantizeLinear": 2, "QLinearAdd": 7, "QLinearMul": 7, "QLinearSoftmax": 4}
_LITERAL_PREFIXES = ("QLinear", "QOrdered", "QEmbed", "QAttention", "QGemm", "DynamicQuantize")
_LITERAL = ("QuantizeLinear", "DequantizeLinear", "MatMulIntegerToFloat", "MatMulInteger", "ConvInteger")


@dataclass(frozen=True)
class ReferenceModel:
    """A model to run with onnxruntime. ``name`` says what it is, for the report; ``proto`` leaves external data in its
    files in ``folder``; ``changed`` if it is not what the file holds."""

    name: str
    optimize: bool
    proto: onnx.ModelProto
    path: Path
    changed: bool

    @property
    def folder(self) -> Path:
        """Where external data files stand."""
        return self.path.resolve().parent

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the model's outputs."""
        return tuple(o.name for o in self.proto.graph.output)


def exact(path: Path) -> ReferenceModel:
    """The reference of a model file. Raises CimcError if it is no ONNX model."""
    path = onnx_reader.locate(path)
    try:
        proto = onnx.ModelProto.FromString(path.read_bytes())
    except DecodeError as e:
        raise errors.MODEL_NOT_ONNX(path=path, why="its bytes are no protobuf message, or are cut short") from e
    return exact_of(proto, path)


def exact_of(proto: onnx.ModelProto, path: Path) -> ReferenceModel:
    """The same of a message (which is changed in place if a twin is needed)."""
    expanded = exact_experts(proto.graph)
    nodes = list(_all_nodes(proto))
    narrowed = _exact_blocks(nodes) or expanded
    if not any(n.op_type in _LITERAL or n.op_type.startswith(_LITERAL_PREFIXES) for n in nodes):
        return ReferenceModel(DEFAULT + (PRODUCTS if narrowed else ""), not narrowed, proto, path, narrowed)
    if any(_has_products(f.node) for f in proto.functions):
        proto = inliner.inline_local_functions(proto)
    shifted = _Twin({}, itertools.count(1)).graph(proto.graph)
    name = (TWIN if shifted else LITERAL) + (PRODUCTS if narrowed else "")
    return ReferenceModel(name, False, proto, path, bool(shifted or narrowed))


def _all_nodes(proto: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    yield from _nested(proto.graph.node)
    for function in proto.functions:
        yield from _nested(function.node)


def _nested(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _nested(attribute.g.node)


def _has_products(nodes: Sequence[onnx.NodeProto]) -> bool:
    return any((_domain(n), n.op_type) in PRODUCTS_OF for n in _nested(nodes))


def _domain(node: onnx.NodeProto) -> str:
    return "" if node.domain == "ai.onnx" else node.domain


def _exact_blocks(nodes: Sequence[onnx.NodeProto]) -> bool:
    """Let MatMulNBits multiply as the model's weights stand: ``accuracy_level`` 4 rounds the activations to int8, which the
    standard meaning of the op does not. Whether any node was changed."""
    found = False
    for node in nodes:
        for attribute in node.attribute:
            if node.op_type == "MatMulNBits" and attribute.name == "accuracy_level" and attribute.i > 1:
                attribute.i = 1
                found = True
    return found


class _Twin:
    """Rewrites one graph (and those inside) in place. ``outer``: element types of the values around it; ``fresh``
    numbers the names made, over all graphs."""

    def __init__(self, outer: Mapping[str, int], fresh: Iterator[int]) -> None:
        self.types: dict[str, int] = dict(outer)
        self.fresh = fresh
        self.nodes: list[onnx.NodeProto] = []
        self.made: dict[str, str] = {}
        self.shifted = 0

    def graph(self, graph: onnx.GraphProto) -> int:
        """How many products were changed."""
        self.types.update({i.name: i.type.tensor_type.elem_type for i in graph.value_info})
        self.types.update({i.name: i.type.tensor_type.elem_type for i in graph.input})
        self.types.update({t.name: t.data_type for t in graph.initializer})
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    self.shifted += _Twin(self.types, self.fresh).graph(attribute.g)
            # Before a product is changed: it then gives its result another name, and later products ask for that of the model.
            self.types.update({o: self.type_of(node, i) for i, o in enumerate(node.output) if o})
            product = PRODUCTS_OF.get((_domain(node), node.op_type))
            if product is not None and self.needs(node, product):
                self.shifted += 1
                self.product(node, product)
            else:
                self.nodes.append(node)
        if self.shifted:
            rewritten = [onnx.NodeProto.FromString(n.SerializeToString()) for n in self.nodes]
            del graph.node[:]
            graph.node.extend(rewritten)
        return self.shifted

    def needs(self, node: onnx.NodeProto, product: Product) -> bool:
        return any(self.types.get(_input(node, at)) == TensorProto.INT8 for at, _ in product.pairs)

    def product(self, node: onnx.NodeProto, product: Product) -> None:
        inputs = list(node.input)
        for codes, zero in product.pairs:
            if self.types.get(_input(node, codes)) != TensorProto.INT8:
                continue
            inputs += [""] * (zero + 1 - len(inputs))
            inputs[codes] = self.unsigned(inputs[codes])
            inputs[zero] = self.unsigned(inputs[zero]) if inputs[zero] else self.number(SHIFT, np.uint8)
        signed = product.result is not None and self.types.get(_input(node, product.result)) == TensorProto.INT8
        first = self.types.get(_input(node, product.pairs[0][0])) == TensorProto.INT8
        result = node.output[0]
        if signed and first and product.result is not None:
            # The kernels want the first operand's type for the result: shifted there, and back behind it.
            inputs[product.result] = self.unsigned(inputs[product.result])
            node.output[0] = self.name(result)
        del node.input[:]
        node.input.extend(inputs)
        self.nodes.append(node)
        if signed and first:
            self.shift(node.output[0], result, -SHIFT, TensorProto.INT8)

    def unsigned(self, value: str) -> str:
        """The int8 value plus 128 as uint8."""
        if value not in self.made:
            self.made[value] = self.name(value)
            self.shift(value, self.made[value], SHIFT, TensorProto.UINT8)
        return self.made[value]

    def shift(self, value: str, result: str, by: int, element: int) -> None:
        wide, moved = self.name(value), self.name(value)
        self.nodes.append(helper.make_node("Cast", [value], [wide], to=TensorProto.INT32))
        self.nodes.append(helper.make_node("Add", [wide, self.number(by, np.int32)], [moved]))
        self.nodes.append(helper.make_node("Cast", [moved], [result], to=element))

    def number(self, value: int, dtype: type[np.generic]) -> str:
        name = self.name(str(value))
        tensor = numpy_helper.from_array(np.asarray(value, dtype))
        self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def name(self, stem: str) -> str:
        return f"{stem}//twin{next(self.fresh)}"

    def type_of(self, node: onnx.NodeProto, output: int) -> int:
        """The element type of an output, 0 if unknown: what is not told is taken to be that of the first input."""
        declared = self.types.get(node.output[output], 0)
        if declared:
            return declared
        attributes = {a.name: a for a in node.attribute}
        if node.op_type == "Cast":
            return attributes["to"].i if "to" in attributes else 0
        if node.op_type == "Constant":
            return attributes["value"].t.data_type if "value" in attributes else 0
        if node.op_type == "DynamicQuantizeLinear":
            return TensorProto.FLOAT if output == 1 else TensorProto.UINT8
        product = PRODUCTS_OF.get((_domain(node), node.op_type))
        at = _TYPED_BY.get(node.op_type) if product is None else product.result
        if at is not None and _input(node, at):
            return self.types.get(_input(node, at), 0)
        if node.op_type == "QuantizeLinear":
            return attributes["output_dtype"].i if "output_dtype" in attributes else TensorProto.UINT8
        if product is not None or node.op_type == "DequantizeLinear":
            return 0
        return self.types.get(_input(node, 0), 0)


def _input(node: onnx.NodeProto, index: int) -> str:
    return node.input[index] if index < len(node.input) else ""
