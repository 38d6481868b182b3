"""The few input channels with the largest range, kept out of the cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cimc import errors
from cimc.ir.evaluate import evaluate_all
from cimc.ir.graph import Array, Constants, Graph, Node, Type
from cimc.ops import Arithmetic
from cimc.ops.matmul import CORES, DIGITAL
from cimc.passes.chosen import check_layers, chosen
from cimc.passes.editor import Editor
from cimc.passes.integers import CODES

Channels = tuple[int, ...]


@dataclass(frozen=True)
class Outliers:
    """Of the static matmuls that ``layers`` names, at most ``channels`` input channels each run on the digital matmul
    units; the cells keep the rest. An outlier sets the scale that its whole row of activations, or its column of
    weights, is quantised with; without it the others keep more of their bits (LLM.int8(), Dettmers et al., NeurIPS
    2022, arXiv:2208.07339, splits activations so). ``by``: the range of ``activations`` on calibration inputs, or of
    ``weights``. ``above``: only channels whose range is more than so many times the median's. Layers that read one value
    split the same channels. Weights that the model has as integers stay as they are.

    Before::

        %y : f32[2x3] = linear %x, %w

    After::

        %x.rest : f32[2x4] = mul %x, %x.mask
        %y.cells : f32[2x3] = linear %x.rest, %w.rest
        %x.peak : f32[2x1] = slice{...} %x
        %y.digital : f32[2x3] = linear{unit=digital} %x.peak, %w.peak
        %y : f32[2x3] = add %y.cells, %y.digital
    """

    name: ClassVar[str] = "outliers"
    takes: ClassVar[tuple[str, ...]] = ("canonical",)
    leaves: ClassVar[str] = "canonical"

    channels: int = 8
    above: float = 0.0
    by: Literal["weights", "activations"] = "weights"
    layers: str = "*"
    calibration: tuple[Mapping[str, Array], ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.channels <= 1024:
            raise self._wrong("channels", f"{self.channels} is outside 1..1024", "give a few")
        if not self.above >= 0:
            raise self._wrong("above", f"{self.above} is below 0", "give a multiple of the median range, 0 for none")
        check_layers(self.layers, self.name)
        if self.by not in ("weights", "activations"):
            raise self._wrong("by", f"there is no '{self.by}'", "use weights or activations")

    def _wrong(self, option: str, why: str, fix: str) -> errors.CimcError:
        return errors.PASS_OPTION(option=option, name=self.name, why=why, fix=fix)

    def run(self, graph: Graph, constants: Constants) -> tuple[Graph, Constants]:
        """See the class. Raises PASS_OPTION for a name that no static matmul has, CALIBRATION for activations without
        calibration inputs."""
        wanted = chosen(graph.nodes, self.layers, self.name) if any(n.op == "linear" for n in graph.nodes) else ()
        nodes = [n for n in graph.nodes if n.outputs[0] in wanted and _splittable(graph, constants, n)]
        ranges = self._activations(graph, constants, nodes) if self.by == "activations" else _weights(constants, nodes)
        split = {x: found for x, peaks in ranges.items() if (found := self._pick(peaks))}
        work = _Splitter(Editor(graph, constants))
        taken = {n.outputs[0] for n in nodes if n.inputs[0] in split}
        for node in graph.nodes:
            if node.outputs[0] in taken:
                work.split(work.editor.renamed(node), split[node.inputs[0]])
            else:
                work.editor.keep(node)
        return work.editor.finish(self.leaves)

    def _pick(self, peaks: NDArray[np.float64]) -> Channels:
        """The channels with the largest range, in order of their index; never more than a quarter of them."""
        order = np.argsort(-peaks, kind="stable")[: min(self.channels, len(peaks) // 4)]
        limit = self.above * float(np.median(peaks))
        return tuple(sorted(int(k) for k in order if peaks[k] > limit))

    def _activations(self, graph: Graph, constants: Constants, nodes: Sequence[Node]) -> dict[str, NDArray[np.float64]]:
        """The largest size of every channel of what the nodes read."""
        peaks = {n.inputs[0]: np.zeros(graph.type(n.inputs[0]).shape[-1]) for n in nodes}
        if peaks and not self.calibration:
            raise errors.CALIBRATION(why="no calibration inputs are given")

        def watch(name: str, value: Array) -> None:
            if name in peaks:
                size = np.abs(value.reshape(-1, value.shape[-1]).astype(np.float64)).max(axis=0, initial=0.0)
                peaks[name] = np.maximum(peaks[name], size)

        for inputs in self.calibration:
            evaluate_all(graph, constants, inputs, Arithmetic(), watch=lambda _, name, value: watch(name, value))
            for name in graph.inputs:
                watch(name, inputs[name])
        return peaks


def _splittable(graph: Graph, constants: Constants, node: Node) -> bool:
    """A float matmul in cells whose weights are cimc's to quantise."""
    on_cores = node.op == "linear" and node.get("unit", CORES) == CORES
    return on_cores and node.inputs[1] + CODES not in constants and node.inputs[0] not in graph.constants


