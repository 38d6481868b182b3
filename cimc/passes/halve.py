"""Keep what is computed between products in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from cimc import errors
from cimc.ir.graph import Constants, Graph, Node, Type
from cimc.isa.kernels import BINARY, REDUCE, UNARY
from cimc.isa.operands import Element
from cimc.ops import OPS, Form
from cimc.ops.written_as import HALVED, TO

Bits = Literal["f16", "bf16"]
WRITTEN: Mapping[str, Element] = {"f16": Element.QF16, "bf16": Element.QBF16}

SEEDS = frozenset(
    ("dequantize", "layer_norm", "rms_norm", "matmul", "attention", "softmax", "log_softmax", "written_matmul")
)
"""What is computed from these is halved; masks and positions, whose numbers may be huge or exact, are not."""
LINEAR = frozenset(("add", "sub", "mul", "div"))
WEIGHTS = frozenset(("softmax", "log_softmax"))
MOVES = frozenset(("concat", "pad", "copy", "gather"))
"""Ops beside views that hand elements on as they are."""
READERS = frozenset(("quantize", "quantize_static", "cast", *UNARY, *BINARY, *REDUCE))
"""Ops that may read halved values and write what is none: codes, truth values, indices."""
PRODUCTS = frozenset(("quantize", "quantize_static", "matmul", "attention"))


@dataclass(frozen=True)
class Halve:
    """Every float32 value that is made of results of products, attention and norms, and read by another op of the model,
    becomes one of 16 bits (``to``: f16 or bf16), rounded once, where it is computed. What computes does so in float32 and
    widens what it reads. Left in float32: inputs and outputs of the model, what the host reads or writes, and what stays
    inside an op: scales and other numbers of which a row has one, scores that only a softmax reads, a product before its bias
    or gain (only a constant is added or multiplied), values that nothing but other ops of the same ONNX node reads.

    Before::

        %acc : q32[2x4] = mvm %x.q8, %w.q8
        %h : f32[2x4] = dequantize %acc, %x.scale, %w.scale
        %b : f32[2x4] = add %h, %bias
        %y : f32[2x4] = gelu %b
        %y.q8 : q8[2x4], %y.scale : f32[2x1] = quantize %y

    After::

        %acc : q32[2x4] = mvm %x.q8, %w.q8
        %h : f32[2x4] = dequantize %acc, %x.scale, %w.scale
        %b : qf16[2x4] = add{to="qf16"} %h, %bias
        %y : qf16[2x4] = gelu{to="qf16"} %b
        %y.q8 : q8[2x4], %y.scale : f32[2x1] = quantize %y

    ``float`` numerics round nothing.
    """

    name: ClassVar[str] = "halve"
    takes: ClassVar[tuple[str, ...]] = ("quantized",)
    leaves: ClassVar[str] = "quantized"

    to: Bits = "f16"

    def __post_init__(self) -> None:
        if self.to not in WRITTEN:
            raise errors.PASS_OPTION(option="to", name=self.name, why=f"there is no '{self.to}'", fix="use f16 or bf16")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        element, chosen = WRITTEN[self.to], _chosen(graph)
        types = {v: Type(element, t.shape) if v in chosen else t for v, t in graph.types.items()}
        nodes = tuple(_written(node, types) for node in graph.nodes)
        return replace(graph, nodes=nodes, types=types, level=self.leaves), constants


def _written(node: Node, types: Mapping[str, Type]) -> Node:
    """The node, saying what it writes where that is no more what it reads."""
    if TO not in OPS[node.op].attributes and node.op != "cast":
        return node
    out = types[node.outputs[0]].element
    touched = [types[v].element in HALVED for v in (*node.inputs, node.outputs[0]) if v]
    if not any(touched) or (out is not Element.F32 and out not in HALVED):
        return node
    rest = tuple(a for a in node.attrs if a[0] != "to")
    return replace(node, attrs=(*rest, ("to", out.value)))


def _chosen(graph: Graph) -> frozenset[str]:
    """The values to keep in 16 bits."""
    groups, uses = _Groups(), graph.uses()
    made: set[str] = set()  # of results of products and norms
    refused = {*graph.inputs, *graph.outputs, *graph.constants}
    for node in graph.nodes:
        made.update(node.outputs if node.op in SEEDS or not made.isdisjoint(node.inputs) else ())
        moved = _moved(node)
        if moved:
            groups.join(moved)
        elif _computes(graph, node):
            (y,) = node.outputs
            refused.update(() if y in made and not _inside(graph, node, uses.get(y, [])) else (y,))
        else:
            refused.update(node.outputs)
            refused.update(() if _reads(node) else node.inputs)
    floats = {v for n in graph.nodes for v in n.outputs if v and graph.types[v].element is Element.F32}
    lost = {groups.of(v) for v in refused}
    return frozenset(v for v in floats if groups.of(v) not in lost)


def _moved(node: Node) -> tuple[str, ...]:
    """Of an op that hands elements on as they are, the values that have the same elements."""
    if node.op == "concat":
        return (*node.inputs, *node.outputs)
    if node.op in MOVES or OPS[node.op].form is Form.VIEW:
        return (node.inputs[0], node.outputs[0])
    return ()


def _computes(graph: Graph, node: Node) -> bool:
    """Whether a node computes in float32 and can round what it writes."""
    if node.op != "cast" and TO not in OPS[node.op].attributes:
        return False
    operands = [graph.types[v].element for v in node.inputs if v]
    if node.op == "dequantize":
        operands = operands[1:]
    single = all(e in (Element.F32, Element.B8) for e in operands) or node.op == "attention"
    return single and graph.types[node.outputs[0]].element is Element.F32


def _reads(node: Node) -> bool:
    """Whether a node that writes no float32 may read halved values."""
    return node.op in READERS or TO in OPS[node.op].attributes


def _inside(graph: Graph, node: Node, readers: list[Node]) -> bool:
    """Whether a result stays inside an op of the model, or of a tile."""
    (y,) = node.outputs
    shape = graph.types[y].shape
    if not shape or shape[-1] == 1 or all(r.op in WEIGHTS for r in readers):
        return True
    if len(readers) == 1 and readers[0].op in LINEAR and readers[0].inputs.count(y) == 1:
        other = next(v for v in readers[0].inputs if v != y)
        if other in graph.constants:
            return True
    return all(r.origin == node.origin and not _moved(r) and r.op not in PRODUCTS for r in readers)


class _Groups:
    """Values with the same elements: all are halved, or none."""

    def __init__(self) -> None:
        self._before: dict[str, str] = {}

    def of(self, value: str) -> str:
        """The value that stands for a value's group."""
        for end in self._way(value):
            value = end
        return value

    def _way(self, value: str) -> Iterator[str]:
        while value in self._before:
            value = self._before[value]
            yield value

    def join(self, values: tuple[str, ...]) -> None:
        """These have the same elements."""
        first = self.of(values[0])
        for other in map(self.of, values[1:]):
            if other != first:
                self._before[other] = first
