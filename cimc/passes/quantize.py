"""Quantise the static matmuls as the hardware stores weights and streams activations."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from cimc import errors
from cimc.ir.constants import Make
from cimc.ir.evaluate import FLOAT_COMPANION, evaluate_all
from cimc.ir.graph import Array, Constants, Graph, Node, Type
from cimc.isa.kernels import codes_by, symmetric_scales
from cimc.isa.operands import Element
from cimc.ops import Arithmetic
from cimc.ops.matmul import CORES
from cimc.passes.editor import Editor
from cimc.passes.integers import BLOCK_STEPS, CODES, STEPS
from cimc.passes.measured import measured_rows
from cimc.passes.rounding import Moments, fitted

ACTIVATION_BITS = 8
"""Bits of the codes that ``quantize`` produces (element type q8)."""
PART_BYTES = 1 << 20
"""Weights are quantised in parts of about this size (as float32): what lies between then stays in the processor's cache."""


def check_weight_bits(name: str, bits: int) -> None:
    """Raises PASS_OPTION for a number of bits that codes of weights, in the pass of that name, cannot have."""
    if not 2 <= bits <= 8:
        raise errors.PASS_OPTION(option="weight_bits", name=name, why=f"{bits} bits are not possible", fix="use 2 to 8")


@dataclass(frozen=True)
class Quantize:
    """Every ``linear`` becomes ``quantize`` → ``mvm`` → ``dequantize``. Activations: symmetric int8, one scale per
    row found at run time (``dynamic``), or one per value measured on ``calibration`` inputs (``static``); a value
    read by several layers is quantised once. Weights: symmetric, ``weight_bits``, one scale per output channel; the
    originals stand beside the codes under ``NAME.float``. Weights that the model itself has as 8-bit integers keep their
    codes, and those in blocks of inputs their blocks (see ``integers``) unless
    ``keep_blocks`` is false: then they are quantised again, per output channel, and need fewer crossbars. ``rounding``:
    every weight to its ``nearest`` code, or ``fitted`` to what ``calibration`` inputs make of it (see ``rounding.py``); the
    steps are the same.

    A ``linear{unit=digital}`` becomes ``matmul`` instead of ``mvm``, on the same codes and so with the same result, its
    weights cut by columns into pieces of at most ``digital_bytes`` that a tile's buffer holds.

    Before::

        const %w : f32[4x3]
        %y : f32[2x3] = linear %x, %w

    After::

        const %w.q8 : q8[4x3]
        const %w.q8.scale : f32[3]
        %x.q8 : q8[2x4], %x.scale : f32[2x1] = quantize %x
        %y.acc : q32[2x3] = mvm %x.q8, %w.q8
        %y : f32[2x3] = dequantize %y.acc, %x.scale, %w.q8.scale

    Symmetric, per output channel: the scheme of Jacob et al., CVPR 2018 (arXiv:1712.05877) without zero points,
    granularity after Krishnamoorthi 2018 (arXiv:1806.08342).
    """

    name: ClassVar[str] = "quantize"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "quantized"

    activations: Literal["dynamic", "static"] = "dynamic"
    weight_bits: int = 8
    keep_blocks: bool = True
    rounding: Literal["nearest", "fitted"] = "nearest"
    digital_bytes: int = 1 << 18
    calibration: tuple[Mapping[str, Array], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.activations not in ("dynamic", "static"):
            why = f"there is no '{self.activations}'"
            raise errors.PASS_OPTION(option="activations", name=self.name, why=why, fix="use dynamic or static")
        if self.rounding not in ("nearest", "fitted"):
            why = f"there is no '{self.rounding}'"
            raise errors.PASS_OPTION(option="rounding", name=self.name, why=why, fix="use nearest or fitted")
        check_weight_bits(self.name, self.weight_bits)
        if self.digital_bytes < 1:
            why = f"{self.digital_bytes} is below 1"
            raise errors.PASS_OPTION(option="digital_bytes", name=self.name, why=why, fix="give bytes of a buffer")

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises CimcError: calibration if static scales or fitted weights have nothing to be measured on;
        weight-not-finite, when the codes are first read, for weights that hold no finite number."""
        peaks = self._peaks(graph, constants) if self.activations == "static" else None
        moments = self._moments(graph, constants) if self.rounding == "fitted" else None
        work = _Quantizer(Editor(graph, constants), self, peaks, moments)
        for node in graph.nodes:
            work.visit(node)
        return work.editor.finish(self.leaves)

    def _moments(self, graph: Graph, constants: Constants) -> Moments:
        """What each linear reads on the calibration inputs."""
        wanted = {n.inputs[0] for n in graph.nodes if n.op == "linear"} - set(graph.constants)
        return Moments(measured_rows(graph, constants, wanted, self.calibration))

    def _peaks(self, graph: Graph, constants: Constants) -> dict[str, float]:
        """Largest size of each value that a linear reads, over the calibration inputs."""
        wanted = {n.inputs[0] for n in graph.nodes if n.op == "linear"}
        if wanted and not self.calibration:
            raise errors.CALIBRATION(why="no calibration inputs are given")
        peaks = dict.fromkeys(wanted, 0.0)

        def watch(name: str, value: Array) -> None:
            if name in peaks:
                peaks[name] = max(peaks[name], float(np.max(np.abs(value), initial=0)))

        for inputs in self.calibration:
            evaluate_all(graph, constants, inputs, Arithmetic(), watch=lambda _, name, value: watch(name, value))
            for name in graph.inputs:
                watch(name, inputs[name])
        for name, peak in peaks.items():
            if not math.isfinite(peak):
                raise errors.CALIBRATION(why=f"value {name} reaches {peak}")
        return peaks


class _Quantizer:
    def __init__(self, editor: Editor, how: Quantize, peaks: dict[str, float] | None, moments: Moments | None) -> None:
        self.editor = editor
        self.keep_blocks = how.keep_blocks
        self.bits = how.weight_bits
        self.piece = how.digital_bytes
        self.peaks = peaks
        self.moments = moments
        self.activations: dict[str, tuple[str, str]] = {}
        self.weights: dict[str, tuple[str, str]] = {}

    def visit(self, node: Node) -> None:
        editor = self.editor
        if node.op != "linear":
            editor.keep(node)
            return
        node = editor.renamed(node)
        x, w = node.inputs
        (y,) = node.outputs
        codes, scale = self._activation(node, x)
        if self.keep_blocks and self.bits == ACTIVATION_BITS and w + BLOCK_STEPS in editor.constants:
            self._blocks(node, codes, scale)
            return
        cells, weight_scale = self._weight(node, w)
        acc = self._product(node, codes, cells)
        element = editor.types[y].element
        result = y if element is Element.F32 else editor.fresh(f"{y}.f32")
        editor.emit("dequantize", (acc, scale, weight_scale), origins=node.origins, output=result)
        if result != y:
            attrs = (("to", element.value),)
            editor.emit("cast", (result,), origins=node.origins, output=y, attrs=attrs)

    def _blocks(self, node: Node, codes: str, scale: str) -> None:
        """Weights that the model has in blocks of inputs with a scale each: a product per block on the model's codes,
        the scales applied where the partial sums meet."""
        editor, (y,), w = self.editor, node.outputs, node.inputs[1]
        total = ""
        for block, (cells, steps, rows) in enumerate(self._block_weights(w)):
            part = self._columns(node, codes, block * rows, rows)
            acc = self._product(node, part, cells)
            sums = editor.fresh(f"{y}.part")
            editor.emit("dequantize", (acc, scale, steps), origins=node.origins, output=sums)
            if total:
                sums = editor.emit("add", (total, sums), origins=node.origins, output=editor.fresh(f"{y}.sum"))
            total = sums
        attrs = (("to", editor.types[y].element.value),)
        editor.emit("cast", (total,), origins=node.origins, output=y, attrs=attrs)

    def _product(self, node: Node, codes: str, cells: str) -> str:
        """Sums of codes times codes: in cells, or on the digital matmul units."""
        editor, y = self.editor, node.outputs[0]
        if node.get("unit", CORES) == CORES or len(editor.types[codes].shape) < 2:
            return editor.emit("mvm", (codes, cells), origins=node.origins, output=editor.fresh(f"{y}.acc"))
        k, n = editor.types[cells].shape
        wide = max(self.piece // max(k, 1), 1)
        if n <= wide:
            return editor.emit("matmul", (codes, cells), origins=node.origins, output=editor.fresh(f"{y}.acc"))
        parts: list[str] = []
        for start in range(0, n, wide):
            piece = self._piece(cells, slice(start, min(start + wide, n)))
            parts.append(editor.emit("matmul", (codes, piece), origins=node.origins, output=editor.fresh(f"{y}.acc")))
        attrs = (("axis", len(editor.types[codes].shape) - 1),)
        return editor.emit("concat", parts, origins=node.origins, output=editor.fresh(f"{y}.acc"), attrs=attrs)

    def _piece(self, cells: str, cols: slice) -> str:
        """Some columns of weight codes."""
        editor, k = self.editor, self.editor.types[cells].shape[0]
        name = f"{cells}.cols{cols.start}"
        if name not in editor.types:
            editor.constant(name, Type(Element.Q8, (k, cols.stop - cols.start)), _columns_of(cells, cols))
            editor.companion(name + FLOAT_COMPANION, _columns_of(cells + FLOAT_COMPANION, cols))
        return name

    def _columns(self, node: Node, codes: str, start: int, size: int) -> str:
        shape = self.editor.types[codes].shape
        lead = len(shape) - 1
        attrs = (("size", (*shape[:-1], size)), ("start", (*(0,) * lead, start)), ("step", (1,) * (lead + 1)))
        output = self.editor.fresh(f"{codes}.block")
        return self.editor.emit("slice", (codes,), origins=node.origins, output=output, attrs=attrs)

    def _block_weights(self, w: str) -> list[tuple[str, str, int]]:
        """Codes, scales and number of inputs of each block."""
        editor, (k, n) = self.editor, self.editor.types[w].shape
        count = editor.value(w + BLOCK_STEPS).shape[0]
        found: list[tuple[str, str, int]] = []
        for block in range(count):
            rows = slice(block * (k // count), (block + 1) * (k // count))
            cells, steps = f"{w}.q8.block{block}", f"{w}.q8.block{block}.scale"
            editor.constant(cells, Type(Element.Q8, (k // count, n)), _rows_of(w + CODES, rows))
            editor.companion(cells + FLOAT_COMPANION, _rows_of(w, rows, np.float32))
            editor.constant(steps, Type(Element.F32, (n,)), _row_of(w + BLOCK_STEPS, block))
            found.append((cells, steps, k // count))
        return found

    def _activation(self, node: Node, x: str) -> tuple[str, str]:
        if x not in self.activations:
            self.activations[x] = self._dynamic(node, x) if self.peaks is None else self._static(node, x)
        return self.activations[x]

    def _dynamic(self, node: Node, x: str) -> tuple[str, str]:
        names = (self.editor.fresh(f"{x}.q8"), self.editor.fresh(f"{x}.scale"))
        self.editor.emit_all("quantize", (x,), origins=node.origins, outputs=names)
        return names

    def _static(self, node: Node, x: str) -> tuple[str, str]:
        assert self.peaks is not None
        step = np.float32(self.peaks[x]) / np.float32(2 ** (ACTIVATION_BITS - 1) - 1)
        value = np.asarray([step if step > 0 else 1], np.float32)
        scale = self.editor.constant(self.editor.fresh(f"{x}.scale"), Type(Element.F32, (1,)), lambda _: value)
        codes = self.editor.fresh(f"{x}.q8")
        self.editor.emit("quantize_static", (x, scale), origins=node.origins, output=codes)
        return codes, scale

    def _weight(self, node: Node, w: str) -> tuple[str, str]:
        if w in self.weights:
            return self.weights[w]
        editor, shape = self.editor, self.editor.types[w].shape
        if self.bits == ACTIVATION_BITS and w + STEPS in editor.constants:
            return self._own(w)
        codes = editor.fresh(f"{w}.q{self.bits}")
        known = self.moments is not None and node.inputs[0] in self.moments.rows
        fit = (self.moments, node.inputs[0]) if self.moments is not None and known else None
        made = _Codes(w, self.bits, node.origin.node, fit)
        editor.constant(codes, Type(Element.Q8, shape), made.codes)
        editor.companion(codes + FLOAT_COMPANION, _as_float(w))
        scale = editor.constant(editor.fresh(f"{codes}.scale"), Type(Element.F32, (shape[1],)), made.scale)
        self.weights[w] = (codes, scale)
        return codes, scale

    def _own(self, w: str) -> tuple[str, str]:
        """Weights that the model has as integers: its own codes and scales."""
        editor, shape = self.editor, self.editor.types[w].shape
        codes = editor.fresh(f"{w}.q8")
        editor.constant(codes, Type(Element.Q8, shape), lambda constants: constants[w + CODES])
        editor.companion(codes + FLOAT_COMPANION, _as_float(w))
        scale = editor.fresh(f"{codes}.scale")
        editor.constant(scale, Type(Element.F32, (shape[1],)), lambda constants: constants[w + STEPS])
        self.weights[w] = (codes, scale)
        return codes, scale


@dataclass(frozen=True)
class _Codes:
    """How the codes and the scales of one weight are computed, each when it is asked for. ``fit``: the value that it is
    multiplied with, as measured."""

    weight: str
    bits: int
    layer: str
    fit: tuple[Moments, str] | None = None

    def codes(self, constants: Constants) -> Array:
        """int8 codes (k × n)."""
        w = constants[self.weight]
        scales, found = self.scale(constants), np.empty(w.shape, np.int8)
        if self.fit is not None:
            wide, steps = (a.astype(np.float32, copy=False) for a in (w, scales))
            return fitted(wide, steps, self.bits, *self.fit).astype(np.int8)
        for part in _parts(w):
            found[part] = codes_by(w[part].astype(np.float32, copy=False), scales[part[1]], self.bits)
        return found

    def scale(self, constants: Constants) -> Array:
        """float32 scales (n). Raises WEIGHT_NOT_FINITE."""
        w = constants[self.weight]
        peaks, bad = np.zeros(w.shape[1], np.float32), 0
        for part in _parts(w):
            sizes = np.abs(w[part].astype(np.float32, copy=False))
            bad += sizes.size - int(np.count_nonzero(np.isfinite(sizes)))
            peaks[part[1]] = np.maximum(peaks[part[1]], np.max(sizes, axis=0, initial=0))
        if bad:
            raise errors.WEIGHT_NOT_FINITE(weight=self.weight, layer=self.layer, count=bad)
        return symmetric_scales(peaks, self.bits)


def _parts(w: Array) -> Iterator[tuple[slice, slice]]:
    """Parts of a matrix that lie together in memory and are few bytes: rows, or columns of a transposed one."""
    axis = int(abs(w.strides[1]) > abs(w.strides[0]))
    step = max(1, PART_BYTES * w.shape[axis] // max(1, w.size * 4))
    for first in range(0, w.shape[axis], step):
        part = slice(first, first + step)
        yield (slice(None), part) if axis else (part, slice(None))


def _as_float(weight: str) -> Make:
    return lambda constants: constants[weight].astype(np.float32, copy=False)


def _rows_of(name: str, rows: slice, dtype: type[np.generic] | None = None) -> Make:
    return lambda constants: np.ascontiguousarray(constants[name][rows], dtype)


def _columns_of(name: str, cols: slice) -> Make:
    return lambda constants: np.ascontiguousarray(constants[name][:, cols])


def _row_of(name: str, row: int) -> Make:
    return lambda constants: np.ascontiguousarray(constants[name][row])