def _weights(constants: Constants, nodes: Sequence[Node]) -> dict[str, NDArray[np.float64]]:
    """The largest weight of every input channel, over all the nodes that read a value."""
    peaks: dict[str, NDArray[np.float64]] = {}
    for node in nodes:
        x, w = node.inputs
        size = np.abs(constants[w].astype(np.float64)).max(axis=1, initial=0.0)
        peaks[x] = np.maximum(peaks.get(x, 0.0), size)
    return peaks


class _Splitter:
    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._parts: dict[tuple[str, Channels], tuple[str, str]] = {}
        self._weights: dict[tuple[str, Channels], tuple[str, str]] = {}

    def split(self, node: Node, channels: Channels) -> None:
        """Write a linear as two and their sum."""
        editor, (x, w), (y,) = self.editor, node.inputs, node.outputs
        rest, peak = self._activation(node, x, channels)
        cells, digital = self._weight(w, channels)
        a = editor.emit("linear", (rest, cells), origins=node.origins, output=editor.fresh(f"{y}.cells"))
        output, attrs = editor.fresh(f"{y}.digital"), (("unit", DIGITAL),)
        b = editor.emit("linear", (peak, digital), origins=node.origins, output=output, attrs=attrs)
        editor.emit("add", (a, b), origins=node.origins, output=y)

    def _activation(self, node: Node, x: str, channels: Channels) -> tuple[str, str]:
        """The value without the channels, and the channels."""
        if (x, channels) in self._parts:
            return self._parts[(x, channels)]
        editor, type = self.editor, self.editor.types[x]
        mask = np.ones(type.shape[-1], type.element.dtype(exact=False))
        mask[list(channels)] = 0
        name = editor.constant(editor.fresh(f"{x}.mask"), Type(type.element, mask.shape), lambda _: mask)
        rest = editor.emit("mul", (x, name), origins=node.origins, output=editor.fresh(f"{x}.rest"))
        pieces = [self._slice(node, x, start, size) for start, size in _runs(channels)]
        peak = pieces[0]
        if len(pieces) > 1:
            axis = (("axis", len(type.shape) - 1),)
            peak = editor.emit("concat", pieces, origins=node.origins, output=editor.fresh(f"{x}.peak"), attrs=axis)
        self._parts[(x, channels)] = (rest, peak)
        return rest, peak

    def _slice(self, node: Node, x: str, start: int, size: int) -> str:
        shape = self.editor.types[x].shape
        lead = len(shape) - 1
        attrs = (("size", (*shape[:-1], size)), ("start", (*(0,) * lead, start)), ("step", (1,) * (lead + 1)))
        output = self.editor.fresh(f"{x}.peak")
        return self.editor.emit("slice", (x,), origins=node.origins, output=output, attrs=attrs)

    def _weight(self, w: str, channels: Channels) -> tuple[str, str]:
        """The weights without the channels' rows, and those rows."""
        if (w, channels) in self._weights:
            return self._weights[(w, channels)]
        editor, type = self.editor, self.editor.types[w]
        rest = editor.constant(editor.fresh(f"{w}.rest"), type, _without(w, channels))
        few = Type(type.element, (len(channels), type.shape[1]))
        peak = editor.constant(editor.fresh(f"{w}.peak"), few, _rows(w, channels))
        self._weights[(w, channels)] = (rest, peak)
        return rest, peak


def _runs(channels: Channels) -> list[tuple[int, int]]:
    """Neighbouring channels as (first, count)."""
    found: list[tuple[int, int]] = []
    for k in channels:
        if found and sum(found[-1]) == k:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((k, 1))
    return found


def _without(w: str, channels: Channels) -> Callable[[Constants], Array]:
    def make(constants: Constants) -> Array:
        value = np.array(constants[w])
        value[list(channels)] = 0
        return value

    return make


def _rows(w: str, channels: Channels) -> Callable[[Constants], Array]:
    return lambda constants: np.ascontiguousarray(constants[w][list(channels)])
