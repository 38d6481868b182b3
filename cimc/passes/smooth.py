"""Ranges evened out between the activations and the weights of a product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.ir.constants import Make
from cimc.ir.graph import Array, Constants, Graph, Node, Type
from cimc.isa.kernels import symmetric_codes
from cimc.isa.operands import Element
from cimc.ops.matmul import CORES
from cimc.passes.absorb import Absorbing, Place
from cimc.passes.editor import Editor
from cimc.passes.integers import CODES
from cimc.passes.measured import Rows, measured_rows
from cimc.passes.quantize import check_weight_bits

Scales = NDArray[np.float32]
"""Powers of two, one per input of a product."""

STRENGTHS = (0.35, 0.5, 0.65, 0.8)
"""Shares of a channel's range that go into the weights, of which the best is taken: about SmoothQuant's 0.5, which is said
there to suit most models, and more for outliers as large as theirs of 0.75."""
LEAST_GAIN = 0.9
"""A product stays as it is unless its squared error falls below this share. Asking for more where a multiplication is added
(0.75) leaves out the layer of MiniLM that padding suffers from most."""
TRIED_ROWS = 128
"""Measured rows that errors are computed on (estimated)."""
SMALLEST = 1e-4
"""Least share of the largest range that a channel counts with: one that calibration hardly sees gets no factor of
thousands (estimated)."""


@dataclass(frozen=True)
class Smooth:
    """Before quantising, columns of an activation are divided by powers of two and the rows of its weights multiplied with
    them, so that no channel alone sets the scale of its row (SmoothQuant, Xiao et al., ICML 2023, arXiv:2211.10438, equation
    4). Products stay what they are, and in ``float`` numerics every bit of them. How much of a range moves is chosen per
    activation, by the error of its products on ``calibration`` rows, quantised as they will be; what gains little stays.

    The division costs nothing where constants take it up that are there already (see ``absorb.py``). Else it is a
    multiplication of rows (``where=anywhere``), or is not done (``free``).

    Before::

        %n : f32[2x4] = mul %norm, %gamma
        %y : f32[2x3] = linear %n, %w

    After::

        %n : f32[2x4] = mul %norm, %gamma.smooth
        %y : f32[2x3] = linear %n, %w.smooth
    """

    name: ClassVar[str] = "smooth"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    where: Literal["free", "anywhere"] = "anywhere"
    weight_bits: int = 8
    calibration: tuple[Mapping[str, Array], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.where not in ("free", "anywhere"):
            why = f"there is no '{self.where}'"
            raise errors.PASS_OPTION(option="where", name=self.name, why=why, fix="use free or anywhere")
        check_weight_bits(self.name, self.weight_bits)

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises CALIBRATION without calibration inputs, or if values are not finite on them."""
        readers = _readers(graph, constants)
        rows = measured_rows(graph, constants, readers, self.calibration)
        plan, absorbing = _Plan(), Absorbing(graph, lambda node: _scalable(graph, constants, node))
        for value, nodes in readers.items():
            places = absorbing.places(value, [n.outputs[0] for n in nodes])
            if places is None and self.where == "free":
                continue
            weights = [constants[n.inputs[1]] for n in nodes]
            scales = chosen_scales(rows[value], weights, self.weight_bits)
            if scales is not None:
                plan.add(value, nodes, places, scales)
        return plan.apply(Editor(graph, constants), self.leaves)


