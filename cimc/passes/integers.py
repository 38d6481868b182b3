"""Keep the integers of a quantised model: products of dequantised values become integer products on its own codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from cimc.ir.graph import Array, Attrs, Constants, Graph, Node, Type
from cimc.ir.levels import FLOATS, flat
from cimc.isa.operands import Element
from cimc.passes.dequantized import Codes, chain, dequantized, per_column
from cimc.passes.editor import Editor

CODES, STEPS, BLOCK_STEPS = ".model_codes", ".model_steps", ".model_block_steps"
"""Suffixes of what stands beside weights that the model has as integers: int8 codes (k × n), float32 scales (n), or
scales per block of inputs (blocks × n)."""

SHIFT = 128
"""Cells hold signed codes: unsigned weights are stored less this."""


@dataclass(frozen=True)
class Integers:
    """A matmul whose operands are both dequantised from 8-bit integers, the second of them constant, becomes ``mvm`` on
    these integers: corrected for zero points in int32, then scaled. Nothing is quantised a second time. It is what the
    model computes up to the rounding of float32 sums, which become exact. Activations have one scale; weights one, or
    one per column.

    Before::

        const %w : i8[4x3]
        %a : f32[2x4] = cast %x
        %b : f32[2x4] = mul %a, %x_scale
        %c : f32[4x3] = cast %w
        %d : f32[4x3] = mul %c, %w_scale
        %y : f32[2x3] = matmul %b, %d

    After::

        %y.acc : i32[2x3] = mvm %x, %w
        %y.sums : f32[2x3] = cast %y.acc
        %y : f32[2x3] = mul %y.sums, %y.scale

    Two dequantised activations become an integer ``matmul`` in the same way.

    Weights of activations that are not quantised stay floats here, with their codes beside them, which ``quantize``
    takes as they are.

    Before ``fold``, which would compute the dequantised weights. The arithmetic is that of Jacob et al., CVPR 2018
    (arXiv:1712.05877), section 2.2.
    """

    name: ClassVar[str] = "integers"
    takes: ClassVar[tuple[str, ...]] = ("imported",)
    leaves: ClassVar[str] = ""

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class."""
        work = _Rewriter(Editor(graph, constants))
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish()


