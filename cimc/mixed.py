"""Mixed precision: which static matmuls to keep out of analog cells so that an accuracy budget holds.

Between analog and digital there is a middle level, more bits for the same cells: layers held in several sets of cells, whose
results are averaged (:mod:`cimc.passes.copies`).

Every layer's sensitivity is measured by itself: a run with the device in that layer alone, all others exact, the same seeds
throughout. Then the most sensitive layers go digital, as few as the budget allows. What is found are names for
``--digital``: the program that is compiled with them runs those layers on the digital matmul units.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cimc.device import Device
from cimc.ir.graph import Graph
from cimc.mapping.segment import MATRIX_OPS
from cimc.report.device import Error, error_of
from cimc.sim.tally import Samples
from cimc.sim.values import Analog, run_values
from cimc.study import Subject

Array = NDArray[np.generic]
MOST_PROGRAMS = 5
"""Programs compiled before all layers go digital: the cells of a program are others than those of the search."""


@dataclass(frozen=True)
class Layer:
    """A static matmul by its ONNX node. ``keys``: the weights that its cells hold. ``error``: RMS error of the outputs with
    the device in this layer alone over the RMS of the exact outputs, the worst output, the mean of the seeds."""

    name: str
    keys: frozenset[str]
    weights: int
    error: float


@dataclass(frozen=True)
class Search:
    """What the search tries: layers, most sensitive first; how many of them are digital; the cosine that gave."""

    layers: tuple[Layer, ...]
    digital: int
    cosine: float
    tried: tuple[tuple[int, float], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The layers to keep digital."""
        return tuple(layer.name for layer in self.layers[: self.digital])


def layers_of(graph: Graph) -> dict[str, dict[str, int]]:
    """Keys and sizes of the weights in cells, by the ONNX node they belong to; of a partitioned graph."""
    found: dict[str, dict[str, int]] = {}
    for node in graph.nodes:
        if node.op in MATRIX_OPS:
            key = node.inputs[1]
            found.setdefault(node.origin.node, {})[key] = graph.type(key).size
    return found


def sensitivities(
    subject: Subject,
    device: Device,
    layers: Mapping[str, Mapping[str, int]],
    seeds: Sequence[int],
    samples: Samples | None = None,
) -> tuple[Layer, ...]:
    """Every layer's own effect on the outputs, most sensitive first."""
    exact = run_values(subject.program, subject.weights, subject.inputs, subject.chip, numerics="integer")[0]
    found: list[Layer] = []
    for name, keys in layers.items():
        errors = [
            max(
                (e.error or 0.0 for e in errors_of(subject, device, frozenset(keys), seed, samples, exact)), default=0.0
            )
            for seed in seeds
        ]
        found.append(Layer(name, frozenset(keys), sum(keys.values()), sum(errors) / max(len(errors), 1)))
    return tuple(sorted(found, key=lambda layer: (-layer.error, layer.name)))


def errors_of(
    subject: Subject,
    device: Device,
    analog: Collection[str],
    seed: int,
    samples: Samples | None,
    wanted: Mapping[str, Array] | None = None,
) -> list[Error]:
    """Errors of all outputs with only the weights ``analog`` in analog cells, the others exact; against ``wanted``, or the
    subject's reference."""
    how = Analog(device, samples=samples, only=frozenset(analog), kept=subject.kept)
    program, weights, chip = subject.program, subject.weights, subject.chip
    got, _ = run_values(program, weights, subject.inputs, chip, numerics="analog", seed=seed, analog=how)
    target = subject.wanted if wanted is None else wanted
    return [error_of(got[k], target[k], target[k]) for k in subject.wanted]


def search(
    subject: Subject,
    device: Device,
    layers: Sequence[Layer],
    budget: float,
    seeds: Sequence[int],
    samples: Samples | None = None,
) -> Search:
    """The fewest of the most sensitive layers to keep digital so that the cosine of every output, the mean of the seeds,
    reaches ``budget``: by bisection, as more digital layers leave less error. All of them where even that does not."""
    tried: dict[int, float] = {}

    def cosine(digital: int) -> float:
        if digital not in tried:
            left = frozenset(k for layer in layers[digital:] for k in layer.keys)
            tried[digital] = _cosine(lambda seed: errors_of(subject, device, left, seed, samples), seeds)
        return tried[digital]

    low, high = -1, len(layers)  # low misses the budget, high is taken to hold it
    if cosine(0) >= budget:
        high = 0
    while high - low > 1 and high > 0:
        middle = (low + high) // 2
        if cosine(middle) >= budget:
            high = middle
        else:
            low = middle
    return Search(tuple(layers), high, cosine(high), tuple(sorted(tried.items())))


def levels(count: int, held: Callable[[int, int], bool]) -> tuple[int, int]:
    """How many of ``count`` layers, most sensitive first, are digital, and how many of those after them have copies.
    ``held`` tells whether so many of each reach the budget. The fewest digital ones first, with copies of all others; then
    the fewest copies: by bisection, as more of either leave less error."""
    digital = _fewest(count, lambda n: held(n, count - n))
    return digital, _fewest(count - digital, lambda n: held(digital, n))


def _fewest(most: int, held: Callable[[int], bool]) -> int:
    """The smallest number from 0 to ``most`` that holds, which ``most`` is taken to."""
    if most == 0 or held(0):
        return 0
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if held(middle):
            high = middle
        else:
            low = middle
    return high


def mean_cosine(runs: Sequence[Mapping[str, Error]]) -> float:
    """The worst output's cosine, the mean of runs with several seeds; outputs without a cosine count as met."""
    worst = [min((e.cosine for e in errors.values() if e.cosine is not None), default=1.0) for errors in runs]
    return sum(worst) / max(len(worst), 1)


def _cosine(errors: Callable[[int], list[Error]], seeds: Sequence[int]) -> float:
    """The worst output's cosine, the mean over seeds; outputs without a cosine (all zero) count as met."""
    per_seed = [min((e.cosine for e in errors(seed) if e.cosine is not None), default=1.0) for seed in seeds]
    return sum(per_seed) / max(len(per_seed), 1)