def chosen_scales(rows: Rows, weights: Sequence[Array], bits: int) -> Scales | None:
    """What to divide the columns of measured rows (… × k) by, so that their products with weights (k × n) lose least by
    quantising both to ``bits`` and 8; None if no squared error falls by a tenth."""
    few = rows[:: max(1, len(rows) // TRIED_ROWS)]
    floats = [w.astype(np.float32, copy=False) for w in weights]
    wanted = [few @ w for w in floats]
    range_x = np.max(np.abs(rows), axis=0, initial=0)
    range_w = np.max([np.max(np.abs(w), axis=1, initial=0) for w in floats], axis=0)
    best, least = None, LEAST_GAIN * _error(few, floats, wanted, np.ones_like(range_x), bits)
    for strength in STRENGTHS:
        scales = _scales(range_x, range_w, strength)
        error = _error(few, floats, wanted, scales, bits)
        if error < least:
            best, least = scales, error
    return best


def _scales(range_x: Rows, range_w: Rows, strength: float) -> Scales:
    """Equation 4 of SmoothQuant, rounded to powers of two, about one in the middle."""
    a, b = (np.maximum(r, SMALLEST * np.max(r, initial=0) or 1).astype(np.float64) for r in (range_x, range_w))
    exponents = strength * np.log2(a) - (1 - strength) * np.log2(b)
    return np.exp2(np.rint(exponents - np.median(exponents))).astype(np.float32)


def _error(rows: Rows, weights: Sequence[Rows], wanted: Sequence[Rows], scales: Scales, bits: int) -> float:
    """The mean over rows of a product's squared error, in units of the row's own square; all products together."""
    codes, steps = symmetric_codes(rows / scales, 8, -1)
    error, size = np.zeros(len(rows)), np.zeros(len(rows))
    for w, y in zip(weights, wanted, strict=True):
        held, column = symmetric_codes(w * scales[:, None], bits, 0)
        error += np.sum(np.square((codes * steps) @ (held * column) - y), axis=1, dtype=np.float64)
        size += np.sum(np.square(y), axis=1, dtype=np.float64)
    return float(np.mean(error / np.maximum(size, np.finfo(np.float64).tiny)))


def _scalable(graph: Graph, constants: Constants, node: Node) -> bool:
    """A float32 matmul whose weights are cimc's to quantise."""
    w = node.inputs[1]
    return node.op == "linear" and graph.types[w].element is Element.F32 and w + CODES not in constants


def _readers(graph: Graph, constants: Constants) -> dict[str, list[Node]]:
    """The matmuls in cells that read each value, for values that only scalable ones read."""
    found: dict[str, list[Node]] = {}
    barred = set(graph.constants)
    for node in graph.nodes:
        if node.op == "linear":
            x = node.inputs[0]
            found.setdefault(x, []).append(node)
            if not _scalable(graph, constants, node) or node.get("unit", CORES) != CORES:
                barred.add(x)
    return {x: nodes for x, nodes in found.items() if x not in barred}


class _Plan:
    """Which constants are scaled by what, and which values are multiplied."""

    def __init__(self) -> None:
        self.rows: dict[str, tuple[str, Scales]] = {}  # linear → value it reads, scales of its weights' rows
        self.columns: dict[
            Place, tuple[str, Scales]
        ] = {}  # constant operand → value it makes, what divides its columns
        self.multiplied: dict[str, Scales] = {}

    def add(self, value: str, nodes: Sequence[Node], places: Sequence[Place] | None, scales: Scales) -> None:
        self.rows.update((n.outputs[0], (value, scales)) for n in nodes)
        if places is None:
            self.multiplied[value] = scales
        else:
            self.columns.update((place, (value, scales)) for place in places)

    def apply(self, editor: Editor, level: str) -> tuple[Graph, Constants]:
        """The graph with scaled constants."""
        made: dict[tuple[str, str, str], str] = {}
        divided: dict[str, str] = {}
        for old in editor.graph.nodes:
            node = editor.renamed(old)
            inputs = list(node.inputs)
            for i, operand in enumerate(node.inputs):
                by_row = self.rows.get(node.outputs[0]) if i == 1 and node.op == "linear" else None
                by_column = self.columns.get((node.outputs[0], i))
                if by_row is None and by_column is None:
                    continue
                key = (operand, by_row[0] if by_row else "", by_column[0] if by_column else "")
                if key not in made:
                    made[key] = _scaled(editor, operand, by_row and by_row[1], by_column and by_column[1])
                inputs[i] = made[key]
            if node.op == "linear" and node.inputs[0] in self.multiplied:
                inputs[0] = self._divided(editor, node, divided)
            if tuple(inputs) == node.inputs:
                editor.keep(node)
            else:
                editor.emit(node.op, inputs, origins=node.origins, output=node.outputs[0], attrs=node.attrs)
        return editor.finish(level)

    def _divided(self, editor: Editor, node: Node, divided: dict[str, str]) -> str:
        value = node.inputs[0]
        if value not in divided:
            scales = self.multiplied[value]
            factor = editor.constant(
                editor.fresh(f"{value}.smoothing"), Type(Element.F32, scales.shape), lambda _: 1 / scales
            )
            output = editor.fresh(f"{value}.smooth")
            divided[value] = editor.emit("mul", (value, factor), origins=node.origins, output=output)
        return divided[value]


def _scaled(editor: Editor, constant: str, by_row: Scales | None, by_column: Scales | None) -> str:
    """A constant with its rows multiplied and its columns divided; a number or a row of one becomes a whole row."""
    type = editor.types[constant]
    shape = type.shape if by_column is None else np.broadcast_shapes(type.shape, by_column.shape)
    return editor.constant(
        editor.fresh(f"{constant}.smooth"), Type(type.element, shape), _make(constant, by_row, by_column)
    )


def _make(constant: str, by_row: Scales | None, by_column: Scales | None) -> Make:
    def make(constants: Constants) -> Array:
        value = constants[constant].astype(np.float32, copy=False)
        value = value if by_row is None else value * by_row[:, None]
        return np.ascontiguousarray(value if by_column is None else value / by_column)

    return make
