"""Attention over more keys than a tile's buffer holds: softmax in blocks of keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cimc import errors
from cimc.ir.graph import Attrs, Constants, Graph, Node
from cimc.isa.operands import Element
from cimc.passes.editor import Editor

LOWEST = -3.4028234663852886e38
"""Where running maxima begin: the lowest float32. Finite, so that a row whose keys in a block are all masked by -inf has
differences to subtract; a row that is masked altogether gives 0 / 0, as softmax does."""

LEAST_KEYS = 16
"""Of a block, however little fits: below, the maxima and sums between blocks cost more than the products (estimated)."""


@dataclass(frozen=True)
class Online:
    """An ``attention`` whose keys and values, with a row of scores, take more than 7/8 of ``bytes`` is computed over blocks of
    keys with a running maximum m, sum l and result a (online softmax: Milakov & Gimelshein 2018, arXiv:1805.02867; over
    blocks: FlashAttention, arXiv:2205.14135)::

        s = scale · q · kⱼ + maskⱼ      m' = max(m, max s)      p = exp(s - m')      c = exp(m - m')
        l' = c · l + Σ p                a' = c · a + p · vⱼ     and in the end a / l

    kⱼ and vⱼ take at most a quarter of ``bytes``. It is written in elementary ops, so every level and numerics means
    the same by it. ``float``: beside softmax in one go, results differ by rounding alone (products of exponentials in place
    of one). ``integer``: each p · vⱼ has scales of its own, which are finer than those of whole rows.
    """

    name: ClassVar[str] = "online"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    bytes: int = 1 << 20

    def __post_init__(self) -> None:
        if self.bytes < 1:
            why = f"{self.bytes} is below 1"
            raise errors.PASS_OPTION(option="bytes", name=self.name, why=why, fix="give bytes of a buffer")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        work = _Blocks(Editor(graph, constants))
        for node in graph.nodes:
            keys = self._keys(graph, node)
            if keys:
                work.attention(node, keys)
            else:
                work.editor.keep(node)
        return work.editor.finish(self.leaves)

    def _keys(self, graph: Graph, node: Node) -> int:
        """Keys of a block; 0 for what stays whole. Half precision stays: its maxima begin elsewhere."""
        if node.op != "attention" or graph.type(node.inputs[0]).element is not Element.F32:
            return 0
        keys = graph.type(node.inputs[1]).shape[-1]
        each = Element.F32.bytes * (graph.type(node.inputs[0]).shape[-1] + graph.type(node.inputs[2]).shape[-1])
        if keys * (each + 2 * Element.F32.bytes) <= self.bytes * 7 // 8:
            return 0
        most = max(LEAST_KEYS, self.bytes // 4 // each)
        count = -(-keys // most)
        return -(-keys // count) if count > 1 else 0


class _Blocks:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor

    def attention(self, node: Node, keys: int) -> None:
        """Write an attention in blocks of so many keys."""
        editor = self.editor
        node = editor.renamed(node)
        total = editor.types[node.inputs[1]].shape[-1]
        top = self._number(LOWEST)
        weight = result = ""
        for first in range(0, total, keys):
            count = min(keys, total - first)
            scores = self._scores(node, first, count)
            peak = self._emit(node, "max", (self._emit(node, "reduce_max", (scores,)), top))
            p = self._emit(node, "exp", (self._emit(node, "sub", (scores, peak)),))
            mass = self._emit(node, "reduce_sum", (p,))
            part = self._emit(node, "matmul", (p, self._cut(node, node.inputs[2], -2, first, count)))
            if result:
                factor = self._emit(node, "exp", (self._emit(node, "sub", (top, peak)),))
                mass = self._emit(node, "add", (self._emit(node, "mul", (weight, factor)), mass))
                part = self._emit(node, "add", (self._emit(node, "mul", (result, factor)), part))
            top, weight, result = peak, mass, part
        editor.emit("div", (result, weight), origins=node.origins, output=node.outputs[0])

    def _scores(self, node: Node, first: int, count: int) -> str:
        """scale · q · kⱼ + maskⱼ."""
        keys = self._cut(node, node.inputs[1], -1, first, count)
        scores = self._emit(node, "matmul", (node.inputs[0], keys), (("scale", node.attr("scale")),))
        mask = node.inputs[3] if len(node.inputs) > 3 else ""
        if not mask:
            return scores
        if self.editor.types[mask].shape and self.editor.types[mask].shape[-1] != 1:
            mask = self._cut(node, mask, -1, first, count)
        if self.editor.types[mask].element is not Element.F32:
            mask = self._emit(node, "cast", (mask,), (("to", Element.F32.value),))
        return self._emit(node, "add", (scores, mask))

    def _cut(self, node: Node, value: str, axis: int, first: int, count: int) -> str:
        """Some of a value along an axis."""
        shape = list(self.editor.types[value].shape)
        start = [0] * len(shape)
        start[axis], shape[axis] = first, count
        attrs = (("size", tuple(shape)), ("start", tuple(start)), ("step", (1,) * len(shape)))
        return self._emit(node, "slice", (value,), attrs)

    def _number(self, value: float) -> str:
        return self.editor.number(value, Element.F32)

    def _emit(self, node: Node, op: str, inputs: tuple[str, ...], attrs: Attrs = ()) -> str:
        output = self.editor.fresh(f"{node.outputs[0]}.{op}")
        return self.editor.emit(op, inputs, origins=node.origins, output=output, attrs=attrs)
