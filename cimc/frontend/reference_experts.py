"""QMoE of bytes in blocks, as the reference computes it: by float32 products.

onnxruntime's kernel for 8-bit experts with a ``block_size`` rounds activations to int8, a scale for every block of a row,
which the op's definition does not. (Measured: 0.8 to 1.4 % off the product with the dequantised weights, and 1e-6 off the
one whose activations are rounded so; with 4 bits, or 8 bits and a scale a row, 5e-7 off the former.) Such a node becomes
``MoE`` on weights that nodes before it dequantise. MoE normalises the shares of the chosen experts if it is told to, QMoE
always does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cimc.frontend.record import MS

_LAYERS = ((2, 3, 4, 11), (5, 6, 7, 12), (8, 9, 10, 13))
"""Input positions of weights, scales, bias and zero points, a layer each (onnxruntime's ContribOperators.md)."""
_SHARES = 14
_KEPT = (
    "k",
    "activation_type",
    "activation_alpha",
    "activation_beta",
    "swiglu_fusion",
    "swiglu_limit",
    "use_sparse_mixer",
)


def exact_experts(graph: onnx.GraphProto) -> bool:
    """Rewrite the nodes of a graph in place; whether there were any. Left alone are nodes with shares of their own, scales
    that are no float32, or rows that are no whole blocks."""
    tensors = {t.name: t for t in graph.initializer}
    made = [_rewritten(graph, tensors, i, node) for i, node in enumerate(graph.node)]
    if all(len(nodes) == 1 for nodes in made):
        return False
    del graph.node[:]
    graph.node.extend([node for nodes in made for node in nodes])
    return True


def _rewritten(
    graph: onnx.GraphProto, tensors: Mapping[str, TensorProto], number: int, node: onnx.NodeProto
) -> list[onnx.NodeProto]:
    attributes = {a.name: a for a in node.attribute}
    block = attributes["block_size"].i if "block_size" in attributes else 0
    bits = attributes["expert_weight_bits"].i if "expert_weight_bits" in attributes else 4
    if (node.domain, node.op_type, bits) != (MS, "QMoE", 8) or not _takes(node, tensors, block):
        return [node]
    inputs = list(node.input) + [""] * (1 + _SHARES - len(node.input))
    wide, nodes = list(inputs[:2]), list[onnx.NodeProto]()
    for layer, (weight, scale, bias, zero) in enumerate(_LAYERS):
        stem = f"cimc.experts.{number}.{layer}"
        if inputs[weight]:
            graph.initializer.extend(_constants(stem, block))
            nodes += _dequantized(stem, inputs[weight], inputs[scale], inputs[zero])
        wide += [f"{stem}.w" if inputs[weight] else "", inputs[bias]]
    while not wide[-1]:
        wide.pop()
    moe = helper.make_node("MoE", wide, list(node.output), name=node.name, domain=MS, normalize_routing_weights=1)
    moe.attribute.extend([attributes[name] for name in _KEPT if name in attributes])
    return [*nodes, moe]


def _takes(node: onnx.NodeProto, tensors: Mapping[str, TensorProto], block: int) -> bool:
    if block < 1 or (len(node.input) > _SHARES and node.input[_SHARES]):
        return False
    layers = [layer for layer in _LAYERS if len(node.input) > layer[0] and node.input[layer[0]]]
    for weight, scale, *_ in layers:
        codes, scales = tensors.get(node.input[weight]), tensors.get(node.input[scale])
        if codes is None or scales is None or scales.data_type != TensorProto.FLOAT:
            return False
        if len(codes.dims) != 3 or codes.dims[2] % block:
            return False
    return True


def _constants(stem: str, block: int) -> Iterator[TensorProto]:
    """Shapes to reshape to (0: as it is), and the middle of the codes."""
    shapes: Mapping[str, Sequence[int]] = {"blocks": (0, 0, -1, block), "ones": (0, 0, -1, 1), "rows": (0, 0, -1)}
    for name, shape in shapes.items():
        yield numpy_helper.from_array(np.array(shape, np.int64), f"{stem}.{name}")
    yield numpy_helper.from_array(np.array(128, np.float32), f"{stem}.middle")


def _dequantized(stem: str, weight: str, scale: str, zero: str) -> list[onnx.NodeProto]:
    """``(code − zero point) · scale`` of every block, experts × rows × columns."""

    def make(op: str, inputs: Sequence[str], output: str) -> onnx.NodeProto:
        return helper.make_node(op, [*inputs], [f"{stem}.{output}"])

    def wide(codes: str, output: str) -> onnx.NodeProto:
        return helper.make_node("Cast", [codes], [f"{stem}.{output}"], to=TensorProto.FLOAT)

    nodes = [
        wide(weight, "codes"),
        make("Reshape", [f"{stem}.codes", f"{stem}.blocks"], "in_blocks"),
        make("Reshape", [scale, f"{stem}.ones"], "scales"),
    ]
    middle = f"{stem}.middle"
    if zero:
        middle = f"{stem}.zeros"
        nodes.append(wide(zero, "points"))
        nodes.append(make("Reshape", [f"{stem}.points", f"{stem}.ones"], "zeros"))
    return [
        *nodes,
        make("Sub", [f"{stem}.in_blocks", middle], "centred"),
        make("Mul", [f"{stem}.centred", f"{stem}.scales"], "scaled"),
        make("Reshape", [f"{stem}.scaled", f"{stem}.rows"], "w"),
    ]