class _Rewriter:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self.moved: dict[tuple[object, ...], str] = {}

    def visit(self, node: Node) -> None:
        if node.op != "matmul" or not self._rewritten(self.editor.renamed(node)):
            self.editor.keep(node)

    def _rewritten(self, node: Node) -> bool:
        x, w = (dequantized(self.editor, v) for v in node.inputs)
        if w is not None and self.editor.is_constant(w.codes) and (x is None or x.axis >= 0):
            self._remember(w, node.inputs[1])
        if w is None:
            self._remember_blocks(node.inputs[1])
        if x is None or w is None or x.axis >= 0 or self.editor.is_constant(x.codes):
            return False
        if not self.editor.is_constant(w.codes):
            return w.axis < 0 and self._dynamic(node, x, w)
        if not self._matrix(w, node.inputs[1]):
            return False
        self._write(node, x, w)
        return True

    def _matrix(self, w: Codes, value: str) -> bool:
        """Whether the weights are a matrix whose scales vary along the columns only."""
        whole = flat(self.editor.types[value].shape) and not any(m.op == "pad" for m in w.moves)
        return whole and per_column(self.editor, w, value)

    def _remember(self, w: Codes, value: str) -> None:
        """Weights of float activations: their codes and scales stand beside them, for ``quantize`` to take as they
        are, if their zero is the cells' zero."""
        editor = self.editor
        type = editor.types[value]
        if len(type.shape) != 2 or type.element not in FLOATS or not self._matrix(w, value):
            return
        rows, columns = type.shape
        if self._centre(w, columns):
            return
        cells, _ = self._cells(w, (rows, columns), value)
        step = self._vector(w.scale, columns)
        editor.companion(value + CODES, lambda constants: constants[cells])
        editor.companion(
            value + STEPS, lambda constants: np.broadcast_to(constants[step].astype(np.float32), (columns,)).copy()
        )

    def _remember_blocks(self, value: str) -> None:
        """Weights written as (codes - zero) · scale over n × blocks × size, flattened and transposed: codes of up to 4
        bits with integer zero points, or bytes around 128."""
        editor = self.editor
        found = chain(self.editor, value, ("transpose", "reshape", "mul", "sub", "cast"))
        if found is None or len(editor.types[value].shape) != 2:
            return
        _, _, mul, sub, cast = found
        (codes,), zero, scale = cast.inputs, sub.inputs[1], mul.inputs[1]
        whole = editor.types[codes].shape
        if len(whole) != 3 or editor.types[scale].shape != (*whole[:2], 1) or not self._centred_bytes(codes, zero):
            return
        n, blocks, size = whole

        def cells(constants: Constants) -> Array:
            signed = constants[codes].astype(np.int16) - constants[zero].astype(np.int16)
            return np.ascontiguousarray(signed.reshape(n, blocks * size).T.astype(np.int8))

        if editor.types[value].shape != (blocks * size, n):
            return
        editor.companion(value + CODES, cells)
        editor.companion(
            value + BLOCK_STEPS, lambda constants: constants[scale].reshape(n, blocks).T.astype(np.float32)
        )

    def _centred_bytes(self, codes: str, zero: str) -> bool:
        """Whether codes less their zero point surely are int8."""
        if self.editor.types[codes].element is not Element.U8:
            return False
        narrow = chain(self.editor, codes, ("reshape", "concat")) is not None
        if self.editor.is_constant(zero):
            point = self.editor.value(zero)
            return bool(np.all(point == (8 if narrow else SHIFT)))
        source = chain(self.editor, zero, ("cast",))
        return narrow and source is not None and self.editor.types[source[0].inputs[0]].element is Element.U8

    def _write(self, node: Node, x: Codes, w: Codes) -> None:
        editor, (y,) = self.editor, node.outputs
        rows, columns = editor.types[node.inputs[1]].shape[-2:]
        codes = self._moves(x, y)
        matrix, centre = self._cells(w, (rows, columns), y)
        acc = editor.emit("mvm", (codes, matrix), origins=node.origins, output=editor.fresh(f"{y}.acc"))
        acc = self._corrected(node, acc, (codes, x.zero), (matrix, centre))
        scale = self._scale(node, x, w, columns)
        element = editor.types[y].element
        sums = self._cast(node, acc, Element.F32, editor.fresh(f"{y}.sums"))
        shape = editor.types[y].shape
        scaled = editor.emit("mul", (sums, scale), origins=node.origins, output=editor.fresh(f"{y}.scaled"))
        if editor.types[scaled].shape != shape:
            attrs = (("shape", shape),)
            scaled = editor.emit(
                "reshape", (scaled,), origins=node.origins, output=editor.fresh(f"{y}.whole"), attrs=attrs
            )
        self._cast(node, scaled, element, y)

    def _dynamic(self, node: Node, x: Codes, w: Codes) -> bool:
        """Both operands are activations: the dynamic matmul unit multiplies integers exactly."""
        editor, (y,) = self.editor, node.outputs
        operands = [self._signed(node, v) for v in (x, w)]
        acc = editor.emit("matmul", operands, origins=node.origins, output=editor.fresh(f"{y}.acc"))
        sums = self._cast(node, acc, Element.F32, editor.fresh(f"{y}.sums"))
        scale = self._scale(node, x, w, 1)
        scaled = editor.emit("mul", (sums, scale), origins=node.origins, output=editor.fresh(f"{y}.scaled"))
        self._cast(node, scaled, editor.types[y].element, y)
        return True

    def _signed(self, node: Node, v: Codes) -> str:
        """The codes less their zero point, in 16 bits if there is one."""
        zero = self._integer(v.zero)
        codes = self._moves(v, node.outputs[0])
        if not zero:
            return codes
        key = ("signed", codes, zero)
        if key not in self.moved:
            wide = self._cast(node, codes, Element.I16, self.editor.fresh(f"{codes}.wide"))
            point = self.editor.number(zero, Element.I16)
            output = self.editor.fresh(f"{codes}.signed")
            self.moved[key] = self.editor.emit("sub", (wide, point), origins=node.origins, output=output)
        return self.moved[key]

    def _cast(self, node: Node, value: str, element: Element, output: str) -> str:
        attrs: Attrs = (("to", element.value),)
        return self.editor.emit("cast", (value,), origins=node.origins, output=output, attrs=attrs)

    def _moves(self, x: Codes, y: str) -> str:
        """The codes moved as the dequantised values were; borders of zeros become borders of the zero point."""
        value = x.codes
        for move in x.moves:
            attrs = tuple((k, v) for k, v in move.attrs if k != "value")
            if move.op == "pad":
                attrs = (*attrs, ("value", self._integer(x.zero)))
            key = (move.op, value, tuple(sorted(attrs, key=lambda kv: kv[0])))
            if key not in self.moved:
                output = self.editor.fresh(f"{move.outputs[0]}.codes")
                self.moved[key] = self.editor.emit(
                    move.op, (value,), origins=move.origins, output=output, attrs=tuple(sorted(attrs))
                )
            value = self.moved[key]
        return value

    def _integer(self, zero: str) -> int:
        return int(self.editor.value(zero).reshape(-1)[0]) if zero else 0

    def _cells(self, w: Codes, shape: tuple[int, int], y: str) -> tuple[str, str]:
        """The weights as signed codes (k × n), and their zero point (float32, one or n; "" if it is 0) less the same
        shift."""
        editor, matrix = self.editor, self._moves(w, y)
        hint = f"{w.codes}.cells"
        if editor.types[matrix].element is Element.U8:
            flip = editor.number(SHIFT, Element.U8)
            flipped = editor.emit("bitxor", (matrix, flip), origins=(), output=editor.fresh(hint))
            matrix = editor.emit(
                "cast", (flipped,), origins=(), output=editor.fresh(hint), attrs=(("to", Element.I8.value),)
            )
        if editor.types[matrix].shape != shape:
            attrs = (("shape", shape),)
            matrix = editor.emit("reshape", (matrix,), origins=(), output=editor.fresh(hint), attrs=attrs)
        return matrix, self._centre(w, shape[1])

    def _centre(self, w: Codes, columns: int) -> str:
        editor = self.editor
        shift = SHIFT if editor.types[w.codes].element is Element.U8 else 0
        if not w.zero and not shift:
            return ""
        zero = self._vector(w.zero, columns) if w.zero else editor.number(0, Element.F32)
        values = np.subtract(editor.value(zero), shift).astype(np.int32)
        if not np.any(values):
            return ""
        type = Type(Element.I32, values.shape)
        return editor.constant(editor.fresh(f"{w.codes}.zero"), type, lambda _: values)

    def _vector(self, value: str, columns: int) -> str:
        """A constant of one element or one per column, without other axes."""
        size = self.editor.types[value].size
        shape = (columns,) if size == columns and size > 1 else ()
        if self.editor.types[value].shape == shape:
            return value
        attrs = (("shape", shape),)
        return self.editor.emit("reshape", (value,), origins=(), output=self.editor.fresh(value), attrs=attrs)

    def _corrected(self, node: Node, acc: str, x: tuple[str, str], w: tuple[str, str]) -> str:
        """Σ(q - a)(c - z) = Σqc - z·Σq - a·Σ(c - z), in int32."""
        editor, (y,) = self.editor, node.outputs
        codes, zero = x
        matrix, centre = w
        if centre:
            wide = self._cast(node, codes, Element.I32, editor.fresh(f"{y}.wide"))
            total = editor.emit("reduce_sum", (wide,), origins=node.origins, output=editor.fresh(f"{y}.total"))
            term = editor.emit("mul", (total, centre), origins=node.origins, output=editor.fresh(f"{y}.term"))
            acc = editor.emit("sub", (acc, term), origins=node.origins, output=editor.fresh(f"{y}.acc"))
        start = self._integer(zero)
        if start:
            sums = editor.value(matrix).sum(axis=0, dtype="int32")
            if centre:
                sums = sums - editor.value(centre).astype(np.int32) * editor.types[matrix].shape[0]
            term_value = (start * sums).astype("int32")
            type = Type(Element.I32, term_value.shape)
            term = editor.constant(editor.fresh(f"{y}.start"), type, lambda _: term_value)
            acc = editor.emit("sub", (acc, term), origins=node.origins, output=editor.fresh(f"{y}.acc"))
        return acc

    def _scale(self, node: Node, x: Codes, w: Codes, columns: int) -> str:
        """Both scales and the matmul's as one constant of one or n elements."""
        editor = self.editor
        whole = editor.value(self._vector(x.scale, 1)).astype("float32").reshape(()) * editor.value(
            self._vector(w.scale, columns)
        ).astype("float32")
        factor = node.number("scale", 1.0)
        value = (whole * whole.dtype.type(factor)).astype("float32")
        type = Type(Element.F32, value.shape)
        return editor.constant(editor.fresh(f"{node.outputs[0]}.scale"), type, lambda _: value)
